//! All tenants together: the table as the plain statement leaves it, once, also back again.

use pgmend::{Pace, PlanOptions, RunState, UndoOptions};
use pgmend_core::job::Scalar;
use pgmend_core::tenants::TenantMode;
use pgmend_testkit::FaultProxy;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn tenants_one_by_one_leave_the_table_as_the_plain_statement_does() {
    for (statement, mode, workers) in [
        (ADD, Mode::Freeze, 1),
        (MEND, Mode::Stream, 1),
        (DELETE, Mode::Stream, 1),
        (ADD, Mode::Freeze, 3),
        (MEND, Mode::Stream, 3),
    ] {
        let mut stage = Stage::new().await;
        let mut job = job(statement, None);
        job.file.limits.workers = Some(workers);
        let done = stage.run(&job).await;
        assert_eq!(done.state, RunState::Succeeded, "{statement}");
        stage.check(statement);
        assert_eq!(done.residual_rows.filter(|_| mode == Mode::Stream), Some(0).filter(|_| mode == Mode::Stream));
        assert_eq!(stage.number("select count(*) from pgmend.partition where state = 'done'"), 7, "{statement}");
        assert_eq!(stage.text("select body::json ->> 'mode' from pgmend.plan"), mode.name(), "{statement}");
        let mixed = "select count(*) from pgmend.batch where partition_no > 0 and changed_rows > 7";
        assert_eq!(stage.number(mixed), 0, "no batch is larger than it may be");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_puts_back_all_tenants_or_one_of_them() {
    for statement in [ADD, MEND, DELETE] {
        let mut stage = Stage::new().await;
        let before = stage.text("select md5(string_agg(i::text, '' order by id)) from item i");
        stage.run(&job(statement, None)).await;
        let changed = stage.number("select count(*) from item i full join plain.item p using (id) where i is distinct from p and p.tenant_id = 3");
        let one = UndoOptions { predicate: Some("tenant_id = 3".into()), ..UndoOptions::default() };
        if statement != DELETE {
            let undone = Box::pin(stage.engine.undo("tenants", &one, &mut Observer::silent())).await.expect("an undo");
            assert_eq!((&undone.state, undone.changed_rows, undone.conflict_rows), (&RunState::Succeeded, changed, 0));
            let left = "select count(*) from item i join plain.item p using (id) where i is distinct from p and p.tenant_id = 3";
            assert_eq!(stage.number(left), 0, "{statement}: tenant 3 is as it was");
            assert!(
                stage.number("select count(*) from item i join plain.item p using (id) where i is distinct from p") > 0
            );
        }
        let rest = Box::pin(stage.engine.undo("tenants", &UndoOptions::default(), &mut Observer::silent())).await;
        assert_eq!(rest.expect("an undo").state, RunState::Succeeded, "{statement}");
        assert_eq!(stage.text("select md5(string_agg(i::text, '' order by id)) from item i"), before, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_tenants_is_a_change_of_its_own_and_says_what_it_leaves_out() {
    let mut stage = Stage::new().await;
    let listed = |ids: &[i64]| {
        let mut job = job(ADD, None);
        let list = ids.iter().copied().map(Scalar::Integer).collect();
        job.file.tenants = Some(TenantMode { list: Some(list), ..TenantMode::by("tenant_id") });
        job
    };
    let planned = stage.engine.plan(&listed(&[2, 5, 99]), &pgmend::PlanOptions::default()).await.expect("a plan").plan;
    let tenants = planned.tenants.expect("tenants");
    assert_eq!(tenants.tenants.iter().map(|t| t.name()).collect::<Vec<_>>(), ["2", "5"]);
    let outside = stage.number("select count(*) from item where kind <> 'kept' and tenant_id is distinct from 2 and tenant_id is distinct from 5");
    assert_eq!(tenants.left_out_rows.map(|rows| rows.value), Some(outside));
    let absent = planned.findings.iter().find(|f| f.check == "absent_tenant").expect("a finding");
    assert!(absent.message.contains("99"), "{}", absent.message);

    let done = stage.run(&listed(&[2, 5])).await;
    assert_eq!(
        done.changed_rows,
        stage.number("select count(*) from plain.item where kind <> 'kept' and tenant_id in (2, 5)")
    );
    // Another list is no repetition.
    let done = stage.run(&listed(&[3])).await;
    assert_eq!(done.state, RunState::Succeeded);
    assert_eq!(refusal(stage.with(&listed(&[3]), &RunOptions::default()).await).0, Code::AlreadyDone);
    stage.check("update item set n = n + 5 where kind <> 'kept' and tenant_id in (2, 3, 5)");
}

/// The application moves a row to a tenant whose turn is still to come.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_to_another_tenant_meanwhile_is_not_changed_twice() {
    let mut stage = Stage::new().await;
    let first = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    assert!(matches!(stage.with(&job(ADD, None), &first).await.expect("a slice").state, RunState::Paused { .. }));
    let moved = "with m as (select id from item i join plain.item p using (id) where i.n <> p.n order by id limit 1)";
    stage
        .sql
        .run(&format!("create table moved as {moved} table m; update item set tenant_id = 4 where id in (table moved)"))
        .expect("a move");
    let waiting = "update item set tenant_id = 2 where id = (select min(id) from item where tenant_id = 4 and kind <> 'kept' and id not in (table moved))";
    stage.sql.run(waiting).expect("a move of a row that was not changed yet");
    let done = stage.run(&job(ADD, None)).await;
    assert_eq!(
        (&done.state, done.conflict_rows),
        (&RunState::Succeeded, 1),
        "a row that moved before its turn is a conflict"
    );
    assert_eq!(stage.number("select max(i.n - p.n) from item i join plain.item p using (id)"), 5, "once, never twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_appear_meanwhile_are_found_at_the_end() {
    let mut stage = Stage::new().await;
    // Beyond these rows the run does not look.
    stage.sql.run("insert into item values (10000, 1, 'a', 1, 'old'); insert into plain.item values (10000, 1, 'a', 1, 'old')").expect("a last row");
    let first = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    stage.with(&job(MEND, None), &first).await.expect("a slice");
    let newcomers =
        "insert into {} values (5000, 77, 'a', 1, 'old'), (5001, 77, 'a', 1, 'old'), (20000, 78, 'a', 1, 'old')";
    stage.sql.run(&newcomers.replace("{}", "item")).expect("a new tenant");
    let done = stage.run(&job(MEND, None)).await;
    assert_eq!((&done.state, done.arrived_later_rows, done.residual_rows), (&RunState::Succeeded, Some(1), Some(1)));
    assert_eq!(
        stage.number("select count(*) from item where tenant_id = 77 and note = 'new'"),
        2,
        "swept within the range"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_a_row_has_no_tenants_and_ends_as_any_other() {
    let mut stage = Stage::new().await;
    let nothing = "update item set note = 'new' where note = 'nobody has it'";
    let done = stage.run(&job(nothing, None)).await;
    assert_eq!((done.state, done.changed_rows), (RunState::Succeeded, 0));
}

/// What a worker has goes with it from tenant to tenant.
#[tokio::test(flavor = "multi_thread")]
async fn small_tenants_cost_no_connections_of_their_own() {
    let mut stage = Stage::new().await;
    stage
        .sql
        .run(
            "truncate item, plain.item;
             insert into item select i, i % 50, 'a', i, 'old' from generate_series(1, 250) i;
             insert into plain.item table item; analyze item",
        )
        .expect("fifty tenants of five rows");
    let proxy = FaultProxy::start(&stage.db.url()).expect("a proxy starts");
    let mut engine = Engine::connect(Some(&proxy.url())).await.expect("a connection");
    let mut job = job(MEND, None);
    job.file.limits.batch_rows = None;
    // A heartbeat that comes too late is made again from another connection.
    job.file.limits.lease_seconds = 120;
    let done = Box::pin(engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await.expect("a run");
    assert_eq!((&done.state, done.batches, done.changed_rows), (&RunState::Succeeded, 50, 250));
    // The command's own, its worker's with heartbeat and sampler, and those of the end.
    assert!(proxy.connections() <= 8, "{} connections", proxy.connections());
    stage.check(MEND);
}

/// The plan's count says that one batch takes all of it, and the table has gone on.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_tenant_that_has_grown_since_the_plan_is_changed_in_batches_of_the_allowed_size() {
    for (rows_per_transaction_max, batch_rows) in [(Some(20), None), (None, Some(20))] {
        let mut stage = Stage::new().await;
        let mut job = job(MEND, None);
        job.file.limits.batch_rows = batch_rows;
        if let Some(most) = rows_per_transaction_max {
            job.file.limits.rows_per_transaction_max = most;
        }
        let planned = Box::pin(stage.engine.plan(&job, &PlanOptions::default())).await.expect("a plan");
        let growth = "insert into item select i, 2, 'a', i, 'old' from generate_series(1001, 1100) i";
        stage.sql.run(&format!("{growth}; {}", growth.replace("into item", "into plain.item"))).expect("it grows");
        let plan = planned.plan.plan_id.to_string();
        // A slice has no more rows either, though the tenant's were to be taken at once.
        let slice = RunOptions { pace: Pace { rows_max: Some(200), ..Pace::default() }, ..RunOptions::default() };
        let part = Box::pin(stage.engine.run_plan(&plan, &slice, &mut Observer::silent())).await.expect("a slice");
        assert_eq!(part.changed_rows, 200, "{part:?}");
        let done = Box::pin(stage.engine.run_plan(&plan, &RunOptions::default(), &mut Observer::silent())).await;
        let done = done.expect("a run");
        assert_eq!((&done.state, done.changed_rows), (&RunState::Succeeded, 295));
        assert!(stage.number("select max(changed_rows) from pgmend.batch") <= 20);
        stage.check(MEND);
    }
}
