//! What a run will cost: batches, time, WAL, disk. Estimates say what they rest on.

use pgmend_core::limits::{BATCH_ROWS_START, Limits};
use pgmend_core::plan::{Counts, Estimates, Figure, ImageLayout, Rehearsal};
use pgmend_core::sizing::Sizing;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::Kind;

use super::bind::Bound;
use crate::error::Error;

/// Milliseconds for a row without measurement: one heap tuple and one index entry on ordinary hardware.
const ROW_MS: f64 = 0.012;
/// The same for each further index that a new row version enters.
const INDEX_MS: f64 = 0.006;
/// Factor between the low and the high end of an unmeasured duration.
const UNMEASURED_SPREAD: f64 = 4.0;
/// A commit, with its flush.
const BATCH_MS: f64 = 3.0;
/// Bytes of a tuple's header, line pointer included.
const TUPLE_OVERHEAD_BYTES: f64 = 28.0;
/// WAL of one index entry.
const INDEX_WAL_BYTES: f64 = 80.0;
/// Batches simulated one by one at most; beyond them the size has long settled.
const SIMULATED_BATCHES_MAX: i64 = 100_000;

/// Average width of the columns' values in bytes, from the statistics.
async fn width(tx: &ReadTx<'_>, bound: &Bound, columns: &[String]) -> Result<f64, Error> {
    let sql = "select coalesce(sum(coalesce((select max(s.avg_width) from pg_catalog.pg_stats s \
               where s.schemaname = $1 and s.tablename = $2 and s.attname = a.name), 8)), 0)::text \
               from unnest($3::text[]) as a (name)";
    let params = vec![
        bound.table.name.schema.clone(),
        bound.table.name.name.clone(),
        pgmend_pg::session::array_literal(columns),
    ];
    let answer = tx.query("read the columns' widths", sql, params).await?;
    Ok(answer.scalar().and_then(|w| w.parse().ok()).unwrap_or(0.0))
}

/// Estimates for a bound statement with these counts.
pub async fn estimate(
    tx: &ReadTx<'_>,
    bound: &Bound,
    counts: &Counts,
    limits: &Limits,
    images: Option<&ImageLayout>,
    rehearsal: Option<&Rehearsal>,
) -> Result<Estimates, Error> {
    let rows = counts.changed_rows.value.max(0);
    let all: Vec<String> = bound.table.columns.iter().map(|c| c.name.clone()).collect();
    let row_bytes = width(tx, bound, &all).await? + TUPLE_OVERHEAD_BYTES;
    let image_row = match images {
        None => 0.0,
        Some(layout) => {
            let names = layout.key.iter().chain(&layout.before).chain(&layout.after).map(|c| c.column.clone());
            width(tx, bound, &names.collect::<Vec<_>>()).await? + TUPLE_OVERHEAD_BYTES + 8.0
        }
    };
    let indexes = f64::from(bound.table.index_count);
    let index_wal = if bound.statement.kind() == Kind::Delete { 0.0 } else { indexes * INDEX_WAL_BYTES };
    let wal = rows as f64 * (row_bytes + image_row + index_wal);
    let measured = rehearsal.filter(|r| r.batches.iter().map(|b| b.rows).sum::<i64>() > 0);
    let (row_ms, wal) = match measured {
        Some(rehearsal) => {
            let seen: i64 = rehearsal.batches.iter().map(|b| b.rows).sum();
            let took: f64 = rehearsal.batches.iter().map(|b| b.took_ms).sum();
            let wrote: i64 = rehearsal.batches.iter().map(|b| b.wal_bytes).sum();
            (took / seen as f64, wrote as f64 / seen as f64 * rows as f64)
        }
        None => (ROW_MS + INDEX_MS * indexes + if images.is_some() { ROW_MS / 2.0 } else { 0.0 }, wal),
    };
    let batches = batches(rows, limits, row_ms, bound.class.one_transaction.is_some());
    let seconds = (rows as f64 * row_ms + batches as f64 * BATCH_MS) / 1_000.0;
    let (spread, basis) = match measured {
        Some(_) => (1.3, "measured by the rehearsal"),
        None => (UNMEASURED_SPREAD, "from the table's indexes and the rows' width, not measured; plan --rehearse 3 measures it"),
    };
    let certainty = if measured.is_some() { Figure::sampled } else { Figure::estimated };
    Ok(Estimates {
        batches: if limits.batch_rows.is_some() { Figure { certainty: counts.changed_rows.certainty, ..Figure::exact(batches) } } else { certainty(batches) },
        duration_s: (seconds / spread, seconds * spread),
        duration_basis: basis.to_owned(),
        wal_bytes: certainty(wal as i64),
        image_bytes: Figure::estimated((rows as f64 * image_row) as i64),
    })
}

/// Batches that the sizing will make of these rows at that speed.
fn batches(rows: i64, limits: &Limits, row_ms: f64, one: bool) -> i64 {
    if rows == 0 || one {
        return i64::from(rows > 0);
    }
    if let Some(fixed) = limits.batch_rows {
        let size = i64::from(fixed.min(limits.rows_per_transaction_max).max(1));
        return (rows + size - 1) / size;
    }
    let mut sizing = Sizing::new(limits);
    let (mut left, mut count) = (rows, 0);
    while left > 0 && count < SIMULATED_BATCHES_MAX {
        let size = i64::from(sizing.rows());
        sizing.record(size as u64, size as f64 * row_ms);
        left -= size;
        count += 1;
    }
    count + left.max(0) / i64::from(BATCH_ROWS_START)
}

/// Estimates not made yet.
pub fn unknown() -> Estimates {
    let none = Figure::estimated(0);
    Estimates { batches: none, duration_s: (0.0, 0.0), duration_basis: String::new(), wal_bytes: none, image_bytes: none }
}

/// Estimates for applying a change set of so many rows.
pub fn of_rows(rows: i64, limits: &Limits, indexes: u32, one_transaction: bool) -> Estimates {
    let row_ms = ROW_MS + INDEX_MS * f64::from(indexes);
    let batches = batches(rows, limits, row_ms, one_transaction);
    let seconds = (rows as f64 * row_ms + batches as f64 * BATCH_MS) / 1_000.0;
    Estimates {
        batches: Figure::estimated(batches),
        duration_s: (seconds / UNMEASURED_SPREAD, seconds * UNMEASURED_SPREAD),
        duration_basis: "from the table's indexes, not measured".into(),
        ..unknown()
    }
}
