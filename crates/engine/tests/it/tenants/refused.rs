//! What does not go tenant by tenant, and says so before anything is written.

use pgmend::PlanOptions;
use pgmend_core::expect::Canary;
use pgmend_core::job::Scalar;
use pgmend_core::tenants::TenantMode;

use super::*;

async fn planned(stage: &mut Stage, job: &Job) -> (Code, String) {
    let options = PlanOptions::default();
    refusal(stage.engine.plan(job, &options).await.map(|planned| planned.plan.mode))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_cannot_tell_tenants_apart_is_refused() {
    let mut stage = Stage::new().await;
    stage
        .sql
        .run("alter table item add place point, add twice bigint generated always as (n * 2) stored")
        .expect("columns");
    let by = |column: &str, statement: &str| {
        let mut job = job(statement, None);
        job.file.tenants = Some(TenantMode::by(column));
        job
    };
    let refused = [
        ("nobody", ADD, "has no column `nobody`"),
        ("tenant_id", "update item set tenant_id = 9 where tenant_id = 1", "writes `tenant_id`"),
        ("twice", ADD, "is generated"),
        ("place", ADD, "cannot be compared"),
    ];
    for (column, statement, why) in refused {
        let (code, said) = planned(&mut stage, &by(column, statement)).await;
        assert_eq!(code, Code::TenantColumn, "{column}: {said}");
        assert!(said.contains(why), "{column}: {said}");
    }
    let mut misspelt = job(ADD, None);
    misspelt.file.tenants =
        Some(TenantMode { canary: vec![Scalar::Text("acme".into())], ..TenantMode::by("tenant_id") });
    let (code, said) = planned(&mut stage, &misspelt).await;
    assert_eq!(code, Code::TenantColumn, "{said}");
    assert!(!said.contains("acme"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_with_an_order_of_its_own_is_refused() {
    let mut stage = Stage::new().await;
    stage.sql.run("alter table item add code int unique").expect("a column");
    let mut canary = job(ADD, None);
    canary.file.canary = Some(Canary { rows: 5, then: pgmend_core::expect::Then::Go });
    let mut expected = job(ADD, None);
    expected.file.expect_rows = Some(130);
    let together = [
        job("insert into item select id + 1000, tenant_id, kind, n, note from item", None),
        job("update item set code = id", None),
        job(ADD, Some(Mode::Stream)),
        job(DELETE, Some(Mode::Freeze)),
        canary,
        expected,
    ];
    for job in together {
        let (code, said) = planned(&mut stage, &job).await;
        assert_eq!(code, Code::TenantsTogether, "{}: {said}", job.statement);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tenants_than_one_run_drives_are_refused() {
    let mut stage = Stage::new().await;
    stage
        .sql
        .run("insert into item select 1000 + i, 1000 + i, 'a', 1, 'old' from generate_series(1, 2000) i")
        .expect("rows");
    for statement in [ADD, MEND] {
        let (code, said) = planned(&mut stage, &job(statement, None)).await;
        assert_eq!(code, Code::TooManyTenants, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_a_run_does_not_have_cannot_be_paused() {
    let mut stage = Stage::new().await;
    let first = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    stage.with(&job(ADD, None), &first).await.expect("a slice");
    assert_eq!(refusal(stage.engine.pause_tenant("tenants", "99", "x").await).0, Code::NoSuchTenant);
    assert_eq!(refusal(stage.engine.resume_tenant("tenants", "4").await).0, Code::WrongState);
    let plain = Job::from_statement("plain", "update item set note = 'plain' where note <> 'plain'");
    let slice = RunOptions { stop_after_batches: Some(0), ..RunOptions::default() };
    let _paused = stage.with(&plain, &slice).await.expect("a slice");
    assert_eq!(refusal(stage.engine.pause_tenant("plain", "2", "x").await).0, Code::NoSuchTenant);
}
