//! The throwaway server and the shop on it.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgmend_testkit::{Server, ServerOptions, Sql};

use crate::failure::Failure;
use crate::shell::quoted;

const SCHEMA: &str = include_str!("shop.sql");
const DATABASE: &str = "shop";
/// Statements over whole tables take long when someone asks for millions of orders.
const PATIENCE: Duration = Duration::from_secs(600);

/// A running shop. Its server goes away with it, unless it is kept.
#[derive(Debug)]
pub struct Shop {
    server: Server,
    folder: PathBuf,
}

impl Shop {
    /// Starts a server of its own and an empty database on it.
    pub fn open(keep: bool) -> Result<Self, Failure> {
        // Commits wait for the disk here, as they do elsewhere.
        let options = ServerOptions::new().setting("fsync", "on").setting("full_page_writes", "on");
        let options = if keep { options.keep() } else { options };
        let server = options.start().map_err(broken("start PostgreSQL"))?;
        let folder = server.data_folder().parent().map(Path::to_path_buf).unwrap_or_default();
        let mut sql = server.sql("postgres").map_err(broken("connect"))?;
        sql.run(&format!("create database {DATABASE}")).map_err(broken("create the database"))?;
        Ok(Self { server, folder })
    }

    /// Creates the shop's tables with this many users, orders and authorizations.
    pub fn fill(&self, rows: u32) -> Result<(), Failure> {
        let mut sql = self.sql()?;
        sql.run(&SCHEMA.replace("{{rows}}", &rows.to_string())).map_err(broken("create the shop"))?;
        sql.run("vacuum analyze").map(drop).map_err(broken("analyze the shop"))
    }

    /// A session of the shop's owner.
    pub fn sql(&self) -> Result<Sql, Failure> {
        let mut sql = self.server.sql(DATABASE).map_err(broken("connect"))?;
        sql.set_patience(PATIENCE).map_err(broken("connect"))?;
        Ok(sql)
    }

    /// Where `pgmend` finds the shop.
    pub fn url(&self) -> String {
        self.server.url(DATABASE, "postgres")
    }

    /// A folder for the job files; it goes away with the server.
    pub fn jobs(&self) -> PathBuf {
        self.folder.join("jobs")
    }

    /// The server's version and address.
    pub fn address(&self) -> String {
        format!("PostgreSQL {} on {}:{}", self.server.version(), self.server.host(), self.server.port())
    }

    /// The lines that stop and remove a server that is kept.
    pub fn stop_lines(&self) -> Vec<String> {
        let folder = quoted(&self.folder.display().to_string());
        let stop = self.server.pid().map(|pid| format!("kill -INT {pid}"));
        stop.into_iter().chain([format!("rm -r {folder}")]).collect()
    }
}

/// What the demo itself could not do.
pub fn broken<E: Display>(doing: &str) -> impl Fn(E) -> Failure + '_ {
    move |source| Failure::Io { message: format!("the demo cannot {doing}: {source}") }
}
