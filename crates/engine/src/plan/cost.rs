//! What a run will cost: batches, time, WAL, disk. Estimates say what they rest on.

use pgmend_core::limits::Limits;
use pgmend_core::plan::{Counts, Estimates, Figure};
use pgmend_core::sizing::Sizing;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::Kind;

use super::bind::Bound;
use super::image_size::Beside;
use crate::error::Error;

/// Milliseconds for a row without measurement: one heap tuple and one index entry on ordinary hardware.
const ROW_MS: f64 = 0.012;
/// The same for each further index that a new row version enters.
const INDEX_MS: f64 = 0.006;
/// Factor between the low and the high end of an unmeasured duration.
const UNMEASURED_SPREAD: f64 = 4.0;
/// The same for a duration measured by a rehearsal.
const MEASURED_SPREAD: f64 = 1.3;
/// The start of a run and its end: ledger, lease, tables of images.
const RUN_MS: f64 = 60.0;
/// WAL of a batch beside its rows: its row in the control schema, twice, and the commit.
const BATCH_WAL_BYTES: f64 = 1_000.0;
/// A commit, with its flush.
const BATCH_MS: f64 = 3.0;
/// Bytes of a tuple's header, line pointer included.
pub(super) const TUPLE_OVERHEAD_BYTES: f64 = 28.0;
/// WAL of one index entry.
const INDEX_WAL_BYTES: f64 = 80.0;
/// Batches simulated one by one at most; beyond them the size has long settled.
const SIMULATED_BATCHES_MAX: i64 = 100_000;

/// Average width of each column's values in bytes, from the statistics.
/// Lock: none. Index: pg_statistic's own.
pub(super) async fn widths(tx: &ReadTx<'_>, bound: &Bound, columns: &[String]) -> Result<Vec<f64>, Error> {
    let sql = "select coalesce((select max(s.avg_width) from pg_catalog.pg_stats s \
               where s.schemaname = $1 and s.tablename = $2 and s.attname = a.name), 8)::text \
               from unnest($3::text[]) with ordinality as a (name, at) order by a.at";
    let params = vec![
        bound.table.name.schema.clone(),
        bound.table.name.name.clone(),
        pgmend_pg::session::array_literal(columns),
    ];
    let answer = tx.query("read the columns' widths", sql, params).await?;
    Ok(answer
        .rows
        .iter()
        .map(|row| row.first().cloned().flatten().and_then(|w| w.parse().ok()).unwrap_or(8.0))
        .collect())
}

/// What a run costs, as a rehearsal measured it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Milliseconds of a batch beside its rows.
    pub batch_ms: f64,
    /// Milliseconds of a changed row, with its part of the scanning.
    pub row_ms: f64,
    /// Milliseconds of the checks at the end.
    pub checks_ms: f64,
    /// WAL of a changed row in bytes, its image left out.
    pub wal_row_bytes: f64,
}

/// Estimates for a bound statement with these counts; `pace` is known after a rehearsal.
pub async fn estimate(
    tx: &ReadTx<'_>,
    bound: &Bound,
    counts: &Counts,
    limits: &Limits,
    beside: Beside<'_>,
    pace: Option<&Pace>,
) -> Result<Estimates, Error> {
    let rows = counts.changed_rows.value.max(0);
    let all: Vec<String> = bound.table.columns.iter().map(|c| c.name.clone()).collect();
    let row_bytes = widths(tx, bound, &all).await?.into_iter().sum::<f64>() + TUPLE_OVERHEAD_BYTES;
    let image_row = beside.row_bytes(tx, bound).await?;
    let indexes = f64::from(bound.table.index_count);
    let index_wal = if bound.statement.kind() == Kind::Delete { 0.0 } else { indexes * INDEX_WAL_BYTES };
    let one = bound.class.one_transaction.is_some();
    let unmeasured = Pace {
        batch_ms: BATCH_MS,
        row_ms: ROW_MS + INDEX_MS * indexes + if beside.is_any() { ROW_MS / 2.0 } else { 0.0 },
        checks_ms: 0.0,
        wal_row_bytes: row_bytes + index_wal,
    };
    let course = course(rows, limits, pace.unwrap_or(&unmeasured), one);
    let wal =
        rows as f64 * (pace.unwrap_or(&unmeasured).wal_row_bytes + image_row) + course.batches as f64 * BATCH_WAL_BYTES;
    let (spread, basis) = match pace {
        Some(_) => (MEASURED_SPREAD, "measured by rehearsal"),
        None => (
            UNMEASURED_SPREAD,
            "from the table's indexes and the rows' width, not measured; plan --rehearse 3 measures it",
        ),
    };
    let certainty = if pace.is_some() { Figure::sampled } else { Figure::estimated };
    let fixed = limits.batch_rows.is_some();
    let batches = course.batches;
    Ok(Estimates {
        batches: if fixed {
            Figure { certainty: counts.changed_rows.certainty, ..Figure::exact(batches) }
        } else {
            certainty(batches)
        },
        duration_s: (course.seconds / spread, course.seconds * spread),
        duration_basis: basis.to_owned(),
        wal_bytes: certainty(wal as i64),
        image_bytes: Figure::estimated((rows as f64 * image_row) as i64),
        dead_bytes: (bound.statement.kind() != Kind::Insert)
            .then(|| Figure::estimated((rows as f64 * row_bytes) as i64)),
        company: None,
    })
}

/// A run as it will probably go.
struct Course {
    batches: i64,
    seconds: f64,
}

/// The batches that the sizing will make of these rows at that pace, and how long they take together.
fn course(rows: i64, limits: &Limits, pace: &Pace, one: bool) -> Course {
    let mut sizing = Sizing::new(limits);
    sizing.set_overhead(pace.batch_ms);
    let (mut left, mut batches, mut took_ms) = (rows.max(0), 0, 0.0);
    while left > 0 && batches < SIMULATED_BATCHES_MAX {
        let size = if one { left } else { i64::from(sizing.rows()).clamp(1, left) };
        let batch_ms = pace.batch_ms + size as f64 * pace.row_ms;
        sizing.record(size as u64, batch_ms);
        took_ms += batch_ms;
        left -= size;
        batches += 1;
    }
    let size = i64::from(sizing.rows()).max(1);
    let more = (left + size - 1) / size;
    took_ms += more as f64 * pace.batch_ms + left as f64 * pace.row_ms;
    let around_ms = if rows > 0 { RUN_MS + pace.checks_ms } else { 0.0 };
    Course { batches: batches + more, seconds: (took_ms + around_ms) / 1_000.0 }
}

/// Estimates not made yet.
pub fn unknown() -> Estimates {
    let none = Figure::estimated(0);
    Estimates {
        batches: none,
        duration_s: (0.0, 0.0),
        duration_basis: String::new(),
        wal_bytes: none,
        image_bytes: none,
        dead_bytes: None,
        company: None,
    }
}

/// Estimates for applying a change set of so many rows; `forward` is what the undone run was estimated at, for
/// as many rows as it was planned to change.
pub fn of_rows(
    rows: i64,
    limits: &Limits,
    indexes: u32,
    one_transaction: bool,
    forward: (&Estimates, i64),
) -> Estimates {
    let share = |whole: Figure| Figure::estimated((whole.value as f64 * rows as f64 / forward.1.max(1) as f64) as i64);
    let row_ms = ROW_MS + INDEX_MS * f64::from(indexes);
    let pace = Pace { batch_ms: BATCH_MS, row_ms, checks_ms: 0.0, wal_row_bytes: 0.0 };
    let Course { batches, seconds } = course(rows, limits, &pace, one_transaction);
    Estimates {
        batches: Figure::estimated(batches),
        duration_s: (seconds / UNMEASURED_SPREAD, seconds * UNMEASURED_SPREAD),
        duration_basis: "from the table's indexes, not measured".into(),
        wal_bytes: share(forward.0.wal_bytes),
        image_bytes: share(forward.0.image_bytes),
        dead_bytes: forward.0.dead_bytes.map(share),
        company: None,
    }
}
