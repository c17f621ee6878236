//! Which stored plan a run uses: one that was reviewed, if it is what the job asks for.

use std::collections::BTreeMap;

use pgmend::{Engine, Job, JobFile, Observer, PlanOptions, RunOptions, RunState};
use pgmend_core::job::{Param, Scalar};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_corrected_half_way_is_not_made_over_the_rows_of_its_unfinished_run() {
    let db = Database::create(Server::shared(), "reworded").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create table users (id int primary key, role text);
         insert into users select i, 'memeber' from generate_series(1, 10) i",
    )
    .expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let with = |name: &str, role: &str, least: i64| {
        let mut file = JobFile::default();
        file.limits.batch_rows = Some(2);
        let value = Some(Scalar::Integer(least));
        file.params.insert("least".into(), Param { type_sql: "int".into(), value, min: None, max: None });
        let statement = format!("update users set role = '{role}' where id >= :least");
        Job::new(name.into(), statement, file, &BTreeMap::new()).expect("a job")
    };
    let one = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    let all = RunOptions::default();
    let stopped = engine.run(&with("fix", "membre", 1), &one, &mut Observer::silent()).await.expect("a batch");
    for (job, part) in [
        (with("fix", "member", 1), "the statement was `update users set role = 'membre' where id >= :least` and is"),
        (with("fix", "membre", 2), "parameter least has another value"),
    ] {
        for refused in [
            engine.run(&job, &all, &mut Observer::silent()).await.map(|_| ()),
            engine.prepare(&job, &all).await.map(|_| ()),
        ] {
            let Err(pgmend::Error::Refused(refusal)) = refused else { panic!("{part}: {refused:?}") };
            assert_eq!(refusal.code, pgmend::Code::ChangedJob);
            assert!(refusal.message.contains(part), "{}", refusal.message);
            assert!(refusal.help.contains(&format!("pgmend cancel {}", stopped.run_id)), "{}", refusal.help);
        }
    }
    let count = "select count(*) from users where role <> 'memeber'";
    assert_eq!(sql.value(count).expect("a count").as_deref(), Some("2"));
    // Another change has another name; the same one goes on; and once it is given up, the corrected one may begin.
    engine.run(&with("another fix", "member", 9), &all, &mut Observer::silent()).await.expect("another change");
    let on = engine.run(&with("fix", "membre", 1), &one, &mut Observer::silent()).await.expect("one more batch");
    assert_eq!(on.run_id, stopped.run_id);
    engine.cancel("fix", "a typo", &mut Observer::silent()).await.expect("it is given up");
    let corrected = engine.run(&with("fix", "member", 1), &all, &mut Observer::silent()).await.expect("the right one");
    assert_eq!(corrected.state, RunState::Succeeded);
    let wrong = "select count(*) from users where role <> 'member'";
    assert_eq!(sql.value(wrong).expect("a count").as_deref(), Some("0"));
}
