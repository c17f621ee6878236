//! Undo of tables that were altered since the run: added, renamed and widened columns are followed, the rest is refused
//! by name, and then nothing is restored.

use pgmend::{Code, Engine, Error, Job, Observer, RunOptions, RunState, UndoOptions};
use pgmend_testkit::{Database, Server, Sql};

const ROWS: &str = "create table t (id int primary key, a varchar(10) not null, n int, p numeric(6, 2), gone text); \
                    insert into t select i, 'row ' || i, i, i / 4.0, 'x' from generate_series(1, 40) i";
const CHANGE: &str = "update t set a = 'changed', n = n * 2, p = p + 1 where id <= 30";

/// A database in which the change was made, and an engine on it.
async fn changed(db: &Database, sql: &mut Sql) -> Engine {
    sql.run(ROWS).expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let job = Job::from_statement("altered", CHANGE);
    let outcome = engine.run(&job, &RunOptions::default(), &mut Observer::silent()).await.expect("the run");
    assert_eq!(outcome.changed_rows, 30);
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_follows_added_renamed_and_widened_columns() {
    let db = Database::create(Server::shared(), "altered").expect("a database");
    let mut sql = db.sql().expect("a session");
    let mut engine = changed(&db, &mut sql).await;
    sql.run(
        "alter table t rename a to label; alter table t alter label type text; alter table t alter n type bigint;
         alter table t alter p type numeric(10, 2); alter table t add a int default 7; alter table t drop gone;
         alter table t rename to renamed; update renamed set label = 'by hand' where id = 3",
    )
    .expect("the alterations");
    let part = UndoOptions { predicate: Some("label = 'changed' and id <= 10".into()), ..UndoOptions::default() };
    let counts = engine.plan_undo("altered", &part).await.expect("its plan").plan.counts;
    let counted = [counts.scanned_rows, counts.matched_rows, counts.changed_rows, counts.already_right_rows];
    assert_eq!(counted.map(|figure| figure.value), [30, 9, 9, 0], "one of ten was changed by hand");
    let outcome = engine.undo("altered", &part, &mut Observer::silent()).await.expect("a part of the undo");
    assert_eq!((outcome.changed_rows, outcome.conflict_rows), (9, 0));
    let rest = engine.undo("altered", &UndoOptions::default(), &mut Observer::silent()).await.expect("the rest");
    assert_eq!((rest.state, rest.changed_rows, rest.conflict_rows), (RunState::Succeeded, 20, 1));
    let ten = UndoOptions { predicate: Some("id between 1 and 10".into()), ..UndoOptions::default() };
    let counts = engine.plan_undo("altered", &ten).await.expect("a plan of rows that are back").plan.counts;
    let counted = [counts.matched_rows, counts.changed_rows, counts.already_right_rows, counts.conflict_rows];
    assert_eq!(counted.map(|figure| figure.value), [10, 0, 9, 1]);
    let wrong =
        "select count(*) from renamed where a <> 7 or (id <> 3 and (label, n, p) <> ('row ' || id, id, id / 4.0))";
    assert_eq!(sql.value(wrong).expect("the rows").as_deref(), Some("0"));
    let theirs = "select label || ' ' || n from renamed where id = 3";
    assert_eq!(sql.value(theirs).expect("the row").as_deref(), Some("by hand 6"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_follows_another_type_that_holds_every_old_value() {
    for (alteration, expected) in [
        ("alter table t alter a type varchar(7)", "row 17/17/4.25"),
        ("alter table t alter a type char(9)", "row 17/17/4.25"),
        ("alter table t alter p type numeric(5, 2)", "row 17/17/4.25"),
        ("alter table t alter n type text", "row 17/17/4.25"),
        ("alter table t alter n type smallint", "row 17/17/4.25"),
        ("alter table t alter id type varchar(3)", "row 17/17/4.25"),
    ] {
        let db = Database::create(Server::shared(), "altered").expect("a database");
        let mut sql = db.sql().expect("a session");
        let mut engine = changed(&db, &mut sql).await;
        sql.run(alteration).expect(alteration);
        sql.run("update t set a = 'by hand' where id::text = '3'").expect("somebody else");
        let outcome = engine.undo("altered", &UndoOptions::default(), &mut Observer::silent()).await.expect(alteration);
        assert_eq!((outcome.changed_rows, outcome.conflict_rows), (29, 1), "{alteration}");
        let row = "select concat_ws('/', rtrim(a), n, p) from t where id::text = '17'";
        assert_eq!(sql.value(row).expect("the row").as_deref(), Some(expected), "{alteration}");
        // And back again: the undo is a run like any other.
        let undo = outcome.run_id.to_string();
        let redone = engine.undo(&undo, &UndoOptions::default(), &mut Observer::silent()).await.expect("its undo");
        assert_eq!((redone.changed_rows, redone.conflict_rows), (29, 0), "{alteration}");
        assert_eq!(sql.value(row).expect("the row").as_deref(), Some("changed/34/5.25"), "{alteration}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_cannot_follow_names_the_column_and_restores_nothing() {
    for (alteration, named) in [
        ("alter table t drop a", "a"),
        ("alter table t drop a; alter table t add a text default 'changed'", "a"),
        (
            "update t set a = 'changed' where id > 30; alter table t alter a type varchar(5) using left(a, 5)",
            "30 rows had, for example the one with key id=",
        ),
        ("alter table t alter p type numeric(2, 2) using 0", "an old value is none of that type"),
        ("alter table t alter a type int using 7", "an old value is none of that type"),
        ("alter table t alter n type date using '2026-01-01'", "to which there is no cast"),
        ("alter table t drop constraint t_pkey", "(id)"),
        ("drop table t; create table t (id int primary key, a text)", "t"),
    ] {
        let db = Database::create(Server::shared(), "altered").expect("a database");
        let mut sql = db.sql().expect("a session");
        let mut engine = changed(&db, &mut sql).await;
        sql.run(alteration).expect(alteration);
        let content = "select md5(coalesce(string_agg(t::text, '' order by id), '')) from t";
        let before = sql.value(content).expect("the content");
        let refusal = match engine.undo("altered", &UndoOptions::default(), &mut Observer::silent()).await {
            Err(Error::Refused(refusal)) => refusal,
            other => panic!("{alteration}: {other:?}"),
        };
        assert_eq!(refusal.code, Code::TableChanged, "{alteration}: {}", refusal.message);
        assert!(refusal.message.contains(named), "{alteration}: {}", refusal.message);
        assert_eq!(sql.value(content).expect("the content"), before, "{alteration}");
    }
}
