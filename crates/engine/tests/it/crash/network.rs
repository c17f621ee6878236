//! A network that loses a COMMIT, its answer, or anything else. The running engine recovers by itself.

use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use pgmend::{Engine, Error, Event, Observer, Outcome, RunOptions, RunState, UndoOptions};
use pgmend_testkit::{Cut, FaultProxy, Server, Sql};

use super::stage::{BARE, DELETE, FREEZE, HALVED, INSERT, STREAM, Shape, Stage, UNDO, UPSERT};
use super::{block_on, text};

/// Longer than anything that is waited for takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Statements of a run once it goes, in their order, and which of their kind to lose.
const WHILE_RUNNING: [(&str, u32); 7] = [
    ("pgmend.begin_batch", 2),
    ("pgmend.end_batch", 2),
    ("order by b.batch_no desc", 1),
    ("select count(*)", 1),
    ("pgmend.change_state", 1),
    ("pgmend.release_lease", 1),
    ("balance + 5", 3),
];
/// Statements before a run goes.
const WHILE_STARTING: [&str; 5] =
    ["pgmend.guardrails", "pgmend.start_run", "pgmend.acquire_lease", "pgmend.create_image_table", "pgmend.store_plan"];

#[test]
fn a_lost_commit_is_made_again() {
    cut_at_commits(&Cut::BeforeCommit);
}

#[test]
fn a_commit_whose_answer_is_lost_is_not_made_again() {
    cut_at_commits(&Cut::AfterCommit);
}

fn cut_at_commits(cut: &Cut) {
    for nth in [1, 2, 5] {
        cut_once_running(STREAM, cut, nth).unwrap_or_else(|failure| panic!("commit {nth}: {failure}"));
        cut_once_running(HALVED, cut, nth).unwrap_or_else(|failure| panic!("halves, commit {nth}: {failure}"));
    }
    for shape in [BARE, FREEZE, DELETE, UPSERT, INSERT, UNDO] {
        cut_once_running(shape, cut, 2).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_connection_lost_at_any_statement_of_a_run_is_recovered_from() {
    let mut failures = Vec::new();
    for (statement, nth) in WHILE_RUNNING {
        if let Err(failure) = cut_once_running(STREAM, &Cut::BeforeStatement(statement.to_owned()), nth) {
            failures.push(format!("{statement}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_connection_lost_while_a_run_starts_leaves_a_run_that_can_be_started_again() {
    let stage = Stage::new(STREAM, 40, 8);
    for statement in WHILE_STARTING {
        stage.reset().expect("the tables are created");
        block_on(async { Engine::connect(Some(&stage.database.url())).await?.init().await }).expect("it is installed");
        let proxy = Arc::new(FaultProxy::start(&stage.database.url()).expect("a proxy starts"));
        proxy.cut(Cut::BeforeStatement(statement.to_owned()));
        let first = block_on(through(&proxy, &stage, |_| ()));
        assert_eq!(proxy.cuts(), 1, "{statement}: {first:?}");
        if first.is_err() {
            stage.go_on().unwrap_or_else(|failure| panic!("{statement}: {failure}"));
        }
        stage.check().unwrap_or_else(|failure| panic!("{statement}: {failure}"));
    }
}

#[test]
fn a_connection_cut_in_the_middle_of_a_statement_is_recovered_from() {
    for shape in [STREAM, FREEZE] {
        let mut stage = Stage::new(shape, 40, 8);
        stage.file.limits.lock_timeout_ms = 20_000;
        let proxy = Arc::new(FaultProxy::start(&stage.database.url()).expect("a proxy starts"));
        let mut other = stage.sql();
        other.run("begin; select from account where id = 60 for update").expect("the row is locked");
        thread::scope(|scope| {
            let running = scope.spawn(|| block_on(through(&proxy, &stage, |_| ())));
            wait_for_lock(&stage);
            proxy.cut_now();
            sleep(Duration::from_millis(300));
            other.run("commit").expect("the lock is released");
            succeeded(running.join().expect("it does not panic")).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
        });
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

/// The worst of them: the server is still committing when the worker is back and reads the checkpoint, which
/// does not tell yet. Only the predecessor's lock keeps the batch from being made twice. A COMMIT whose deferred trigger
/// waits is such a one: everything is written, and it is neither visible nor over.
#[test]
fn a_commit_that_ends_after_the_worker_is_back_is_not_made_again() {
    let server = Server::start().expect("a server starts");
    for shape in [STREAM, HALVED, FREEZE] {
        let mut stage = Stage::on(&server, shape, 200, 2);
        let other = hold_commits(&mut stage);
        let proxy = Arc::new(FaultProxy::start(&stage.database.url()).expect("a proxy starts"));
        let url = stage.database.url();
        let listen = move |event: &Event| {
            if matches!(event, Event::Batch { batch_no: 12, .. }) {
                let mut sql = Sql::connect(&url).expect("the server is up");
                sql.run(&held_commits("true")).expect("the trigger is created");
            }
        };
        thread::scope(|scope| {
            let running = scope.spawn(|| block_on(through(&proxy, &stage, listen)));
            cut_while_it_commits(&proxy, &stage, other);
            succeeded(running.join().expect("it does not panic")).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
        });
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

/// Keeps every commit waiting that has changed a row of [`held_commits`], until the session goes.
fn hold_commits(stage: &mut Stage) -> Sql {
    stage.file.limits.lock_timeout_ms = 20_000;
    stage.file.limits.statement_timeout_ms = Some(20_000);
    // The server would end within seconds what nobody waits for any more.
    let patient = format!("alter database {} set client_connection_check_interval = '10min'", stage.database.name());
    stage.sql().run(&patient).expect("the setting is known");
    let mut other = stage.sql();
    other.run("select pg_advisory_lock(12)").expect("it is free");
    other
}

/// The trigger that waits in the commits of rows of which this is true.
fn held_commits(when: &str) -> String {
    format!(
        "create function wait() returns trigger language plpgsql as $$ begin
            perform pg_advisory_xact_lock_shared(12); return null; end $$;
         create constraint trigger wait after update on account deferrable initially deferred
            for each row when ({when}) execute function wait()"
    )
}

/// Cuts the connection of a commit that waits, and lets it end once the worker is back and waits for it in turn.
fn cut_while_it_commits(proxy: &FaultProxy, stage: &Stage, other: Sql) {
    let waiting = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    wait_for(&format!("select count(*) {waiting} and query like '%commit'"), stage);
    proxy.cut_now();
    wait_for(&format!("select (count(*) = 2)::int {waiting}"), stage);
    drop(other);
}

/// The same with the first batch, which has no predecessor to wait for: its own row under its key is what
/// keeps it from being made twice.
#[test]
fn a_first_commit_that_ends_after_the_worker_is_back_is_not_made_again() {
    let mut stage = Stage::new(Shape { mode: None, ..STREAM }, 40, 8);
    let other = hold_commits(&mut stage);
    stage.sql().run(&held_commits("new.id = 3")).expect("the trigger is created");
    let proxy = Arc::new(FaultProxy::start(&stage.database.url()).expect("a proxy starts"));
    thread::scope(|scope| {
        let running = scope.spawn(|| block_on(through(&proxy, &stage, |_| ())));
        cut_while_it_commits(&proxy, &stage, other);
        succeeded(running.join().expect("it does not panic")).expect("the run ends");
    });
    stage.check().expect("nothing is lost or doubled");
}

#[test]
fn a_network_that_swallows_everything_for_longer_than_the_lease_is_recovered_from() {
    let stage = Stage::new(STREAM, 400, 2);
    let proxy = Arc::new(FaultProxy::start(&stage.database.url()).expect("a proxy starts"));
    let outage = Arc::clone(&proxy);
    let begin = move |event: &Event| {
        if matches!(event, Event::Batch { batch_no: 5, .. }) {
            // From here on, before the run can get any further.
            outage.freeze();
            let outage = Arc::clone(&outage);
            thread::spawn(move || {
                sleep(Duration::from_millis(3_500));
                outage.thaw();
            });
        }
    };
    succeeded(block_on(through(&proxy, &stage, begin))).expect("the run ends");
    stage.check().expect("nothing is lost or doubled");
}

/// Where matches are rare their search goes ahead of the checkpoint, window by window. A commit whose answer is lost has
/// gone past that, and what was skipped before it must not be where the next batch begins.
#[test]
fn a_commit_whose_answer_is_lost_behind_rows_without_a_match_is_not_made_again() {
    let mut stage = Stage::new(BARE, 1, 8);
    stage
        .sql()
        .run(
            "create table event (id int primary key, seen int not null default 0);
             insert into event select n from generate_series(1, 300100) n; analyze event;
             create function wanted(id int) returns boolean language plpgsql immutable parallel unsafe as $$ begin
                if id % 50000 = 0 then perform pg_sleep(0.5); end if; return id > 300000; end $$",
        )
        .expect("the table is created");
    stage.shape.statement = "update event set seen = seen + 1 where wanted(id)";
    stage.file.limits.statement_timeout_ms = Some(2_000);
    let proxy = Arc::new(FaultProxy::start(&stage.database.url()).expect("a proxy starts"));
    let (cutting, retried) = (Arc::clone(&proxy), Arc::new(Mutex::new(0)));
    let retries = Arc::clone(&retried);
    let listen = move |event: &Event| {
        if let Event::Started { .. } = event {
            cutting.cut(Cut::AfterCommit);
        } else if let Event::Retrying { .. } = event {
            *retries.lock().expect("nobody panics holding it") += 1;
        }
    };
    let ended = block_on(through(&proxy, &stage, listen));
    // A machine that stalls may run into the timeout of a window, too.
    assert!(proxy.cuts() == 1 && *retried.lock().expect("nobody panics holding it") >= 1, "{ended:?}");
    succeeded(ended).expect("the run ends");
    let seen = stage.sql().value("select string_agg(distinct seen::text, ' ') from event where id > 300000");
    assert_eq!(seen.expect("it answers").as_deref(), Some("1"));
}

/// What a lost COMMIT changed counts among the rows of the command, and what none changed does not.
#[test]
fn a_slice_has_as_many_rows_as_asked_whatever_becomes_of_a_commit() {
    for shape in [STREAM, FREEZE] {
        for (cut, nth) in [(Cut::BeforeCommit, 2), (Cut::AfterCommit, 2), (Cut::AfterCommit, 3)] {
            let mut stage = Stage::new(shape, 60, 8);
            stage.file.pace.rows_max = Some(20);
            let ended = cut_once(&stage, &cut, nth).expect("one cut").expect("a slice");
            let reason = "stopped after 20 rows, as asked".to_owned();
            assert_eq!((ended.changed_rows, ended.state), (20, RunState::Paused { reason }), "{} {cut:?}", shape.name);
        }
    }
}

/// Runs a shape through a proxy that cuts once, counted from when the run goes.
fn cut_once_running(shape: Shape, cut: &Cut, nth: u32) -> Result<(), String> {
    let stage = Stage::new(shape, 60, 8);
    succeeded(cut_once(&stage, cut, nth)?)?;
    stage.check()
}

/// The same with a stage's errand: how it ended.
fn cut_once(stage: &Stage, cut: &Cut, nth: u32) -> Result<Result<Outcome, Error>, String> {
    let proxy = Arc::new(FaultProxy::start(&stage.database.url()).map_err(text)?);
    let (cutting, cut) = (Arc::clone(&proxy), cut.clone());
    let retried = Arc::new(Mutex::new(0));
    let retries = Arc::clone(&retried);
    let listen = move |event: &Event| {
        if let Event::Started { .. } = event {
            cutting.cut_at(cut.clone(), nth);
        } else if let Event::Retrying { .. } = event {
            *retries.lock().expect("nobody panics holding it") += 1;
        }
    };
    let ended = block_on(through(&proxy, stage, listen));
    match proxy.cuts() {
        1 => Ok(ended),
        _ => Err(format!("no cut: {:?}", succeeded(ended))),
    }
}

/// Runs the stage's errand through a proxy, in this process.
async fn through(
    proxy: &FaultProxy,
    stage: &Stage,
    listen: impl FnMut(&Event) + Send + 'static,
) -> Result<Outcome, Error> {
    by_way_of(&proxy.url(), stage, listen).await
}

/// Runs the stage's errand over a connection to this URL, in this process.
pub async fn by_way_of(
    url: &str,
    stage: &Stage,
    listen: impl FnMut(&Event) + Send + 'static,
) -> Result<Outcome, Error> {
    let errand = stage.errand();
    let mut observer = Observer::new(listen);
    let mut engine = Box::pin(Engine::connect(Some(url))).await?;
    if errand.undo {
        return Box::pin(engine.undo(&errand.job, &UndoOptions::default(), &mut observer)).await;
    }
    Box::pin(engine.run(&errand.job(), &RunOptions::default(), &mut observer)).await
}

/// Whether a run has succeeded; what it says otherwise.
pub fn succeeded(ended: Result<Outcome, Error>) -> Result<(), String> {
    match ended {
        Ok(outcome) if outcome.state == RunState::Succeeded => Ok(()),
        Ok(outcome) => Err(format!("the run ended as {:?}", outcome.state)),
        Err(error) => Err(text(error)),
    }
}

/// Waits until somebody waits for a row of `account`.
pub fn wait_for_lock(stage: &Stage) {
    wait_for(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() \
         and query like '%account%'",
        stage,
    );
}

/// Waits until this counts one at least.
pub fn wait_for(count: &str, stage: &Stage) {
    let mut sql = stage.sql();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if sql.value(count).expect("the server is up").is_some_and(|n| n != "0") {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("it never came: {count}");
}
