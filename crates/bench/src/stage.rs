//! The server and the table that all contestants meet, and fresh copies of it.

use std::time::Duration;

use pgmend::Engine;
use pgmend_testkit::{Server, ServerOptions, Sql};

use crate::error::BenchError;

/// As a small production server would have it: everything durable, autovacuum as it comes, and no
/// checkpoint in the middle of a measurement that its neighbour does not have.
const SETTINGS: [(&str, &str); 11] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("wal_level", "replica"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "30min"),
    ("maintenance_work_mem", "256MB"),
    ("max_parallel_maintenance_workers", "0"),
    ("wal_buffers", "16MB"),
    ("autovacuum", "on"),
];
/// Building twenty million rows takes minutes.
const PATIENCE: Duration = Duration::from_secs(3_600);
const TEMPLATE: &str = "bench_template";
const COPY: &str = "bench_copy";

/// The rows that are repaired: every region is unknown, and the customer's number tells the right one.
pub const REPAIR: &str = "update orders set region = case when customer_id % 2 = 0 then 'north' else 'south' end \
                          where region = 'unknown'";
/// Two rows in a hundred, spread over the whole table.
pub const SPARSE: &str = "update orders set region = 'south' where customer_id % 50 = 7";
/// A quarter of the rows, spread over the whole table.
pub const DELETE: &str = "delete from orders where customer_id % 4 = 0";
/// A quarter of the rows, into a table with one index.
pub const INSERT: &str = "insert into archived_order (id, customer_id, region, placed_at) \
                          select id, customer_id, region, placed_at from orders where customer_id % 4 = 0";

/// A server with the template of the table.
pub struct Stage {
    server: Server,
    pub rows: u64,
    pub heap_bytes: i64,
    pub all_bytes: i64,
}

impl Stage {
    /// Starts the server and makes the rows.
    pub fn build(rows: u64, settings: &[(String, String)]) -> Result<Self, BenchError> {
        let mut options = ServerOptions::new();
        for (name, value) in SETTINGS {
            options = options.setting(name, value);
        }
        for (name, value) in settings {
            options = options.setting(name, value);
        }
        let server = options.start()?;
        eprintln!("server on port {}, building {rows} rows", server.port());
        patient(&server, "postgres")?.run(&format!("create database {TEMPLATE}"))?;
        let mut sql = patient(&server, TEMPLATE)?;
        sql.run(
            "create table orders (
                 id bigint not null,
                 customer_id int not null,
                 region text not null,
                 amount numeric(12, 2) not null,
                 placed_at timestamptz not null,
                 reference uuid not null,
                 note text not null)",
        )?;
        sql.run(&format!(
            "insert into orders
             select n, (n::bigint * 7919) % 100000, 'unknown', (n % 100000) / 7.0, '2020-01-01'::timestamptz + n * interval '1 minute',
                    md5(n::text)::uuid, repeat(md5((n % 1000)::text), 4) || repeat('x', 50)
               from generate_series(1, {rows}) as n"
        ))?;
        sql.run("alter table orders add primary key (id)")?;
        sql.run("create index orders_customer on orders (customer_id)")?;
        sql.run("create index orders_placed_at on orders (placed_at)")?;
        sql.run(
            "create table archived_order (id bigint primary key, customer_id int, region text, placed_at timestamptz)",
        )?;
        sql.run("vacuum analyze")?;
        sql.run("checkpoint")?;
        let size = |sql: &mut Sql, function: &str| -> Result<i64, BenchError> {
            let value = sql.value(&format!("select {function}('orders')"))?;
            Ok(value.and_then(|v| v.parse().ok()).unwrap_or(0))
        };
        let (heap_bytes, all_bytes) = (size(&mut sql, "pg_relation_size")?, size(&mut sql, "pg_total_relation_size")?);
        drop(sql);
        let stage = Self { server, rows, heap_bytes, all_bytes };
        stage.runtime()?.block_on(async {
            let mut engine = Engine::connect(Some(&stage.url(TEMPLATE))).await?;
            engine.init().await.map(|_| ())
        })?;
        Ok(stage)
    }

    /// A fresh copy of the table, in a database of its own that replaces the last one; its URL.
    /// Everything is on disk when it returns.
    pub fn fresh(&self) -> Result<String, BenchError> {
        let mut sql = patient(&self.server, "postgres")?;
        sql.run(&format!("drop database if exists {COPY} with (force)"))?;
        sql.run(&format!("create database {COPY} template {TEMPLATE} strategy file_copy"))?;
        let mut copy = patient(&self.server, COPY)?;
        // The same part of it in memory for everybody.
        if copy.run("create extension if not exists pg_prewarm").is_ok() {
            let all =
                "select pg_prewarm(oid::regclass) from pg_class where relname like 'orders%' and relkind in ('r', 'i')";
            copy.run(all)?;
        }
        copy.run("checkpoint")?;
        Ok(self.url(COPY))
    }

    /// A session with the copy.
    pub fn sql(&self) -> Result<Sql, BenchError> {
        patient(&self.server, COPY)
    }

    /// A runtime like that of the command line: one thread.
    pub fn runtime(&self) -> Result<tokio::runtime::Runtime, BenchError> {
        Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
    }

    /// The server's version.
    pub fn version(&self) -> String {
        self.server.version().to_string()
    }

    fn url(&self, database: &str) -> String {
        self.server.url(database, "postgres")
    }
}

fn patient(server: &Server, database: &str) -> Result<Sql, BenchError> {
    let mut sql = server.sql(database)?;
    sql.set_patience(PATIENCE)?;
    Ok(sql)
}
