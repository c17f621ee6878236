//! The meter of a run: what was changed and how long it took, and from this how long to wait before the next batch.
//! A leaky bucket for the rate, a rest for the ratio, and the end of the allowed hours. Time is an argument.

use std::collections::VecDeque;

use crate::throttle::REST_MIN;

/// Batches whose times decide whether one more fits before the hours end.
const WINDOW: usize = 20;

/// Why a batch waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wait {
    /// The rate's bucket has to leak, milliseconds.
    Rate(f64),
    /// The rest after the batch before, milliseconds.
    Rest(f64),
}

impl Wait {
    /// How long, in milliseconds.
    pub fn ms(self) -> f64 {
        match self {
            Wait::Rate(ms) | Wait::Rest(ms) => ms,
        }
    }
}

/// What was changed lately. Rows pour in with each batch, and leak out at the rate.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    level_rows: f64,
    /// Execution time of the batches since the last rest, and the time since the last of them ended, in milliseconds.
    worked_ms: f64,
    since_ms: f64,
    times_ms: VecDeque<f64>,
}

impl Meter {
    /// A batch of `rows` changed rows ended, after executing for `took_ms`. A step that changed nothing earns no rest.
    /// `untold_ms` is the time before its end that [`Self::pass`] will still be told of, that of the batch itself for the
    /// most part: the rest after the batch does not begin with it.
    pub fn batch(&mut self, rows: u64, took_ms: f64, untold_ms: f64) {
        self.level_rows += rows as f64;
        self.since_ms = -untold_ms.max(0.0);
        if rows > 0 {
            self.worked_ms += took_ms.max(0.0);
        }
        if self.times_ms.len() == WINDOW {
            self.times_ms.pop_front();
        }
        self.times_ms.push_back(took_ms.max(0.0));
    }

    /// Time went by, at this rate.
    pub fn pass(&mut self, ms: f64, rate: Option<f64>) {
        let ms = ms.max(0.0);
        self.since_ms += ms;
        self.level_rows = rate.map_or(0.0, |rate| (self.level_rows - rate * ms / 1_000.0).max(0.0));
    }

    /// How long the next batch of `rows` rows has to wait, at a rate in rows a second (above 0, and below 1 where many
    /// workers share a low one) and a ratio of rest; `None` when it may begin.
    ///
    /// Waits are saved up, so that a run works and rests in turns of about a second: beginning to work hurts whoever is
    /// beside more than going on (docs/design/company.md).
    pub fn wait(&mut self, rate: Option<f64>, nice: Option<f64>, rows: u32) -> Option<Wait> {
        // The bucket holds one second. Once the next batch finds no room in it, it waits until it is empty.
        let rate = rate.map_or(0.0, |rate| {
            let full = self.level_rows > (rate - f64::from(rows)).max(0.0);
            if full { self.level_rows / rate * 1_000.0 } else { 0.0 }
        });
        let owed = nice.unwrap_or(0.0) * self.worked_ms;
        let rest = (owed - self.since_ms.max(0.0)).max(0.0);
        if rest <= 0.0 {
            self.worked_ms = 0.0;
        }
        let rest = if owed < REST_MIN.as_secs_f64() * 1_000.0 { 0.0 } else { rest };
        match (rate, rest) {
            (rate, rest) if rate <= 0.0 && rest <= 0.0 => None,
            (rate, rest) if rate >= rest => Some(Wait::Rate(rate)),
            (_, rest) => Some(Wait::Rest(rest)),
        }
    }

    /// Whether one more batch, at the 90th percentile of the last ones, ends before the hours do.
    pub fn fits(&self, closes_in_ms: f64) -> bool {
        self.p90_ms() < closes_in_ms
    }

    /// 90th percentile of the last batches' times in milliseconds; 0 before the first.
    pub fn p90_ms(&self) -> f64 {
        let mut sorted: Vec<f64> = self.times_ms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * 9).div_ceil(10).max(1) - 1;
        sorted.get(rank).copied().unwrap_or(0.0)
    }
}

/// Rows that a batch may have: one second of the rate, and no more than are left to this command; at least 1.
pub fn batch_rows_max(rate: Option<u32>, left_rows: Option<u64>) -> u32 {
    let left = left_rows.map_or(u32::MAX, |left| u32::try_from(left).unwrap_or(u32::MAX));
    rate.unwrap_or(u32::MAX).min(left).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_batches_take_no_more_rows_are_changed_than_the_rate_allows(
            per_s in 1_u32..=100_000,
            batches in proptest::collection::vec((1_u32..=50_000, 0.0_f64..5_000.0, 0.0_f64..3_000.0), 1..60),
        ) {
            let rate = Some(f64::from(per_s));
            let (mut meter, mut now_ms, mut changed) = (Meter::default(), 0.0, 0.0);
            for (wanted, took_ms, idle_ms) in batches {
                meter.pass(idle_ms, rate);
                now_ms += idle_ms;
                let rows = wanted.min(batch_rows_max(Some(per_s), None));
                if let Some(wait) = meter.wait(rate, None, rows) {
                    prop_assert!(wait.ms() <= 1_000.5, "a bucket of one second empties within one: {wait:?}");
                    meter.pass(wait.ms(), rate);
                    now_ms += wait.ms();
                    prop_assert!(meter.wait(rate, None, rows).is_none_or(|rest| rest.ms() < 0.001));
                }
                meter.pass(took_ms, rate);
                now_ms += took_ms;
                meter.batch(u64::from(rows), took_ms, 0.0);
                changed += f64::from(rows);
                prop_assert!(changed <= f64::from(per_s) * (now_ms / 1_000.0 + 1.0) + 0.001 * changed + 1.0);
            }
        }

        #[test]
        fn the_rest_is_the_ratio_of_the_execution_time(nice in 0.0_f64..=100.0, took_ms in 0.1_f64..10_000.0) {
            let mut meter = Meter::default();
            meter.batch(10, took_ms, 0.0);
            let wait = meter.wait(None, Some(nice), 10).map_or(0.0, Wait::ms);
            let owed = nice * took_ms;
            let saved_up = if owed < 1_000.0 { 0.0 } else { owed };
            prop_assert!((wait - saved_up).abs() < 0.001);
            meter.pass(wait, None);
            prop_assert!(meter.wait(None, Some(nice), 10).is_none_or(|left| left.ms() < 0.001));
        }
    }

    #[test]
    fn rests_are_saved_up_to_a_second() {
        let nice = Some(9.0);
        let mut meter = Meter::default();
        for _ in 0..4 {
            meter.batch(10, 25.0, 0.0);
            assert_eq!(meter.wait(None, nice, 10), None);
            meter.pass(1.0, None);
        }
        meter.batch(10, 25.0, 0.0);
        assert_eq!(meter.wait(None, nice, 10), Some(Wait::Rest(1_125.0)));
        meter.pass(1_125.0, None);
        assert_eq!(meter.wait(None, nice, 10), None);
        meter.batch(10, 25.0, 0.0);
        assert_eq!(meter.wait(None, nice, 10), None, "what was rested for is no longer owed");
    }

    #[test]
    fn a_full_bucket_is_emptied_before_the_next_batch() {
        let mut meter = Meter::default();
        for _ in 0..3 {
            meter.batch(300, 10.0, 0.0);
        }
        assert_eq!(meter.wait(Some(1_000.0), None, 300), Some(Wait::Rate(900.0)));
        assert_eq!(meter.wait(Some(1_000.0), None, 100), None);
    }

    #[test]
    fn the_time_of_the_batch_itself_is_no_rest_though_it_is_told_later() {
        let nice = Some(2.0);
        let mut meter = Meter::default();
        meter.batch(10, 600.0, 650.0);
        meter.pass(650.0, None);
        assert_eq!(meter.wait(None, nice, 10), Some(Wait::Rest(1_200.0)));
        meter.pass(300.0, None);
        assert_eq!(meter.wait(None, nice, 10), Some(Wait::Rest(900.0)));
    }

    #[test]
    fn a_step_that_changed_nothing_is_followed_by_no_rest() {
        let nice = Some(5.0);
        let mut meter = Meter::default();
        meter.batch(0, 400.0, 0.0);
        assert_eq!(meter.wait(None, nice, 10), None);
    }

    #[test]
    fn a_slower_rate_counts_at_once_and_no_rate_empties_the_bucket() {
        let mut meter = Meter::default();
        meter.batch(1_000, 10.0, 0.0);
        assert_eq!(meter.wait(Some(1_000.0), None, 1_000), Some(Wait::Rate(1_000.0)));
        assert_eq!(meter.wait(Some(100.0), None, 100), Some(Wait::Rate(10_000.0)));
        meter.pass(1.0, None);
        assert_eq!(meter.wait(Some(100.0), None, 100), None);
    }

    #[test]
    fn a_share_of_less_than_a_row_a_second_is_waited_for() {
        let mut meter = Meter::default();
        meter.batch(1, 10.0, 0.0);
        assert_eq!(meter.wait(Some(0.25), None, 1), Some(Wait::Rate(4_000.0)));
        meter.pass(4_000.0, Some(0.25));
        assert_eq!(meter.wait(Some(0.25), None, 1), None);
    }

    #[test]
    fn no_batch_is_larger_than_a_second_of_the_rate_or_than_what_is_left() {
        assert_eq!(batch_rows_max(Some(40), None), 40);
        let left = |rows| batch_rows_max(Some(40), Some(rows));
        assert_eq!((left(100), left(5), left(0), left(u64::MAX)), (40, 5, 1, 40));
        assert_eq!((batch_rows_max(None, Some(100)), batch_rows_max(None, None)), (100, u32::MAX));
    }

    #[test]
    fn a_batch_that_would_cross_the_end_of_the_hours_does_not_begin() {
        let mut meter = Meter::default();
        assert!(meter.fits(1.0) && !meter.fits(0.0));
        for took in [100.0, 110.0, 120.0, 900.0] {
            meter.batch(10, took, 0.0);
        }
        assert!(meter.fits(901.0) && !meter.fits(900.0));
    }
}
