//! Runs that go tenant by tenant, on a real server: equality with the plain statement, order, failures and pauses of one
//! tenant, rows that others hold, and undo.

mod alone;
mod encrypted;
mod order;
mod refused;
mod whole;

use pgmend::{Code, Engine, Error, Job, Mode, Observer, Outcome, RunOptions};
use pgmend_core::tenants::TenantMode;
use pgmend_testkit::{Database, Server, Sql};

/// Adds to a number: twice is not once. Frozen in tenant mode.
const ADD: &str = "update item set n = n + 5 where kind <> 'kept'";
/// Does not match any more once it is made. Streamed.
const MEND: &str = "update item set note = 'new' where note = 'old'";
/// Streamed, too.
const DELETE: &str = "delete from item where kind <> 'kept'";

/// A table with seven tenants of 5 to 80 rows, one of them NULL, keys that mix them, and the same table for the plain
/// statement.
struct Stage {
    engine: Engine,
    sql: Sql,
    db: Database,
}

impl Stage {
    async fn new() -> Self {
        let db = Database::create(Server::shared(), "tenants").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run(
            "create table item (id int primary key, tenant_id int, kind text not null, n bigint not null, note text not null);
             insert into item
             select row_number() over (order by md5(t.id::text || i)), nullif(t.id, 0), (array['a', 'b', 'kept'])[i % 3 + 1], i, 'old'
               from (values (1, 40), (2, 5), (3, 20), (4, 80), (5, 10), (6, 15), (0, 25)) as t (id, size),
                    generate_series(1, t.size) as i;
             create index on item (tenant_id, id);
             create schema plain;
             create table plain.item (like item including all);
             insert into plain.item select * from item;
             analyze",
        )
        .expect("the tables");
        let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
        engine.init().await.expect("the control schema");
        Self { engine, sql, db }
    }

    async fn run(&mut self, job: &Job) -> Outcome {
        self.with(job, &RunOptions::default()).await.expect("a run")
    }

    async fn with(&mut self, job: &Job, options: &RunOptions) -> Result<Outcome, Error> {
        Box::pin(self.engine.run(job, options, &mut Observer::silent())).await
    }

    /// Whether the table is as the plain statement leaves it.
    fn check(&mut self, statement: &str) {
        self.sql
            .run(&format!("set search_path = plain, public; {statement}; reset search_path"))
            .expect("the plain statement");
        let differing = self.number("select count(*) from (table plain.item except table item union all (table item except table plain.item)) d");
        let (here, there) = (self.number("select count(*) from item"), self.number("select count(*) from plain.item"));
        assert_eq!((differing, here), (0, there), "{statement}");
    }

    fn number(&mut self, sql: &str) -> i64 {
        self.sql.value(sql).expect("it answers").and_then(|n| n.parse().ok()).expect("a number")
    }

    fn text(&mut self, sql: &str) -> String {
        self.sql.value(sql).expect("it answers").unwrap_or_default()
    }

    /// The tenants in the order in which their first batches were committed.
    fn order(&mut self) -> String {
        self.text(
            "select string_agg(coalesce(p.tenant, 'NULL'), ' ' order by b.begun_at) from pgmend.partition p \
             join pgmend.batch b using (run_id, partition_no) where b.batch_no = 1",
        )
    }

    /// What stands in the way of one tenant's rows.
    fn reject(&mut self, tenant: &str) {
        self.sql
            .run(&format!(
                "create or replace function reject() returns trigger language plpgsql as
                 $$ begin if old.tenant_id in ({tenant}) then raise exception 'not now'; end if; return new; end $$;
                 drop trigger if exists reject on item;
                 create trigger reject after update on item for each row execute function reject()"
            ))
            .expect("the trigger");
    }
}

fn job(statement: &str, mode: Option<Mode>) -> Job {
    let mut job = Job::from_statement("tenants", statement);
    job.file.tenants = Some(TenantMode::by("tenant_id"));
    job.file.mode = mode;
    job.file.limits.batch_rows = Some(7);
    job.file.limits.lease_seconds = 3;
    // Before version 15 each database that another test makes is a checkpoint, and a hold for minutes.
    job.file.throttle.off = Some("other tests load this server".into());
    job
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    match result {
        Err(Error::Refused(refusal)) => (refusal.code, format!("{}; {}", refusal.message, refusal.help)),
        other => panic!("not refused: {other:?}"),
    }
}
