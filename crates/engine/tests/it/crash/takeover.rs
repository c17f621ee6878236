//! Two workers and one run: one drives it, the other says who does.

use std::thread::sleep;
use std::time::Duration;

use super::network::wait_for_lock;
use super::stage::{FREEZE, STREAM, Shape, Stage};
use super::worker::{Said, Worker};

/// Heartbeats come every half second; a live lease is told from a dead one by then.
const TIME_TO_NOTICE: Duration = Duration::from_millis(3_500);

#[test]
fn of_two_workers_that_start_the_same_job_one_drives_and_the_other_says_who() {
    let mut stage = Stage::new(STREAM, 40, 8);
    stage.file.limits.lock_timeout_ms = 20_000;
    stage.file.limits.statement_timeout_ms = Some(20_000);
    let mut other = stage.sql();
    other.run("begin; select from account where id = 60 for update").expect("the row is locked");
    let (one, two) = (stage.worker(), stage.worker());
    sleep(TIME_TO_NOTICE);
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
    for shape in [STREAM, FREEZE] {
        wakes_after_takeover(shape, false);
    }
}

#[test]
fn a_worker_that_slept_within_a_batch_wakes_to_find_it_undone() {
    for shape in [STREAM, FREEZE] {
        wakes_after_takeover(shape, true);
    }
}

fn wakes_after_takeover(shape: Shape, within_batch: bool) {
    let mut stage = Stage::new(shape, 60, 2);
    stage.file.limits.lock_timeout_ms = 20_000;
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
