//! Throwaway PostgreSQL servers, and ways to hurt them, for pgmend's own tests.
//!
//! - [`Server`] is a real PostgreSQL in a temporary folder, gone when it is dropped and also
//!   when the test process is killed; [`Database`] is one database of its own for one test.
//! - [`Sql`] runs statements and returns their rows as text, without a driver, so that a test
//!   checks pgmend's work through code that shares nothing with pgmend.
//! - [`FaultProxy`] stands between a client and a server and loses COMMITs or their answers.
//! - [`Pooler`] is a PgBouncer in transaction mode; [`SmallDisk`] is a disk that can be filled.
//! - [`Standby`] is a copy of a server, to promote or to stream to.
//! - [`run_with_fault`] runs a pgmend that kills itself at a named point.
//!
//! Nothing here is asynchronous, and nothing here is part of the pgmend that people install.
//!
//! ```no_run
//! use pgmend_testkit::{Database, Server};
//!
//! let database = Database::create(Server::shared(), "orders")?;
//! let mut sql = database.sql()?;
//! sql.run("create table orders (id bigint primary key)")?;
//! assert_eq!(sql.value("select count(*) from orders")?.as_deref(), Some("0"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod account;
mod binaries;
mod cluster;
mod database;
mod disk;
mod error;
mod fault;
mod pooler;
mod proxy;
mod server;
mod sql;
mod standby;
mod url;
mod watchdog;
mod wire;

pub use binaries::{BINARIES_VARIABLE, Binaries, Version};
pub use database::Database;
pub use disk::SmallDisk;
pub use error::KitError;
pub use fault::{FAULT_VARIABLE, Faulted, points_in, run_with_fault};
pub use pooler::{POOLER_VARIABLE, Pooler};
pub use proxy::{Cut, FaultProxy};
pub use server::{SERVER_VARIABLE, Server, ServerOptions};
pub use sql::{CONNECTION_LOST, PgErrorText, Rows, Sql};
pub use standby::Standby;
