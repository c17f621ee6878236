//! An application that works beside a run, on a server of its own: a shared one is full of other tests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgmend::{Event, Setting, Status};
use pgmend_testkit::ServerOptions;

use super::stage::{PATIENCE, Running, Stage, job, until};

/// What sessions of an application do, over and over.
const COUNTING: &str = "select count(*) from generate_series(1, 200000)";
/// The same with rows that a batch has locked, so that they wait for it. A lock alone is no conflict.
const LOCKING: &str = "select from item where id % 20 = (random() * 20)::int order by id for update";

/// Works until told to stop, in one session.
fn application(stage: &Stage, asks: &'static str, closing: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let mut sql = stage.db.sql().expect("a session");
    let closed = Arc::clone(closing);
    std::thread::spawn(move || {
        while !closed.load(Ordering::Relaxed) {
            sql.run(asks).expect("an answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

/// The paces that a run tells of, with an application of so many sessions beside it.
fn paces(job_file: &str, sessions: usize) -> Vec<f64> {
    beside(job_file, sessions, 0.3, |_, running| {
        running.batches(20);
        running.told().iter().filter_map(pace).collect()
    })
}

fn pace(event: &Event) -> Option<f64> {
    if let Event::Slowed { pace } = event { Some(*pace) } else { None }
}

/// Watches a run on a server of its own, with an application of so many sessions beside it, whose batches last for so
/// many seconds.
fn beside<T>(throttle: &str, sessions: usize, seconds: f64, watch: impl FnOnce(&mut Stage, &mut Running) -> T) -> T {
    let own = ServerOptions::new().start().expect("a server");
    let mut stage = Stage::on(&own);
    stage.slow_by(seconds);
    let closing = Arc::new(AtomicBool::new(false));
    let application: Vec<_> = (0..sessions).map(|_| application(&stage, COUNTING, &closing)).collect();
    // The session that made the table is no company: it did nothing within the last second.
    std::thread::sleep(Duration::from_millis(1_200));
    let mut running = stage.start(job(throttle));
    let seen = watch(&mut stage, &mut running);
    running.end();
    closing.store(true, Ordering::Relaxed);
    for asking in application {
        asking.join().expect("an application that was answered");
    }
    seen
}

/// The same with batches of a second beside three sessions, from the first rest on, and a flag file that holds the run.
fn resting_beside(watch: impl FnOnce(&Path, &mut Stage, &mut Running)) {
    let folder = tempfile::tempdir().expect("a folder");
    let flag = folder.path().join("hold");
    let throttle = format!("[throttle]\ncores = 2\nflag_files = [{:?}]", flag.display().to_string());
    beside(&throttle, 3, 1.0, |stage, running| {
        running.wait_for("slower pace", |event| pace(event).is_some_and(|pace| pace < 0.1));
        resting(stage);
        watch(&flag, stage, running);
    });
}

/// Waits until the run rests for the application.
fn resting(stage: &Stage) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = stage.status();
        if status.doing.contains("for the application beside it (works 2.5 % of the time itself)") {
            return status;
        }
        assert!(Instant::now() < deadline, "{}", status.doing);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_run_makes_room_for_an_application_that_works_beside_it() {
    beside("[throttle]\ncores = 2", 3, 1.0, |stage, running| {
        running.wait_for("slower pace", |event| pace(event).is_some_and(|pace| pace < 0.1));
        let status = resting(stage);
        let other = status.next.iter().find(|line| line.contains("tune")).expect("a line for another pace");
        assert!(other.contains("--nice 1 --reason"), "{other}");
        stage.quick();
        // As the line says, but faster.
        stage.tune(Setting::Nice, 0.0);
        running.wait_for("full pace", |event| pace(event) == Some(1.0));
    });
}

/// A rest lasts for seconds, and what was within its limits when it began may not be when it ends.
#[test]
fn a_signal_that_comes_within_a_rest_holds_the_batch_after_it() {
    resting_beside(|flag, stage, running| {
        std::fs::write(flag, "").expect("the flag");
        let begun = "select count(*) from pgmend.batch";
        let before = stage.number(begun);
        running.held();
        assert_eq!(stage.number(begun), before, "a batch went before the hold");
        stage.quick();
        stage.tune(Setting::Nice, 0.0);
        std::fs::remove_file(flag).expect("the flag is ours");
    });
}

/// The rest after a batch begins with a word to the server, whose connection may have gone in the meantime.
#[test]
fn a_connection_that_is_lost_before_a_rest_is_made_anew() {
    resting_beside(|flag, stage, running| {
        let changing = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        until("the next batch is under way", || stage.number(changing) > 0);
        std::fs::write(flag, "").expect("the flag");
        running.held();
        let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                    where application_name like 'pgmend%' and query not like '%generate_series%' and pid <> pg_backend_pid()";
        assert!(stage.number(cut) > 0);
        std::fs::remove_file(flag).expect("the flag is ours");
        running.released();
        resting(stage);
        stage.quick();
        stage.tune(Setting::Nice, 0.0);
    });
}

/// A rest may be longer than what is left of the time that a command was given. No machine is too slow for this: the
/// command's time began before this test's.
#[test]
fn no_rest_goes_beyond_the_time_of_a_command() {
    beside("[throttle]\ncores = 2\n[pace]\nstop_after = \"12s\"", 3, 1.0, |stage, running| {
        running.wait_for("start", |event| matches!(event, Event::Started { .. }));
        let begun = Instant::now();
        let state = "select state from pgmend.run";
        while stage.sql.value(state).expect("it answers").as_deref() == Some("running") {
            let most_s = 12.0 - begun.elapsed().as_secs_f64();
            let doing = stage.status().doing;
            let waits = doing.strip_prefix("waits ").filter(|waits| waits.contains(" s for the application beside it"));
            let wait_s = waits.and_then(|waits| waits.split(' ').next()).map(|s| s.parse::<f64>().expect("a number"));
            // It is told in whole seconds.
            assert!(wait_s.is_none_or(|s| s < most_s.max(0.0) + 1.0), "{doing}, with {most_s:.1} s left");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn a_ratio_of_rest_that_a_job_asks_for_goes_before_what_company_asks_for() {
    assert_eq!(paces("[throttle]\ncores = 2\n[pace]\nnice = 0.0", 3), [0.0; 0]);
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

/// Whoever waits for a row waits as long as the batch lasts.
#[test]
fn batches_become_short_beside_sessions_that_wait_for_their_rows() {
    let own = ServerOptions::new().start().expect("a server");
    let mut stage = Stage::on(&own);
    stage
        .sql
        .run(
            "insert into item select i, 'old' from generate_series(2001, 20000) i;
             create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.001); return null; end';
             create trigger slow after update on item for each row execute function slow()",
        )
        .expect("rows that take a millisecond each");
    let closing = Arc::new(AtomicBool::new(false));
    let waiters: Vec<_> = (0..3).map(|_| application(&stage, LOCKING, &closing)).collect();
    let mut job = job("[throttle]\ncores = 2");
    job.file.limits.batch_rows = None;
    let mut running = stage.start(job);
    // Alone they would be of fifty milliseconds at least.
    running.wait_for(
        "short batch",
        |event| matches!(event, Event::Batch { next_batch_rows, .. } if *next_batch_rows <= 30),
    );
    closing.store(true, Ordering::Relaxed);
    for waiter in waiters {
        waiter.join().expect("a session that got its rows");
    }
    stage.quick();
    assert_eq!(running.end().changed_rows, 20_000);
}
