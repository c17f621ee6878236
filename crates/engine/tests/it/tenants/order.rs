//! The order of tenants: canaries, a look at them, small before large; and what a plan says of it.

use pgmend::{PlanOptions, RunState, Severity};
use pgmend_core::expect::Then;
use pgmend_core::job::Scalar;
use pgmend_core::tenants::TenantMode;

use super::*;

fn with_canaries(then: Then) -> Job {
    let mut job = job(ADD, None);
    let canary = vec![Scalar::Text("6".into()), Scalar::Integer(3)];
    job.file.tenants = Some(TenantMode { canary, then, ..TenantMode::by("tenant_id") });
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_come_first_and_then_the_small_before_the_large() {
    for statement in [ADD, MEND] {
        let mut stage = Stage::new().await;
        let job = Job { statement: statement.into(), ..with_canaries(Then::Go) };
        let planned = stage.engine.plan(&job, &PlanOptions::default()).await.expect("a plan").plan;
        let tenants = planned.tenants.as_ref().expect("tenants");
        let named: Vec<(&str, bool)> = tenants.tenants.iter().map(|t| (t.name(), t.canary)).collect();
        let expected =
            [("6", true), ("3", true), ("2", false), ("5", false), ("NULL", false), ("1", false), ("4", false)];
        assert_eq!(named, expected, "{statement}");
        assert_eq!(tenants.tenants.iter().map(|t| t.rows).sum::<i64>(), planned.counts.changed_rows.value);
        let done = stage.run(&job).await;
        assert_eq!(done.state, RunState::Succeeded);
        assert_eq!(stage.order(), "6 3 2 5 NULL 1 4", "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_canaries_a_run_waits_for_somebody_to_look() {
    let mut stage = Stage::new().await;
    let paused = stage.run(&with_canaries(Then::Pause)).await;
    let RunState::Paused { reason } = &paused.state else { panic!("{paused:?}") };
    assert!(reason.contains("canary tenants are done"), "{reason}");
    assert_eq!(stage.order(), "6 3");
    assert_eq!(
        stage.number(
            "select count(*) from item i join plain.item p using (id) where i.n <> p.n and i.tenant_id not in (3, 6)"
        ),
        0
    );
    let done = stage.run(&with_canaries(Then::Pause)).await;
    assert_eq!(done.state, RunState::Succeeded);
    stage.check(ADD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_stops_the_run_before_the_others() {
    let mut stage = Stage::new().await;
    stage.reject("3");
    let failed = stage.run(&with_canaries(Then::Go)).await;
    assert!(matches!(&failed.state, RunState::Failed { failure } if failure.contains("PM756")), "{failed:?}");
    assert_eq!(stage.order(), "6");
    stage.sql.run("drop trigger reject on item").expect("the way is free");
    assert_eq!(stage.run(&with_canaries(Then::Go)).await.state, RunState::Succeeded);
    stage.check(ADD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_warns_where_each_tenant_would_walk_the_table() {
    let mut stage = Stage::new().await;
    let warned = |plan: &pgmend::Plan| {
        plan.findings.iter().any(|f| f.check == "tenant_index" && f.severity == Severity::Warning)
    };
    let planned = stage.engine.plan(&job(MEND, None), &PlanOptions::default()).await.expect("a plan");
    assert!(!warned(&planned.plan), "there is an index");
    stage.sql.run("drop index item_tenant_id_id_idx").expect("no index");
    let planned = stage.engine.plan(&job(MEND, None), &PlanOptions::default()).await.expect("a plan");
    assert!(warned(&planned.plan));
    let planned = stage.engine.plan(&job(ADD, None), &PlanOptions::default()).await.expect("a plan");
    assert!(!warned(&planned.plan), "a change set needs none");
}

/// Equality is the server's: one tenant, however its members spell it.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_equal_for_the_server_are_one_tenant() {
    let mut stage = Stage::new().await;
    stage
        .sql
        .run(
            "create collation anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             create table shop (id int primary key, owner text collate anycase, n int not null, note text not null default 'old');
             insert into shop select i, (array['Acme', 'acme', 'o''Neil', '', null, 'b\\c'])[i % 6 + 1], 0 from generate_series(1, 60) i",
        )
        .expect("the table");
    for (statement, done) in
        [("update shop set n = n + 1", "n = 1"), ("update shop set note = 'new' where note = 'old'", "note = 'new'")]
    {
        let mut job = job(statement, None);
        job.file.tenants = Some(TenantMode { canary: vec![Scalar::Text("ACME".into())], ..TenantMode::by("owner") });
        job.file.plain = vec!["owner".into()];
        let outcome = stage.run(&job).await;
        assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, 60), "{statement}");
        assert_eq!(stage.number(&format!("select count(*) from shop where {done}")), 60);
    }
    let parts = stage.number("select count(*) from pgmend.partition group by run_id limit 1");
    assert_eq!(parts, 5, "Acme and acme are one");
    assert_eq!(
        stage.number(
            "select count(*) from pgmend.partition where canary and lower(tenant) = 'acme' and partition_no = 1"
        ),
        2
    );
}
