//! Signals of the database itself, each crossed on a server of its own where it concerns the whole server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgmend::{Event, RunState};
use pgmend_testkit::Server;

use super::stage::{ROWS, Stage, block_on, job, until};

/// What a machine that stalls crosses by itself.
const QUIET: &str = "[throttle.signal.commit_latency]\noff = \"other tests\"\n";

/// One signal with limits that a test crosses, read ten times a second.
fn signal(name: &str, enter: f64, leave: f64) -> String {
    format!("[throttle.signal.{name}]\nenter = {enter}\nleave = {leave}\npoll_s = 0.1\nstale_s = 10\n")
}

fn server(settings: &[(&str, &str)]) -> Server {
    let mut options = pgmend_testkit::ServerOptions::new();
    for (name, value) in settings {
        options = options.setting(name, value);
    }
    options.start().expect("a server")
}

#[test]
fn a_slot_that_nobody_reads_holds_a_run_until_it_is_gone() {
    let own = server(&[]);
    let mut stage = Stage::on(&own);
    stage.sql.run("select pg_create_physical_replication_slot('stalled', true)").expect("a slot");
    stage.sql.run("create table noise as select repeat('x', 1000) from generate_series(1, 3000)").expect("some WAL");
    let mut running = stage.start(job(&signal("slot_wal", 1_000_000.0, 500_000.0)));
    let why = running.held();
    assert!(why.starts_with("slot wal ") && why.ends_with(" on slot stalled (inactive)"), "{why}");
    stage.sql.run("select pg_drop_replication_slot('stalled')").expect("the slot goes");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn half_of_what_slots_may_keep_is_the_limit_where_that_is_less() {
    let own = server(&[("max_slot_wal_keep_size", "2MB")]);
    let mut stage = Stage::on(&own);
    stage.sql.run("select pg_create_physical_replication_slot('stalled', true)").expect("a slot");
    stage.sql.run("create table noise as select repeat('x', 1000) from generate_series(1, 1500)").expect("some WAL");
    let mut running = stage.start(job("[throttle.signal.slot_wal]\npoll_s = 0.1\nstale_s = 10\n"));
    let why = running.held();
    assert!(why.contains("≥ 1 MiB on slot stalled"), "{why}");
    stage.sql.run("select pg_drop_replication_slot('stalled')").expect("the slot goes");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn an_archiver_that_fails_holds_a_run_until_it_archives_again() {
    let own = server(&[("archive_mode", "on"), ("archive_command", "false")]);
    let mut stage = Stage::on(&own);
    let segment = "create table if not exists noise (n int); insert into noise values (1); select pg_switch_wal()";
    for _ in 0..3 {
        stage.sql.run(segment).expect("a segment");
    }
    until("an attempt failed", || stage.number("select failed_count from pg_stat_archiver") > 0);
    let limits = signal("archive_failing", 1.0, 0.0) + &signal("archive_queue", 3.0, 0.0);
    let mut running = stage.start(job(&limits));
    let why = running.held();
    assert!(why.contains("archive queue 3 segments ≥ 3; the archiver fails on 0000"), "{why}");
    stage.sql.run("alter system set archive_command = 'true'").expect("a superuser");
    stage.sql.run("select pg_reload_conf()").expect("a superuser");
    stage.sql.run(segment).expect("the archiver wakes up");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn sessions_that_wait_for_our_locks_hold_a_run_until_they_are_through() {
    let mut stage = Stage::new();
    stage.slow();
    let mut running = stage.start(job(&signal("waiting_on_us", 2.0, 0.0)));
    // Over and over, in the order of the run: whichever batch is looked at, they wait for it.
    let seen = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (0..3)
        .map(|_| {
            let (mut other, seen) = (stage.db.sql().expect("a session"), Arc::clone(&seen));
            std::thread::spawn(move || {
                while !seen.load(Ordering::Relaxed) {
                    other.run("select from item where id % 100 = 1 order by id for update").expect("it got its rows");
                    std::thread::sleep(Duration::from_millis(10));
                }
            })
        })
        .collect();
    let why = running.held();
    assert!(why.starts_with("waiting on us ") && why.contains(" on pid "), "{why}");
    seen.store(true, Ordering::Relaxed);
    for other in others {
        other.join().expect("it does not panic");
    }
    stage.quick();
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn an_old_snapshot_of_somebody_else_holds_a_run_until_it_ends() {
    let own = server(&[]);
    let mut stage = Stage::on(&own);
    let mut reader = stage.db.sql().expect("a session");
    reader.run("begin isolation level repeatable read; select count(*) from item").expect("a snapshot");
    std::thread::sleep(Duration::from_millis(1_100));
    let mut job = job("");
    job.file = pgmend::JobFile::parse(&(signal("oldest_snapshot", 1.0, 0.5) + QUIET)).expect("a job file");
    let mut running = stage.start(job);
    let why = running.held();
    assert!(why.contains("≥ 1 s on pid") && why.contains("pgmend-testkit of postgres"), "{why}");
    reader.run("commit").expect("the snapshot goes");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn dead_rows_hold_a_run_until_vacuum_has_been_there() {
    let mut stage = Stage::new();
    stage
        .sql
        .run(
            "alter table item set (autovacuum_enabled = false);
             create table filler as select 1;
             do $$ begin for i in 1..8 loop update item set label = label; end loop; end $$",
        )
        .expect("dead rows");
    // Statistics of a session that goes are told at once, on every version.
    stage.sql = stage.db.sql().expect("a session");
    let dead = "select coalesce(sum(n_dead_tup), 0) from pg_stat_all_tables where relid = 'item'::regclass";
    until("the statistics know", || stage.number(dead) >= 10_000);
    let mut running = stage.start(job(&signal("dead_tuples", 0.5, 0.4)));
    let why = running.held();
    assert!(why.starts_with("dead tuples ") && why.contains(" dead rows"), "{why}");
    stage.sql.run("vacuum item").expect("it is ours");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn a_vacuum_of_the_target_holds_a_run_that_asks_for_it() {
    let mut stage = Stage::new();
    // A hundred pages and more: at a fifth of a second each, the vacuum outlasts all of this.
    let clean = "alter table item set (autovacuum_enabled = false);
                 do $$ begin for i in 1..10 loop update item set label = label; end loop; end $$";
    stage.sql.run(clean).expect("something to clean");
    let mut vacuum = stage.db.sql().expect("a session");
    vacuum
        .run("set vacuum_cost_delay = 100; set vacuum_cost_limit = 1; set vacuum_cost_page_hit = 10")
        .expect("settings");
    vacuum.send("vacuum item").expect("it is sent");
    until("vacuum is at it", || {
        stage.number("select count(*) from pg_stat_progress_vacuum where datname = current_database()") > 0
    });
    let mut running = stage.start(job(&signal("vacuum", 1.0, 0.0)));
    let why = running.held();
    assert!(why.starts_with("a vacuum runs on item (pid "), "{why}");
    let cancel = format!("select pg_cancel_backend({})", vacuum.backend_pid());
    stage.sql.run(&cancel).expect("a superuser");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn busy_cores_hold_a_run_until_they_are_free() {
    let own = server(&[]);
    let mut stage = Stage::on(&own);
    let mut busy = stage.db.sql().expect("a session");
    busy.send("select count(*) from generate_series(1, 2000000000)").expect("it is sent");
    let text = format!("[throttle]\ncores = 1\n{}{QUIET}", signal("active_sessions", 0.5, 0.2));
    let mut job = job("");
    job.file = pgmend::JobFile::parse(&text).expect("a job file");
    let mut running = stage.start(job);
    let why = running.held();
    assert!(why.starts_with("active sessions ") && why.contains("per core ≥ 0.5 on 1 cores"), "{why}");
    let cancel = format!("select pg_cancel_backend({})", busy.backend_pid());
    stage.sql.run(&cancel).expect("a superuser");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn checkpoints_that_crowd_hold_a_run() {
    let own = server(&[]);
    let mut stage = Stage::on(&own);
    let limits = signal("checkpoints", 0.3, 0.1);
    let mut running = stage.start(job(&format!("[throttle]\nhold_max_s = 60\n{LEVEL}{limits}")));
    // The first reading is where counting begins.
    running.held();
    for _ in 0..3 {
        stage.sql.run("checkpoint").expect("a superuser");
    }
    let crowded = running.wait_for("crowd of checkpoints", |event| {
        matches!(event, Event::Holding { reasons, .. } if reasons.iter().any(|reason| reason.signal == "checkpoints"))
    });
    let Event::Holding { reasons, .. } = crowded else { panic!("{crowded:?}") };
    // Within five minutes; the look may have come when only two of them were done.
    let counted = [2, 3].map(|seen| format!("checkpoints 0.{} a minute ≥ 0.3", seen * 2));
    assert!(counted.contains(&reasons[0].text), "{}", reasons[0].text);
    block_on(async {
        let mut engine = pgmend::Engine::connect(Some(&stage.db.url())).await.expect("a connection");
        engine.pause("relabel", "it was seen").await.expect("a pause");
    });
    let stopped = running.end();
    assert!(matches!(stopped.state, RunState::Paused { .. }), "{stopped:?}");
}

/// Holds from the start, so that another signal has the time to.
const LEVEL: &str = "[[throttle.sql]]\nname = \"level\"\nquery = \"select 2\"\nenter = 1\npoll_s = 0.1\nstale_s = 10\n";

#[test]
fn much_wal_holds_a_run_that_limits_it_until_it_is_less() {
    let own = server(&[]);
    let mut stage = Stage::on(&own);
    stage.slow_by(2.0);
    let mut running = stage.start(job(&signal("wal_rate", 2_000_000.0, 1_000_000.0)));
    running.wait_for("start", |event| matches!(event, Event::Started { .. }));
    let (mut noise, quiet) = (stage.db.sql().expect("a session"), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&quiet);
    let writing = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            noise
                .run("create table noise as select repeat('x', 1000) from generate_series(1, 10000); drop table noise")
                .expect("much WAL");
        }
    });
    let why = running.held();
    assert!(why.starts_with("wal rate ") && why.contains("/s ≥ 1.9 MiB/s"), "{why}");
    quiet.store(true, Ordering::Relaxed);
    writing.join().expect("it does not panic");
    stage.quick();
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

/// A server that keeps the COMMIT of every heartbeat for a second, by a trigger that waits till then: `commit_delay` is a
/// tenth at most, which a busy machine takes without it. Batches renew no lease, and do not wait.
#[test]
fn slow_commits_hold_a_run_until_they_are_fast_again() {
    let mut stage = Stage::new();
    block_on(async { pgmend::Engine::connect(Some(&stage.db.url())).await?.init().await }).expect("it is installed");
    stage
        .sql
        .run(
            "create function late() returns trigger language plpgsql as 'begin perform pg_sleep(1); return null; end';
             create constraint trigger late after update on pgmend.lease deferrable initially deferred
                 for each row execute function late()",
        )
        .expect("slow commits");
    stage.slow();
    let mut job = job(&signal("commit_latency", 800.0, 600.0));
    // A heartbeat every two seconds, each of which may take as long.
    job.file.limits.lease_seconds = 12;
    let mut running = stage.start(job);
    let why = running.held();
    assert!(why.starts_with("commit latency ") && why.contains(" ms ≥ 800 ms"), "{why}");
    assert!(stage.changed() < ROWS, "it held in time");
    stage.sql.run("drop trigger late on pgmend.lease").expect("commits are fast again");
    stage.quick();
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn the_loss_of_the_samplers_connection_disturbs_nobody() {
    let mut stage = Stage::new();
    // Forty seconds, in which it is cut three times.
    stage.slow_by(2.0);
    let mut running = stage.start(job(&signal("replay_lag", 10.0, 5.0)));
    let sampler = "from pg_stat_activity where datname = current_database() and application_name = 'pgmend' \
                   and state = 'idle' and query = 'rollback' order by backend_start desc limit 1";
    running.batches(2);
    let mut cut = 0;
    until("it was cut three times", || {
        cut += stage.number(&format!("select count(pg_terminate_backend(pid)) from (select pid {sampler}) as s"));
        std::thread::sleep(Duration::from_millis(300));
        cut >= 3
    });
    stage.quick();
    let outcome = running.end();
    assert_eq!((outcome.changed_rows, stage.changed()), (ROWS, ROWS));
}

#[test]
fn a_role_without_rights_is_told_what_cannot_be_read_and_runs() {
    let mut stage = Stage::new();
    let role = stage.db.create_role("plain", "").expect("a role");
    stage
        .sql
        .run(&format!("alter table item owner to {role}; grant create on database {} to {role}", stage.db.name()))
        .expect("rights");
    let url = stage.db.url_for(&role);
    let surveyed = block_on(async {
        let mut engine = pgmend::Engine::connect(Some(&url)).await.expect("a connection");
        engine.init().await.expect("the control schema");
        let planned = Box::pin(engine.plan(&job(""), &pgmend::PlanOptions::default())).await.expect("a plan");
        let options = pgmend::RunOptions::default();
        let outcome = Box::pin(engine.run(&job(""), &options, &mut pgmend::Observer::silent())).await;
        assert_eq!(outcome.expect("a run").changed_rows, ROWS);
        planned.signals
    });
    let unreadable: Vec<&str> =
        surveyed.iter().filter(|s| s.unreadable.is_some()).map(|s| s.signal.name.as_str()).collect();
    assert_eq!(unreadable, ["archive_queue"]);
    assert_eq!(stage.number("select count(*) from pgmend.hold"), 0);
}

/// What a copy of a database, a crash and a failover have in common: the statistics know of the new dead rows alone.
#[test]
fn dead_rows_are_a_share_of_the_table_also_where_the_statistics_forgot_its_live_rows() {
    let mut stage = Stage::new();
    stage
        .sql
        .run(
            "create table large (id int primary key, flag bool) with (autovacuum_enabled = false);
             insert into large select generate_series(1, 40000); analyze large",
        )
        .expect("a large table");
    // What the session counted itself is told when it goes, and would come after the reset.
    stage.sql = stage.db.sql().expect("a session");
    let live = "select n_live_tup from pg_stat_all_tables where relid = 'large'::regclass";
    until("the statistics know", || stage.number(live) == 40_000);
    stage.sql.run("select pg_stat_reset_single_table_counters('large'::regclass)").expect("it is ours");
    until("the statistics forget", || stage.number(live) == 0);
    stage.sql.run("update large set flag = true where id <= 10000").expect("dead rows");
    stage.sql = stage.db.sql().expect("a session");
    let dead = "select n_dead_tup from pg_stat_all_tables where relid = 'large'::regclass";
    until("the statistics know", || stage.number(dead) == 10_000);
    let share = block_on(async {
        let mut engine = pgmend::Engine::connect(Some(&stage.db.url())).await?;
        let job = pgmend::Job::from_statement("large", "update large set flag = false");
        let planned = engine.plan(&job, &pgmend::PlanOptions::default()).await?;
        let signal = planned.signals.into_iter().find(|s| s.signal.name == "dead_tuples");
        Ok::<_, pgmend::Error>(signal.and_then(|s| s.value))
    });
    assert_eq!(share.expect("a plan"), Some(0.2));
}
