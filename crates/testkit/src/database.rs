//! A database of its own for one test.

use std::process;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::error::KitError;
use crate::server::Server;
use crate::sql::{PgErrorText, Sql};

/// PostgreSQL cuts names at 63 bytes; the rest of the name takes up to 24.
const LONGEST_HINT: usize = 32;
/// The template is in use.
const OBJECT_IN_USE: &str = "55006";
const COPY_TRIES: u32 = 5;
const COPY_WAIT: Duration = Duration::from_millis(100);

/// An empty database; dropped, with the roles made for it, when the test is over.
#[derive(Debug)]
pub struct Database {
    name: String,
    address: String,
    admin_url: String,
    roles: Mutex<Vec<String>>,
}

impl Database {
    /// Creates a database whose name starts with `hint`, so that a log tells whose it is.
    pub fn create(server: &Server, hint: &str) -> Result<Self, KitError> {
        Self::create_with(server, hint, "")
    }

    /// The same with options of CREATE DATABASE, such as `lc_collate 'C'`.
    pub fn create_with(server: &Server, hint: &str, options: &str) -> Result<Self, KitError> {
        let address = format!("{}:{}", server.host(), server.port());
        // template0 has no sessions that could be in the way.
        Self::from_template("template0", hint, options, address, server.url("postgres", "postgres"))
    }

    /// Creates another database with all that this one holds, which nobody may be connected to meanwhile.
    pub fn copy(&self, hint: &str) -> Result<Self, KitError> {
        Self::from_template(&self.name, hint, "", self.address.clone(), self.admin_url.clone())
    }

    fn from_template(
        template: &str,
        hint: &str,
        options: &str,
        address: String,
        admin_url: String,
    ) -> Result<Self, KitError> {
        let name = unique(hint);
        let doing = "create a database for the test";
        let mut admin = Sql::connect(&admin_url).map_err(KitError::while_doing(doing))?;
        let sql = format!("create database {name} template {template} {options}");
        // A session that has just ended may be in the way for a moment.
        let mut created = admin.run(&sql);
        for _ in 0..COPY_TRIES {
            if created.as_ref().err().is_none_or(|error| error.sqlstate != OBJECT_IN_USE) {
                break;
            }
            thread::sleep(COPY_WAIT);
            created = admin.run(&sql);
        }
        created.map_err(KitError::while_doing(doing))?;
        Ok(Self { name, address, admin_url, roles: Mutex::new(Vec::new()) })
    }

    /// The database's name; it needs no quotes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL for the superuser.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The URL for another role, which needs no password.
    pub fn url_for(&self, role: &str) -> String {
        format!("postgresql://{role}@{}/{}", self.address, self.name)
    }

    /// Opens a session of the superuser.
    pub fn sql(&self) -> Result<Sql, PgErrorText> {
        Sql::connect(&self.url())
    }

    /// Creates a role that may log in, and returns its name, which no other test uses.
    ///
    /// Roles belong to the whole server, so tests that share one must not choose names.
    /// `options` follow LOGIN, for example `"in role reporting"`; it may be empty.
    pub fn create_role(&self, hint: &str, options: &str) -> Result<String, PgErrorText> {
        let role = unique(hint);
        self.sql()?.run(&format!("create role {role} login {options}"))?;
        self.roles.lock().unwrap_or_else(PoisonError::into_inner).push(role.clone());
        Ok(role)
    }

    fn drop_all(&self) -> Result<(), PgErrorText> {
        let mut own = self.sql()?;
        // Both keep a database from being dropped, even with (force).
        let prepared = "select gid from pg_prepared_xacts where database = current_database()";
        for gid in own.run(prepared)?.into_iter().flatten().flatten() {
            own.run(&format!("rollback prepared '{}'", gid.replace('\'', "''")))?;
        }
        own.run(
            "select pg_drop_replication_slot(slot_name)
               from pg_replication_slots
              where database = current_database()
                and not active",
        )?;
        drop(own);
        let mut admin = Sql::connect(&self.admin_url)?;
        admin.run(&format!("drop database if exists {} with (force)", self.name))?;
        for role in self.roles.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            admin.run(&format!("drop role if exists {role}"))?;
        }
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Whatever stays behind goes with the server. A stopped server is no reason to fail.
        let _left_behind = self.drop_all();
    }
}

/// A name that no other test of this or another process gets.
fn unique(hint: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let hint: String = hint
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .take(LONGEST_HINT)
        .collect();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t_{hint}_{}_{count}", process::id())
}
