//! Deletes that take rows of other tables along: the rows of the target can be put back, and whoever needs that is told.

use pgmend::{Engine, Job, Observer, PlanOptions, RunOptions, RunState, UndoOptions};
use pgmend_testkit::{Database, Server};

const TABLES: &str = "create table parent (id int primary key, name text);
    create table child (id int primary key, parent_id int references parent on delete cascade);
    insert into parent select i, 'n' || i from generate_series(1, 20) i;
    insert into child select i, 1 + i % 20 from generate_series(1, 60) i";

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_with_cascades_says_how_to_put_its_own_rows_back() {
    let db = Database::create(Server::shared(), "cascade").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(TABLES).expect("the tables");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let quiet = &mut Observer::silent();
    let job = Job::from_statement("thin", "delete from parent where id <= 5");
    let outcome = engine.run(&job, &RunOptions::default(), quiet).await.expect("the run");
    assert_eq!((outcome.changed_rows, outcome.reversible, outcome.partly_undoable), (5, false, true));

    let report = engine.report("thin").await.expect("a report");
    assert_eq!(report.undo_line.as_deref(), Some("pgmend undo thin --execute"));
    assert!(report.undo.1.starts_with("not fully undoable: rows of child"), "{:?}", report.undo);
    let status = engine.status(Some("thin")).await.expect("a status");
    let line = status[0].next.iter().find(|line| line.starts_with("pgmend undo thin --execute")).expect("the line");
    assert!(line.contains("what changed along with them stays"), "{line}");

    let undone = engine.undo("thin", &UndoOptions::default(), quiet).await.expect("the undo");
    assert_eq!((undone.state, undone.changed_rows), (RunState::Succeeded, 5));
    assert_eq!(sql.value("select count(*) from parent").expect("a count").as_deref(), Some("20"));
    assert_eq!(sql.value("select count(*) from child").expect("a count").as_deref(), Some("45"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_decided_anew_on_the_way_back_is_not_offered() {
    let db = Database::create(Server::shared(), "cascade").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(TABLES).expect("the tables");
    sql.run("alter table parent add constraint named check (name <> 'n3') not valid").expect("the constraint");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let job = Job::from_statement("thin", "delete from parent where id <= 5");
    let planned = engine.plan(&job, &PlanOptions::default()).await.expect("a plan");
    assert!(!planned.plan.reversible.0 && !planned.plan.partly_undoable, "{:?}", planned.plan.reversible);
}
