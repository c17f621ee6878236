//! Which stored plan a run uses: one that was reviewed, if it is what the job asks for.

use pgmend::{Engine, Job, JobFile, Observer, PlanOptions, RunOptions};
use pgmend_testkit::{Database, Server};

fn job(key: Option<&str>) -> Job {
    let file = JobFile { key: key.map(|column| vec![column.to_owned()]), ..JobFile::default() };
    Job { file, ..Job::from_statement("reuse", "update users set role = 'member'") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_uses_the_stored_plan_unless_the_job_names_another_key() {
    let db = Database::create(Server::shared(), "reuse").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create table users (id int primary key, email text not null unique, role text);
         insert into users select i, 'user' || i, 'memeber' from generate_series(1, 10) i",
    )
    .expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");
    let reviewed = engine.plan(&job(None), &PlanOptions::default()).await.expect("a plan");

    let mut prepare = async |key| {
        let planned = engine.prepare(&job(key), &RunOptions::default()).await.expect("a plan");
        planned.expect("nothing is unfinished").plan
    };
    assert_eq!(prepare(None).await.plan_id, reviewed.plan.plan_id);
    assert_eq!(prepare(Some("id")).await.plan_id, reviewed.plan.plan_id);
    let other = prepare(Some("email")).await;
    assert_eq!(other.key.expect("a key").columns, ["email"]);

    let outcome = engine.run(&job(None), &RunOptions::default(), &mut Observer::silent()).await.expect("the run");
    assert_eq!(outcome.changed_rows, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_changed_does_not_go_on_with_its_unfinished_run_unnoticed() {
    let db = Database::create(Server::shared(), "changed").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create table users (id int primary key, email text not null unique, role text);
             insert into users select i, 'user' || i, 'memeber' from generate_series(1, 10) i",
    )
    .expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let with_rows = |rows| {
        let mut job = job(None);
        job.file.limits.batch_rows = Some(rows);
        job
    };
    let one = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    let stopped = engine.run(&with_rows(2), &one, &mut Observer::silent()).await.expect("a batch");
    let mut other = with_rows(3);
    other.file.expect_rows = Some(10);
    let refused = engine.run(&other, &RunOptions::default(), &mut Observer::silent()).await;
    let Err(pgmend::Error::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, pgmend::Code::ChangedJob);
    for part in ["limits.batch_rows was 2 and is 3", "expect_rows was unset and is 10"] {
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
    assert!(refusal.help.contains(&format!("pgmend run {} --execute", stopped.run_id)), "{}", refusal.help);
    let count = "select count(*) from users where role = 'member'";
    assert_eq!(sql.value(count).expect("a count").as_deref(), Some("2"));
    // What only planning uses is no change, and neither is a limit that is no longer given.
    let mut same = job(None);
    same.file.limits.count_budget_ms = 5;
    let done = engine.run(&same, &RunOptions::default(), &mut Observer::silent()).await.expect("the rest");
    assert_eq!((done.run_id, done.changed_rows), (stopped.run_id, 10));
}
