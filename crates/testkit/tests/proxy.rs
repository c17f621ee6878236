//! The proxy loses what it is told to lose, and nothing else.

use std::time::{Duration, Instant};

use pgmend_testkit::{CONNECTION_LOST, Cut, Database, FaultProxy, Server, Sql};

struct Bench {
    database: Database,
    proxy: FaultProxy,
}

impl Bench {
    fn new(hint: &str) -> Self {
        let database = Database::create(Server::shared(), hint).expect("a database");
        let mut sql = database.sql().expect("a session");
        sql.run("create table t (id int)").expect("it runs");
        let proxy = FaultProxy::start(&database.url()).expect("a proxy");
        Self { database, proxy }
    }

    fn through(&self) -> Sql {
        Sql::connect(&self.proxy.url()).expect("the proxy passes connections on")
    }

    fn rows(&self) -> Option<String> {
        let mut sql = self.database.sql().expect("a session beside the proxy");
        sql.value("select count(*) from t").expect("it answers")
    }
}

#[test]
fn a_cut_after_commit_leaves_the_row_and_an_error() {
    let bench = Bench::new("after_commit");
    bench.proxy.cut(Cut::AfterCommit);
    let mut sql = bench.through();
    sql.run("begin").expect("it passes");
    sql.run("insert into t values (1)").expect("it passes");
    let error = sql.run("commit").expect_err("the answer is lost");
    assert_eq!(error.sqlstate, CONNECTION_LOST);
    assert!(bench.proxy.wait_for_cut(Duration::from_secs(60)));
    assert_eq!(bench.rows().as_deref(), Some("1"));
    assert_eq!((bench.proxy.cuts(), bench.proxy.commits()), (1, 1));
}

#[test]
fn a_cut_before_commit_leaves_no_row_and_an_error() {
    let bench = Bench::new("before_commit");
    bench.proxy.cut(Cut::BeforeCommit);
    let mut sql = bench.through();
    sql.run("begin").expect("it passes");
    sql.run("insert into t values (1)").expect("it passes");
    let error = sql.run("commit").expect_err("the connection is cut");
    assert_eq!(error.sqlstate, CONNECTION_LOST);
    assert_eq!(bench.rows().as_deref(), Some("0"));
    assert_eq!(bench.proxy.commits(), 0);
}

#[test]
fn only_the_nth_commit_is_lost_and_a_new_connection_works() {
    let bench = Bench::new("nth_commit");
    bench.proxy.cut_at(Cut::AfterCommit, 2);
    let mut sql = bench.through();
    sql.run("begin; insert into t values (1); commit").expect("the first passes");
    sql.run("begin; insert into t values (2); commit").expect_err("the second is lost");
    let mut sql = bench.through();
    sql.run("begin; insert into t values (3); commit").expect("the third passes");
    assert_eq!(bench.rows().as_deref(), Some("3"));
    assert_eq!(bench.proxy.connections(), 2);
}

#[test]
fn a_cut_before_a_statement_is_found_by_its_text() {
    let bench = Bench::new("statement");
    bench.proxy.cut(Cut::BeforeStatement("values (2)".to_owned()));
    let mut sql = bench.through();
    sql.run("insert into t values (1)").expect("it passes");
    sql.run("insert into t values (2)").expect_err("the connection is cut");
    assert_eq!(bench.rows().as_deref(), Some("1"));
}

#[test]
fn a_delay_is_added_once_a_round_trip() {
    let bench = Bench::new("delay");
    let mut sql = bench.through();
    bench.proxy.delay(Duration::from_millis(100), Duration::from_millis(50));
    let begun = Instant::now();
    sql.run("select generate_series(1, 1000)").expect("it passes");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(150), "{took:?}");
    // A thousand rows, each delayed after the other, would take fifty seconds; a machine may stall for some.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_frozen_proxy_holds_everything_until_it_thaws() {
    let bench = Bench::new("freeze");
    let mut sql = bench.through();
    bench.proxy.freeze();
    sql.send("insert into t values (1)").expect("it is sent");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(bench.rows().as_deref(), Some("0"));
    bench.proxy.thaw();
    sql.answer().expect("it arrives in the end");
    assert_eq!(bench.rows().as_deref(), Some("1"));
}

#[test]
fn a_refusing_proxy_lets_nobody_in_and_cut_now_throws_everybody_out() {
    let bench = Bench::new("refuse");
    let mut sql = bench.through();
    bench.proxy.refuse(true);
    bench.proxy.cut_now();
    sql.run("select 1").expect_err("it was thrown out");
    assert!(Sql::connect(&bench.proxy.url()).is_err());
    bench.proxy.refuse(false);
    bench.through().run("select 1").expect("it is let in again");
}
