//! What one command has done so far: all its workers and all its windows of the allowed hours together. `--rows-max`,
//! `--stop-after` and `--stop-after-batches` are about this, not about one partition or one night.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The part of a run that one command drives.
#[derive(Debug)]
pub(crate) struct Slice {
    begun: Instant,
    changed_rows: AtomicU64,
    /// Rows that batches under way may change.
    under_way_rows: AtomicU64,
    batches: AtomicU64,
    /// Rows that the run had changed before this command.
    before_rows: OnceLock<u64>,
    /// Rows that other processes have changed since, as last seen.
    elsewhere_rows: AtomicU64,
}

impl Slice {
    /// A command begins.
    pub fn begin() -> Self {
        Self {
            begun: Instant::now(),
            changed_rows: AtomicU64::new(0),
            under_way_rows: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            before_rows: OnceLock::new(),
            elsewhere_rows: AtomicU64::new(0),
        }
    }

    /// A batch of at most so many rows begins.
    pub fn begin_batch(&self, rows: u32) {
        self.under_way_rows.fetch_add(rows.into(), Ordering::Relaxed);
    }

    /// That batch is over, whatever came of it.
    pub fn end_batch(&self, rows: u32) {
        self.under_way_rows.fetch_sub(rows.into(), Ordering::Relaxed);
    }

    /// A batch was committed.
    pub fn record(&self, changed_rows: i64) {
        self.changed_rows.fetch_add(u64::try_from(changed_rows).unwrap_or(0), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// The whole run has changed so many rows: what is not ours since the first such look is other processes'.
    pub fn see_run(&self, changed_rows: i64) {
        let now = u64::try_from(changed_rows).unwrap_or(0);
        let before = *self.before_rows.get_or_init(|| now);
        let here = self.changed_rows.load(Ordering::Relaxed);
        self.elsewhere_rows.store(now.saturating_sub(before).saturating_sub(here), Ordering::Relaxed);
    }

    /// Rows changed since the command began, also those that workers of other processes changed.
    pub fn changed_rows(&self) -> u64 {
        self.changed_rows.load(Ordering::Relaxed) + self.elsewhere_rows.load(Ordering::Relaxed)
    }

    /// Rows that the whole run has changed, as far as known here.
    pub fn run_rows(&self) -> i64 {
        let all = self.before_rows.get().copied().unwrap_or(0) + self.changed_rows();
        i64::try_from(all).unwrap_or(i64::MAX)
    }

    /// The same as `changed_rows`, with all that batches under way may yet change.
    pub fn claimed_rows(&self) -> u64 {
        self.changed_rows() + self.under_way_rows.load(Ordering::Relaxed)
    }

    /// Batches committed by this process.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Time since the command began, waits for hours and access included.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::Slice;

    #[test]
    fn what_others_change_counts_from_the_first_look_on_and_nothing_counts_twice() {
        let slice = Slice::begin();
        slice.see_run(1_000);
        slice.begin_batch(10);
        slice.begin_batch(20);
        assert_eq!((slice.changed_rows(), slice.claimed_rows()), (0, 30));
        slice.end_batch(10);
        slice.record(7);
        slice.see_run(1_007);
        assert_eq!((slice.changed_rows(), slice.claimed_rows(), slice.batches()), (7, 27, 1));
        slice.see_run(1_050);
        assert_eq!(slice.changed_rows(), 50);
        // A look that is older than our own last batches.
        slice.record(60);
        slice.see_run(1_040);
        assert_eq!(slice.changed_rows(), 67);
    }
}
