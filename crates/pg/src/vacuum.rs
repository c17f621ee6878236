//! VACUUM of a user's table, on a connection of its own: it cannot run within a transaction, and the settings that keep
//! it gentle must not stay behind on a session that a pooler hands to strangers.

use pgmend_core::id::RunId;
use pgmend_core::vacuum::VACUUM_COST_DELAY_MS;
use serde::{Deserialize, Serialize};

use crate::batch::Lease;
use crate::conninfo::Conninfo;
use crate::error::PgError;
use crate::readtx::ReadTx;
use crate::session::{Session, Statement};
use crate::store::from_json;

const VACUUMABLE: &str = include_str!("../sql/catalog/vacuumable.sql");
const VACUUMS: &str = include_str!("../sql/store/vacuums.sql");
/// How often the server looks whether its client is still there: a vacuum whose worker was killed ends by itself.
const CLIENT_LOOKED_FOR: &str = "5s";

/// A table that a vacuum is made of: the target, or a leaf of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Vacuumable {
    /// Its oid.
    pub oid: u32,
    /// Its quoted name with its schema.
    pub name: String,
    /// Its pages.
    pub pages: i64,
    /// How often it was vacuumed by hand, as the statistics have it.
    pub vacuums: i64,
    /// Whether the role that was asked about may vacuum it.
    pub may: bool,
}

/// What came of a vacuum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All of it was vacuumed.
    Done,
    /// Nobody may, or another session had the table.
    Skipped,
    /// It was cancelled for somebody.
    GaveWay,
    /// It ran into its time.
    TooLong,
    /// The server refused it.
    Failed,
}

impl Ending {
    /// The word as stored.
    pub fn name(self) -> &'static str {
        match self {
            Ending::Done => "done",
            Ending::Skipped => "skipped",
            Ending::GaveWay => "gave_way",
            Ending::TooLong => "too_long",
            Ending::Failed => "failed",
        }
    }
}

/// A vacuum that has begun, or why none has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VacuumStart {
    /// Its number in the run; `None` when it is not due, or another worker is at it.
    pub vacuum_no: Option<i32>,
    /// Rows that the run had changed at the last vacuum, this one included.
    pub after_rows: i64,
}

/// The vacuums of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vacuums {
    /// Those that were made.
    pub done: i64,
    /// Those that could not be made, or ran into their time.
    pub skipped: i64,
    /// Those that gave way to somebody.
    pub gave_way: i64,
    /// Seconds of all of them.
    pub took_s: f64,
    /// Pages of the target before the first one that was made.
    pub pages_before: Option<i64>,
    /// Pages of the target after the last one that was made.
    pub pages_after: Option<i64>,
    /// Why the last one that was not made was not.
    pub last_why: Option<String>,
    /// For how many seconds one is under way, if one is.
    pub under_way_s: Option<f64>,
}

impl ReadTx<'_> {
    /// The tables that a VACUUM of a target is made of, and whether a role may vacuum them.
    pub async fn vacuumable(&self, target_oid: u32, role: &str) -> Result<Vec<Vacuumable>, PgError> {
        let params = vec![target_oid.to_string(), role.to_owned()];
        let answer = self.query("look at what to vacuum", VACUUMABLE, params).await?;
        answer.rows.iter().map(|row| from_json(row, 0)).collect()
    }
}

/// The mark of a run's vacuum: a comment that no other statement has.
pub fn mark(lease: &Lease, vacuum_no: i32) -> String {
    format!("/* pgmend vacuum {vacuum_no} of run {} */", lease.run)
}

impl Session {
    /// Connects for vacuums: in the job's role, at autovacuum's pace unless the server has one for manual vacuums, with
    /// a time limit. A pooler may know none of these settings; then it is a plain connection.
    pub async fn connect_for_vacuum(
        &self,
        conninfo: &Conninfo,
        role: &str,
        most_ms: u64,
        lock_timeout_ms: u64,
    ) -> Result<Session, PgError> {
        let asked = "select setting from pg_catalog.pg_settings where name = 'vacuum_cost_delay'";
        let delay = self.run(&Statement::new("read the vacuum's pace", asked, vec![])).await?;
        let unthrottled = delay.scalar().and_then(|ms| ms.parse::<f64>().ok()).is_none_or(|ms| ms <= 0.0);
        let mut settings = vec![
            ("role", role.to_owned()),
            ("statement_timeout", most_ms.to_string()),
            ("lock_timeout", lock_timeout_ms.to_string()),
            ("client_connection_check_interval", CLIENT_LOOKED_FOR.to_owned()),
        ];
        settings.extend(unthrottled.then(|| ("vacuum_cost_delay", format!("{VACUUM_COST_DELAY_MS}ms"))));
        match Session::connect(&conninfo.with_options(&settings)).await {
            Ok(session) => Ok(session),
            Err(_) => Session::connect(conninfo).await,
        }
    }

    /// The tables that a VACUUM of a target is made of, and whether this session's role may vacuum them.
    pub async fn vacuumable(&self, target_oid: u32, role: &str) -> Result<Vec<Vacuumable>, PgError> {
        let params = vec![target_oid.to_string(), role.to_owned()];
        let answer = self.run(&Statement::new("look at what to vacuum", VACUUMABLE, params)).await?;
        answer.rows.iter().map(|row| from_json(row, 0)).collect()
    }

    /// The role that this session acts as, and its backend.
    pub async fn acting(&self) -> Result<(String, i64), PgError> {
        let sql = "select current_user::text, pg_backend_pid()::text";
        let answer = self.run(&Statement::new("look at the session", sql, vec![])).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        Ok((crate::store::text(row, 0)?, crate::store::number(row, 1)?))
    }

    /// Vacuums one table. A table that another session holds is skipped without a word. The mark, a comment of the
    /// statement, tells it from all others on the server.
    /// Lock:  share update exclusive on the table, which lets reads and writes pass. Index: all of the table's.
    pub async fn vacuum(&self, table: &Vacuumable, mark: &str) -> Result<(), PgError> {
        // One round of its own is enough: another worker process would only add load.
        let sql = format!("vacuum (skip_locked, index_cleanup auto, truncate off, parallel 0) {} {mark}", table.name);
        self.run(&Statement::new("vacuum the target", sql, vec![])).await?;
        Ok(())
    }

    /// A session that waits for a lock of this backend, or of the one in which a vacuum with this mark runs: behind a pooler
    /// that may be another one than was asked for its pid. Such a waiter alters the table, say.
    /// Lock:  none (plain reads of the activity and lock views). Index: none.
    pub async fn waits_for(&self, pid: i64, mark: &str) -> Result<Option<i64>, PgError> {
        let sql = "select a.pid::text from pg_catalog.pg_stat_activity a where a.datname = current_database() \
                   and a.wait_event_type = 'Lock' and pg_catalog.pg_blocking_pids(a.pid) && ($1::int || array( \
                       select v.pid from pg_catalog.pg_stat_activity v where v.datname = current_database() \
                          and v.state = 'active' and pg_catalog.strpos(v.query, $2) > 0)) limit 1";
        let params = vec![pid.to_string(), mark.to_owned()];
        let answer = self.run(&Statement::new("look who waits for the vacuum", sql, params)).await?;
        Ok(answer.scalar().and_then(|pid| pid.parse().ok()))
    }

    /// Ends our own vacuum with this mark, wherever it runs: a pooler may lose a request to cancel.
    /// Lock:  none (plain reads of the activity view). Index: none.
    pub async fn end_marked_vacuum(&self, mark: &str) -> Result<(), PgError> {
        let sql = "select pg_catalog.pg_cancel_backend(v.pid)::text from pg_catalog.pg_stat_activity v \
                   where v.datname = current_database() and v.usename = session_user and v.state = 'active' \
                     and pg_catalog.strpos(v.query, $1) > 0";
        self.run(&Statement::new("end the vacuum", sql, vec![mark.to_owned()])).await?;
        Ok(())
    }

    /// Begins a vacuum of a run, if so many rows were changed since the last one and nobody else is at it.
    /// Lock:  one row. Index: `lease_fence`, `vacuum_pkey`, `batch_pkey`.
    pub async fn begin_vacuum(&self, lease: &Lease, due_rows: i64) -> Result<VacuumStart, PgError> {
        let sql = "select vacuum_no::text, after_rows::text \
                   from pgmend.begin_vacuum($1::uuid, $2::int, $3::bigint, $4::bigint)";
        let mut params = of_lease(lease);
        params.push(Some(due_rows.to_string()));
        let answer = self.run(&Statement { doing: "begin a vacuum", sql: sql.into(), params }).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        let vacuum_no = row.first().cloned().flatten().and_then(|no| no.parse().ok());
        Ok(VacuumStart { vacuum_no, after_rows: crate::store::number(row, 1)? })
    }

    /// Says what came of a vacuum.
    /// Lock:  one row, and the run's chain. Index: `lease_fence`, `vacuum_pkey`.
    pub async fn end_vacuum(
        &self,
        lease: &Lease,
        vacuum_no: i32,
        ending: Ending,
        why: Option<&str>,
        pages: (Option<i64>, Option<i64>),
    ) -> Result<(), PgError> {
        let sql = "select pgmend.end_vacuum($1::uuid, $2::int, $3::bigint, $4::int, $5, $6, $7::bigint, $8::bigint)";
        let mut params = of_lease(lease);
        params.extend([
            Some(vacuum_no.to_string()),
            Some(ending.name().to_owned()),
            why.map(str::to_owned),
            pages.0.map(|n| n.to_string()),
            pages.1.map(|n| n.to_string()),
        ]);
        self.run(&Statement { doing: "end a vacuum", sql: sql.into(), params }).await?;
        Ok(())
    }

    /// The vacuums of a run, summed up.
    pub async fn vacuums(&self, run: RunId) -> Result<Vacuums, PgError> {
        let answer = self.run(&Statement::new("read the vacuums", VACUUMS, vec![run.to_string()])).await?;
        from_json(answer.rows.first().map_or(&[], Vec::as_slice), 0)
    }
}

fn of_lease(lease: &Lease) -> Vec<Option<String>> {
    vec![Some(lease.run.to_string()), Some(lease.partition_no.to_string()), Some(lease.fence.to_string())]
}
