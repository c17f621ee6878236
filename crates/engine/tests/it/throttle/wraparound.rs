//! A vacuum that the server itself begins because the target's rows are about to be older than transaction numbers
//! allow. It is not to be raced.

use pgmend_testkit::ServerOptions;

use super::stage::{Stage, job, until};

/// Transactions after which the server insists on it: the least that it can be set to.
const AGE: u32 = 100_000;

#[test]
fn a_vacuum_that_prevents_wraparound_holds_a_run_until_it_is_done() {
    let own = ServerOptions::new()
        .setting("autovacuum_freeze_max_age", &AGE.to_string())
        .setting("autovacuum_naptime", "1s")
        .start()
        .expect("a server");
    let mut stage = Stage::on(&own);
    // A hundred pages and more, of which it cleans two or three in a second; no other vacuum touches the table.
    stage
        .sql
        .run(
            "alter table item set (autovacuum_enabled = false, autovacuum_vacuum_cost_delay = 100,
                                   autovacuum_vacuum_cost_limit = 1);
             do $$ begin for i in 1..10 loop update item set label = label; end loop; end $$",
        )
        .expect("pages to clean");
    // Each pass through the block is a transaction number of its own.
    let burn = format!(
        "create temp table burnt (n int);
         do $$ begin for i in 1..{AGE} + 1000 loop
            begin insert into burnt values (i); exception when unique_violation then null; end;
         end loop; end $$"
    );
    stage.sql.run(&burn).expect("transactions pass");
    let preventing = "from pg_stat_activity where datname = current_database() and query like 'autovacuum: VACUUM%public.item (to prevent wraparound)'";
    until("the server has begun it", || stage.number(&format!("select count(*) {preventing}")) == 1);

    let limits = "[throttle.signal.vacuum]\nenter = 2\nleave = 1\npoll_s = 0.1\nstale_s = 10\n\
                  [throttle.signal.dead_tuples]\noff = \"they are what the vacuum is about\"\n";
    let mut running = stage.start(job(limits));
    let why = running.held();
    assert!(why.starts_with("a vacuum prevents wraparound on item (pid "), "{why}");
    assert_eq!(stage.changed(), 0);
    // The next attempt is quick: whoever alters the table gets it once the slow one is ended.
    let mut owner = stage.db.sql().expect("a session");
    owner.send("alter table item set (autovacuum_vacuum_cost_delay = 0)").expect("it is sent");
    until("the owner waits for it", || {
        stage.number(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'alter table%'",
        ) == 1
    });
    stage.sql.run(&format!("select pg_terminate_backend(pid) {preventing}")).expect("a superuser");
    owner.answer().expect("it is altered");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
    let age = "select age(relfrozenxid) from pg_class where oid = 'item'::regclass";
    until("the vacuum has got its way", || stage.number(age) < i64::from(AGE));
}
