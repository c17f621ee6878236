//! Vacuums on the way: they keep the table small, give way, and no run depends on them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgmend::{Engine, Event, Job, JobFile, Observer, PlanOptions, RunOptions, RunState};
use pgmend_testkit::{Database, Pooler, Server, Sql};

use super::{PATIENCE, SOON};

const ROWS: i64 = 20_000;

struct Wide {
    db: Database,
    sql: Sql,
}

impl Wide {
    /// A table of wide rows, of which autovacuum keeps its hands.
    fn new() -> Self {
        let db = Database::create(Server::shared(), "vacuum").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run(&format!(
            "create table item (id int primary key, n int not null default 0, filler text not null)
                 with (autovacuum_enabled = off);
             insert into item (id, filler) select i, repeat('x', 200) from generate_series(1, {ROWS}) i;
             analyze item"
        ))
        .expect("the table");
        Self { db, sql }
    }

    fn number(&mut self, sql: &str) -> i64 {
        self.sql.value(sql).expect("it answers").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{sql}"))
    }

    fn pages(&mut self) -> i64 {
        self.number("select pg_relation_size('item') / current_setting('block_size')::int")
    }

    fn outcomes(&mut self) -> String {
        self.sql
            .value("select coalesce(string_agg(outcome, ' ' order by vacuum_no), '') from pgmend.vacuum")
            .expect("it answers")
            .unwrap_or_default()
    }

    async fn engine(&self) -> Engine {
        Engine::connect(Some(&self.db.url())).await.expect("a connection")
    }

    fn check(&mut self) {
        assert_eq!(self.number("select count(*) from item where n = 1"), ROWS, "every row once");
    }
}

fn job(every: Option<&str>) -> Job {
    let mut file = JobFile::default();
    file.limits.batch_rows = Some(500);
    file.limits.lease_seconds = 6;
    file.limits.vacuum_every = every.map(|share| share.parse().expect("a share"));
    file.throttle.off = Some("other tests load this server".into());
    Job { file, ..Job::from_statement("touch", "update item set n = n + 1") }
}

/// Makes every vacuum of this database slow: it rests after each page, for more than a minute in all.
fn slow(wide: &mut Wide) {
    slowed(wide, 1, 100);
}

/// Lets every vacuum of this database rest for so long after work that costs so much.
fn slowed(wide: &mut Wide, cost: u32, rest_ms: u32) {
    let name = wide.sql.value("select quote_ident(current_database())").expect("a name").expect("a name");
    wide.sql
        .run(&format!(
            "alter database {name} set vacuum_cost_limit = {cost}; alter database {name} set vacuum_cost_delay = {rest_ms}"
        ))
        .expect("a slow vacuum");
}

/// Lets vacuums be fast until the run has ended. What began before would take minutes, and so would what a session that was
/// there before begins yet.
async fn quick<T>(wide: &mut Wide, run: &tokio::task::JoinHandle<T>) {
    let name = wide.sql.value("select quote_ident(current_database())").expect("a name").expect("a name");
    wide.sql.run(&format!("alter database {name} reset all")).expect("vacuums are fast again");
    let since = wide.sql.value("select clock_timestamp()").expect("it answers").expect("a time");
    let old = format!("a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_start < '{since}'");
    let deadline = Instant::now() + PATIENCE;
    while !run.is_finished() {
        assert!(Instant::now() < deadline, "the run does not end");
        wide.sql
            .run(&format!(
                "select pg_cancel_backend(pid) from pg_stat_progress_vacuum p join pg_stat_activity a using (pid) where {old};
                 select pg_terminate_backend(pid) from pg_stat_activity a where {old} and state = 'idle' and query like 'vacuum%'"
            ))
            .expect("they go");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

const UNDER_WAY: &str = "select count(*) from pg_stat_progress_vacuum where datname = current_database()";

async fn wait_until(wide: &mut Wide, sql: &str, wanted: i64) {
    let deadline = Instant::now() + PATIENCE;
    while wide.number(sql) != wanted {
        assert!(Instant::now() < deadline, "not in time: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_vacuums_on_its_way_does_not_double_the_table() {
    let mut grown = Vec::new();
    for every in [None, Some("10%")] {
        let mut wide = Wide::new();
        let before = wide.pages();
        let mut engine = wide.engine().await;
        let outcome = Box::pin(engine.run(&job(every), &RunOptions::default(), &mut Observer::silent())).await;
        assert_eq!(outcome.expect("a run").state, RunState::Succeeded);
        wide.check();
        grown.push(wide.pages() as f64 / before as f64);
        let made = wide.outcomes();
        let report = engine.report("touch").await.expect("a report");
        match every {
            None => assert_eq!((made.as_str(), report.vacuums.done), ("", 0)),
            Some(_) => {
                assert!(made.split(' ').filter(|outcome| *outcome == "done").count() >= 7, "{made}");
                assert!(report.vacuums.done >= 7 && report.markdown().contains("## Vacuums"), "{:?}", report.vacuums);
                assert!(report.ledger.starts_with("intact"));
                assert!(wide.number("select count(*) from pgmend.ledger where fact = 'run_vacuumed'") >= 7);
            }
        }
    }
    let [without, with] = grown[..] else { unreachable!("two runs") };
    assert!(without > 1.8, "without vacuums the table doubles: {without}");
    assert!(with < 1.5, "with vacuums it does not: {with}, {without} without");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaf_partitions_of_a_target_are_vacuumed_one_by_one() {
    let mut wide = Wide::new();
    wide.sql
        .run(&format!(
            "drop table item;
             create table item (id int primary key, n int not null default 0, filler text not null) partition by range (id);
             create table item_a partition of item for values from (0) to ({half}) with (autovacuum_enabled = off);
             create table item_b partition of item for values from ({half}) to ({all}) partition by range (id);
             create table item_b1 partition of item_b for values from ({half}) to ({all}) with (autovacuum_enabled = off);
             insert into item (id, filler) select i, repeat('x', 200) from generate_series(1, {ROWS}) i; analyze item",
            half = ROWS / 2,
            all = ROWS + 1
        ))
        .expect("the tables");
    let mut engine = wide.engine().await;
    let outcome = Box::pin(engine.run(&job(Some("25%")), &RunOptions::default(), &mut Observer::silent())).await;
    assert_eq!(outcome.expect("a run").state, RunState::Succeeded);
    wide.check();
    assert!(wide.outcomes().starts_with("done done"), "{}", wide.outcomes());
    let each = "select min(pg_stat_get_vacuum_count(c::regclass)) from unnest(array['item_a', 'item_b1']) c";
    wait_until(&mut wide, &format!("select (({each}) >= 2)::int"), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_ends_a_vacuum_and_the_run_vacuums_once_it_goes_on() {
    let mut wide = Wide::new();
    slow(&mut wide);
    let mut engine = wide.engine().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let mut runner = wide.engine().await;
    let task = tokio::spawn(async move {
        let mut observer = Observer::new(move |event| {
            if matches!(event, Event::Vacuuming { .. } | Event::Vacuumed { .. }) {
                kept.lock().expect("nobody panics here").push(event.clone());
            }
        });
        runner.run(&job(Some("10%")), &RunOptions::default(), &mut observer).await
    });
    wait_until(&mut wide, UNDER_WAY, 1).await;
    let status = engine.status(None).await.expect("the status").remove(0);
    assert!(status.doing.starts_with("has been vacuuming "), "{}", status.doing);
    let began = Instant::now();
    engine.pause("touch", "checkout is slow").await.expect("a pause");
    let outcome = tokio::time::timeout(PATIENCE, task).await.expect("soon").expect("the task").expect("the run");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(outcome.state, RunState::Paused { reason: "checkout is slow".into() });
    wait_until(&mut wide, UNDER_WAY, 0).await;
    assert_eq!(wide.outcomes(), "gave_way");
    let told = told.lock().expect("nobody panics here").clone();
    assert!(
        matches!(&told[..], [Event::Vacuuming { .. }, Event::Vacuumed { outcome, .. }] if outcome == "gave_way"),
        "{told:?}"
    );
    let name = wide.sql.value("select quote_ident(current_database())").expect("a name").expect("a name");
    wide.sql.run(&format!("alter database {name} reset all")).expect("vacuums are fast again");
    let done = Box::pin(wide.engine().await.resume("touch", &mut Observer::silent())).await.expect("the rest");
    assert_eq!(done.state, RunState::Succeeded);
    wide.check();
    assert!(wide.outcomes().starts_with("gave_way done done"), "{}", wide.outcomes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_gives_way_to_whoever_waits_for_the_table() {
    let mut wide = Wide::new();
    slow(&mut wide);
    let mut runner = wide.engine().await;
    let task =
        tokio::spawn(
            async move { runner.run(&job(Some("20%")), &RunOptions::default(), &mut Observer::silent()).await },
        );
    wait_until(&mut wide, UNDER_WAY, 1).await;
    let mut other = wide.db.sql().expect("a session");
    let began = Instant::now();
    let altered = tokio::task::spawn_blocking(move || other.run("alter table item add note text"));
    altered.await.expect("it does not panic").expect("it is altered");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    quick(&mut wide, &task).await;
    let outcome = tokio::time::timeout(PATIENCE, task).await.expect("soon").expect("the task").expect("the run");
    assert_eq!(outcome.state, RunState::Succeeded);
    wide.check();
    assert!(wide.outcomes().starts_with("gave_way "), "{}", wide.outcomes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_vacuum_is_told_so_by_the_plan_and_runs_without() {
    let mut wide = Wide::new();
    let mut engine = wide.engine().await;
    engine.init().await.expect("the control schema");
    let role = wide.db.create_role("runner", "").expect("a role");
    wide.sql.run(&format!("grant pgmend_runner to {role}; grant select, update on item to {role}")).expect("grants");
    let mut engine = Engine::connect(Some(&wide.db.url_for(&role))).await.expect("a connection");
    let plan = Box::pin(engine.plan(&job(Some("30%")), &PlanOptions::default())).await.expect("a plan").plan;
    let finding = plan.findings.iter().find(|finding| finding.check == "no_vacuum").expect("a finding");
    assert!(finding.message.contains("may not vacuum"), "{}", finding.message);
    let outcome = Box::pin(engine.run(&job(Some("30%")), &RunOptions::default(), &mut Observer::silent())).await;
    assert_eq!(outcome.expect("a run").state, RunState::Succeeded);
    wide.check();
    assert_eq!(wide.outcomes(), "skipped skipped skipped");
    let report = engine.report("touch").await.expect("a report");
    assert!(report.vacuums.last_why.as_ref().is_some_and(|why| why.contains("may not vacuum")), "{:?}", report.vacuums);
    assert_eq!(wide.number("select pg_stat_get_vacuum_count('item'::regclass)"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workers_vacuum_one_after_the_other() {
    let mut wide = Wide::new();
    // So slow that the other worker would be due meanwhile.
    slowed(&mut wide, 40, 2);
    let mut job = job(Some("20%"));
    job.file.limits.workers = Some(2);
    let mut engine = wide.engine().await;
    let outcome = Box::pin(engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await.expect("a run");
    assert_eq!(outcome.state, RunState::Succeeded);
    wide.check();
    let made = wide.outcomes();
    assert!(made.contains("done") && !made.contains("failed"), "{made}");
    let overlapping = "select count(*) from pgmend.vacuum a join pgmend.vacuum b on a.run_id = b.run_id
                        and a.vacuum_no < b.vacuum_no and b.began_at < a.ended_at";
    assert_eq!(wide.number(overlapping), 0);
}

/// From version 17 on, MAINTAIN is enough to vacuum a table that somebody else owns.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_maintain_the_table_vacuums_it() {
    if Server::shared().version().major < 17 {
        eprintln!("skipped: this server knows no MAINTAIN privilege");
        return;
    }
    let mut wide = Wide::new();
    let mut engine = wide.engine().await;
    engine.init().await.expect("the control schema");
    let role = wide.db.create_role("runner", "").expect("a role");
    wide.sql
        .run(&format!("grant pgmend_runner to {role}; grant select, update, maintain on item to {role}"))
        .expect("grants");
    let mut engine = Engine::connect(Some(&wide.db.url_for(&role))).await.expect("a connection");
    let plan = Box::pin(engine.plan(&job(Some("30%")), &PlanOptions::default())).await.expect("a plan").plan;
    assert!(!plan.findings.iter().any(|finding| finding.check == "no_vacuum"), "{:?}", plan.findings);
    let outcome = Box::pin(engine.run(&job(Some("30%")), &RunOptions::default(), &mut Observer::silent())).await;
    assert_eq!(outcome.expect("a run").state, RunState::Succeeded);
    wide.check();
    assert_eq!(wide.outcomes(), "done done done");
}

/// A statement of its own, outside of any transaction, is all that a pool in transaction mode has to allow for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_behind_a_pooler_is_made_to_its_end() {
    let Some(pooler) = Pooler::start(Server::shared(), 3, &[]).expect("a pooler that is installed starts") else {
        eprintln!("skipped: no PgBouncer is installed (apt-get install pgbouncer, or PGMEND_PGBOUNCER names it)");
        return;
    };
    let mut wide = Wide::new();
    let before = wide.pages();
    let mut engine = Engine::connect(Some(&pooler.url(wide.db.name()))).await.expect("a connection through the pooler");
    let done = Box::pin(engine.run(&job(Some("10%")), &RunOptions::default(), &mut Observer::silent())).await;
    assert_eq!(done.expect("a run").state, RunState::Succeeded);
    wide.check();
    let made = wide.outcomes();
    assert!(made.split(' ').filter(|outcome| *outcome == "done").count() >= 7, "{made}");
    let grown = wide.pages() as f64 / before as f64;
    assert!(grown < 1.5, "{grown:.2} times as large after {made}");
}

/// Each statement may run in another session of the server, also the vacuum: whoever waits for the table is seen all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_behind_a_pooler_gives_way() {
    let Some(pooler) = Pooler::start(Server::shared(), 3, &[]).expect("a pooler that is installed starts") else {
        eprintln!("skipped: no PgBouncer is installed (apt-get install pgbouncer, or PGMEND_PGBOUNCER names it)");
        return;
    };
    let mut wide = Wide::new();
    slow(&mut wide);
    let url = pooler.url(wide.db.name());
    let runner = tokio::spawn(async move {
        let mut engine = Engine::connect(Some(&url)).await.expect("a connection through the pooler");
        engine.run(&job(Some("20%")), &RunOptions::default(), &mut Observer::silent()).await
    });
    wait_until(&mut wide, UNDER_WAY, 1).await;
    let mut other = wide.db.sql().expect("a session");
    let began = Instant::now();
    let altered = tokio::task::spawn_blocking(move || other.run("alter table item add note text"));
    altered.await.expect("it does not panic").expect("it is altered");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    quick(&mut wide, &runner).await;
    let outcome = tokio::time::timeout(PATIENCE, runner).await.expect("soon").expect("the task").expect("the run");
    assert_eq!(outcome.state, RunState::Succeeded);
    wide.check();
    // The first took minutes and was ended within seconds; its worker may have lost the pooler's session since.
    let made = wide.outcomes();
    assert!(made.starts_with("gave_way ") || made.starts_with("lost "), "{made}");
}
