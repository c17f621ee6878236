//! A step of a run: what it came to, how large the next one may be, and what a worker remembers of it.

use std::time::{Duration, Instant};

use pgmend_core::dead_letters::APART_ROWS;
use pgmend_pg::PgError;

use super::fault;
use super::worker::Worker;
use crate::progress::Event;

/// A guard of ours: not as many rows as the plan expects. The run is given up.
pub(super) const OTHER_COUNT: &str = "PM509";

/// A batch that was committed.
pub(super) struct Applied {
    pub changed_rows: i64,
    pub skipped_rows: i64,
    pub conflict_rows: i64,
    pub dead_rows: i64,
    pub took_ms: f64,
    /// WAL that the server wrote meanwhile, in bytes.
    pub wal_bytes: Option<f64>,
    pub reached: Reached,
}

/// How far the rows are done once a batch is committed.
#[derive(Debug, Clone, Default)]
pub(super) struct Reached {
    /// All of them up to here.
    pub cursor: Option<Vec<String>>,
    /// The first half of them up to here, if that is ahead of the cursor.
    pub first_half_to: Option<Vec<String>>,
}

impl Reached {
    /// All rows up to a key or an ordinal.
    pub fn all(to: Vec<String>) -> Self {
        Self { cursor: Some(to), first_half_to: None }
    }

    /// The cursor as the control schema keeps it: empty before the first row.
    pub fn cursor_to(&self) -> &[String] {
        self.cursor.as_deref().unwrap_or_default()
    }
}

/// What one step came to.
pub(super) enum Step {
    Applied(Applied),
    /// Nothing to change was found as far as was looked; there is more to look at.
    Skipped,
    /// The range is exhausted.
    Exhausted,
}

impl Worker<'_, '_> {
    /// Rows for the next batch.
    pub fn batch_rows(&self) -> u32 {
        let canary = self.plan.canary.as_ref().filter(|_| self.at.batch_no == 0 && !self.plan.one_transaction);
        let most = canary.map_or(u32::MAX, |canary| canary.rows);
        let most = most.min(self.sizing.rows()).min(self.paced_rows());
        // Apart, all that may be tried at once are: whether the first rows all fail is asked of these.
        if self.apart { APART_ROWS.min(most) } else { self.cornering.unwrap_or(most).min(most) }
    }

    /// Takes note of a committed batch.
    pub(super) fn advance(&mut self, batch: Applied) {
        fault::point("batch_committed");
        self.at.batch_no += 1;
        self.at.pass = self.pass;
        self.first_half.record(self.at.first_half_to.as_deref(), &batch.reached, batch.changed_rows);
        self.at.cursor = batch.reached.cursor;
        self.at.first_half_to = batch.reached.first_half_to;
        self.at.changed_rows += batch.changed_rows;
        self.at.skipped_rows += batch.skipped_rows;
        self.at.conflict_rows += batch.conflict_rows;
        self.at.dead_rows += batch.dead_rows;
        match self.claim.take() {
            Some(claim) => claim.settle(batch.changed_rows),
            None => self.engine.slice.record(batch.changed_rows),
        }
        self.engine.metered.record(batch.changed_rows, batch.took_ms);
        self.attempt = 0;
        self.blockers = None;
        self.skipped_to = None;
        self.throttle.batch(Duration::from_secs_f64(batch.took_ms.max(0.0) / 1_000.0));
        if let Some(rows) = self.cornering {
            // The row that failed lies ahead, or fails no more: back to the full size step by step.
            self.cornering = Some(rows.saturating_mul(2)).filter(|rows| *rows < self.sizing.rows());
        } else {
            if let Some(took) = self.heartbeat.round_trip() {
                // Two of them; a batch's commit waits for nothing.
                self.sizing.set_overhead(took.as_secs_f64() * 2_000.0);
            }
            self.sizing.set_company(self.manners().batch_ms);
            if let Some(bytes) = batch.wal_bytes {
                self.sizing.record_wal(batch.changed_rows.max(0) as u64, bytes);
            }
            self.sizing.record((batch.changed_rows + batch.skipped_rows).max(0) as u64, batch.took_ms);
        }
        // A worker of a partition tells of that alone; whoever started it sums up.
        let total = if self.divided { self.total() } else { self.at.clone() };
        self.observer.tell(&Event::Batch {
            batch_no: self.at.batch_no,
            rows: batch.changed_rows,
            changed_rows: total.changed_rows,
            skipped_rows: total.skipped_rows,
            conflict_rows: total.conflict_rows,
            dead_rows: total.dead_rows,
            took_ms: batch.took_ms,
            next_batch_rows: self.batch_rows(),
            planned_rows: self.run.planned_rows,
            cursor: self.shown_cursor(),
        });
    }

    /// A run that has all its rows in one batch and knows their number changes exactly as many, or none.
    pub fn refuse_other_count(&self, changed_rows: i64) -> Result<(), PgError> {
        let Some(expected) = self.plan.expect_rows else { return Ok(()) };
        let fixed = self.plan.limits.batch_rows.map(|rows| rows.min(self.paced_rows()));
        let in_one = self.plan.one_transaction || fixed.is_some_and(|rows| i64::from(rows) >= expected);
        if !in_one || self.at.batch_no > 0 || changed_rows == expected {
            return Ok(());
        }
        let message = format!("{changed_rows} rows would have changed in one batch, {expected} are expected");
        Err(PgError::new("change the rows", OTHER_COUNT, message))
    }
}

/// Milliseconds since.
pub(super) fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}
