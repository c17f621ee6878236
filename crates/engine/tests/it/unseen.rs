//! Triggers that no plan can follow: C, and statements from data. A batch that they made write more than its own rows is
//! not committed.

use pgmend::{Engine, Job, JobFile, Mode, Observer, Outcome, PlanOptions, RunOptions, RunState};
use pgmend_core::dead_letters::DeadLetters;
use pgmend_testkit::{Database, Server, Sql};

const ROWS: i64 = 60;
/// The trigger's statement comes from a table, one for all rows; `$1` is the row's id.
const TABLES: &str = "create table item (id int primary key, parent int, n int not null);
     insert into item select i, i - 25, i from generate_series(1, 60) i;
     create table price (id int primary key, amount int not null); insert into price select i, i from generate_series(1, 60) i;
     create table heard (id int);
     create table rule (command text not null);
     create function follow() returns trigger language plpgsql as $$
     begin execute (select command from rule) using coalesce(new.id, old.id); return null; end $$";

struct Stage {
    db: Database,
    sql: Sql,
    engine: Engine,
}

impl Stage {
    /// The tables, and a trigger on the target that executes this command.
    async fn following(on: &str, command: &str) -> Self {
        Self::new(&format!(
            "{TABLES}; insert into rule values ($text${command}$text$);
             create trigger follow after {on} on item for each row when (pg_trigger_depth() = 0) execute function follow()"
        ))
        .await
    }

    async fn new(setup: &str) -> Self {
        let db = Database::create(Server::shared(), "unseen").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run(setup).expect("the tables");
        let engine = Engine::connect(Some(&db.url())).await.expect("a connection");
        Self { db, sql, engine }
    }

    async fn run(&mut self, job: &Job) -> Outcome {
        let engine = &mut self.engine;
        engine.init().await.expect("the control schema");
        Box::pin(engine.run(job, &RunOptions::default(), &mut Observer::silent())).await.expect("a run")
    }

    /// The run fails for the code, and its first batch already is not there.
    async fn refused(&mut self, job: &Job, why: &str) {
        let contents = "select md5(string_agg(t::text, ',' order by id)) from (select * from item order by id) t";
        let before = self.sql.value(contents).expect("the rows");
        let outcome = self.run(job).await;
        let RunState::Failed { failure } = &outcome.state else { panic!("{job:?}: {outcome:?}") };
        assert!(failure.contains(why) && failure.contains("PM790"), "{failure}");
        assert_eq!((outcome.changed_rows, outcome.batches), (0, 0));
        assert_eq!(self.sql.value(contents).expect("the rows"), before);
    }

    fn number(&mut self, sql: &str) -> i64 {
        self.sql.value(sql).expect("it answers").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{sql}"))
    }

    async fn findings(&mut self, job: &Job) -> String {
        let planned = Box::pin(self.engine.plan(job, &PlanOptions::default())).await.expect("a plan");
        planned.plan.findings.iter().map(|finding| format!("{}: {}\n", finding.check, finding.message)).collect()
    }
}

fn job(statement: &str) -> Job {
    let mut file = JobFile::default();
    file.limits.batch_rows = Some(10);
    Job { file, ..Job::from_statement("unseen", statement) }
}

fn frozen(statement: &str) -> Job {
    let mut job = job(statement);
    job.file.mode = Some(Mode::Freeze);
    job
}

const RAISE: &str = "update item set n = n + 1";
const CHANGES_CHILDREN: &str = "update item set n = n + 100 where parent = $1";

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_changes_other_rows_of_the_target_stops_the_run_before_it_commits() {
    let mut stage = Stage::following("update", CHANGES_CHILDREN).await;
    let findings = stage.findings(&job(RAISE)).await;
    assert!(findings.contains("unfollowed_trigger: what follow leads to cannot be followed"), "{findings}");
    let why = "batch 1: 20 rows of public.item were written and 10 were to change";
    stage.refused(&job(RAISE), why).await;
    // Once the rule is harmless, the same run goes on.
    stage.sql.run("update rule set command = 'insert into heard values ($1)'").expect("a harmless rule");
    let outcome = stage.run(&job(RAISE)).await;
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, ROWS));
    assert_eq!(stage.number("select sum(n - id) from item"), ROWS);
    assert_eq!(stage.number("select count(distinct id) from heard"), ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_statement_and_mode_is_guarded() {
    let adds = "insert into item values ($1 + 1000, null, 0)";
    let takes = "delete from item where parent = $1";
    for (on, command, job) in [
        ("update", CHANGES_CHILDREN, frozen(RAISE)),
        ("update", adds, job(RAISE)),
        ("update", takes, job(RAISE)),
        ("delete", takes, job("delete from item")),
        ("delete", takes, frozen("delete from item")),
        ("delete", CHANGES_CHILDREN, job("delete from item")),
        (
            "insert",
            "update item set n = 0 where id = $1 - 100",
            job("insert into item select id + 100, null, 1 from price"),
        ),
    ] {
        Stage::following(on, command)
            .await
            .refused(&job, "rows of public.item were written and 10 were to change")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_changes_what_the_statement_reads_stops_the_run() {
    let statement = "update item set n = (select p.amount from price p where p.id = item.id)";
    let viewed = "update item set n = s.amount from shown s where s.id = item.id";
    for statement in [statement, viewed] {
        let mut stage = Stage::following("update", "update price set amount = amount + 1 where id = $1 + 30").await;
        stage.sql.run("create view shown as select * from price where amount > 0").expect("a view");
        stage.refused(&job(statement), "batch 1: a trigger wrote 10 rows of what the statement reads").await;
    }
    // A frozen run has read it before.
    let mut stage = Stage::following("update", "update price set amount = amount + 1 where id = $1 + 30").await;
    let outcome = stage.run(&frozen(statement)).await;
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, ROWS));
    assert_eq!(stage.number("select count(*) from item where n = id"), ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_between_partitions_are_their_own() {
    let mut stage = Stage::following("update", "insert into heard values ($1)").await;
    stage
        .sql
        .run(
            "drop table item;
             create table item (id int, parent int, n int not null, half int not null, primary key (id, half)) partition by list (half);
             create table item_0 partition of item for values in (0); create table item_1 partition of item for values in (1);
             insert into item select i, null, i, i % 2 from generate_series(1, 60) i;
             create unique index on item_0 (id); create unique index on item_1 (id);
             create trigger follow after insert or update on item for each row execute function follow()",
        )
        .expect("partitions");
    // In place, and frozen because the key is written.
    for (statement, moved) in [(RAISE, false), ("update item set half = 1 - half", true)] {
        let outcome = stage.run(&job(statement)).await;
        assert_eq!((&outcome.state, outcome.changed_rows), (&RunState::Succeeded, ROWS), "{outcome:?}");
        assert_eq!(stage.number("select count(*) from item where half = 1 - id % 2"), if moved { ROWS } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_set_aside_do_not_count_as_a_triggers() {
    let mut stage = Stage::following("update", "select 1 / (case when $1 in (7, 33) then 0 else 1 end)").await;
    let mut job = job(RAISE);
    job.file.dead_letters = DeadLetters { rows_max: Some(5), share_max: None };
    let outcome = stage.run(&job).await;
    assert_eq!((outcome.changed_rows, outcome.dead_rows), (ROWS - 2, 2), "{outcome:?}");
    assert_eq!(stage.number("select count(*) from item where n = id + 1"), ROWS - 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_in_c_that_deletes_along_stops_the_run() {
    let mut stage = Stage::new(
        "create table item (id int primary key, parent int, n int); insert into item select i, i - 25, i from generate_series(1, 60) i",
    )
    .await;
    let function = "create function along() returns trigger language c as '$libdir/refint', 'check_foreign_key'";
    if let Err(error) = stage.sql.run(function) {
        eprintln!("skipped: this server has no refint ({error})");
        return;
    }
    stage
        .sql
        .run("create trigger along after delete on item for each row execute function along(1, 'cascade', 'id', 'item', 'parent')")
        .expect("the trigger");
    stage.refused(&job("delete from item where id <= 30"), "rows of public.item were written").await;
}

/// What nobody counts cannot be compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_counts_nothing_lets_no_such_batch_through() {
    let mut stage = Stage::following("update", "insert into heard values ($1)").await;
    let name = stage.sql.value("select quote_ident(current_database())").expect("a name").expect("a name");
    stage.sql.run(&format!("alter database {name} set track_counts = off")).expect("a superuser");
    stage.engine = Engine::connect(Some(&stage.db.url())).await.expect("a connection");
    stage.refused(&job(RAISE), "track_counts is off").await;
}

/// Most triggers can be followed: their runs count nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_whose_source_tells_all_costs_nothing() {
    let mut stage = Stage::new(&format!(
        "{TABLES};
         create function hear() returns trigger language plpgsql as $$ begin insert into heard values (new.id); return null; end $$;
         create trigger hear after update on item for each row execute function hear()"
    ))
    .await;
    let planned = Box::pin(stage.engine.plan(&job(RAISE), &PlanOptions::default())).await.expect("a plan").plan;
    assert_eq!(planned.counted, None);
    assert!(!planned.findings.iter().any(|finding| finding.check == "unfollowed_trigger"));
}
