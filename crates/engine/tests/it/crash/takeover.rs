//! Two workers and one run: one drives it, the other says who does.

use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use pgmend::{Event, Observer};
use pgmend_testkit::Sql;

use super::network::{PATIENCE, succeeded, wait_for, wait_for_lock};
use super::stage::{DELETE, FREEZE, HALVED, STREAM, Shape, Stage};
use super::worker::{Said, Worker};
use super::{block_on, each, run};

#[test]
fn of_two_workers_that_start_the_same_job_one_drives_and_the_other_says_who() {
    let mut stage = Stage::new(STREAM, 40, 8);
    let mut other = stage.hold(60);
    // A lease that a busy machine lets run out would be taken over rightly.
    stage.file.limits.lease_seconds = 15;
    let (mut one, mut two) = (stage.worker(), stage.worker());
    // The driver cannot end before the row is released; the other one does as soon as it has told a live lease from
    // a dead one.
    let deadline = Instant::now() + PATIENCE;
    while !one.has_ended() && !two.has_ended() {
        assert!(Instant::now() < deadline, "neither gives way");
        sleep(Duration::from_millis(20));
    }
    other.run("commit").expect("the lock is released");
    let (one, two) = (one.end().1, two.end().1);
    let (winner, loser) = if one.as_ref().is_some_and(Said::succeeded) { (one, two) } else { (two, one) };
    assert!(winner.as_ref().is_some_and(Said::succeeded), "{winner:?} and {loser:?}");
    let Some(Said::Error(said)) = &loser else { panic!("the other one: {loser:?}") };
    assert!(said.contains("is being driven by process"), "{said}");
    stage.check().expect("nothing is lost or doubled");
    let fence = stage.sql().value("select max(fence) from pgmend.lease").expect("it answers");
    assert_eq!(fence.as_deref(), Some("1"), "nobody took over from a live worker");
}

#[test]
fn many_workers_that_start_the_same_job_make_one_run() {
    let stage = Stage::new(STREAM, 60, 2);
    let workers: Vec<Worker> = (0..5).map(|_| stage.worker()).collect();
    let said: Vec<_> = workers.into_iter().map(|worker| worker.end().1).collect();
    assert!(said.iter().flatten().any(Said::succeeded), "{said:?}");
    for other in said.iter().flatten().filter(|said| !said.succeeded()) {
        let Said::Error(error) = other else { panic!("{other:?}") };
        assert!(error.contains("driven by") || error.contains("already") || error.contains("was made by"), "{error}");
    }
    stage.check().expect("nothing is lost or doubled");
}

#[test]
fn a_worker_that_wakes_after_a_takeover_writes_nothing_and_says_so() {
    each(&[STREAM, FREEZE], |shape| {
        wakes_after_takeover(shape, false);
    });
}

#[test]
fn a_worker_that_slept_within_a_batch_wakes_to_find_it_undone() {
    each(&[STREAM, FREEZE], |shape| {
        wakes_after_takeover(shape, true);
    });
}

fn wakes_after_takeover(shape: Shape, within_batch: bool) {
    let mut stage = Stage::new(shape, 60, 2);
    stage.wait_for_rows();
    let mut other = stage.sql();
    other.run("begin; select from account where id = 60 for update").expect("a row is locked");
    let mut sleeper = stage.worker();
    if within_batch {
        wait_for_lock(&stage);
    } else {
        assert!(sleeper.wait_for_batches(3), "{:?}", sleeper.heard);
    }
    sleeper.freeze();
    // The batch of the sleeper gets through on the server, and waits there for a COMMIT that does not come.
    other.run("commit; begin; select from account where id = 120 for update").expect("another row is locked");
    // Its lease has to run out: nobody helps.
    let mut heir = stage.worker();
    assert!(heir.wait_for(|said| said.is_event("started")), "{}: {:?}", shape.name, heir.heard);
    wait_for_lock(&stage);
    let before = stage.sql().value("select string_agg(a::text, ' ' order by id) from account a").expect("it answers");
    sleeper.thaw();
    let said = sleeper.end().1;
    let after = stage.sql().value("select string_agg(a::text, ' ' order by id) from account a").expect("it answers");
    assert_eq!(before, after, "{}: the sleeper wrote", shape.name);
    let Some(Said::Error(said)) = &said else { panic!("{}: the sleeper said {said:?}", shape.name) };
    assert!(said.contains("another process has taken over"), "{}: {said}", shape.name);
    other.run("commit").expect("the lock is released");
    let said = heir.end().1;
    assert!(said.as_ref().is_some_and(Said::succeeded), "{}: {said:?}", shape.name);
    stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
}

/// Another worker takes over, as if the lease had run out.
fn take_over(sql: &mut Sql) {
    // In one transaction: a heartbeat in between would renew the lease.
    sql.run(
        "begin;
         update pgmend.lease set expires_at = clock_timestamp() - interval '1 s';
         select a.* from pgmend.lease, pgmend.acquire_lease(run_id, 0, 'heir', 'heir', 60) a;
         commit",
    )
    .expect("it is the superuser");
    let fence = sql.value("select fence from pgmend.lease where holder = 'heir'").expect("it answers");
    assert_eq!(fence.as_deref(), Some("2"), "the lease was to be had");
}

/// A worker that has no reason to doubt its lease, since its heartbeat is seconds away: only the fence, on the
/// server and in the batch itself, keeps it from writing.
#[test]
fn a_worker_that_trusts_a_lease_that_was_taken_over_is_stopped_by_the_fence() {
    for shape in [STREAM, HALVED, FREEZE, DELETE] {
        let mut stage = Stage::new(shape, 60, 2);
        stage.file.limits.lease_seconds = 60;
        let url = stage.database.url();
        let mut observer = Observer::new(move |event| {
            if matches!(event, Event::Batch { batch_no: 5, .. }) {
                take_over(&mut Sql::connect(&url).expect("the server is up"));
            }
        });
        let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
        let error = succeeded(ended).expect_err("it was taken over");
        assert!(error.contains("another process has taken over"), "{}: {error}", shape.name);
        let mut sql = stage.sql();
        let stands = sql.value("select max(batch_no) || ' ' || count(*) from pgmend.batch").expect("it answers");
        assert_eq!(stands.as_deref(), Some("5 5"), "{}", shape.name);
        let held = sql.value("select holder from pgmend.lease where expires_at > now()").expect("it answers");
        assert_eq!(held.as_deref(), Some("heir"), "{}: what it no longer had it could not give back", shape.name);
        stage.go_on().and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_takeover_waits_for_the_batch_that_is_under_way() {
    let mut stage = Stage::new(STREAM, 60, 2);
    stage.file.limits.lease_seconds = 60;
    stage.wait_for_rows();
    let mut other = stage.sql();
    other.run("begin; select from account where id = 60 for update").expect("a row is locked");
    thread::scope(|scope| {
        let running =
            scope.spawn(|| block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent())));
        wait_for_lock(&stage);
        // The first heartbeat comes soon and would renew what is made to run out here; the next is seconds away.
        wait_for("select count(*) from pgmend.lease where heartbeat_at > acquired_at", &stage);
        let mut sql = stage.sql();
        let count = "select count(*) from pgmend.batch";
        let before = sql.value(count).expect("it answers").and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
        let taking = scope.spawn(move || {
            take_over(&mut sql);
            sql.value(count).expect("it answers").and_then(|n| n.parse::<i64>().ok()).unwrap_or(0)
        });
        sleep(Duration::from_millis(600));
        assert!(!taking.is_finished(), "the lease was taken over in the middle of a batch");
        other.run("commit").expect("the lock is released");
        let seen = taking.join().expect("it does not panic");
        assert!(seen > before, "the heir sees the batch that it waited for");
        let error = succeeded(running.join().expect("it does not panic")).expect_err("it was taken over");
        assert!(error.contains("another process has taken over"), "{error}");
        let after = stage.sql().value(count).expect("it answers").and_then(|n| n.parse::<i64>().ok());
        assert_eq!(after, Some(seen), "nothing was committed behind the heir");
    });
    stage.go_on().and_then(|()| stage.check()).expect("nothing is lost or doubled");
}
