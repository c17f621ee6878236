//! What one command has done so far: all its workers and all its windows of the allowed hours together. `--rows-max`,
//! `--stop-after` and `--stop-after-batches` are about this, not about one partition or one night.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The part of a run that one command drives.
#[derive(Debug)]
pub(crate) struct Slice {
    begun: Instant,
    counts: Mutex<Counts>,
    /// A claim was given back.
    given_back: Notify,
}

/// Rows and batches. Of one lock, so that a batch's rows are either claimed or changed, and never neither.
#[derive(Debug, Default)]
struct Counts {
    changed_rows: u64,
    batches: u64,
    /// Rows that batches under way may change, and how many batches these are.
    claimed_rows: u64,
    claims: u64,
    /// Rows that the run had changed before this command.
    before_rows: Option<u64>,
    /// Rows that other processes have changed since, at least.
    elsewhere_rows: u64,
}

impl Counts {
    fn all_rows(&self) -> u64 {
        self.changed_rows + self.elsewhere_rows
    }

    fn room(&self, most: u64) -> u64 {
        most.saturating_sub(self.all_rows()).saturating_sub(self.claimed_rows)
    }
}

/// How much a command may do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Most {
    pub rows: Option<u64>,
    pub batches: Option<u64>,
}

impl Slice {
    /// A command begins.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), counts: Mutex::default(), given_back: Notify::new() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics between two changes of these numbers.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims as many rows for a batch as are wanted and left; `None` where nothing is left that others have not claimed.
    pub(super) fn claim(self: &Arc<Self>, wanted: u32, most: Most) -> Option<Claim> {
        let mut counts = self.counts();
        let left = most.rows.map_or(u64::MAX, |most| counts.room(most));
        let rows = wanted.min(u32::try_from(left).unwrap_or(u32::MAX));
        if rows == 0 || most.batches.is_some_and(|most| counts.batches + counts.claims >= most) {
            return None;
        }
        counts.claimed_rows += u64::from(rows);
        counts.claims += 1;
        Some(Claim { slice: Arc::clone(self), rows })
    }

    /// Rows that are left of so many, without those that batches under way may change.
    pub fn room(&self, most: u64) -> u64 {
        self.counts().room(most)
    }

    /// Until some claim is given back, from this call on.
    pub fn given_back(&self) -> Notified<'_> {
        self.given_back.notified()
    }

    /// A batch without a claim was committed.
    pub fn record(&self, changed_rows: i64) {
        let mut counts = self.counts();
        counts.changed_rows = counts.changed_rows.saturating_add_signed(changed_rows);
        counts.batches += 1;
    }

    /// So many rows were changed, or are no longer, as was found out later.
    pub fn correct(&self, changed_rows: i64) {
        let mut counts = self.counts();
        counts.changed_rows = counts.changed_rows.saturating_add_signed(changed_rows);
    }

    /// The whole run has changed so many rows: what this command neither changed nor may be changing, other processes
    /// did. At least: a batch of ours that was committed before the look may not be counted yet.
    pub fn see_run(&self, changed_rows: i64) {
        let now = u64::try_from(changed_rows).unwrap_or(0);
        let mut counts = self.counts();
        let before = *counts.before_rows.get_or_insert(now);
        let ours = counts.changed_rows + counts.claimed_rows;
        let elsewhere = now.saturating_sub(before).saturating_sub(ours);
        counts.elsewhere_rows = counts.elsewhere_rows.max(elsewhere);
    }

    /// Rows changed since the command began, also those that workers of other processes changed.
    pub fn changed_rows(&self) -> u64 {
        self.counts().all_rows()
    }

    /// Rows that the whole run has changed, as far as known here.
    pub fn run_rows(&self) -> i64 {
        let counts = self.counts();
        i64::try_from(counts.before_rows.unwrap_or(0) + counts.all_rows()).unwrap_or(i64::MAX)
    }

    /// Batches committed by this process.
    pub fn batches(&self) -> u64 {
        self.counts().batches
    }

    /// Time since the command began, waits for hours and access included.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Rows of a command that one batch may change, and no other. Dropped, none of them were changed.
#[derive(Debug)]
pub(super) struct Claim {
    slice: Arc<Slice>,
    rows: u32,
}

impl Claim {
    /// Rows that the batch may change; at least 1.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The batch was committed. What is left of the claim is others' to claim.
    pub fn settle(self, changed_rows: i64) {
        // Claimed and changed for a moment, which keeps others from claiming the same rows.
        self.slice.record(changed_rows);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        {
            let mut counts = self.slice.counts();
            counts.claimed_rows -= u64::from(self.rows);
            counts.claims -= 1;
        }
        self.slice.given_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Most, Slice};

    const ANY: Most = Most { rows: None, batches: None };

    #[test]
    fn what_others_change_counts_from_the_first_look_on_and_nothing_counts_twice() {
        let slice = Arc::new(Slice::begin());
        slice.see_run(1_000);
        let ours = slice.claim(10, ANY).expect("no bound");
        // The look may have seen our batch, whose commit is not known here yet.
        slice.see_run(1_007);
        assert_eq!(slice.changed_rows(), 0);
        ours.settle(7);
        slice.see_run(1_007);
        assert_eq!((slice.changed_rows(), slice.batches(), slice.run_rows()), (7, 1, 1_007));
        slice.see_run(1_050);
        assert_eq!((slice.changed_rows(), slice.run_rows()), (50, 1_050));
        // A look that is older than our own last batches.
        slice.record(60);
        slice.see_run(1_040);
        assert_eq!(slice.changed_rows(), 110);
    }

    #[test]
    fn a_claim_is_what_is_left_and_given_back_where_nothing_changed() {
        let slice = Arc::new(Slice::begin());
        let most = Most { rows: Some(15), batches: None };
        let (one, two) = (slice.claim(10, most).expect("ten"), slice.claim(10, most).expect("the rest"));
        assert_eq!((one.rows(), two.rows(), slice.room(15)), (10, 5, 0));
        assert!(slice.claim(1, most).is_none());
        one.settle(4);
        assert_eq!((slice.room(15), slice.changed_rows()), (6, 4));
        drop(two);
        assert_eq!(slice.claim(20, most).expect("the rest").rows(), 11);
    }

    #[test]
    fn batches_under_way_count_among_those_that_a_command_may_make() {
        let slice = Arc::new(Slice::begin());
        let most = Most { rows: None, batches: Some(2) };
        let (one, two) = (slice.claim(10, most).expect("the first"), slice.claim(10, most).expect("the second"));
        assert!(slice.claim(10, most).is_none());
        one.settle(10);
        assert!(slice.claim(10, most).is_none());
        drop(two);
        assert!(slice.claim(10, most).is_some());
    }

    #[tokio::test]
    async fn whoever_finds_nothing_left_hears_of_a_claim_that_is_given_back() {
        let slice = Arc::new(Slice::begin());
        let most = Most { rows: Some(5), batches: None };
        let other = slice.claim(5, most).expect("all");
        let given_back = slice.given_back();
        assert!(slice.claim(1, most).is_none());
        drop(other);
        tokio::time::timeout(std::time::Duration::from_secs(10), given_back).await.expect("it is told");
    }

    #[test]
    fn workers_together_change_as_many_rows_as_asked_and_none_more() {
        let most = Most { rows: Some(10_007), batches: None };
        let slice = Arc::new(Slice::begin());
        slice.see_run(500);
        let workers: Vec<_> = (1..=8_i64)
            .map(|worker| {
                let slice = Arc::clone(&slice);
                std::thread::spawn(move || {
                    let mut turn = worker;
                    while slice.changed_rows() < 10_007 {
                        turn += 1;
                        let Some(claim) = slice.claim(10, most) else { continue };
                        let rows = i64::from(claim.rows());
                        match turn % 3 {
                            0 => drop(claim),
                            1 => claim.settle(rows / 2),
                            _ => claim.settle(rows),
                        }
                        assert!(slice.changed_rows() <= 10_007);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("no panic");
        }
        assert_eq!((slice.changed_rows(), slice.room(10_007)), (10_007, 0));
    }
}
