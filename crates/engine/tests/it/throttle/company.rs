//! An application that works beside a run, on a server of its own: a shared one is full of other tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgmend::Event;
use pgmend_testkit::{Server, ServerOptions};

use super::stage::{Stage, job};

/// A server, and a stage on it whose batches last long enough to look around.
fn stage() -> (Server, Stage) {
    let own = ServerOptions::new().start().expect("a server");
    let mut stage = Stage::on(&own);
    stage
        .sql
        .run(
            "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.3); return null; end';
             create trigger slow after update on item for each row when (new.id % 100 = 0) execute function slow()",
        )
        .expect("batches that last");
    (own, stage)
}

/// Works until told to stop, in one session.
fn application(stage: &Stage, closing: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let mut sql = stage.db.sql().expect("a session");
    let closed = Arc::clone(closing);
    std::thread::spawn(move || {
        while !closed.load(Ordering::Relaxed) {
            sql.run("select count(*) from generate_series(1, 200000)").expect("an answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

/// The paces that a run tells of, with an application of so many sessions beside it.
fn paces(throttle: &str, sessions: usize) -> Vec<f64> {
    let (_own, stage) = stage();
    let closing = Arc::new(AtomicBool::new(false));
    let application: Vec<_> = (0..sessions).map(|_| application(&stage, &closing)).collect();
    let mut running = stage.start(job(throttle));
    running.batches(20);
    let pace = |event: &Event| if let Event::Slowed { pace } = event { Some(*pace) } else { None };
    let paces = running.told().iter().filter_map(pace).collect();
    running.end();
    closing.store(true, Ordering::Relaxed);
    for asking in application {
        asking.join().expect("an application that was answered");
    }
    paces
}

#[test]
fn a_run_makes_room_for_an_application_that_works_beside_it() {
    let paces = paces("[throttle]\ncores = 2", 3);
    assert!(paces.iter().any(|pace| (0.2..=0.9).contains(pace)), "{paces:?}");
}

#[test]
fn a_run_that_is_alone_does_not_slow_down() {
    assert_eq!(paces("[throttle]\ncores = 2", 0), [0.0; 0]);
}

#[test]
fn an_agent_that_works_in_one_session_slows_nobody_down() {
    assert_eq!(paces("[throttle]\ncores = 2", 1), [0.0; 0]);
}

#[test]
fn full_pace_is_kept_where_a_job_says_why() {
    assert_eq!(paces("[throttle]\ncores = 2\nfull_pace = \"a test\"", 3), [0.0; 0]);
}

#[test]
fn a_large_server_has_room_for_both() {
    assert_eq!(paces("[throttle]\ncores = 64", 3), [0.0; 0]);
}
