//! People's wishes while a run looks for rows to change: no batch begins, so that the server has none to refuse.

use std::time::Duration;

use pgmend::{Engine, Event, Job, JobFile, Mode, Observer, Outcome, RunOptions, RunState};
use pgmend_testkit::Sql;
use tokio::task::JoinHandle;

use super::{PATIENCE, Stage};

/// A search of some fifteen seconds that finds nothing: the only row that matched is gone by then, and to look at each
/// stretch of rows takes a while.
async fn searching(stage: &mut Stage, workers: u32) -> JoinHandle<Outcome> {
    stage
        .sql
        .run(
            "create table event (id int primary key, seen int not null default 0);
             insert into event select n from generate_series(1, 1200001) n; analyze event;
             create table slow ();
             create function wanted(id int) returns boolean language plpgsql immutable parallel unsafe as $$ begin
                if id % 50000 = 0 and exists (select from public.slow) then perform pg_sleep(0.6); end if;
                return id > 1200000; end $$",
        )
        .expect("the table is created");
    let url = stage.db.url();
    let mut engine = Engine::connect(Some(&url)).await.expect("a connection");
    let mut file = JobFile { mode: Some(Mode::Stream), ..JobFile::default() };
    file.limits.statement_timeout_ms = Some(4_000);
    file.limits.workers = Some(workers);
    let job = Job { file, ..Job::from_statement("seen", "update event set seen = seen + 1 where wanted(id)") };
    let task = tokio::spawn(async move {
        let mut observer = Observer::new(move |event| {
            if let Event::Started { .. } = event {
                let mut sql = Sql::connect(&url).expect("the server is up");
                sql.run("insert into slow default values; delete from event where id > 1200000").expect("it is gone");
            }
        });
        engine.run(&job, &RunOptions::default(), &mut observer).await.expect("a run")
    });
    stage.wait_until("select count(*) = 1 from public.slow").await;
    stage.wait_until("select count(*) > 0 from pg_stat_activity where wait_event = 'PgSleep'").await;
    task
}

async fn ended(task: JoinHandle<Outcome>) -> Outcome {
    tokio::time::timeout(PATIENCE + Duration::from_secs(30), task).await.expect("it ends").expect("the task")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_ends_a_search_that_finds_nothing() {
    for workers in [1, 2] {
        let mut stage = Stage::new(0).await;
        let task = searching(&mut stage, workers).await;
        stage.engine.pause("seen", "checkout is slow").await.expect("a pause");
        let outcome = ended(task).await;
        assert_eq!(outcome.state, RunState::Paused { reason: "checkout is slow".into() }, "{workers}");
        // What was not looked at is looked at when the run goes on.
        stage
            .sql
            .run("truncate slow; insert into event values (1200000, 7) on conflict (id) do nothing")
            .expect("quick");
        stage.engine.resume("seen", &mut Observer::silent()).await.expect("a resumption");
        assert_eq!(stage.value("select state from pgmend.run"), "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_ends_a_search_that_finds_nothing() {
    let mut stage = Stage::new(0).await;
    let task = searching(&mut stage, 1).await;
    stage.engine.cancel("seen", "wrong month", &mut Observer::silent()).await.expect("a cancellation");
    assert_eq!(ended(task).await.state, RunState::Cancelled);
}
