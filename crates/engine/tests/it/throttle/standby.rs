//! A standby that replays nothing holds a run; one that was never in step does not.

use pgmend_testkit::{Server, Sql, Standby};

use super::stage::{Stage, job, until};

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
