//! Parameters that the server does not take are named, since a statement that binds them tells neither which nor where.

use pgmend::{Code, Engine, Error, Job, PlanOptions};
use pgmend_core::job::BoundParam;
use pgmend_testkit::{Database, Server};

fn param(name: &str, type_sql: &str, value: &str) -> BoundParam {
    BoundParam { name: name.into(), type_sql: type_sql.into(), value: value.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_is_none_of_its_type_is_refused_by_its_name() {
    let db = Database::create(Server::shared(), "params").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run("create table acct (id bigint primary key, state text, day date)").expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    for (bad, expected) in [
        (param("n", "int", "2.5"), "parameter `n` does not fit its type int: invalid input syntax for type integer"),
        (param("n", "bigint", "99999999999999999999"), "parameter `n` does not fit its type bigint: "),
        (param("n", "dat", "x"), "parameter `n` does not fit its type dat: type \"dat\" does not exist"),
    ] {
        let job = Job {
            params: vec![param("a", "text", "kept"), bad],
            ..Job::from_statement("acct", "update acct set state = :a where id = :n")
        };
        let Err(Error::Refused(refusal)) = engine.plan(&job, &PlanOptions::default()).await else {
            panic!("it was planned")
        };
        assert_eq!(refusal.code, Code::Parameter, "{refusal}");
        assert!(refusal.message.starts_with(expected), "{}", refusal.message);
        assert!(refusal.help.contains("--param n=VALUE"), "{}", refusal.help);
        assert_eq!(refusal.position, None, "`dat` is a part of `update`, and no place of the user's");
        assert!(!refusal.message.contains("2.5") && !refusal.message.contains("999"), "{}", refusal.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_statement_has_longer_to_be_built_before_its_transaction_counts_as_idle() {
    let db = Database::create(Server::shared(), "params").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run("create table acct (id bigint primary key, state text); insert into acct values (1, '')").expect("a table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let told = "update acct set state = current_setting('idle_in_transaction_session_timeout')";
    let options = PlanOptions { show_values: true, ..PlanOptions::default() };
    for (comment_bytes, expected) in [(0, "3min"), (1 << 20, "5min")] {
        let job = Job::from_statement("acct", format!("{told} -- {}", "x".repeat(comment_bytes)));
        let samples = engine.plan(&job, &options).await.expect("a plan").plan.samples;
        assert_eq!(samples[0].columns[0].2.as_deref(), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operands_of_types_that_do_not_go_together_say_how_parameters_are_bound() {
    let db = Database::create(Server::shared(), "params").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run("create table acct (id bigint primary key, state text)").expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let job = Job {
        params: vec![param("id", "text", "7x")],
        ..Job::from_statement("acct", "update acct set state = 'a' where id = :id")
    };
    let Err(Error::Refused(refusal)) = engine.plan(&job, &PlanOptions::default()).await else {
        panic!("it was planned")
    };
    assert_eq!(refusal.code, Code::ServerRejects, "{refusal}");
    assert!(refusal.help.contains("bound are :id as text; write :id::TYPE"), "{}", refusal.help);
}
