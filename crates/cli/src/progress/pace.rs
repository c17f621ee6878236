//! How fast a run goes, waits included, and when it may be done.

use std::collections::VecDeque;

/// Batches that count: enough to smooth, few enough to notice a change of pace.
const WINDOW: usize = 20;

/// The last batches: rows, seconds from the end of the one before to the end of this one.
#[derive(Debug, Default)]
pub struct Pace {
    batches: VecDeque<(i64, f64)>,
}

impl Pace {
    /// A batch of `rows` rows ended, `seconds` after the one before.
    pub fn record(&mut self, rows: i64, seconds: f64) {
        if self.batches.len() == WINDOW {
            self.batches.pop_front();
        }
        self.batches.push_back((rows, seconds.max(0.000_001)));
    }

    /// Rows per second over the window.
    pub fn rows_per_s(&self) -> Option<f64> {
        let (rows, seconds) = self.batches.iter().fold((0, 0.0), |(r, s), (rows, seconds)| (r + rows, s + seconds));
        (rows > 0).then(|| rows as f64 / seconds)
    }

    /// Seconds until `remaining` rows are done, at the fast and the slow end of the window's pace
    /// (90th and 10th percentile). A single number would promise what nobody knows.
    pub fn eta(&self, remaining: i64) -> Option<(f64, f64)> {
        let mut rates: Vec<f64> =
            self.batches.iter().filter(|(rows, _)| *rows > 0).map(|(rows, seconds)| *rows as f64 / seconds).collect();
        rates.sort_by(f64::total_cmp);
        let tenth = rates.len() / 10;
        let (slow, fast) = (*rates.get(tenth)?, *rates.get(rates.len() - 1 - tenth)?);
        (remaining > 0).then(|| (remaining as f64 / fast, remaining as f64 / slow))
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;

    #[test]
    fn the_remaining_time_is_a_range_between_the_fast_and_the_slow_batches() {
        let mut pace = Pace::default();
        pace.record(100, 1.0);
        pace.record(100, 2.0);
        assert_eq!(pace.eta(1_000), Some((10.0, 20.0)));
        assert_eq!(pace.eta(0), None);
        assert_eq!(pace.rows_per_s().map(f64::round), Some(67.0));
    }

    #[test]
    fn one_slow_batch_in_twenty_does_not_spoil_the_estimate() {
        let mut pace = Pace::default();
        for n in 0..20 {
            pace.record(100, if n == 7 { 60.0 } else { 1.0 });
        }
        assert_eq!(pace.eta(1_000), Some((10.0, 10.0)));
    }

    #[test]
    fn nothing_is_promised_before_the_first_row() {
        let mut pace = Pace::default();
        assert_eq!((pace.eta(5), pace.rows_per_s()), (None, None));
        pace.record(0, 1.0);
        assert_eq!((pace.eta(5), pace.rows_per_s()), (None, None));
    }
}
