//! What is left at the end of a run: applied again only to rows without an image, and only where the
//! statement falsifies its own predicate.

use pgmend::{Engine, Job, JobFile, Observer, RunOptions, RunState};
use pgmend_testkit::{Database, Server};

fn job(statement: &str) -> Job {
    let mut file = JobFile::default();
    file.limits.batch_rows = Some(10);
    Job { file, ..Job::from_statement("sweep", statement) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_takes_rows_that_started_to_match_behind_the_cursor_but_no_row_twice() {
    let db = Database::create(Server::shared(), "sweep").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create table users (id int primary key, role text not null);
         insert into users select i, case when i % 2 = 0 then 'admin' else 'member' end from generate_series(1, 100) i",
    )
    .expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");
    let job = job("update users set role = 'guest' where role = 'admin'");

    let slice = RunOptions { stop_after_batches: Some(2), ..RunOptions::default() };
    let paused = engine.run(&job, &slice, &mut Observer::silent()).await.expect("a first slice");
    assert_eq!(paused.changed_rows, 20);
    // Row 1 starts to match behind the cursor; row 2 has an image and is changed back by somebody.
    sql.run("update users set role = 'admin' where id in (1, 2); insert into users values (1000, 'admin')")
        .expect("a writer");

    let done = engine.run(&job, &RunOptions::default(), &mut Observer::silent()).await.expect("the rest");
    assert_eq!(done.state, RunState::Succeeded);
    assert_eq!(done.changed_rows, 51);
    assert_eq!(done.arrived_later_rows, Some(1));
    let roles = "select id::text, role from users where id in (1, 2, 1000) order by users.id";
    let left = sql.run(roles).expect("the rows");
    let left: Vec<(&str, &str)> =
        left.iter().map(|r| (r[0].as_deref().unwrap_or(""), r[1].as_deref().unwrap_or(""))).collect();
    assert_eq!(left, [("1", "guest"), ("2", "admin"), ("1000", "admin")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_matches_its_own_result_is_never_applied_again() {
    let db = Database::create(Server::shared(), "sweep").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run("create table account (id int primary key, balance int not null); insert into account select i, 0 from generate_series(1, 50) i")
        .expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");
    let job = job("update account set balance = balance + 5 where balance < 100");
    let done = engine.run(&job, &RunOptions::default(), &mut Observer::silent()).await.expect("the run");
    assert_eq!((done.changed_rows, done.residual_rows), (50, Some(0)));
    let sum = sql.value("select sum(balance) from account").expect("the sum");
    assert_eq!(sum.as_deref(), Some("250"));
}
