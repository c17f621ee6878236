//! What stands in a run's way until somebody clears it: timeouts, a full disk, rights that are gone, rows that
//! cannot be changed. The run makes what it can, says what is in the way, and goes on when told to.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

use pgmend::{Engine, Event, Observer, Outcome, RunState};
use pgmend_testkit::Sql;

use super::network::{PATIENCE, succeeded, wait_for, wait_for_lock};
use super::stage::{DELETE, FREEZE, STREAM, Shape, Stage};
use super::{block_on, run};

/// Runs in this process, and keeps the sizes of its batches.
fn run_watched(stage: &Stage) -> (Result<Outcome, pgmend::Error>, Vec<i64>) {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&sizes);
    let mut observer = Observer::new(move |event| {
        if let Event::Batch { rows, .. } = event {
            heard.lock().expect("nobody panics holding it").push(*rows);
        }
    });
    let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
    let sizes = sizes.lock().expect("nobody panics holding it").clone();
    (ended, sizes)
}

fn run_silently(stage: &Stage) -> Result<Outcome, pgmend::Error> {
    block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent()))
}

/// A trigger that does this for each row changed.
fn trigger(stage: &Stage, body: &str) {
    let sql = format!(
        "create function obstacle() returns trigger language plpgsql as $$ begin {body} return coalesce(new, old); end $$;
         create trigger obstacle before update or delete on account for each row execute function obstacle()"
    );
    stage.sql().run(&sql).expect("the trigger is created");
}

#[test]
fn a_batch_that_runs_into_its_timeout_is_made_smaller() {
    let mut stage = Stage::new(STREAM, 16, 12);
    stage.file.limits.statement_timeout_ms = Some(2_000);
    trigger(&stage, "perform pg_sleep(0.25);");
    let (ended, sizes) = run_watched(&stage);
    succeeded(ended).expect("the run ends");
    assert!(sizes.iter().all(|rows| *rows < 8) && sizes.len() > 1, "{sizes:?}");
    stage.file.limits.statement_timeout_ms = None;
    stage.check().expect("nothing is lost or doubled");
}

/// Stops a run with an error of the server's, and lets it go on.
fn pauses_until_cleared(shape: Shape, sqlstate: &str, wanted: &str) {
    let stage = Stage::new(shape, 40, 8);
    stage.sql().run("create table here (is_it int); insert into here values (1)").expect("the obstacle is there");
    trigger(
        &stage,
        &format!(
            "if old.id = 60 and exists (select from here) then raise exception using errcode = '{sqlstate}', \
             message = 'in the way'; end if;"
        ),
    );
    let stopped = run_silently(&stage).expect("it stops");
    assert_eq!(stopped.state.name(), wanted, "{sqlstate}: {stopped:?}");
    let why = format!("{:?}", stopped.state);
    assert!(why.contains("function obstacle() raised an error") && !why.contains("in the way"), "{stopped:?}");
    assert!(
        wanted == "paused" || why.contains(" at the first matching row after ") || why.contains(" at row n = "),
        "{why}"
    );
    let free = stage.sql().value("select expires_at = '-infinity' from pgmend.lease").expect("it answers");
    assert_eq!(free.as_deref(), Some("t"), "{sqlstate}: nobody need wait for the lease");
    stage.sql().run("truncate here").expect("the obstacle is cleared");
    let again = run_silently(&stage);
    assert!(again.as_ref().is_ok_and(|outcome| outcome.resumed), "{again:?}");
    succeeded(again).and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{sqlstate}: {failure}"));
}

#[test]
fn a_full_disk_pauses_a_run_until_there_is_room() {
    for shape in [STREAM, FREEZE] {
        pauses_until_cleared(shape, "53100", "paused");
    }
}

#[test]
fn a_row_that_cannot_be_changed_fails_a_run_that_goes_on_once_it_can() {
    for shape in [STREAM, FREEZE, DELETE] {
        for sqlstate in ["23514", "P0001"] {
            pauses_until_cleared(shape, sqlstate, "failed");
        }
    }
}

/// A COMMIT can fail although every statement before it did not.
#[test]
fn a_commit_that_the_server_refuses_is_no_success() {
    let stage = Stage::new(Shape { mode: None, ..STREAM }, 40, 8);
    stage
        .sql()
        .run(
            "create function refuse() returns trigger language plpgsql as $$ begin
                raise exception using errcode = '23514', message = 'in the way'; end $$;
             create constraint trigger refuse after update on account deferrable initially deferred
                for each row when (new.id = 60) execute function refuse()",
        )
        .expect("the trigger is created");
    let stopped = run_silently(&stage).expect("it stops");
    assert!(
        matches!(&stopped.state, RunState::Failed { failure } if failure.contains("refuse() raised an error")),
        "{stopped:?}"
    );
    let changed = stage.sql().value("select count(*) from account where balance % 10 = 5").expect("it answers");
    assert_eq!((changed.as_deref(), stopped.changed_rows, stopped.batches), (Some("0"), 0, 0));
    stage
        .sql()
        .run("create or replace function refuse() returns trigger language plpgsql as $$ begin return null; end $$")
        .expect("the obstacle is cleared");
    succeeded(run_silently(&stage)).and_then(|()| stage.check()).expect("nothing is lost or doubled");
}

#[test]
fn a_deadlock_that_never_ends_pauses_the_run() {
    let mut stage = Stage::new(STREAM, 20, 1);
    stage.file.limits.batch_rows = Some(1);
    stage.sql().run("create table here (is_it int); insert into here values (1)").expect("the obstacle is there");
    trigger(
        &stage,
        "if old.id = 30 and exists (select from here) then raise exception using errcode = '40P01'; end if;",
    );
    let stopped = run_silently(&stage).expect("it stops");
    assert!(matches!(&stopped.state, RunState::Paused { reason } if reason.contains("40P01")), "{stopped:?}");
    stage.sql().run("truncate here").expect("the obstacle is cleared");
    succeeded(run_silently(&stage)).and_then(|()| stage.check()).expect("nothing is lost or doubled");
}

#[test]
fn a_run_whose_statement_or_session_somebody_ends_makes_the_batch_again() {
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        for shape in [STREAM, FREEZE] {
            let mut stage = Stage::new(shape, 40, 8);
            stage.file.limits.lock_timeout_ms = 20_000;
            let mut other = stage.sql();
            other.run("begin; select from account where id = 60 for update").expect("the row is locked");
            thread::scope(|scope| {
                let running = scope.spawn(|| run_silently(&stage));
                wait_for_lock(&stage);
                let victims = format!(
                    "select {end}(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
                );
                stage.sql().run(&victims).expect("it is the superuser");
                sleep(Duration::from_millis(200));
                other.run("commit").expect("the lock is released");
                let ended = running.join().expect("it does not panic");
                succeeded(ended).unwrap_or_else(|failure| panic!("{end}, {}: {failure}", shape.name));
            });
            stage.check().unwrap_or_else(|failure| panic!("{end}, {}: {failure}", shape.name));
        }
    }
}

#[test]
fn a_heartbeat_that_somebody_ends_comes_back_and_keeps_the_lease() {
    let mut stage = Stage::new(STREAM, 60, 2);
    stage.file.limits.lock_timeout_ms = 20_000;
    let mut other = stage.sql();
    other.run("begin; select from account where id = 60 for update").expect("the row is locked");
    thread::scope(|scope| {
        let running = scope.spawn(|| run_silently(&stage));
        wait_for_lock(&stage);
        let beating = "datname = current_database() and query like '%pgmend.heartbeat%' and pid <> pg_backend_pid()";
        wait_for(&format!("select count(*) from pg_stat_activity where {beating}"), &stage);
        let before = stage.sql().value("select heartbeat_at from pgmend.lease").expect("it answers").expect("a lease");
        stage
            .sql()
            .run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {beating}"))
            .expect("it is the superuser");
        let later = format!("heartbeat_at > timestamptz '{before}' + interval '1 s'");
        wait_for(&format!("select count(*) from pgmend.lease where {later}"), &stage);
        other.run("commit").expect("the lock is released");
        succeeded(running.join().expect("it does not panic")).expect("the run ends");
    });
    stage.check().expect("nothing is lost or doubled");
}

/// A role that may do what a run needs, and nothing else.
fn runner(stage: &Stage) -> String {
    let role = stage.database.create_role("runner", "").expect("a role is created");
    block_on(async { Engine::connect(Some(&stage.database.url())).await?.init().await }).expect("it is installed");
    let grants = format!(
        "grant pgmend_runner to {role}; grant usage on schema public to {role}; grant select, update on account to {role}"
    );
    stage.sql().run(&grants).expect("it is the superuser");
    role
}

/// An application that takes every connection is no reason to give a run up; and a role without any further rights
/// can run and recover.
#[test]
fn a_run_that_finds_no_free_connection_waits_for_one() {
    let stage = Stage::new(STREAM, 60, 2);
    let role = runner(&stage);
    let (url, limited) = (stage.database.url(), role.clone());
    let (refused, heard) = channel();
    let mut heard = Some(heard);
    let mut observer = Observer::new(move |event| {
        if let Event::Batch { batch_no: 5, .. } = event {
            let mut sql = Sql::connect(&url).expect("the server is up");
            sql.run(&format!(
                "alter role {limited} connection limit 0;
                 select pg_terminate_backend(pid) from pg_stat_activity where usename = '{limited}'"
            ))
            .expect("it is the superuser");
            let limited = limited.clone();
            let heard = heard.take().expect("batch 5 is made once: nothing of it is lost");
            thread::spawn(move || {
                heard.recv_timeout(PATIENCE).expect("it is told that there are too many");
                sql.run(&format!("alter role {limited} connection limit -1")).expect("it is the superuser");
            });
        }
        if matches!(event, Event::Retrying { error, .. } if error.contains("too many connections")) {
            // Once is enough; nobody listens after that.
            let _ = refused.send(());
        }
    });
    let ended = block_on(run(&stage.database.url_for(&role), &stage.errand().job(), &mut observer));
    succeeded(ended).expect("the run ends");
    stage.check().expect("nothing is lost or doubled");
}

#[test]
fn a_right_that_is_taken_away_pauses_a_run_until_it_is_given_back() {
    let stage = Stage::new(STREAM, 60, 2);
    let role = runner(&stage);
    let (url, revoke) = (stage.database.url(), format!("revoke update on account from {role}"));
    let mut observer = Observer::new(move |event| {
        if let Event::Batch { batch_no: 5, .. } = event {
            Sql::connect(&url).and_then(|mut sql| sql.run(&revoke)).expect("it is the superuser");
        }
    });
    let url = stage.database.url_for(&role);
    let stopped = block_on(run(&url, &stage.errand().job(), &mut observer)).expect("it stops");
    assert!(matches!(&stopped.state, RunState::Paused { reason } if reason.contains("42501")), "{stopped:?}");
    stage.sql().run(&format!("grant update on account to {role}")).expect("it is the superuser");
    let ended = block_on(run(&url, &stage.errand().job(), &mut Observer::silent()));
    succeeded(ended).and_then(|()| stage.check()).expect("nothing is lost or doubled");
}
