//! How many rows the next batch takes.

use std::collections::VecDeque;

use crate::limits::{BATCH_ROWS_CEILING, BATCH_ROWS_FLOOR, BATCH_ROWS_START, Limits};

/// Batches whose times decide the next size.
const WINDOW: usize = 10;
/// Growth is bounded so that one fast batch cannot cause a long one.
const GROWTH_MAX: f64 = 1.5;
/// A batch that took this many times the target shrinks the size tenfold at once.
const OVERRUN: f64 = 5.0;
/// A batch that lasts this many times what it costs beside its rows loses 4 % to that. A larger one would gain less
/// than it takes: locks are held longer, and its rows no longer fit the processor's caches
/// (docs/design/batch-speed.md).
const OVERHEAD_TIMES: f64 = 25.0;
/// The same at least, where short locks matter more.
const OVERHEAD_TIMES_MIN: f64 = 2.0;
/// Shorter ones are not worth it however near the server is: it parses, plans, checks and records 3 ms or so for each batch.
const WORTHWHILE_MS: f64 = 100.0;

/// The adaptive batch size: p90 of the time per row over the last batches, held near the target, or near what makes a
/// batch worth its round trips and its commit if that is less.
#[derive(Debug, Clone)]
pub struct Sizing {
    rows: u32,
    /// What a person has set while the run goes, and what they asked for: it is given up when it cannot succeed.
    tuned: Option<u32>,
    asked: Option<u32>,
    fixed: bool,
    floor: u32,
    ceiling: u32,
    target_ms: f64,
    overhead_ms: Option<f64>,
    /// The time that a batch aims at while an application works beside.
    company_ms: Option<f64>,
    per_row_ms: VecDeque<f64>,
    /// WAL in bytes that one batch aims at, and what rows of the last batches took.
    wal_budget: f64,
    per_row_wal: VecDeque<f64>,
}

impl Sizing {
    /// The size for a run's first batch: fixed when the job says so, otherwise 500 rows.
    pub fn new(limits: &Limits) -> Self {
        let ceiling = limits.rows_per_transaction_max.min(BATCH_ROWS_CEILING);
        let rows = limits.batch_rows.unwrap_or(BATCH_ROWS_START).min(ceiling);
        Self {
            rows,
            tuned: None,
            asked: None,
            fixed: limits.batch_rows.is_some(),
            floor: BATCH_ROWS_FLOOR.min(ceiling),
            ceiling,
            target_ms: limits.target_batch_ms as f64,
            overhead_ms: None,
            company_ms: None,
            per_row_ms: VecDeque::with_capacity(WINDOW),
            wal_budget: f64::INFINITY,
            per_row_wal: VecDeque::with_capacity(WINDOW),
        }
    }

    /// The same with a budget of WAL for each batch, in bytes.
    pub fn within_wal(self, bytes: u64) -> Self {
        Self { wal_budget: bytes as f64, ..self }
    }

    /// Learns from a batch of `rows` rows during which the server wrote so many bytes of WAL. Called before `record`.
    pub fn record_wal(&mut self, rows: u64, bytes: f64) {
        if rows == 0 || !bytes.is_finite() {
            return;
        }
        if self.per_row_wal.len() == WINDOW {
            self.per_row_wal.pop_front();
        }
        self.per_row_wal.push_back(bytes.max(1.0) / rows as f64);
    }

    /// Rows for the next batch.
    pub fn rows(&self) -> u32 {
        self.tuned.unwrap_or(self.rows).clamp(1, self.ceiling)
    }

    /// Takes over what a person has set for now, within the ceiling; `None` goes back to what the job or the
    /// measured time says.
    pub fn tune(&mut self, rows: Option<u32>) {
        if self.asked != rows {
            self.asked = rows;
            self.tuned = rows;
        }
    }

    /// Whether a person has set the rows of a batch for now.
    pub fn is_tuned(&self) -> bool {
        self.tuned.is_some()
    }

    /// Rows that half of a stretch may have: those of a batch, where the job fixes them, else as many as any batch may.
    pub fn half_max(&self) -> u32 {
        if self.fixed { self.rows.min(self.ceiling) } else { self.ceiling }
    }

    /// Rows that no batch may exceed.
    pub fn ceiling(&self) -> u32 {
        self.ceiling
    }

    /// What a batch costs beside its rows, in milliseconds: round trips and the commit.
    pub fn set_overhead(&mut self, overhead_ms: f64) {
        self.overhead_ms = Some(overhead_ms);
    }

    /// What a batch may last while an application works beside, in milliseconds; none while the run is alone.
    pub fn set_company(&mut self, batch_ms: Option<f64>) {
        self.company_ms = batch_ms;
    }

    /// The execution time that a batch aims at.
    fn aim_ms(&self) -> f64 {
        let overhead_ms = self.overhead_ms.unwrap_or(0.0);
        let worthwhile = match self.company_ms {
            // Far away a batch may last twice its round trips, or next to nothing would get done.
            Some(most) => Some(most.max(overhead_ms * OVERHEAD_TIMES_MIN)),
            None => self.overhead_ms.map(|overhead| (overhead * OVERHEAD_TIMES).max(WORTHWHILE_MS)),
        };
        worthwhile.map_or(self.target_ms, |aim| aim.min(self.target_ms))
    }

    /// Learns from a batch of `rows` rows that executed for `took_ms` milliseconds, waits excluded.
    pub fn record(&mut self, rows: u64, took_ms: f64) {
        if self.fixed || rows == 0 {
            return;
        }
        if took_ms > OVERRUN * self.target_ms {
            self.per_row_ms.clear();
            self.rows = (self.rows / 10).max(self.floor);
            return;
        }
        if self.per_row_ms.len() == WINDOW {
            self.per_row_ms.pop_front();
        }
        self.per_row_ms.push_back(took_ms.max(0.001) / rows as f64);
        let wanted = (self.aim_ms() / p90(&self.per_row_ms)).min(self.wal_rows());
        let grown = (f64::from(self.rows) * GROWTH_MAX).ceil();
        self.rows = (wanted.min(grown) as u32).clamp(self.floor, self.ceiling);
    }

    /// Halves the size after our own statement timeout; also a fixed one, since it cannot succeed.
    pub fn shrink(&mut self) {
        self.per_row_ms.clear();
        self.rows = (self.rows() / 2).max(1);
        self.tuned = None;
    }

    /// Rows that fit into the budget of WAL.
    fn wal_rows(&self) -> f64 {
        if self.per_row_wal.is_empty() { f64::INFINITY } else { self.wal_budget / p90(&self.per_row_wal) }
    }
}

/// What nine of ten values stay below.
fn p90(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * 9).div_ceil(10).max(1) - 1;
    sorted.get(rank).copied().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{GROWTH_MAX, Sizing};
    use crate::limits::Limits;

    proptest! {
        #[test]
        fn whatever_batches_take_the_next_is_within_its_bounds_and_grows_by_half_at_most(
            most in 1_u32..=50_000,
            batches in proptest::collection::vec((1_u64..=50_000, 0.0_f64..100_000.0, any::<bool>()), 1..50),
        ) {
            let mut sizing = Sizing::new(&Limits { rows_per_transaction_max: most, ..Limits::default() });
            for (rows, took_ms, timed_out) in batches {
                let before = sizing.rows();
                if timed_out {
                    sizing.shrink();
                } else {
                    sizing.record(rows, took_ms);
                }
                prop_assert!((1..=most).contains(&sizing.rows()));
                let most_grown = (f64::from(before) * GROWTH_MAX).ceil() as u32;
                prop_assert!(sizing.rows() <= most_grown.max(sizing.floor));
            }
        }
    }

    #[test]
    fn a_fast_batch_grows_the_next_by_half_at_most() {
        let mut sizing = Sizing::new(&Limits::default());
        sizing.record(500, 1.0);
        assert_eq!(sizing.rows(), 750);
    }

    #[test]
    fn a_batch_five_times_over_shrinks_tenfold() {
        let mut sizing = Sizing::new(&Limits::default());
        sizing.record(500, 2_600.0);
        assert_eq!(sizing.rows(), 50);
    }

    #[test]
    fn a_fixed_size_stays_and_the_transaction_maximum_caps_it() {
        let limits = Limits { batch_rows: Some(400), rows_per_transaction_max: 300, ..Limits::default() };
        let mut sizing = Sizing::new(&limits);
        sizing.record(300, 1.0);
        assert_eq!(sizing.rows(), 300);
    }

    #[test]
    fn what_a_person_sets_counts_until_it_is_taken_back_and_never_beyond_the_ceiling() {
        let limits = Limits { batch_rows: Some(100), rows_per_transaction_max: 300, ..Limits::default() };
        let mut sizing = Sizing::new(&limits);
        sizing.tune(Some(250));
        assert_eq!(sizing.rows(), 250);
        sizing.tune(Some(5_000));
        assert_eq!(sizing.rows(), 300);
        sizing.shrink();
        sizing.tune(Some(5_000));
        assert_eq!(sizing.rows(), 150, "it timed out: asking on changes nothing");
        sizing.tune(None);
        sizing.tune(Some(40));
        assert_eq!(sizing.rows(), 40);
        sizing.tune(None);
        assert_eq!(sizing.rows(), 150);
    }

    #[test]
    fn a_batch_is_no_longer_than_its_overhead_makes_worthwhile() {
        let converged = |overhead_ms: f64| {
            let mut sizing = Sizing::new(&Limits::default());
            sizing.set_overhead(overhead_ms);
            for _ in 0..60 {
                let rows = u64::from(sizing.rows());
                sizing.record(rows, rows as f64 * 0.05);
            }
            sizing.rows()
        };
        // Nearby: 6 ms beside the rows, 150 ms a batch. Far away: the target. For nothing: not without end.
        assert_eq!([6.0, 50.0, 0.0].map(converged), [3_000, 10_000, 2_000]);
    }

    #[test]
    fn a_batch_stays_within_its_budget_of_wal() {
        let mut sizing = Sizing::new(&Limits::default()).within_wal(1_000_000);
        for _ in 0..60 {
            let rows = u64::from(sizing.rows());
            sizing.record_wal(rows, rows as f64 * 1_000.0);
            sizing.record(rows, rows as f64 * 0.05);
        }
        assert_eq!(sizing.rows(), 1_000);
    }

    #[test]
    fn the_size_converges_to_the_target() {
        let mut sizing = Sizing::new(&Limits::default());
        for _ in 0..60 {
            let rows = u64::from(sizing.rows());
            sizing.record(rows, rows as f64 * 0.05);
        }
        assert_eq!(sizing.rows(), 10_000);
    }
}
