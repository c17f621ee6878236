//! The text client reads what a server answers.

use pgmend_testkit::{Database, Server};

#[test]
fn rows_are_text_and_null_is_none() {
    let mut sql = Server::shared().sql("postgres").expect("a session");
    let rows = sql.run("select 1, null, 'ä', ''; select true").expect("it answers");
    let text = |value: &str| Some(value.to_owned());
    assert_eq!(rows, [vec![text("1"), None, text("ä"), text("")], vec![text("t")]]);
}

#[test]
fn an_error_has_its_sqlstate_and_the_session_goes_on() {
    let mut sql = Server::shared().sql("postgres").expect("a session");
    let error = sql.run("select 1 / 0").expect_err("that is an error");
    assert_eq!((error.sqlstate.as_str(), error.message.as_str()), ("22012", "division by zero"));
    assert_eq!(sql.value("select 2").expect("it goes on").as_deref(), Some("2"));
}

#[test]
fn notices_are_kept_for_whoever_asks() {
    let mut sql = Server::shared().sql("postgres").expect("a session");
    sql.run("do $$ begin raise notice 'seen'; end $$").expect("it runs");
    assert_eq!(sql.take_notices(), ["seen"]);
}

#[test]
fn a_session_can_wait_for_a_lock_while_the_test_goes_on() {
    let database = Database::create(Server::shared(), "waiting").expect("a database");
    let mut holder = database.sql().expect("a session");
    let mut waiter = database.sql().expect("another");
    holder.run("create table t (id int)").expect("it runs");
    holder.run("begin; lock table t").expect("it locks");
    waiter.send("select count(*) from t").expect("it is sent");
    let blocked = format!("select cardinality(pg_blocking_pids({})) > 0", waiter.backend_pid());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while holder.value(&blocked).expect("it answers").as_deref() != Some("t") {
        assert!(std::time::Instant::now() < deadline, "the other session does not wait");
    }
    holder.run("commit").expect("it unlocks");
    assert_eq!(waiter.answer().expect("it was let through"), [[Some("0".to_owned())]]);
}

#[test]
fn an_unknown_database_is_an_error_of_the_server() {
    let error = Server::shared().sql("no_such_database").err().expect("it does not exist");
    assert_eq!(error.sqlstate, "3D000");
}
