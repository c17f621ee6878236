//! What stops one tenant and nobody else: an error, a person's wish, rows that others hold.

use std::time::Duration;

use pgmend::RunState;
use pgmend::control::Standing;
use pgmend_core::tenants::TenantMode;

use super::*;

fn standings(status: &pgmend::Status) -> Vec<(String, Standing)> {
    let tenants = status.tenants.as_ref().expect("tenants");
    tenants.tenants.iter().map(|t| (t.name().to_owned(), t.standing)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_fails_is_left_behind_and_tried_again_by_the_resumed_run() {
    for statement in [ADD, MEND] {
        let mut stage = Stage::new().await;
        stage.reject("3");
        let failed = stage.run(&job(statement, None)).await;
        let RunState::Failed { failure } = &failed.state else { panic!("{failed:?}") };
        assert!(failure.contains("1 of 7 tenants failed") && failure.contains("3: "), "{failure}");
        assert!(failure.contains("reject() raised an error") && failure.contains("P0001"), "{failure}");
        let status = stage.engine.status(Some("tenants")).await.expect("the status").remove(0);
        let standings = standings(&status);
        assert_eq!(standings.iter().filter(|(_, s)| *s == Standing::Done).count(), 6, "{standings:?}");
        assert!(standings.contains(&("3".into(), Standing::Failed)), "{standings:?}");
        let ledger =
            "select count(*) from pgmend.ledger where fact = 'tenant_failed' and body::json ->> 'tenant' = '3'";
        assert_eq!(stage.number(ledger), 1);
        let others = "select count(*) from pgmend.batch where partition_no <> (select partition_no from pgmend.partition where tenant = '3') and partition_no > 0";
        let before = stage.number(others);

        stage.sql.run("drop trigger reject on item").expect("the way is free");
        let done = stage.run(&job(statement, None)).await;
        assert_eq!((&done.state, done.resumed), (&RunState::Succeeded, true), "{statement}");
        assert_eq!(stage.number(others), before, "the others had nothing left to do");
        stage.check(statement);
        let report = stage.engine.report("tenants").await.expect("a report").markdown();
        assert!(
            report.contains("## Tenants") && report.contains("7 done") && report.contains("tenant failed"),
            "{report}"
        );
    }
}

/// A constraint names the row; the rows before it are changed and stay so.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_constraint_rejects_fails_its_tenant_only() {
    let mut stage = Stage::new().await;
    stage.sql.run("alter table item add constraint small check (n < 84)").expect("a constraint");
    let failed = stage.run(&job(ADD, None)).await;
    let RunState::Failed { failure } = &failed.state else { panic!("{failed:?}") };
    assert!(failure.contains("4: ") && failure.contains("23514"), "{failure}");
    let status = stage.engine.status(Some("tenants")).await.expect("the status").remove(0);
    let four = status.tenants.as_ref().and_then(|t| t.tenants.iter().find(|t| t.name() == "4")).expect("tenant 4");
    assert!(four.changed_rows > 0 && four.changed_rows < four.planned_rows, "{four:?}");
    assert_eq!(four.sqlstate.as_deref(), Some("23514"));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_failures_than_may_be_stop_the_run() {
    let mut stage = Stage::new().await;
    stage.reject("2, 5, 6");
    let mut strict = job(ADD, None);
    strict.file.tenants = Some(TenantMode { failed_max: 1, ..TenantMode::by("tenant_id") });
    let failed = stage.run(&strict).await;
    let RunState::Failed { failure } = &failed.state else { panic!("{failed:?}") };
    assert!(failure.contains("2 of 7 tenants failed") && failure.contains("5 are not done"), "{failure}");
    assert_eq!(failed.changed_rows, 0, "the three smallest come first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_concerns_the_whole_run_stops_all_of_it() {
    let mut stage = Stage::new().await;
    let first = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    stage.with(&job(ADD, None), &first).await.expect("a slice");
    stage.sql.run("alter table item rename column n to renamed").expect("another table");
    let failed = stage.run(&job(ADD, None)).await;
    assert!(matches!(&failed.state, RunState::Failed { failure } if failure.contains("42703")), "{failed:?}");
    assert_eq!(
        stage.number("select count(*) from pgmend.partition where state = 'failed'"),
        0,
        "no tenant is to blame"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_tenant_waits_while_the_others_go_on() {
    let mut stage = Stage::new().await;
    let first = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    stage.with(&job(ADD, None), &first).await.expect("a slice");
    stage.engine.pause_tenant("tenants", "1", "they are importing").await.expect("a pause");
    stage.engine.pause_tenant("tenants", "NULL", "whose are they?").await.expect("a pause");
    let paused = stage.run(&job(ADD, None)).await;
    let RunState::Paused { reason } = &paused.state else { panic!("{paused:?}") };
    assert!(reason.starts_with("2 tenants are paused") && reason.contains("resume RUN --tenant"), "{reason}");
    assert_eq!(
        stage.number(
            "select count(*) from item i join plain.item p using (id) where i.n <> p.n and coalesce(i.tenant_id, 1) = 1"
        ),
        0
    );
    let status = stage.engine.status(Some("tenants")).await.expect("the status").remove(0);
    let all = status.tenants.as_ref().expect("tenants");
    assert_eq!((all.count(Standing::Paused), all.count(Standing::Done)), (2, 5));
    let one = all.tenants.iter().find(|t| t.name() == "1").and_then(|t| t.why.clone()).expect("a reason");
    assert!(one.contains("they are importing"), "{one}");

    stage.engine.resume_tenant("tenants", "1").await.expect("it is lifted");
    assert!(matches!(stage.run(&job(ADD, None)).await.state, RunState::Paused { .. }), "the other one still is");
    stage.engine.resume_tenant("tenants", "NULL").await.expect("it is lifted");
    assert_eq!(refusal(stage.engine.resume_tenant("tenants", "NULL").await).0, Code::WrongState);
    assert_eq!(stage.run(&job(ADD, None)).await.state, RunState::Succeeded);
    stage.check(ADD);
    let facts = "select string_agg(fact, ' ' order by entry_no) from pgmend.ledger where fact like 'tenant%'";
    assert_eq!(stage.text(facts), "tenant_pause_asked tenant_pause_asked tenant_pause_lifted tenant_pause_lifted");
}

/// The wish comes while a worker drives the tenant: its next batch does not begin.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_tenant_that_is_driven_is_noticed_before_its_next_batch() {
    let mut stage = Stage::new().await;
    // In its second batch of four, which waits for the row until the pause is asked for.
    let mut holder = stage.db.sql().expect("a session");
    let row = "select id from item where tenant_id = 1 and kind <> 'kept' order by id offset 9 limit 1";
    holder.run(&format!("begin; select from item where id = ({row}) for update")).expect("a lock");
    let url = stage.db.url();
    let running = tokio::spawn(async move {
        let mut engine = Engine::connect(Some(&url)).await?;
        let mut job = job(ADD, None);
        (job.file.limits.lock_timeout_ms, job.file.limits.statement_timeout_ms) = (60_000, Some(60_000));
        Box::pin(engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await
    });
    let driven = "select count(*) from pgmend.batch b join pgmend.partition p using (run_id, partition_no) where p.tenant = '1' and b.changed_rows > 0";
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    for _ in 0..2_400 {
        if stage.number(waiting) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    stage.engine.pause_tenant("tenants", "1", "slow").await.expect("a pause");
    let at = stage.number(driven);
    assert_eq!(at, 1, "the second batch is under way");
    holder.run("rollback").expect("it lets go");
    let ended = running.await.expect("it ends").expect("a run");
    assert!(matches!(&ended.state, RunState::Paused { .. }), "{ended:?}");
    assert_eq!(stage.number(driven), at + 1, "no more than the batch that was under way");
    let left = "select count(*) from pgmend.partition where state <> 'done'";
    assert_eq!(stage.number(left), 1, "the larger one after it is done");
    stage.engine.resume_tenant("tenants", "1").await.expect("it is lifted");
    assert_eq!(stage.run(&job(ADD, None)).await.state, RunState::Succeeded);
    stage.check(ADD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_rows_others_hold_waits_until_the_others_are_done() {
    let mut stage = Stage::new().await;
    let mut holder = stage.db.sql().expect("a session");
    holder.run("begin; update item set kind = kind where id = (select min(id) from item where tenant_id = 2 and kind <> 'kept')").expect("a lock");
    let url = stage.db.url();
    let running = tokio::spawn(async move {
        let mut engine = Engine::connect(Some(&url)).await?;
        let mut job = job(ADD, None);
        job.file.limits.lock_timeout_ms = 50;
        Box::pin(engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await
    });
    let others = "select count(*) from pgmend.partition where state = 'done'";
    for _ in 0..600 {
        if stage.number(others) == 6 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stage.number(others), 6, "the others do not wait for it");
    let left = "select state || ' ' || (rounds >= 1) from pgmend.partition where tenant = '2'";
    assert_eq!(stage.text(left), "open true", "it is left for later");
    holder.run("rollback").expect("it lets go");
    let done = running.await.expect("it ends").expect("a run");
    assert_eq!(done.state, RunState::Succeeded);
    stage.check(ADD);
}

/// A person's signal is no trouble of the tenant whose rows are being waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_a_tenant_waits_for_its_rows_stops_the_run_and_not_the_tenant() {
    let mut stage = Stage::new().await;
    let mut holder = stage.db.sql().expect("a session");
    holder.run("begin; update item set kind = kind where tenant_id = 2").expect("a lock");
    let (sender, stop) = tokio::sync::watch::channel(pgmend::progress::Stop::None);
    let mut observer = Observer::with_stop(
        move |event| {
            if matches!(event, pgmend::Event::Retrying { attempt: 2, .. }) {
                sender.send_replace(pgmend::progress::Stop::AfterBatch);
            }
        },
        stop,
    );
    let mut job = job(ADD, None);
    job.file.limits.lock_timeout_ms = 50;
    let paused = Box::pin(stage.engine.run(&job, &RunOptions::default(), &mut observer)).await.expect("a run");
    assert!(matches!(&paused.state, RunState::Paused { reason } if reason.contains("signal")), "{paused:?}");
    assert_eq!(stage.number("select sum(rounds) from pgmend.partition"), 0);
}
