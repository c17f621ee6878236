//! What a job says of its own result blocks its plan, stops its run, or is told to hold.

use pgmend::{Code, Engine, Error, Job, JobFile, Observer, Outcome, PlanOptions, RunOptions, RunState, UndoOptions};
use pgmend_testkit::{Database, Server, Sql};

struct Stage {
    engine: Engine,
    sql: Sql,
    _db: Database,
}

impl Stage {
    async fn new() -> Self {
        let db = Database::create(Server::shared(), "expect").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run(
            "create table account (id int primary key, tenant int not null, balance numeric not null);
                 insert into account select i, i % 4, 10 from generate_series(1, 100) i",
        )
        .expect("the table");
        let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
        engine.init().await.expect("the control schema");
        Self { engine, sql, _db: db }
    }

    async fn run(&mut self, job: &Job) -> Result<Outcome, Error> {
        Box::pin(self.engine.run(job, &RunOptions::default(), &mut Observer::silent())).await
    }

    async fn blockers(&mut self, job: &Job) -> Vec<String> {
        let planned = Box::pin(self.engine.plan(job, &PlanOptions::default())).await.expect("a plan");
        let blocking = planned.plan.findings.into_iter().filter(|f| f.severity == pgmend::Severity::Blocker);
        blocking.map(|finding| finding.message).collect()
    }

    fn total(&mut self) -> String {
        self.sql.value("select sum(balance) from account").expect("a sum").expect("a value")
    }
}

fn job(statement: &str, toml: &str) -> Job {
    let mut file = JobFile::parse(toml).expect("a job file");
    file.limits.batch_rows = Some(10);
    Job { file, ..Job::from_statement("raise", statement) }
}

const RAISE: &str = "update account set balance = balance + 1 where tenant = 1";
const MOVE: &str =
    "update account set balance = balance + case when id % 8 = 1 then 1 else -1 end where tenant = 1 and id < 97";

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_another_number_of_rows_than_must_change_is_blocked_until_the_rows_are_mended() {
    let mut stage = Stage::new().await;
    for mode in ["", "mode = \"freeze\"\n"] {
        let mut counted = job(RAISE, &format!("expect_rows = 24\n{mode}"));
        counted.file.limits.batch_rows = None;
        assert_eq!(stage.blockers(&counted).await, ["would change 25 rows, expected are 24"], "{mode}");
        let Err(Error::Refused(refusal)) = stage.run(&counted).await else { panic!("it ran") };
        assert_eq!(refusal.code, Code::Expectation, "{refusal}");
    }
    let inserted = "insert into account select 1000 + i, 9, 0 from generate_series(1, 3) i";
    assert_eq!(stage.blockers(&job(inserted, "expect_rows = 4\n")).await, ["would change 3 rows, expected are 4"]);
    assert_eq!(stage.blockers(&job(inserted, "expect_rows = 3\n")).await, [""; 0]);

    let counted = job(RAISE, "expect_rows = 24\n");
    assert_eq!(stage.blockers(&counted).await.len(), 1);
    stage.sql.run("delete from account where id = 1").expect("the row too many");
    let outcome = stage.run(&counted).await.expect("the blocked plan is not the one that runs");
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, 24));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_outside_of_the_band_or_the_scope_is_blocked_and_cannot_be_run() {
    let mut stage = Stage::new().await;
    let few = job(RAISE, "[expect]\nrows = { max = 20 }\n");
    assert_eq!(stage.blockers(&few).await, ["would change 25 rows, expected are at most 20"]);
    let wide = job("update account set balance = 0 where tenant < 2", "[expect]\nscope = \"tenant = 1\"\n");
    assert_eq!(stage.blockers(&wide).await, ["25 rows that match are outside of the scope `tenant = 1`"]);
    for job in [&few, &wide] {
        let Err(Error::Refused(refusal)) = stage.run(job).await else { panic!("it ran") };
        assert_eq!(refusal.code, Code::Guardrail, "{refusal}");
    }
    assert_eq!(stage.total(), "1000");
    let exact = job(RAISE, "[expect]\nrows = { min = 25, max = 25 }\nscope = \"tenant = 1\"\n");
    assert!(stage.run(&exact).await.expect("the run").verification.contains(&"what the job expects holds".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_leaves_the_band_stops_itself() {
    let mut stage = Stage::new().await;
    let job = job(RAISE, "[expect]\nrows = { max = 30 }\n");
    Box::pin(stage.engine.plan(&job, &PlanOptions::default())).await.expect("a plan");
    stage.sql.run("update account set tenant = 1 where tenant = 2").expect("more rows than planned");
    let outcome = stage.run(&job).await.expect("an outcome");
    let RunState::Failed { failure } = &outcome.state else { panic!("{:?}", outcome.state) };
    assert_eq!((failure.as_str(), outcome.changed_rows), ("40 rows are changed, expected are at most 30", 40));
    let undone = Box::pin(stage.engine.undo("raise", &UndoOptions::default(), &mut Observer::silent())).await;
    assert_eq!((undone.expect("the undo").changed_rows, stage.total().as_str()), (40, "1000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_must_not_change_is_compared_after_the_canary_and_at_the_end() {
    let mut stage = Stage::new().await;
    let expects = "[expect]\nunchanged = [\"select sum(balance) from account\"]\n";
    let moved = stage.run(&job(MOVE, expects)).await.expect("the run");
    assert_eq!((moved.state, stage.total().as_str()), (RunState::Succeeded, "1000"));

    let failed = stage.run(&job(RAISE, expects)).await.expect("an outcome");
    let said = "query 1 of expect.unchanged gives something else than before the run";
    assert_eq!((failed.state, failed.changed_rows), (RunState::Failed { failure: said.into() }, 25));

    let canary = format!("{expects}[canary]\nrows = 3\n");
    let other = "update account set balance = balance + 2 where tenant = 2";
    // The first one has not ended, and a name stands for one change at a time.
    let other = Job { name: "raise others".into(), ..job(other, &canary) };
    let failed = stage.run(&other).await.expect("an outcome");
    let said = format!("after the canary batch, {said}");
    assert_eq!((failed.state, failed.changed_rows), (RunState::Failed { failure: said }, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_pauses_for_a_look_once() {
    let mut stage = Stage::new().await;
    let job = job(RAISE, "[canary]\nrows = 4\nthen = \"pause\"\n");
    let paused = stage.run(&job).await.expect("an outcome");
    let reason = "the canary batch is committed: look at its rows, then go on".to_owned();
    assert_eq!((paused.state, paused.changed_rows), (RunState::Paused { reason }, 4));
    let done = stage.run(&job).await.expect("the rest");
    assert_eq!((done.state, done.changed_rows, stage.total().as_str()), (RunState::Succeeded, 25, "1025"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_the_end_that_is_not_the_expected_one_fails_the_run_until_it_is() {
    let mut stage = Stage::new().await;
    let job = job(
        "update account set balance = 11 where tenant = 1",
        "[expect]\nafter = [{ query = \"select count(*) from account where balance = 10\", equals = \"70\" }]\n",
    );
    let failed = stage.run(&job).await.expect("an outcome");
    let failure = "query 1 of expect.after does not give what is expected".to_owned();
    assert_eq!(failed.state, RunState::Failed { failure });
    stage.sql.run("update account set balance = 12 where id in (2, 4, 6, 8, 10)").expect("the other half by hand");
    assert_eq!(stage.run(&job).await.expect("the end").state, RunState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_that_gives_no_answer_or_writes_is_refused() {
    let mut stage = Stage::new().await;
    for query in ["select nothing from account", "delete from account returning 1", "select 1; delete from account"] {
        let toml = format!("[expect]\nunchanged = [\"{query}\"]\n");
        let Err(Error::Refused(refusal)) = stage.run(&job(RAISE, &toml)).await else { panic!("{query} was accepted") };
        assert_eq!(refusal.code, Code::BadJob, "{refusal}");
    }
    assert_eq!(stage.total(), "1000");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_on_the_same_columns_at_once_are_refused() {
    let mut stage = Stage::new().await;
    // It waits for its last row until the others were tried.
    let mut first = job("update account set balance = balance + 1", "");
    first.name = "slow balance".into();
    (first.file.limits.lock_timeout_ms, first.file.limits.statement_timeout_ms) = (60_000, Some(60_000));
    let mut holder = stage._db.sql().expect("a session");
    holder.run("begin; select from account where id = 100 for update").expect("a lock");
    let url = stage._db.url();
    let driving = tokio::spawn(async move {
        let mut engine = Engine::connect(Some(&url)).await.expect("a connection");
        Box::pin(engine.run(&first, &RunOptions::default(), &mut Observer::silent())).await
    });
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    for _ in 0..3_000 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if stage.sql.value(waiting).expect("a count").as_deref() != Some("0") {
            break;
        }
    }
    let same = stage.run(&job("update account set balance = 0 where id = 1", "")).await;
    let Err(Error::Refused(refusal)) = same else { panic!("it ran: {same:?}") };
    assert_eq!(refusal.code, Code::SameColumns, "{refusal}");
    let other =
        stage.run(&job("update account set tenant = tenant + 10 where id = 1", "")).await.expect("other columns");
    assert_eq!(other.state, RunState::Succeeded);
    holder.run("commit").expect("it lets go");
    assert_eq!(driving.await.expect("no panic").expect("the first run").state, RunState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn watched_rows_are_shown_before_as_they_would_be_and_after() {
    let mut stage = Stage::new().await;
    let watch = "[[expect.watch]]\nname = \"the first\"\nkey = [1]\n[[expect.watch]]\nname = \"another tenant\"\nkey = [2]\n\
                 [[expect.watch]]\nname = \"nobody\"\nkey = [4711]\n";
    let statement = "update account set balance = balance + tenant where tenant = 1";
    let job = job(statement, &format!("plain = [\"balance\"]\n{watch}"));
    let planned = Box::pin(stage.engine.plan(&job, &PlanOptions::default())).await.expect("a plan").plan;
    let cells = |n: usize| {
        planned.watched[n].sample.columns.iter().map(|(_, b, a)| (b.as_deref(), a.as_deref())).collect::<Vec<_>>()
    };
    assert_eq!((planned.watched[0].said.as_str(), cells(0)), ("will be", vec![(Some("10"), Some("11"))]));
    assert_eq!(planned.watched[1].said, "does not match: stays as it is");
    assert_eq!((planned.watched[2].said.as_str(), cells(2)), ("is not there", vec![]));

    stage.run(&job).await.expect("the run");
    let report = stage.engine.report("raise").await.expect("the report");
    let row = |n: usize| {
        let row = &report.watched[n];
        (row.said.as_str(), row.columns.first().map(|(_, before, now)| (before.as_deref(), now.as_deref())))
    };
    assert_eq!(row(0), ("changed by this run, and as it left it", Some((Some("10"), Some("11")))));
    assert_eq!(row(1).0, "not changed by this run");
    assert_eq!(row(2).0, "not changed by this run; it is not there now");
    stage.sql.run("update account set balance = 99 where id = 1").expect("somebody else");
    let report = stage.engine.report("raise").await.expect("the report");
    assert_eq!(report.watched[0].said, "changed by this run, and otherwise now");
    assert_eq!(report.watched[0].columns[0].2.as_deref(), Some("99"));
    assert!(report.markdown().contains("| the first | id=1 | balance | 10 | 99 |"), "{}", report.markdown());

    let wrong = self::job(statement, "[[expect.watch]]\nname = \"x\"\nkey = [1, 2]\n");
    let Err(Error::Refused(refusal)) = Box::pin(stage.engine.plan(&wrong, &PlanOptions::default())).await else {
        panic!("a key of two values is no key here")
    };
    assert_eq!(refusal.code, Code::BadJob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_row_that_is_deleted_or_inserted_says_so() {
    let mut stage = Stage::new().await;
    let watch = "[[expect.watch]]\nname = \"it\"\nkey = [5]\n";
    let delete = job("delete from account where id <= 5", watch);
    let planned = Box::pin(stage.engine.plan(&delete, &PlanOptions::default())).await.expect("a plan").plan;
    assert_eq!(planned.watched[0].said, "will be deleted");
    stage.run(&delete).await.expect("the run");
    let report = stage.engine.report("raise").await.expect("the report");
    assert_eq!(report.watched[0].said, "changed by this run, and as it left it; it is not there now");
    assert_eq!(report.watched[0].columns[0].1.as_deref(), Some("5"));

    let insert = Job { name: "back".into(), ..job("insert into account values (5, 1, 7)", watch) };
    let planned = Box::pin(stage.engine.plan(&insert, &PlanOptions::default())).await.expect("a plan").plan;
    assert_eq!(planned.watched[0].said, "is not there yet");
    stage.run(&insert).await.expect("the run");
    let report = stage.engine.report("back").await.expect("the report");
    assert_eq!(report.watched[0].said, "changed by this run, and as it left it");
    assert_eq!(report.watched[0].columns[0], ("id".into(), None, Some("5".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_looked_at_also_when_its_worker_died_right_after_it() {
    let mut stage = Stage::new().await;
    let job = job(RAISE, "[canary]\nrows = 4\nthen = \"pause\"\n");
    // Stopped between the batch and the look at it.
    let options = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    Box::pin(stage.engine.run(&job, &options, &mut Observer::silent())).await.expect("a batch");
    let paused = stage.run(&job).await.expect("an outcome");
    assert!(
        matches!(&paused.state, RunState::Paused { reason } if reason.starts_with("the canary batch")),
        "{paused:?}"
    );
    assert_eq!((paused.batches, paused.changed_rows), (1, 4));
    assert_eq!(stage.run(&job).await.expect("the rest").state, RunState::Succeeded);
    let report = stage.engine.report("raise").await.expect("the report");
    let canary = report.trail.canary.as_deref().unwrap_or_default();
    assert!(
        canary.contains("a first batch of at most 4 rows, then a pause") && canary.contains("as expected at"),
        "{canary}"
    );
    let stops: Vec<&str> = report.trail.stops.iter().map(|stop| stop.why.as_str()).collect();
    assert_eq!(stops.len(), 2, "{stops:?}");
    assert!(report.trail.stops.iter().all(|stop| stop.until.is_some()), "{:?}", report.trail.stops);
}
