//! Other sessions that want the same rows at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use pgmend::{Event, Observer, RunState};
use pgmend_testkit::Sql;

use super::kills::Moments;
use super::network::{succeeded, wait_for_lock};
use super::stage::{BARE, DELETE, FREEZE, STREAM, Shape, Stage};
use super::{block_on, each, run};

#[test]
fn a_row_locked_by_another_session_is_waited_out() {
    each(&[STREAM, FREEZE, DELETE], |shape| {
        let stage = Stage::new(shape, 40, 8);
        let mut other = stage.sql();
        other.run("begin; select from account where id = 60 for update").expect("the row is locked");
        let retried = Arc::new(AtomicI64::new(0));
        let heard = Arc::clone(&retried);
        let mut observer = Observer::new(move |event| {
            // Released after the second attempt.
            if matches!(event, Event::Retrying { .. }) && heard.fetch_add(1, Ordering::SeqCst) == 1 {
                other.run("commit").expect("the lock is released");
            }
        });
        let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
        assert!(retried.load(Ordering::SeqCst) > 1, "{}: the row was not in its way", shape.name);
        succeeded(ended).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    });
}

/// Nobody can say when the other session ends: the run pauses after a bounded number of attempts, and the same
/// command goes on.
#[test]
fn a_row_that_stays_locked_pauses_the_run() {
    each(&[STREAM, FREEZE], |shape| {
        let mut stage = Stage::new(shape, 40, 1);
        stage.file.limits.lock_timeout_ms = 50;
        let mut other = stage.sql();
        other.run("begin; select from account where id = 60 for update").expect("the row is locked");
        let stopped = block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent()));
        let stopped = stopped.expect("it stops");
        assert!(matches!(&stopped.state, RunState::Paused { reason } if reason.contains("55P03")), "{stopped:?}");
        assert!(stopped.changed_rows > 0, "what comes before the row is changed");
        other.run("commit").expect("the lock is released");
        stage.go_on().and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    });
}

/// The run waits for a row of the other session's, and the other session for one of the run's. Only the run looks
/// for deadlocks in time, and so it is the one to be ended by it. It looks once, and the other session waits by then.
#[test]
fn a_deadlock_that_ends_the_runs_batch_is_recovered_from() {
    each(&[STREAM, FREEZE, DELETE], |shape| {
        let mut stage = Stage::new(shape, 40, 20);
        stage.wait_for_rows();
        let later = format!("alter database {} set deadlock_timeout = '8s'", stage.database.name());
        stage.sql().run(&later).expect("it is the superuser");
        let mut other = stage.sql();
        other
            .run("set deadlock_timeout = '60s'; begin; update account set touched = touched where id = 60")
            .expect("the row is locked");
        let retried = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&retried);
        let mut observer = Observer::new(move |event| {
            if matches!(event, Event::Retrying { error, .. } if error.contains("deadlock")) {
                heard.store(true, Ordering::SeqCst);
            }
        });
        thread::scope(|scope| {
            let running = scope.spawn(|| block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer)));
            wait_for_lock(&stage);
            other.run("update account set touched = touched where id = 3; commit").expect("the run is the victim");
            let ended = running.join().expect("it does not panic");
            succeeded(ended).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        });
        assert!(retried.load(Ordering::SeqCst), "{}: there was no deadlock", shape.name);
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    });
}

#[test]
fn a_table_locked_at_the_end_of_a_run_is_waited_out() {
    let stage = Stage::new(STREAM, 40, 8);
    let url = stage.database.url();
    let mut locked = false;
    let mut observer = Observer::new(move |event| {
        // Once: the end is tried again, and tells so again.
        if matches!(event, Event::Sweeping { .. }) && !std::mem::replace(&mut locked, true) {
            let mut other = Sql::connect(&url).expect("the server is up");
            other.run("begin; lock table account in access exclusive mode").expect("the table is locked");
            thread::spawn(move || {
                sleep(Duration::from_millis(1_200));
                other.run("commit").expect("the lock is released");
            });
        }
    });
    succeeded(block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer))).expect("the run ends");
    stage.check().expect("nothing is lost or doubled");
}

/// Two sessions add to two rows at a time in any order, so that they deadlock with each other and with
/// the run. They add to a column of their own, or to the one that the run adds to.
#[test]
fn live_traffic_on_the_same_rows_loses_nothing_and_makes_the_run_lose_nothing() {
    beside_traffic(STREAM, "touched");
    beside_traffic(BARE, "balance");
    beside_traffic(STREAM, "balance");
}

#[test]
fn live_traffic_beside_a_frozen_run_loses_nothing() {
    beside_traffic(FREEZE, "touched");
}

fn beside_traffic(shape: Shape, column: &'static str) {
    let stage = Stage::new(shape, 300, 10);
    let (over, added) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let sessions: Vec<_> = (0..2)
        .map(|seed| {
            let (over, added, sql) = (Arc::clone(&over), Arc::clone(&added), stage.sql());
            thread::spawn(move || traffic(sql, column, seed, &over, &added))
        })
        .collect();
    while added.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(5));
    }
    let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent()));
    over.store(true, Ordering::SeqCst);
    sessions.into_iter().for_each(|session| session.join().expect("traffic does not fail"));
    succeeded(ended).unwrap_or_else(|failure| panic!("{} beside {column}: {failure}", shape.name));

    let mut sql = stage.sql();
    let mut number =
        |query: &str| -> i64 { sql.value(query).expect("it answers").and_then(|n| n.parse().ok()).unwrap_or_default() };
    let added = added.load(Ordering::SeqCst);
    let touched = number("select sum(touched) from account");
    let more = number("select (select sum(balance) from account) - (select sum(balance) from plain.account)");
    let (expected_touched, expected_more) = if column == "touched" { (added, 0) } else { (0, added) };
    assert_eq!(touched, expected_touched, "{}: what traffic added to its own column", shape.name);
    assert_eq!(more, expected_more, "{}: what traffic added to the run's column", shape.name);
    stage.audit().unwrap_or_else(|failure| panic!("{} beside {column}: {failure}", shape.name));
}

fn traffic(mut sql: Sql, column: &str, seed: u64, over: &AtomicBool, added: &AtomicI64) {
    let mut moments = Moments(seed + 100);
    while !over.load(Ordering::SeqCst) {
        let (one, two) = (3 * (1 + moments.below(300)), 3 * (1 + moments.below(300)));
        let add = |id: u32| format!("update account set {column} = {column} + 1 where id = {id};");
        match sql.run(&format!("begin; {} {} commit", add(one), add(two))) {
            Ok(_) => {
                added.fetch_add(2, Ordering::SeqCst);
            }
            // The deadlock's victim: nothing of it was written.
            Err(error) if error.sqlstate == "40P01" => {
                sql.run("rollback").expect("it rolls back");
            }
            Err(error) => panic!("{error}"),
        }
        // Room for the run to get through as well.
        sleep(Duration::from_millis(u64::from(moments.below(4))));
    }
}

#[test]
fn rows_that_arrive_beyond_the_upper_bound_are_reported_and_not_chased() {
    let stage = Stage::new(STREAM, 60, 4);
    let url = stage.database.url();
    let mut observer = Observer::new(move |event| {
        if let Event::Batch { batch_no, .. } = event {
            let mut other = Sql::connect(&url).expect("the server is up");
            let arrival = format!("insert into account values ({}, 1, 1000)", 1_000 + batch_no);
            other.run(&arrival).expect("the row is inserted");
        }
    });
    let outcome = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer)).expect("the run ends");
    let mut sql = stage.sql();
    let arrived = sql.value("select count(*) from account where id > 1000").expect("it answers");
    assert_eq!(outcome.arrived_later_rows.map(|n| n.to_string()), arrived, "{outcome:?}");
    let chased = sql.value("select count(*) from account where id > 1000 and balance <> 1000").expect("it answers");
    assert_eq!(chased.as_deref(), Some("0"));
    sql.run("delete from account where id > 1000").expect("they are deleted");
    stage.check().expect("nothing is lost or doubled");
}
