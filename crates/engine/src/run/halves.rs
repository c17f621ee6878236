//! A stretch of keys in two halves of a few batches each: every other row first, and the others once the old versions of
//! these can be cleaned away, so that the new ones find room on their own pages (docs/design/halves.md).
//!
//! Invariant: all rows up to the cursor are done, and those of the first half up to `first_half_to`, which is none where it
//! is not ahead of the cursor. A row's key tells its half, so a row is never in both. Whether the first half goes on is
//! nobody's business but this worker's: whoever takes over begins with the second.

use std::collections::VecDeque;

use pgmend_core::halving::{self, Batch, FIRST_BATCHES};
use pgmend_core::plan::{HalfBatch, Halves, RunSql};
use pgmend_pg::PgError;

use super::recover::QUERY_CANCELED;
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
    /// More rows than these are refused: nobody has looked for the end of so many.
    pub rows_max: Option<u32>,
}

impl Stretch {
    /// Up to a bound that was looked for.
    pub fn up_to(to: Vec<String>, rows: Rows, keys: Option<u32>) -> Self {
        Self { to, rows, keys, rows_max: None }
    }
}

/// What a worker remembers of the first half of the stretch under way.
#[derive(Debug, Default)]
pub(super) struct FirstHalf {
    /// Its batches that the second half has not come to yet; the last one ends at `first_half_to`.
    batches: VecDeque<FirstBatch>,
    /// It gets no more of them.
    over: bool,
}

#[derive(Debug)]
struct FirstBatch {
    to: Vec<String>,
    rows: i64,
}

impl FirstHalf {
    /// Takes note of a committed batch, after which the rows are done up to here.
    pub fn record(&mut self, before: Option<&[String]>, reached: &Reached, changed_rows: i64) {
        match &reached.first_half_to {
            None => *self = Self::default(),
            Some(to) if before != Some(to) => {
                self.batches.push_back(FirstBatch { to: to.clone(), rows: changed_rows });
            }
            Some(_) => self.pass(reached.cursor.as_ref()),
        }
    }

    /// The second half is done up to here: it has come past the batches that end there.
    fn pass(&mut self, cursor: Option<&Vec<String>>) {
        if let Some(last) = self.batches.iter().position(|batch| Some(&batch.to) == cursor) {
            self.batches.drain(..=last);
        }
    }

    /// Where a batch of the second half ends that takes as many of these batches as have no more rows than this together.
    fn as_many_as(&self, most: i64) -> Option<&FirstBatch> {
        let mut rows = 0;
        self.batches
            .iter()
            .take_while(|batch| {
                rows += batch.rows;
                rows <= most
            })
            .last()
    }

    /// Whether there may be another batch of it, after so many more.
    fn may_go_on(&self, more: usize) -> bool {
        !self.over && self.batches.len() + more < FIRST_BATCHES
    }
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

/// Rows that a batch of a second half may have, where those of the first have so many: two of them, and a little more.
fn several(rows: u32) -> u32 {
    rows.saturating_mul(2).saturating_add(rows / 5)
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
        let pace = self.pace_now();
        // A batch of a second half is that of two of the first.
        let slow = pace.rate.is_some_and(|rate| rate < several(self.sizing.rows()));
        let counted = self.sizing.is_tuned() || pace.rows_max.is_some() || slow;
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

    /// Whether a first half that is under way has another batch, once it has so many more.
    pub(super) fn first_goes_on(&self, first_half_to: &[String], upper: &[String], more: usize) -> bool {
        let begun_here = self.first_half.batches.len() + more > 0;
        begun_here && self.first_half.may_go_on(more) && first_half_to != upper && self.in_halves()
    }

    /// The next batch of a second half, where nothing needs to be looked for: its rows are those of the same stretch as a
    /// batch of the first half, or as two of them where they cost so much less. Not where batches have become so much
    /// smaller since.
    pub(super) fn known_second(&mut self) -> Option<Stretch> {
        self.first_half.over = true;
        if !self.at_full_size() {
            return None;
        }
        let rows = i64::from(self.batch_rows());
        let most = halving::half_rows_max(self.sizing.half_max());
        let several = i64::from(most.min(several(self.batch_rows())));
        let several = self.first_half.as_many_as(several).filter(|_| self.halving.second_costs_less());
        let one = self.first_half.batches.front().filter(|batch| batch.rows <= 2 * rows);
        let to = several.or(one)?.to.clone();
        Some(Stretch::up_to(to, Rows::SecondHalf, None))
    }

    /// Looks for the end of another batch of a first half that is under way. Where the rows that match are so rare that the
    /// look runs into its timeout, the second half comes first.
    async fn more_of_first(&self, from: &[String], upper: &[String]) -> Result<Option<Stretch>, PgError> {
        if !self.first_goes_on(from, upper, 0) {
            return Ok(None);
        }
        let keys = self.keys_to_count(Rows::FirstHalf);
        match self.read_bound(Some(from), upper, Rows::FirstHalf).await {
            Ok(found) => Ok(found.map(|to| Stretch::up_to(to, Rows::FirstHalf, keys))),
            Err(error) if error.sqlstate == QUERY_CANCELED => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks for the keys of the next batch; `Err` where it has none.
    pub(super) async fn next_stretch(&mut self, upper: &[String]) -> Result<Result<Stretch, Step>, PgError> {
        let Some(first_half_to) = self.at.first_half_to.clone() else {
            let rows = if self.in_halves() { Rows::FirstHalf } else { Rows::All };
            let keys = self.keys_to_count(rows);
            return Ok(match self.next_bound(upper, rows).await? {
                Bound::At(to) => Ok(Stretch::up_to(to, rows, keys)),
                Bound::End => Err(Step::Exhausted),
                Bound::Further => Err(Step::Skipped),
            });
        };
        if let Some(stretch) = self.more_of_first(&first_half_to, upper).await? {
            return Ok(Ok(stretch));
        }
        self.first_half.over = true;
        let end = self.first_half.batches.front().map_or(&first_half_to, |batch| &batch.to).clone();
        Ok(match self.next_bound(&end, Rows::SecondHalf).await? {
            Bound::At(to) => Ok(Stretch::up_to(to, Rows::SecondHalf, None)),
            Bound::End => {
                // Both halves are done up to here. Should the process end now, this is found out again.
                let reached = self.reached(Rows::SecondHalf, end);
                self.first_half.record(Some(&first_half_to), &reached, 0);
                (self.at.cursor, self.at.first_half_to) = (reached.cursor, reached.first_half_to);
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
