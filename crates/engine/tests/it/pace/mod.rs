//! How fast a run goes and who may change it: rate, rests, slices, `tune`, and wishes that end a wait.

mod control;
mod nights;
mod search;
mod slices;
mod vacuum;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgmend::{Engine, Error, Event, Job, JobFile, Observer, Outcome, Pace, RunOptions};
use pgmend_testkit::{Database, Server, Sql};
use tokio::task::JoinHandle;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(90);
/// What ends a wait takes no longer, also on a machine that stalls for seconds; the waits themselves last for minutes.
const SOON: Duration = Duration::from_secs(30);

/// A database with the control schema and a hundred accounts, each of which takes a while to change.
struct Stage {
    db: Database,
    engine: Engine,
    sql: Sql,
}

impl Stage {
    /// Every change of a row takes so many milliseconds.
    async fn new(row_ms: u32) -> Self {
        let db = Database::create(Server::shared(), "pace").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run(&format!(
            "create table account (id int primary key, balance bigint not null);
             insert into account select n, 100 from generate_series(1, 100) n;
             create function slow() returns trigger language plpgsql as
                $$ begin perform pg_sleep({row_ms} / 1000.0); return new; end $$;
             create trigger slow before update on account for each row execute function slow()"
        ))
        .expect("the table");
        let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
        engine.init().await.expect("the control schema");
        Self { db, engine, sql }
    }

    /// Runs the job in a task of its own; its events are kept.
    async fn begin(&self, pace: Pace) -> Going {
        let events = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&events);
        let mut engine = Engine::connect(Some(&self.db.url())).await.expect("a connection");
        let options = RunOptions { pace, ..RunOptions::default() };
        let task = tokio::spawn(async move {
            let mut observer = Observer::new(move |event| kept.lock().expect("nobody panics here").push(event.clone()));
            engine.run(&job(), &options, &mut observer).await
        });
        Going { events, task }
    }

    async fn run(&mut self, pace: Pace) -> Outcome {
        let options = RunOptions { pace, ..RunOptions::default() };
        Box::pin(self.engine.run(&job(), &options, &mut Observer::silent())).await.expect("a run")
    }

    fn value(&mut self, query: &str) -> String {
        self.sql.value(query).expect("it answers").unwrap_or_default()
    }

    async fn wait_until(&mut self, holds: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(holds) != "t" {
            assert!(Instant::now() < deadline, "not in time: {holds}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn assert_every_row_changed_once(&mut self) {
        assert_eq!(
            self.value("select count(*) || ' ' || min(balance) || ' ' || max(balance) from account"),
            "100 105 105"
        );
    }
}

/// A run under way.
struct Going {
    events: Arc<Mutex<Vec<Event>>>,
    task: JoinHandle<Result<Outcome, Error>>,
}

impl Going {
    /// How it ended, which it does soon.
    async fn ended(self) -> Outcome {
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("it ends soon");
        ended.expect("the task").expect("the run")
    }

    fn saw(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().expect("nobody panics here").iter().any(wanted)
    }
}

/// Changes every row, ten at a time; it shows if one is changed twice.
fn job() -> Job {
    let mut file = JobFile::default();
    file.limits.batch_rows = Some(10);
    file.limits.lease_seconds = 6;
    // A machine that stalls is no reason for smaller batches.
    file.limits.statement_timeout_ms = Some(30_000);
    Job { file, ..Job::from_statement("raise", "update account set balance = balance + 5") }
}

fn rate(rate: u32) -> Pace {
    Pace { rate: Some(rate), ..Pace::default() }
}

fn nice(nice: f64) -> Pace {
    Pace { nice: Some(nice), ..Pace::default() }
}
