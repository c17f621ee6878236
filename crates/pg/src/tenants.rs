//! Tenants of a run in the control schema: partitions that fail, wait and are paused one by one.

use pgmend_core::id::RunId;
use serde::{Deserialize, Serialize};

use crate::batch::Lease;
use crate::error::PgError;
use crate::partitions::{Partition, Standstill, Taken};
use crate::session::{Session, Statement};
use crate::store::from_json;

/// Reads the tenants of a run.
const TENANTS: &str = include_str!("../sql/store/tenants.sql");

/// A partition to be made of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantPart {
    /// Starts after this ordinal; absent for keys.
    pub lower: Option<Vec<String>>,
    /// Ends with this key or ordinal.
    pub upper: Vec<String>,
    /// The tenant as everybody may see it; absent for NULL.
    pub tenant: Option<String>,
    /// Whether it comes before those that are none.
    pub canary: bool,
}

/// How many tenants may be driven, and what stops all of them.
#[derive(Debug, Clone, Copy)]
pub struct TenantBounds<'p> {
    /// Workers of the run at once.
    pub workers: u32,
    /// Tenants that may fail.
    pub failed_max: u32,
    /// Why the run pauses once the canaries are done; absent if it does not.
    pub look: Option<&'p str>,
}

/// A tenant of a run, as the control schema has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StoredTenant {
    /// Its number, from 1: its place in the plan.
    pub number: i32,
    /// What people call it, as it may be shown to everybody.
    pub tenant: String,
    /// `open`, `done` or `failed`.
    pub state: String,
    /// How often it was set aside.
    pub rounds: i32,
    /// SQLSTATE of the last error that it stopped with.
    pub sqlstate: Option<String>,
    /// That error.
    pub message: Option<String>,
    /// Whether a worker drives it now.
    pub driven: bool,
    /// Who asked for its pause.
    pub paused_by: Option<String>,
    /// And why.
    pub pause_reason: Option<String>,
    /// Rows changed.
    pub changed_rows: i64,
    /// Conflicts.
    pub conflict_rows: i64,
    /// Rows set aside.
    pub dead_rows: i64,
    /// Batches committed.
    pub batches: i64,
}

#[derive(Deserialize)]
struct TakenRow {
    verdict: String,
    partition_no: Option<i32>,
    fence: Option<i64>,
    lower: Option<Vec<String>>,
    upper: Option<Vec<String>>,
    rounds: Option<i32>,
}

impl Session {
    /// Divides a run whose own lease is held, before its first batch. The number of tenants; 0 if it has begun.
    pub async fn divide_by_tenant(&self, lease: &Lease, parts: &[TenantPart]) -> Result<i64, PgError> {
        let json = serde_json::to_string(parts).unwrap_or_default();
        let sql = "select pgmend.divide_by_tenant($1::uuid, $2::bigint, $3::json)::text";
        let params = vec![lease.run.to_string(), lease.fence.to_string(), json];
        self.run(&Statement::new("divide the run by tenants", sql, params)).await?.number()
    }

    /// Takes the next tenant that may be driven. `done` is one that is exhausted: it is closed and its lease given back in
    /// the same transaction, also where no other can be taken.
    pub async fn take_tenant(
        &self,
        run: RunId,
        owner: &str,
        holder: &str,
        seconds: u64,
        bounds: TenantBounds<'_>,
        done: Option<&Lease>,
    ) -> Result<Taken, PgError> {
        let sql = "select row_to_json(t)::text from pgmend.take_tenant($1::uuid, $2, $3, $4::double precision, $5::int, $6::int, $7, $8::int, $9::bigint) as t";
        let params = [run.to_string(), owner.to_owned(), holder.to_owned(), seconds.to_string()]
            .into_iter()
            .chain([bounds.workers.to_string(), bounds.failed_max.to_string()])
            .map(Some)
            .chain([bounds.look.map(str::to_owned)])
            .chain([done.map(|lease| lease.partition_no.to_string()), done.map(|lease| lease.fence.to_string())])
            .collect();
        let answer = self.run(&Statement { doing: "take a tenant", sql: sql.into(), params }).await?;
        let row: TakenRow = from_json(answer.rows.first().map_or(&[], Vec::as_slice), 0)?;
        Ok(match (row.verdict.as_str(), row.partition_no, row.fence, row.upper) {
            ("taken", Some(partition_no), Some(fence), Some(upper)) => Taken::Partition(
                Partition { partition_no, lower: row.lower, upper, rounds: row.rounds.unwrap_or(0) },
                Lease { run, partition_no, fence },
            ),
            ("done", ..) => Taken::AllDone,
            ("wait", ..) => Taken::NoneFree,
            ("stopped", ..) => Taken::Stopped,
            ("failed", ..) => Taken::Standstill(Standstill::Failed),
            ("paused", ..) => Taken::Standstill(Standstill::Paused),
            ("look", ..) => Taken::Standstill(Standstill::Look),
            (verdict, ..) => return Err(PgError::corrupt(format!("a tenant's verdict is `{verdict}`"))),
        })
    }

    /// Stops with one tenant: it has failed, or is set aside until the others had their turn. Gives its lease back.
    pub async fn leave_tenant(
        &self,
        lease: &Lease,
        failed: bool,
        sqlstate: &str,
        message: &str,
    ) -> Result<(), PgError> {
        let sql = "select pgmend.leave_tenant($1::uuid, $2::int, $3::bigint, $4::boolean, $5, $6)";
        let params = [lease.run.to_string(), lease.partition_no.to_string(), lease.fence.to_string()]
            .into_iter()
            .chain([failed.to_string(), sqlstate.to_owned(), message.to_owned()])
            .collect();
        self.run(&Statement::new("stop with a tenant", sql, params)).await?;
        Ok(())
    }

    /// Opens the failed tenants of a run whose own lease is held; how many there were.
    pub async fn reopen_tenants(&self, lease: &Lease) -> Result<i64, PgError> {
        let sql = "select pgmend.reopen_tenants($1::uuid, $2::bigint)::text";
        let params = vec![lease.run.to_string(), lease.fence.to_string()];
        self.run(&Statement::new("open failed tenants", sql, params)).await?.number()
    }

    /// Asks for a pause of one tenant.
    pub async fn ask_tenant(&self, run: RunId, number: i32, reason: &str) -> Result<(), PgError> {
        let sql = "select pgmend.ask_tenant($1::uuid, $2::int, $3)";
        let params = vec![run.to_string(), number.to_string(), reason.to_owned()];
        self.run(&Statement::new("pause a tenant", sql, params)).await?;
        Ok(())
    }

    /// Lifts the pause of one tenant, and opens it if it has failed.
    pub async fn lift_tenant(&self, run: RunId, number: i32) -> Result<(), PgError> {
        let sql = "select pgmend.lift_tenant($1::uuid, $2::int)";
        let params = vec![run.to_string(), number.to_string()];
        self.run(&Statement::new("lift a tenant's pause", sql, params)).await?;
        Ok(())
    }

    /// The tenants of a run in the order of its plan; none for a run without.
    pub async fn tenants(&self, run: RunId) -> Result<Vec<StoredTenant>, PgError> {
        let answer = self.run(&Statement::new("read the tenants", TENANTS, vec![run.to_string()])).await?;
        answer.rows.iter().map(|row| from_json(row, 0)).collect()
    }
}
