//! A stretch of keys in two batches: every other row first, and the others once the old versions of these can be cleaned
//! away, so that the new ones find room on their own pages (docs/design/halves.md).
//!
//! Invariant: all rows up to the cursor are done, and those of the first half up to `first_half_to`, which is none where it
//! is not ahead of the cursor. A key's hash tells its half, so a row is never in both.

use pgmend_core::halving::{self, Batch};
use pgmend_core::plan::{HalfBatch, Halves, RunSql};
use pgmend_pg::PgError;

use super::step::{Reached, Step};
use super::stream::Bound;
use super::worker::Worker;

/// Which rows of its stretch a batch changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    All,
    FirstHalf,
    SecondHalf,
}

/// The keys of a batch: those after the cursor, up to one.
pub(super) struct Stretch {
    pub to: Vec<String>,
    pub rows: Rows,
}

impl Rows {
    /// The statements of a half; none for all rows.
    pub fn of(self, sql: &RunSql) -> Result<Option<&HalfBatch>, PgError> {
        let half = match (self, halves(sql)) {
            (Rows::All, _) => return Ok(None),
            (Rows::FirstHalf, Some(halves)) => &halves.first,
            (Rows::SecondHalf, Some(halves)) => &halves.second,
            (Rows::FirstHalf | Rows::SecondHalf, None) => return Err(PgError::corrupt("a plan without halves")),
        };
        Ok(Some(half))
    }
}

/// The statements of a run whose batches may go in halves.
pub(super) fn halves(sql: &RunSql) -> Option<&Halves> {
    match sql {
        RunSql::Stream { halves, .. } => halves.as_deref(),
        RunSql::Freeze { .. } => None,
    }
}

impl Worker<'_, '_> {
    /// Whether the next stretch goes in halves: not while a row is cornered, nor under a pace that counts rows.
    pub(super) fn in_halves(&self) -> bool {
        halves(&self.sql()).is_some() && self.at_full_size() && self.halving.pays()
    }

    /// Whether nothing keeps the next batch to fewer rows than its size, or to just so many.
    pub(super) fn at_full_size(&self) -> bool {
        let undisturbed = self.attempt == 0 && self.cornering.is_none() && !self.apart;
        let counted = self.sizing.is_tuned() || self.pace_now().rows_max.is_some();
        undisturbed && !counted && self.batch_rows() == self.sizing.rows()
    }

    /// Rows of the next stretch.
    pub(super) fn stretch_rows(&self, in_halves: bool) -> u32 {
        match in_halves {
            true => halving::stretch_rows(self.batch_rows(), self.sizing.half_max()),
            false => self.batch_rows(),
        }
    }

    /// How far the rows are done once a batch over these is committed.
    pub(super) fn reached(&self, rows: Rows, to: Vec<String>) -> Reached {
        match rows {
            Rows::All => Reached::all(to),
            Rows::FirstHalf => Reached { cursor: self.at.cursor.clone(), first_half_to: Some(to) },
            Rows::SecondHalf => Reached {
                first_half_to: self.at.first_half_to.clone().filter(|first_half_to| *first_half_to != to),
                cursor: Some(to),
            },
        }
    }

    /// Looks for the keys of the next batch; `Err` where it has none.
    pub(super) async fn next_stretch(&mut self, upper: &[String]) -> Result<Result<Stretch, Step>, PgError> {
        let Some(first_half_to) = self.at.first_half_to.clone() else {
            let rows = if self.in_halves() { Rows::FirstHalf } else { Rows::All };
            return Ok(match self.next_bound(upper, rows).await? {
                Bound::At(to) => Ok(Stretch { to, rows }),
                Bound::End => Err(Step::Exhausted),
                Bound::Further => Err(Step::Skipped),
            });
        };
        Ok(match self.next_bound(&first_half_to, Rows::SecondHalf).await? {
            Bound::At(to) => Ok(Stretch { to, rows: Rows::SecondHalf }),
            Bound::End => {
                // Both halves are done up to here. Should the process end now, this is found out again.
                (self.at.cursor, self.at.first_half_to) = (Some(first_half_to), None);
                self.skipped_to = None;
                Err(Step::Skipped)
            }
            Bound::Further => Err(Step::Skipped),
        })
    }

    /// Learns whether halves pay.
    pub(super) fn learn_of_halves(&mut self, rows: Rows, changed_rows: i64, in_place_rows: Option<i64>) {
        let batch = match rows {
            Rows::All => Batch::Whole,
            Rows::FirstHalf => Batch::First,
            Rows::SecondHalf => Batch::Second,
        };
        self.halving.record(batch, changed_rows, in_place_rows);
    }
}
