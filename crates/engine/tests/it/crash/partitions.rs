//! Several workers on one run: side by side in one process and in two, killed, put to sleep, resumed by another number.

use std::thread::sleep;
use std::time::Duration;

use pgmend::{Engine, Job, Observer, RunOptions, RunState};
use pgmend_core::tenants::TenantMode;
use pgmend_testkit::{Database, Server};

use super::network::{succeeded, wait_for};
use super::stage::{BARE, DELETE, FREEZE, HALVED, STREAM, SWEEP, Shape, Stage};
use super::worker::{Errand, Said, Worker};
use super::{block_on, run};

/// The run is divided, and no worker has a partition yet.
pub const DIVIDED: &str = "run_divided";

fn stage(shape: Shape, rows: u32, workers: u32) -> Stage {
    let mut stage = Stage::new(shape, rows, 8);
    stage.file.limits.workers = Some(workers);
    stage
}

fn number(stage: &Stage, sql: &str) -> i64 {
    stage.sql().value(sql).expect("it answers").and_then(|n| n.parse().ok()).expect("a number")
}

/// Sessions that wait for a row.
const WAITING: &str =
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
/// What every batch of a stream or a change set adds to.
const SUM: &str = "select sum(balance) from account";
const LIVE: &str = "select count(*) from pgmend.lease where partition_no > 0 and expires_at > clock_timestamp()";

#[test]
fn several_workers_leave_the_table_as_the_plain_statement_does() {
    for (shape, workers) in
        [(STREAM, 2), (STREAM, 4), (HALVED, 3), (BARE, 3), (DELETE, 3), (FREEZE, 2), (FREEZE, 4), (SWEEP, 3)]
    {
        let stage = stage(shape, 300, workers);
        let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent()));
        succeeded(ended)
            .and_then(|()| stage.check())
            .unwrap_or_else(|failure| panic!("{}, {workers}: {failure}", shape.name));
        let parts = number(&stage, "select count(distinct partition_no) from pgmend.batch where partition_no > 0");
        assert!(parts > i64::from(workers), "{}: only {parts} partitions had batches", shape.name);
        assert_eq!(number(&stage, "select count(*) from pgmend.partition where state = 'open'"), 0);
    }
}

#[test]
fn a_run_of_one_worker_is_not_divided_nor_is_one_that_must_go_in_order() {
    let one = stage(STREAM, 60, 1);
    let mut canary = stage(STREAM, 60, 4);
    canary.file.canary = toml_canary();
    for stage in [one, canary] {
        let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent()));
        succeeded(ended).and_then(|()| stage.check()).expect("it ends as it should");
        assert_eq!(number(&stage, "select count(*) from pgmend.partition"), 0);
    }
}

fn toml_canary() -> Option<pgmend_core::expect::Canary> {
    pgmend::JobFile::parse("[canary]\nrows = 5\n").expect("a job file").canary
}

/// Two workers are allowed, and the first process has both, each held in place by a row in a partition of its own: the
/// second waits, changes nothing, and takes over.
#[test]
fn a_second_process_takes_over_the_partitions_of_one_that_is_killed() {
    for shape in [STREAM, FREEZE] {
        let mut stage = stage(shape, 120, 2);
        // A lease that a busy machine lets run out would be taken over rightly.
        stage.file.limits.lease_seconds = 12;
        let rows = [stage.hold(60), stage.hold(300)];
        let mut first = stage.worker();
        assert!(first.wait_for_batches(2), "{:?}", first.heard);
        wait_for(&format!("select (({WAITING}) = 2)::int"), &stage);
        let held = number(&stage, SUM);
        let mut second = stage.worker();
        assert!(second.wait_for(|said| said.is_event("started")), "{:?}", second.heard);
        for _ in 0..10 {
            sleep(Duration::from_millis(50));
            assert!(number(&stage, LIVE) <= 2, "more workers than the run may have");
        }
        assert_eq!(number(&stage, SUM), held, "{}: the second changed rows", shape.name);
        first.kill();
        let before = number(&stage, "select coalesce(max(fence), 0) from pgmend.lease where partition_no > 0");
        drop(rows);
        let (_, said) = second.end();
        assert!(said.as_ref().is_some_and(Said::succeeded), "{}: {said:?}", shape.name);
        assert!(number(&stage, "select max(fence) from pgmend.lease where partition_no > 0") > before, "no takeover");
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn two_processes_share_the_partitions_of_one_run() {
    let mut stage = stage(STREAM, 200, 2);
    // In the second batch of the first partition, so that others are left for the second process.
    let row = stage.hold(60);
    let one = Errand { here: Some(1), ..stage.errand() };
    let mut first = Worker::start(&one, None);
    assert!(first.wait_for_batches(1), "{:?}", first.heard);
    let mut second = Worker::start(&one, None);
    assert!(second.wait_for_batches(1), "the second process must get a partition: {:?}", second.heard);
    drop(row);
    for worker in [first, second] {
        let (_, said) = worker.end();
        assert!(said.as_ref().is_some_and(Said::succeeded), "{said:?}");
    }
    let holders = "select count(distinct holder) from pgmend.lease where partition_no > 0";
    assert_eq!(number(&stage, holders), 2, "both must have driven partitions");
    stage.check().expect("nothing is lost or doubled");
}

#[test]
fn a_sleeping_worker_that_wakes_after_its_takeover_changes_nothing() {
    let mut stage = stage(STREAM, 120, 2);
    let rows = [stage.hold(60), stage.hold(300)];
    let mut first = stage.worker();
    assert!(first.wait_for_batches(2), "{:?}", first.heard);
    wait_for(&format!("select (({WAITING}) = 2)::int"), &stage);
    first.freeze();
    drop(rows);
    let (_, said) = stage.worker().end();
    assert!(said.as_ref().is_some_and(Said::succeeded), "{said:?}");
    let before = number(&stage, SUM);
    first.thaw();
    let (_, said) = first.end();
    assert!(said.as_ref().is_none_or(|said| said.succeeded() || matches!(said, Said::Error(_))), "{said:?}");
    assert_eq!(number(&stage, SUM), before, "it changed rows after its partitions were taken over");
    stage.check().expect("nothing is lost or doubled");
}

#[test]
fn a_run_that_was_stopped_goes_on_with_another_number_of_workers() {
    for shape in [STREAM, FREEZE] {
        let mut stage = stage(shape, 200, 2);
        let errand = Errand { stop_after: Some(2), ..stage.errand() };
        let (_, said) = Worker::start(&errand, None).end();
        assert!(said.as_ref().is_some_and(|said| said.ended_as("paused")), "{}: {said:?}", shape.name);
        let changed = number(&stage, "select sum(changed_rows) from pgmend.batch");
        assert!(changed > 0 && changed < 150, "{changed} rows changed");
        stage.file.limits.workers = Some(4);
        stage.go_on().and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_process_killed_at_the_boundaries_of_a_divided_run_loses_and_doubles_nothing() {
    for fault in [DIVIDED, "batch_applied:5", "batch_committed:7", "before_finish", "after_finish"] {
        let stage = stage(STREAM, 120, 3);
        Worker::start(&stage.errand(), Some(fault)).aborted().unwrap_or_else(|failure| panic!("{fault}: {failure}"));
        stage.expire_leases().expect("the leases have run out");
        let (_, said) = stage.worker().end();
        let over = fault == "after_finish";
        let ended = said.as_ref().is_some_and(|said| said.succeeded() || (over && matches!(said, Said::Error(_))));
        assert!(ended, "{fault}: {said:?}");
        stage.check().unwrap_or_else(|failure| panic!("{fault}: {failure}"));
    }
}

#[test]
fn a_pause_stops_all_workers_and_a_resumption_goes_on() {
    let mut stage = stage(STREAM, 200, 3);
    let row = stage.hold(60);
    let mut worker = stage.worker();
    assert!(worker.wait_for_batches(1), "{:?}", worker.heard);
    let job = stage.errand().job;
    block_on(async {
        let mut engine = Box::pin(Engine::connect(Some(&stage.database.url()))).await.expect("a connection");
        engine.pause(&job, "a test").await.expect("it can be asked");
    });
    drop(row);
    let (_, said) = worker.end();
    assert!(said.as_ref().is_some_and(|said| said.ended_as("paused")), "{said:?}");
    wait_for(&format!("select (({LIVE}) = 0)::int"), &stage);
    let done = block_on(async {
        let mut engine = Box::pin(Engine::connect(Some(&stage.database.url()))).await?;
        Box::pin(engine.resume(&job, &mut Observer::silent())).await
    });
    succeeded(done).and_then(|()| stage.check()).expect("nothing is lost or doubled");
}

/// As a failover does that takes the end of a partition along, after all workers have heard that everything is done.
#[test]
fn a_partition_that_is_open_again_at_the_end_is_driven_again_and_the_run_succeeds() {
    let stage = stage(STREAM, 60, 2);
    let (url, mut before) = (stage.database.url(), true);
    let mut observer = Observer::new(move |event| {
        if matches!(event, pgmend::Event::Sweeping { .. }) && std::mem::take(&mut before) {
            let url = url.clone();
            let reopened = std::thread::spawn(move || {
                let mut sql = pgmend_testkit::Sql::connect(&url).expect("a session");
                sql.run("update pgmend.partition set state = 'open' where partition_no in (2, 5)").expect("it is open");
            });
            reopened.join().expect("it does not panic");
        }
    });
    let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
    succeeded(ended).and_then(|()| stage.check()).expect("it ends by itself");
    assert_eq!(number(&stage, "select count(*) from pgmend.partition where state = 'open'"), 0);
    assert_eq!(number(&stage, "select count(*) from pgmend.ledger where fact = 'run_failed'"), 0);
    let leases = "select max(fence) from pgmend.lease where partition_no in (2, 5)";
    assert!(number(&stage, leases) >= 2, "nobody drove them again");
}

/// Each worker sees the other's letters only once these are committed: counted by itself, each would stay within the
/// limit, and both together exceed it.
#[test]
fn workers_that_set_rows_aside_at_the_same_moment_do_not_exceed_the_limit_together() {
    let mut stage = stage(STREAM, 200, 4);
    stage.file.dead_letters = pgmend_core::dead_letters::DeadLetters { rows_max: Some(3), share_max: None };
    stage
        .sql()
        .run(
            "create function obstacle() returns trigger language plpgsql as $$ begin
                 perform pg_sleep(0.05); raise exception 'in the way' using errcode = '23514'; end $$;
             create trigger obstacle before update on account for each row when (old.id % 60 = 3)
                 execute function obstacle()",
        )
        .expect("the obstacle is there");
    let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent())).expect("it ends");
    let RunState::Failed { failure } = &ended.state else { panic!("not failed: {ended:?}") };
    assert!(failure.contains("PM721") && failure.contains("3 may be set aside"), "{failure}");
    assert!(number(&stage, "select count(*) from pgmend.dead_letter") <= 3);
    assert!(number(&stage, "select count(distinct partition_no) from pgmend.batch") > 1, "several workers were at it");
}

/// A worker that drives tenants dies like any other: what it held is taken over, tenant by tenant.
#[test]
fn a_run_by_tenants_that_is_killed_at_any_boundary_loses_and_doubles_nothing() {
    for (shape, fault) in [
        (FREEZE, DIVIDED),
        (DELETE, DIVIDED),
        (FREEZE, "batch_applied:5"),
        (DELETE, "batch_applied:5"),
        (FREEZE, "batch_committed:6"),
        (DELETE, "lease_released:2"),
        (FREEZE, "before_finish"),
    ] {
        let mut stage = stage(shape, 120, 2);
        stage.file.tenants = Some(TenantMode::by("grp"));
        Worker::start(&stage.errand(), Some(fault)).aborted().unwrap_or_else(|failure| panic!("{fault}: {failure}"));
        stage
            .go_on()
            .and_then(|()| stage.check())
            .unwrap_or_else(|failure| panic!("{}, {fault}: {failure}", shape.name));
        assert_eq!(number(&stage, "select count(*) from pgmend.partition where state = 'done'"), 3, "{fault}");
    }
}

#[test]
fn another_process_takes_over_the_tenants_of_one_that_is_killed() {
    let mut stage = stage(FREEZE, 160, 1);
    stage.file.tenants = Some(TenantMode::by("grp"));
    // In the third batch of the first tenant.
    let row = stage.hold(240);
    let mut first = stage.worker();
    assert!(first.wait_for_batches(2), "{:?}", first.heard);
    let second = stage.worker();
    first.kill();
    drop(row);
    let (_, said) = second.end();
    assert!(said.as_ref().is_some_and(Said::succeeded), "{said:?}");
    assert!(number(&stage, "select max(fence) from pgmend.lease where partition_no > 0") > 1, "no takeover");
    stage.check().expect("nothing is lost or doubled");
}

/// Keys of two columns, text first: sampled, ordered and compared by the server alone.
#[test]
fn a_key_of_any_type_can_be_divided() {
    let database = Database::create(Server::shared(), "parts").expect("a database");
    let mut sql = database.sql().expect("a session");
    sql.run(
        "create table item (region text collate \"C\", id numeric, n int not null default 0, primary key (region, id));
         insert into item select (array['z', 'ä', '', 'B'])[i % 4 + 1], i * 1.50 from generate_series(1, 400) i",
    )
    .expect("the table");
    let mut job = Job::from_statement("parts", "update item set n = n + 1");
    job.file.limits.batch_rows = Some(10);
    job.file.limits.workers = Some(2);
    let done = block_on(async {
        let mut engine = Box::pin(Engine::connect(Some(&database.url()))).await?;
        Box::pin(engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await
    })
    .expect("it runs");
    assert_eq!((&done.state, done.changed_rows, done.residual_rows), (&RunState::Succeeded, 400, Some(0)));
    assert_eq!(sql.value("select count(*) from item where n = 1").expect("it answers").as_deref(), Some("400"));
    let sizes = "select count(*)::text || ' ' || (max(rows) <= 2 * avg(rows))::text from (select sum(changed_rows) as rows from pgmend.batch where partition_no > 0 group by partition_no) s";
    assert_eq!(sql.value(sizes).expect("it answers").as_deref(), Some("8 true"), "partitions of about the same size");
}
