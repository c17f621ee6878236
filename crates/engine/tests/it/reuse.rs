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
