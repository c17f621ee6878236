//! A table that is large enough to be throttled, a run in the background, and somebody who watches.

use std::future::Future;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pgmend::{Engine, Error, Event, Job, JobFile, Observer, Outcome, RunOptions, Setting, Status, Tuning};
use pgmend_testkit::{Database, Server, Sql};

/// Longer than any hold of these tests on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Rows of the table.
pub const ROWS: i64 = 2_000;
/// Rows of a batch, so that a run has twenty of them.
const BATCH_ROWS: u32 = 100;

/// The change of every test.
pub const RELABEL: &str = "update item set label = 'new' where label = 'old'";

/// A database with the table.
pub struct Stage {
    pub sql: Sql,
    pub db: Database,
}

impl Stage {
    pub fn on(server: &Server) -> Self {
        let db = Database::create(server, "throttle").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run(&format!(
            "create table item (id int primary key, label text not null);
             insert into item select i, 'old' from generate_series(1, {ROWS}) i"
        ))
        .expect("the table");
        Self { sql, db }
    }

    pub fn new() -> Self {
        Self::on(Server::shared())
    }

    /// Makes each batch last a second, so that a run lasts for twenty: longer than a sampler takes to see something on a
    /// busy machine.
    pub fn slow(&mut self) {
        self.slow_by(1.0);
    }

    /// Makes each batch last for so many seconds.
    pub fn slow_by(&mut self, seconds: f64) {
        self.sql
            .run(&format!(
                "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep({seconds}); return null; end';
                 create trigger slow after update on item for each row when (new.id % 100 = 0) execute function slow()"
            ))
            .expect("batches that last");
    }

    /// Lets the rest of a [`Self::slow`] run go as fast as it can: what it was to be slow for has been seen.
    pub fn quick(&mut self) {
        self.sql.run("drop trigger slow on item").expect("it is there");
    }

    /// Starts a run in the background.
    pub fn start(&self, job: Job) -> Running {
        let (events, heard) = channel();
        let url = self.db.url();
        let worker = std::thread::spawn(move || block_on(drive(&url, &job, events)));
        Running { heard, worker, told: Vec::new() }
    }

    pub fn status(&self) -> Status {
        block_on(async {
            let mut engine = Engine::connect(Some(&self.db.url())).await.expect("a connection");
            engine.status(None).await.expect("the status").remove(0)
        })
    }

    /// Changes the pace of the latest run for an hour.
    pub fn tune(&self, setting: Setting, value: f64) {
        block_on(async {
            let mut engine = Engine::connect(Some(&self.db.url())).await.expect("a connection");
            let tuning = Tuning { changes: vec![(setting, Some(value))], minutes: Some(60), ..Tuning::default() };
            engine.tune("relabel", &tuning, "a test").await.expect("a tuning");
        });
    }

    pub fn number(&mut self, sql: &str) -> i64 {
        self.sql.value(sql).expect("it answers").expect("a value").parse().expect("a number")
    }

    /// Rows that the run has changed so far.
    pub fn changed(&mut self) -> i64 {
        self.number("select count(*) from item where label = 'new'")
    }

    /// Every row was changed once, and the ledger tells of as many holds as of releases.
    pub fn check(&mut self, outcome: &Outcome) {
        assert_eq!(outcome.changed_rows, ROWS, "{outcome:?}");
        assert_eq!(self.changed(), ROWS);
        let facts = |fact: &str| format!("select count(*) from pgmend.ledger where fact = '{fact}'");
        let held = self.number(&facts("run_held"));
        assert!(held > 0, "the ledger tells of no hold");
        assert_eq!(self.number(&facts("run_released")), held);
        assert_eq!(self.number("select count(*) from pgmend.hold where since_at is not null"), 0);
    }
}

/// A job of small batches; every built-in signal that a busy test machine could cross is off.
pub fn job(throttle: &str) -> Job {
    let quiet = "[throttle.signal.active_sessions]\noff = \"other tests\"\n\
                 [throttle.signal.oldest_snapshot]\noff = \"other tests\"\n";
    // Databases that other tests drop are checkpoints.
    let drops = "[throttle.signal.checkpoints]\noff = \"other tests\"\n";
    let drops = if throttle.contains("checkpoints]") { "" } else { drops };
    let commits = "[throttle.signal.commit_latency]\noff = \"other tests\"\n";
    let commits = if throttle.contains("commit_latency]") { "" } else { commits };
    let mut file = JobFile::parse(&format!("{throttle}\n{quiet}{drops}{commits}")).expect("a job file");
    file.limits.batch_rows = Some(BATCH_ROWS);
    // So that the heartbeat connects within half a second.
    file.limits.lease_seconds = 3;
    Job { file, ..Job::from_statement("relabel", RELABEL) }
}

async fn drive(url: &str, job: &Job, events: Sender<Event>) -> Result<Outcome, Error> {
    let mut engine = Engine::connect(Some(url)).await?;
    // Whoever does not listen any more misses nothing that the outcome does not tell.
    let mut observer = Observer::new(move |event| drop(events.send(event.clone())));
    Box::pin(engine.run(job, &RunOptions::default(), &mut observer)).await
}

/// A run in the background.
pub struct Running {
    heard: Receiver<Event>,
    worker: std::thread::JoinHandle<Result<Outcome, Error>>,
    told: Vec<Event>,
}

impl Running {
    /// Waits for an event, and panics with all that was told when it does not come.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let until = Instant::now() + PATIENCE;
        while let Ok(event) = self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.told.push(event.clone());
            if wanted(&event) {
                return event;
            }
        }
        panic!("no {what} after {:?}", self.told);
    }

    /// All that was waited for or passed by so far.
    pub fn told(&self) -> &[Event] {
        &self.told
    }

    /// Waits for a hold, and gives its sentences.
    pub fn held(&mut self) -> String {
        let event = self.wait_for("hold", |event| matches!(event, Event::Holding { .. }));
        let Event::Holding { reasons, .. } = event else { panic!("{event:?}") };
        reasons.into_iter().map(|reason| reason.text).collect::<Vec<_>>().join("; ")
    }

    /// Waits until a hold has this sentence alone: where the first reading comes late, another one is told before.
    pub fn held_as(&mut self, wanted: &str) {
        self.wait_for(
            &format!("hold as `{wanted}`"),
            |event| matches!(event, Event::Holding { reasons, .. } if reasons.len() == 1 && reasons[0].text == wanted),
        );
    }

    /// Waits for the end of a hold.
    pub fn released(&mut self) {
        self.wait_for("release", |event| matches!(event, Event::Released { .. }));
    }

    /// Waits for a number of batches.
    pub fn batches(&mut self, many: i64) {
        self.wait_for("batch", |event| matches!(event, Event::Batch { batch_no, .. } if *batch_no >= many));
    }

    /// Waits for the end.
    pub fn end(self) -> Outcome {
        self.worker.join().expect("it does not panic").expect("a run")
    }
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
