//! The bounds of a run, each with its reason. A job may set them within their ranges.

use serde::{Deserialize, Serialize};

use crate::refusal::{Code, Refusal};
use crate::vacuum::Share;

/// First batch: small enough to hurt nobody on a table never seen before.
pub const BATCH_ROWS_START: u32 = 500;
/// Floor of the adaptive size: below this the commit costs more than the rows.
pub const BATCH_ROWS_FLOOR: u32 = 10;
/// Ceiling of every batch: bounds locks, memory of consumers and the time of one rollback.
pub const BATCH_ROWS_CEILING: u32 = 50_000;
/// Execution time that one batch aims at, in milliseconds.
pub const TARGET_BATCH_MS: u64 = 500;
/// `lock_timeout`, in milliseconds: protects the writers that would queue behind us.
pub const LOCK_TIMEOUT_MS: u64 = 500;
/// Least `statement_timeout`, in milliseconds; otherwise ten times the target.
pub const STATEMENT_TIMEOUT_MIN_MS: u64 = 5_000;
/// Retries of one batch before the run stops.
pub const RETRIES_MAX: u32 = 5;
/// Length of a lease in seconds.
pub const LEASE_SECONDS: u64 = 30;
/// Hours for which a plan may start a run.
pub const PLAN_EXPIRY_HOURS: u64 = 24;
/// Days for which images are kept after a run's end.
pub const UNDO_RETENTION_DAYS: u32 = 7;
/// Time that exact counts of a plan may take, in milliseconds, before they become estimates.
pub const COUNT_BUDGET_MS: u64 = 60_000;
/// Rows that a change set may hold.
pub const FREEZE_ROWS_MAX: i64 = 50_000_000;
/// Time that computing a change set may take, in milliseconds.
pub const FREEZE_MS_MAX: u64 = 30 * 60 * 1_000;
/// Passes of the residual sweep over rows that still match.
pub const SWEEPS_MAX: u32 = 3;
/// Windows of the allowed hours through which one command goes by itself: more than a year of nights.
pub const WINDOWS_WAITED_MAX: u32 = 400;
/// Seconds for which one command waits for a server to admit it again: a week.
pub const ACCESS_WAIT_MAX_S: u64 = 7 * 24 * 3_600;
/// Workers of one run, in all its processes: three connections each.
pub const WORKERS_MAX: u32 = 16;
/// Partitions for each worker: a slow one is shared out, and a dead one's is small.
pub const PARTITIONS_PER_WORKER: u32 = 4;
/// Conflicts listed one by one in reports; all of them are in `pgmend.conflict`.
pub const CONFLICTS_LISTED_MAX: i64 = 20;

/// The limits of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Rows of every batch, fixed; adaptive when absent. 1 to 50,000.
    pub batch_rows: Option<u32>,
    /// Rows that no transaction may exceed (for consumers of logical replication). 1 to 50,000.
    pub rows_per_transaction_max: u32,
    /// Execution time that one batch aims at, in milliseconds. 10 to 60,000.
    pub target_batch_ms: u64,
    /// `lock_timeout` of a batch in milliseconds. 1 to 60,000.
    pub lock_timeout_ms: u64,
    /// `statement_timeout` of a batch in milliseconds; ten times the target when absent. 100 to 3,600,000.
    pub statement_timeout_ms: Option<u64>,
    /// Length of the lease in seconds. 3 to 600.
    pub lease_seconds: u64,
    /// Time for exact counts while planning, in milliseconds. 0 (estimates only) to 3,600,000.
    pub count_budget_ms: u64,
    /// Workers of a run, in all its processes together; one when absent. 1 to 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Whether every other row of a stretch of keys is changed first, and the others in the batch after it; as the plan
    /// finds when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_halves: Option<bool>,
    /// Share of the target's rows after which it is vacuumed on the way; left to autovacuum when absent. 1% to 100%.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vacuum_every: Option<Share>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_rows: None,
            rows_per_transaction_max: BATCH_ROWS_CEILING,
            target_batch_ms: TARGET_BATCH_MS,
            lock_timeout_ms: LOCK_TIMEOUT_MS,
            statement_timeout_ms: None,
            lease_seconds: LEASE_SECONDS,
            count_budget_ms: COUNT_BUDGET_MS,
            workers: None,
            in_halves: None,
            vacuum_every: None,
        }
    }
}

impl Limits {
    /// The limits, if every one is in its range.
    pub fn checked(self) -> Result<Self, Refusal> {
        in_range("batch_rows", u64::from(self.batch_rows.unwrap_or(1)), 1, u64::from(BATCH_ROWS_CEILING))?;
        let max = u64::from(self.rows_per_transaction_max);
        in_range("rows_per_transaction_max", max, 1, u64::from(BATCH_ROWS_CEILING))?;
        in_range("target_batch_ms", self.target_batch_ms, 10, 60_000)?;
        in_range("lock_timeout_ms", self.lock_timeout_ms, 1, 60_000)?;
        in_range("statement_timeout_ms", self.statement_timeout_ms.unwrap_or(100), 100, 3_600_000)?;
        in_range("lease_seconds", self.lease_seconds, 3, 600)?;
        in_range("count_budget_ms", self.count_budget_ms, 0, 3_600_000)?;
        in_range("workers", u64::from(self.workers.unwrap_or(1)), 1, u64::from(WORKERS_MAX))?;
        Ok(self)
    }

    /// `statement_timeout` of a batch in milliseconds.
    pub fn statement_timeout(&self) -> u64 {
        self.statement_timeout_ms.unwrap_or_else(|| (self.target_batch_ms * 10).max(STATEMENT_TIMEOUT_MIN_MS))
    }
}

fn in_range(name: &str, value: u64, min: u64, max: u64) -> Result<(), Refusal> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let message = format!("limit {name} = {value} is out of range");
    Err(Refusal::new(Code::BadJob, message, format!("choose {min} to {max}")))
}
