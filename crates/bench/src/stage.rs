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
/// A change of every row that no batch could compute for itself.
pub const RANKED: &str = "update orders as o set region = case when r.place % 2 = 1 then 'north' else 'south' end \
     from (select id, row_number() over (partition by customer_id order by placed_at, id) as place from orders) as r \
     where r.id = o.id and o.region = 'unknown'";
/// Two rows in a hundred, spread over the whole table.
pub const SPARSE: &str = "update orders set region = 'south' where customer_id % 50 = 7";
/// A quarter of the rows, spread over the whole table.
pub const DELETE: &str = "delete from orders where customer_id % 4 = 0";
/// A quarter of the rows, into a table with one index.
pub const INSERT: &str = "insert into archived_order (id, customer_id, region, placed_at) \
                          select id, customer_id, region, placed_at from orders where customer_id % 4 = 0";

/// What the table is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Wide rows, three indexes whose entries come in the order of the rows: the key, a tenant, a time.
    Ordered,
    /// The same, but the second index is over a column in random order.
    Scattered,
    /// Narrow rows and the key alone, for memory: what the server stores is not what is measured.
    Narrow,
}

/// A server with the template of the table.
pub struct Stage {
    server: Server,
    pub rows: u64,
    pub shape: Shape,
    pub heap_bytes: i64,
    pub all_bytes: i64,
}

impl Stage {
    /// Starts the server and makes the rows.
    pub fn build(rows: u64, shape: Shape, settings: &[(String, String)]) -> Result<Self, BenchError> {
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
        for statement in shape.statements(rows) {
            sql.run(&statement)?;
        }
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
        let stage = Self { server, rows, shape, heap_bytes, all_bytes };
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

    /// Seconds of processor time that the server and this process have used so far; `None` where the system
    /// does not tell. What neighbours on the machine do changes it less than it changes the clock.
    pub fn cpu_seconds(&self) -> Option<f64> {
        crate::cpu::seconds(self.server.pid()?)
    }

    /// The server's version.
    pub fn version(&self) -> String {
        self.server.version().to_string()
    }

    /// The server itself.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Host, port and database of the copy.
    pub fn address(&self) -> (String, u16, String) {
        (self.server.host().to_owned(), self.server.port(), COPY.to_owned())
    }

    fn url(&self, database: &str) -> String {
        self.server.url(database, "postgres")
    }
}

impl Shape {
    fn statements(self, rows: u64) -> Vec<String> {
        // bigint throughout: the products of large tables leave int4.
        let customer = "(n::bigint * 7919) % 100000";
        let numbers = format!("generate_series(1::bigint, {rows}) as n");
        let placed_at = "'2020-01-01'::timestamptz + n * interval '1 minute'";
        let key = "alter table orders add primary key (id)".to_owned();
        if self == Shape::Narrow {
            return vec![
                "create table orders (id bigint not null, customer_id int not null, region text not null, \
                 placed_at timestamptz not null)"
                    .to_owned(),
                format!("insert into orders select n, {customer}, 'unknown', {placed_at} from {numbers}"),
                key,
            ];
        }
        let second = if self == Shape::Ordered { "shop_id" } else { "customer_id" };
        vec![
            "create table orders (id bigint not null, shop_id int not null, customer_id int not null, \
             region text not null, amount numeric(12, 2) not null, placed_at timestamptz not null, \
             reference uuid not null, note text not null)"
                .to_owned(),
            format!(
                "insert into orders select n, n % 200, {customer}, 'unknown', (n % 100000) / 7.0, {placed_at}, \
                 md5(n::text)::uuid, repeat(md5((n % 1000)::text), 4) || repeat('x', 50) from {numbers}"
            ),
            key,
            format!("create index orders_second on orders ({second})"),
            "create index orders_placed_at on orders (placed_at)".to_owned(),
        ]
    }
}

fn patient(server: &Server, database: &str) -> Result<Sql, BenchError> {
    let mut sql = server.sql(database)?;
    sql.set_patience(PATIENCE)?;
    Ok(sql)
}
