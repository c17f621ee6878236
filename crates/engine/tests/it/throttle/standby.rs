//! Standbys that are slow: one that replays nothing, and one that every COMMIT has to wait for.

use pgmend_testkit::{Server, Sql, Standby};

use super::stage::{ROWS, Stage, job, until};

/// How much later than the primary the synchronous standby applies each commit, in milliseconds.
const LATE_MS: u32 = 1_000;

#[test]
fn a_slow_standby_holds_a_run_until_it_has_caught_up() {
    let primary = Server::start().expect("a server");
    let mut stage = Stage::on(&primary);
    let standby = Standby::follow(&primary).expect("a standby");
    standby.start().expect("it starts");
    until("it streams", || {
        stage.number("select count(*) from pg_stat_replication where state = 'streaming' and replay_lsn is not null")
            == 1
    });
    let mut replaying = Sql::connect(&standby.url(stage.db.name())).expect("the standby is up");
    until("it is in step", || replaying.value("select count(*) from item").is_ok_and(|n| n.as_deref() == Some("2000")));
    replaying.run("select pg_wal_replay_pause()").expect("a superuser");
    stage.sql.run("create table noise as select 1").expect("something to replay");
    let limits = "[throttle.signal.replay_lag]\nenter = 1\nleave = 0.5\npoll_s = 0.1\nstale_s = 10\n";
    stage.slow();
    let mut running = stage.start(job(limits));
    let why = running.held();
    assert!(why.starts_with("replay lag ") && why.ends_with(" on standby1"), "{why}");
    let before = stage.changed();
    assert!(before < 2_000, "it held in time");
    stage.quick();
    replaying.run("select pg_wal_replay_resume()").expect("a superuser");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

/// Batches do not wait for their commits, the heartbeat does: it is what tells that the application's commits wait.
#[test]
fn a_slow_synchronous_standby_holds_a_run_until_commits_are_fast_again() {
    let primary = Server::start().expect("a server");
    let standby = Standby::follow(&primary).expect("a standby");
    standby.start().expect("it starts");
    let mut stage = Stage::on(&primary);
    let mut applying = Sql::connect(&standby.url("postgres")).expect("the standby is up");
    let mut late = |ms: u32| {
        applying.run(&format!("alter system set recovery_min_apply_delay = {ms}")).expect("a superuser");
        applying.run("select pg_reload_conf()").expect("a superuser");
    };
    stage.sql.run("alter system set synchronous_standby_names = 'standby1'").expect("a superuser");
    stage.sql.run("alter system set synchronous_commit = 'remote_apply'").expect("a superuser");
    stage.sql.run("select pg_reload_conf()").expect("a superuser");
    until("commits wait for it", || {
        stage.number("select count(*) from pg_stat_replication where sync_state = 'sync' and state = 'streaming'") == 1
    });
    stage.slow();
    let limits = "[throttle.signal.commit_latency]\nenter = 800\nleave = 600\npoll_s = 0.1\nstale_s = 10\n";
    let mut job = job(limits);
    // A heartbeat every two seconds, each of which may take as long.
    job.file.limits.lease_seconds = 12;
    let mut running = stage.start(job);
    running.batches(1);
    late(LATE_MS);
    let why = running.held();
    assert!(why.starts_with("commit latency ") && why.ends_with(" ms ≥ 800 ms"), "{why}");
    assert!(stage.changed() < ROWS, "it held in time");
    late(0);
    running.released();
    stage.quick();
    let outcome = running.end();
    stage.check(&outcome);
}
