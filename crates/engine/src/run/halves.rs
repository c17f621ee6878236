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
    /// How many keys it has, where these were counted instead of the rows that match.
    pub keys: Option<u32>,
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
    /// Whether the next stretch goes in halves: not while a row is cornered, nor under a pace that counts rows; nor beside other
    /// workers, whose snapshots keep the old versions needed, unless the job asks for it.
    pub(super) fn in_halves(&self) -> bool {
        let alone = self.sharing == 1 || self.plan.limits.in_halves == Some(true);
        halves(&self.sql()).is_some() && alone && self.at_full_size() && self.halving.pays()
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

    /// How many keys the next stretch has where most rows match: these are counted in the index alone. Not where so many rows are
    /// asked for, and not in a sweep, whose matches are few.
    pub(super) fn keys_to_count(&self, rows: Rows) -> Option<u32> {
        let whatever_number = self.at_full_size() && self.plan.limits.batch_rows.is_none() && self.tenant().is_none();
        let dense = whatever_number && self.pass == 0 && self.density.by_keys();
        (dense && rows != Rows::SecondHalf).then(|| self.stretch_rows(rows == Rows::FirstHalf))
    }

    /// Learns how many of the keys that were counted had rows to change.
    pub(super) fn learn_of_density(&mut self, rows: Rows, keys: Option<u32>, changed_rows: i64) {
        match rows {
            Rows::All => self.density.record(keys, changed_rows),
            Rows::FirstHalf => self.density.record(keys.map(|keys| keys / 2), changed_rows),
            // Its stretch is that of the first.
            Rows::SecondHalf => {}
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
            let keys = self.keys_to_count(rows);
            return Ok(match self.next_bound(upper, rows).await? {
                Bound::At(to) => Ok(Stretch { to, rows, keys }),
                Bound::End => Err(Step::Exhausted),
                Bound::Further => Err(Step::Skipped),
            });
        };
        Ok(match self.next_bound(&first_half_to, Rows::SecondHalf).await? {
            Bound::At(to) => Ok(Stretch { to, rows: Rows::SecondHalf, keys: None }),
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
