//! A PgBouncer in transaction mode in between: each transaction may run in another session of the server, which others
//! have used before. An old one knows no prepared statements at all.

use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use pgmend::progress::Stop;
use pgmend::{Engine, Event, Observer, Pace, RunOptions, RunState};
use pgmend_testkit::{FaultProxy, Pooler, Server, Sql};
use tokio::sync::watch;

use super::network::{by_way_of, succeeded, wait_for, wait_for_lock};
use super::restarts::crashes_after;
use super::stage::{BARE, DELETE, FREEZE, INSERT, STREAM, SWEEP, Shape, Stage, UNDO, UNDO_DELETE, UPSERT};
use super::worker::{Errand, Said, Worker};
use super::{block_on, each};

/// Sessions of the server for all of a run's connections: fewer than it has.
const SESSIONS: u32 = 2;
/// What ends a wait takes no longer, also on a machine that stalls for seconds; the waits themselves last for a minute and
/// more.
const SOON: Duration = Duration::from_secs(30);
/// For so long the pooler is away.
const AWAY: Duration = Duration::from_millis(700);

/// A pooler before this server; says so where there is none to be had.
fn pooler(server: &Server, sessions: u32) -> Option<Arc<Pooler>> {
    let pooler = Pooler::start(server, sessions, &[]).expect("a pooler that is installed starts");
    if pooler.is_none() {
        eprintln!("skipped: no PgBouncer is installed (apt-get install pgbouncer, or PGMEND_PGBOUNCER names it)");
    }
    pooler.map(Arc::new)
}

impl Stage {
    fn behind(&self, pooler: &Pooler) -> String {
        pooler.url(self.database.name())
    }
}

/// Runs the errand through the pooler, to its end.
fn completes(stage: &Stage, pooler: &Pooler, listen: impl FnMut(&Event) + Send + 'static) -> Result<(), String> {
    succeeded(block_on(by_way_of(&stage.behind(pooler), stage, listen)))?;
    stage.check()
}

#[test]
fn what_a_run_does_through_a_pooler_is_what_the_plain_statement_does() {
    let Some(pooler) = pooler(Server::shared(), SESSIONS) else { return };
    for shapes in [[STREAM, BARE, FREEZE], [DELETE, UPSERT, INSERT], [SWEEP, UNDO, UNDO_DELETE]] {
        each(&shapes, |shape| {
            let stage = Stage::new(shape, 60, 8);
            completes(&stage, &pooler, |_| ()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        });
    }
}

#[test]
fn a_pool_of_one_session_is_enough_for_a_run() {
    let Some(pooler) = pooler(Server::shared(), 1) else { return };
    for shape in [STREAM, FREEZE, UNDO] {
        let stage = Stage::new(shape, 60, 8);
        completes(&stage, &pooler, |_| ()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn several_workers_share_the_sessions_of_a_pool() {
    let Some(pooler) = pooler(Server::shared(), SESSIONS) else { return };
    for (shape, workers) in [(STREAM, 2), (FREEZE, 2), (STREAM, 4)] {
        let mut stage = Stage::new(shape, 200, 8);
        stage.file.limits.workers = Some(workers);
        completes(&stage, &pooler, |_| ()).unwrap_or_else(|failure| panic!("{}, {workers}: {failure}", shape.name));
    }
}

#[test]
fn a_worker_killed_behind_a_pooler_leaves_a_run_that_goes_on() {
    let Some(pooler) = pooler(Server::shared(), SESSIONS) else { return };
    for shape in [STREAM, FREEZE, UNDO] {
        let mut stage = Stage::new(shape, 200, 2);
        let row = stage.hold(300);
        // A dead worker's session is to stop waiting for it soon: the pool has two.
        stage.file.limits.lock_timeout_ms = 500;
        let errand = Errand { url: stage.behind(&pooler), ..stage.errand() };
        for batches in [3, 1, 7] {
            let mut worker = Worker::start(&errand, None);
            assert!(worker.gets_on(batches), "{}: {:?}", shape.name, worker.heard);
            worker.kill();
            stage.expire_leases().expect("the lease is there");
        }
        drop(row);
        let (_, said) = Worker::start(&errand, None).end();
        assert!(said.as_ref().is_some_and(Said::succeeded), "{}: {said:?}", shape.name);
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_run_goes_on_when_its_pooler_is_back() {
    let Some(pooler) = pooler(Server::shared(), SESSIONS) else { return };
    for shape in [STREAM, FREEZE] {
        let stage = Stage::new(shape, 400, 2);
        let dying = Arc::clone(&pooler);
        let listen = move |event: &Event| {
            if matches!(event, Event::Batch { batch_no: 20 | 120, .. }) {
                // Before the run can get any further; it comes back beside it.
                dying.kill().expect("the pooler dies");
                let dying = Arc::clone(&dying);
                thread::spawn(move || {
                    sleep(AWAY);
                    dying.start_again().expect("the pooler starts again");
                });
            }
        };
        completes(&stage, &pooler, listen).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_run_whose_pooler_dies_in_the_middle_of_a_batch_makes_it_again() {
    let Some(pooler) = pooler(Server::shared(), SESSIONS) else { return };
    for shape in [STREAM, DELETE] {
        let mut stage = Stage::new(shape, 40, 8);
        stage.file.limits.lock_timeout_ms = 20_000;
        let mut other = stage.sql();
        other.run("begin; select from account where id = 60 for update").expect("the row is locked");
        thread::scope(|scope| {
            let running = scope.spawn(|| block_on(by_way_of(&stage.behind(&pooler), &stage, |_| ())));
            wait_for_lock(&stage);
            crash(&pooler);
            other.run("commit").expect("the lock is released");
            succeeded(running.join().expect("it does not panic")).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
        });
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_run_goes_on_when_the_server_behind_its_pooler_is_back_from_a_crash() {
    let server = Arc::new(Server::start().expect("a server starts"));
    let Some(pooler) = pooler(&server, SESSIONS) else { return };
    let stage = Stage::on(&server, STREAM, 400, 2);
    completes(&stage, &pooler, crashes_after([20, 120], &server)).expect("nothing is lost or doubled");
}

/// LISTEN does not work through a pooler in transaction mode: a wish is looked for.
#[test]
fn a_pause_reaches_a_run_that_rests_behind_a_pooler_and_resume_goes_on() {
    let Some(pooler) = pooler(Server::shared(), SESSIONS) else { return };
    let mut stage = Stage::new(Shape { mode: None, ..STREAM }, 60, 8);
    stage.file.limits.lease_seconds = 6;
    let (url, job) = (stage.behind(&pooler), stage.errand().job());
    stage.file.limits.statement_timeout_ms = Some(30_000);
    // Each row takes a while, so that the rest after a batch is of minutes.
    let slow =
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.2); return new; end $$;
                create trigger slow before update on account for each row execute function slow()";
    stage.sql().run(slow).expect("the trigger is created");
    block_on(async { Engine::connect(Some(&url)).await?.init().await }).expect("it is installed");
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            block_on(async {
                let pace = Pace { nice: Some(100.0), ..Pace::default() };
                let mut engine = Box::pin(Engine::connect(Some(&url))).await?;
                let options = RunOptions { pace, ..RunOptions::default() };
                Box::pin(engine.run(&job, &options, &mut Observer::silent())).await
            })
        });
        wait_for("select count(*) from pgmend.driving where waits_until > clock_timestamp() + interval '90 s'", &stage);
        let asked = Instant::now();
        block_on(async {
            let mut engine = Box::pin(Engine::connect(Some(&url))).await.expect("a connection");
            engine.pause("crash-stream", "checkout is slow").await.expect("it can be asked");
        });
        let paused = running.join().expect("it does not panic").expect("it stops");
        assert_eq!(paused.state, RunState::Paused { reason: "checkout is slow".into() });
        assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
    });
    stage.sql().run("drop trigger slow on account").expect("it is there");
    let resumed = block_on(async {
        let mut engine = Box::pin(Engine::connect(Some(&url))).await?;
        let pace = Pace { nice: Some(0.0), ..Pace::default() };
        Box::pin(engine.resume_with(
            "crash-stream",
            &RunOptions { pace, ..RunOptions::default() },
            &mut Observer::silent(),
        ))
        .await
    });
    succeeded(resumed).and_then(|()| stage.check()).expect("nothing is lost or doubled");
}

/// A PgBouncer may lose a request to cancel, and an old one may die of it.
#[test]
fn a_second_signal_behind_a_pooler_cancels_the_batch_without_a_request_to_the_pooler() {
    let Some(pooler) = pooler(Server::shared(), SESSIONS + 1) else { return };
    for shape in [STREAM, FREEZE] {
        let mut stage = Stage::new(shape, 60, 8);
        let before = FaultProxy::start(&stage.behind(&pooler)).expect("a proxy starts");
        let row = stage.hold(60);
        // Nothing else is to end the batch for as long as it may take.
        stage.file.limits.statement_timeout_ms = Some(120_000);
        let (stop, stopping) = watch::channel(Stop::None);
        let (url, job) = (before.url(), stage.errand().job());
        let paused = thread::scope(|scope| {
            let running = scope.spawn(|| {
                block_on(async {
                    let mut observer = Observer::with_stop(|_| (), stopping);
                    let mut engine = Box::pin(Engine::connect(Some(&url))).await?;
                    Box::pin(engine.run(&job, &RunOptions::default(), &mut observer)).await
                })
            });
            wait_for_lock(&stage);
            stop.send_replace(Stop::AfterBatch);
            stop.send_replace(Stop::Now);
            let asked = Instant::now();
            let paused = running.join().expect("it does not panic").expect("it stops");
            assert!(asked.elapsed() < SOON, "{}: {:?}", shape.name, asked.elapsed());
            paused
        });
        assert_eq!(paused.state, RunState::Paused { reason: "stopped by a second signal".into() }, "{}", shape.name);
        assert_eq!(before.cancels(), 0, "{}", shape.name);
        drop(row);
        completes(&stage, &pooler, |_| ()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

/// What a neighbour sets in its session stays in the server's, and the next one gets that.
#[test]
fn what_strangers_leave_in_the_sessions_of_a_pool_changes_nothing() {
    let Some(pooler) = pooler(Server::shared(), SESSIONS) else { return };
    for shape in [STREAM, FREEZE] {
        let stage = Stage::new(shape, 200, 2);
        let decoy = "create schema elsewhere; create table elsewhere.account (like public.account including all)";
        stage.sql().run(decoy).expect("the decoy is created");
        let url = stage.behind(&pooler);
        let listen = move |event: &Event| {
            if matches!(event, Event::Batch { batch_no: 5 | 50, .. }) {
                leave_settings(&url);
            }
        };
        completes(&stage, &pooler, listen).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

/// In each session of the pool, one after the other: both are held at the same time, so that they are not the same one.
fn leave_settings(url: &str) {
    let mut strangers: Vec<Sql> =
        (0..SESSIONS).map(|_| Sql::connect(url).expect("the pooler admits everybody")).collect();
    for stranger in &mut strangers {
        stranger
            .run(
                "set search_path = elsewhere; set datestyle = 'German'; set timezone = 'Asia/Tokyo';
                 set intervalstyle = 'sql_standard'; set extra_float_digits = 0; set bytea_output = 'escape';
                 set default_transaction_isolation = 'serializable'; set application_name = 'stranger'; begin",
            )
            .expect("anybody may set these");
    }
    for stranger in &mut strangers {
        stranger.run("commit").expect("it ends");
    }
}

fn crash(pooler: &Pooler) {
    pooler.kill().expect("the pooler dies");
    sleep(AWAY);
    pooler.start_again().expect("the pooler starts again");
}
