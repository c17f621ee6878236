//! Keys in the order of a library: a version that changed since the index was built is refused, one that nothing
//! records is said.

use pgmend::{Code, Engine, Error, Job, PlanOptions, Planned};
use pgmend_testkit::{Database, Server};

const TABLES: &str = "create table named (name text primary key, v int); insert into named values ('a', 1), ('b', 2);
                      create table plain (name text collate \"C\" primary key, v int); insert into plain values ('a', 1);
                      create table numbered (id int primary key, name text unique not null); insert into numbered values (1, 'a')";

async fn planned(db: &Database, statement: &str) -> Result<Planned, Error> {
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let options = PlanOptions { print_only: true, ..PlanOptions::default() };
    engine.plan(&Job::from_statement("collated", statement), &options).await
}

/// Whether the plan says that nobody knows the order's version.
fn says_unknown(planned: Result<Planned, Error>) -> bool {
    let findings = planned.expect("a plan").plan.findings;
    findings.iter().any(|finding| finding.check == "collation_version")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_own_collation_has_another_version_now_is_refused() {
    if Server::shared().version().major < 15 {
        // Neither an ICU order for a database nor a record of its version is there before 15.
        return;
    }
    let options = "locale_provider icu icu_locale 'en'";
    let db = Database::create_with(Server::shared(), "collated", options).expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(TABLES).expect("the tables");
    let change = "update named set v = v + 1";
    assert!(!says_unknown(planned(&db, change).await), "it has the version that it was made with");
    let record =
        |version: &str| format!("update pg_database set datcollversion = {version} where datname = current_database()");
    sql.run(&record("'0.1'")).expect("as after an upgrade of the library");
    match planned(&db, change).await {
        Err(Error::Refused(refusal)) => assert_eq!(refusal.code, Code::CollationDrift, "{}", refusal.message),
        other => panic!("not refused: {other:?}"),
    }
    for unconcerned in ["update plain set v = 1", "update numbered set name = 'b'"] {
        assert!(!says_unknown(planned(&db, unconcerned).await), "{unconcerned}");
    }
    sql.run(&record("null")).expect("as after some upgrades of the server");
    assert!(says_unknown(planned(&db, change).await));
    for unconcerned in ["update plain set v = 1", "update numbered set name = 'b'"] {
        assert!(!says_unknown(planned(&db, unconcerned).await), "{unconcerned}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_version_nothing_records_is_said() {
    let db = Database::create(Server::shared(), "collated").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create collation ours (provider = icu, locale = 'en');
         create table t (name text collate ours primary key, v int); insert into t values ('a', 1)",
    )
    .expect("the table");
    assert!(!says_unknown(planned(&db, "update t set v = 2").await));
    sql.run("update pg_collation set collversion = null where collname = 'ours'").expect("the record is lost");
    assert!(says_unknown(planned(&db, "update t set v = 2").await));
}
