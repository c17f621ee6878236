//! From a counter that only grows to a rate, and from jumpy values to a calm one.

use std::collections::VecDeque;
use std::time::Duration;

/// Readings that a rate remembers at most: one a second for five minutes, and some.
const READINGS_MAX: usize = 400;

/// How fast a counter grows, over a window of the past. What happened before it was first read counts for nothing.
#[derive(Debug, Clone)]
pub struct Rate {
    window: Duration,
    whole: bool,
    readings: VecDeque<(Duration, f64)>,
}

impl Rate {
    /// Growth a second between the first and the last reading of the window.
    pub fn over(window: Duration) -> Self {
        Self { window, whole: false, readings: VecDeque::new() }
    }

    /// Growth a second as if the whole window were known: a short burst at the start of a run is none.
    pub fn over_whole(window: Duration) -> Self {
        Self { whole: true, ..Self::over(window) }
    }

    /// Takes a reading; gives the growth a second, `None` for the first one. A counter that was reset begins anew.
    pub fn record(&mut self, at: Duration, counter: f64) -> Option<f64> {
        if self.readings.back().is_some_and(|(_, last)| counter < *last) {
            self.readings.clear();
        }
        self.readings.push_back((at, counter));
        while self.readings.len() > READINGS_MAX
            || (self.readings.len() > 2
                && self.readings.front().is_some_and(|(first, _)| at.saturating_sub(*first) > self.window))
        {
            self.readings.pop_front();
        }
        let (first_at, first) = *self.readings.front()?;
        let seconds = at.saturating_sub(first_at).as_secs_f64();
        if self.readings.len() < 2 || seconds <= 0.0 {
            return None;
        }
        let seconds = if self.whole { seconds.max(self.window.as_secs_f64()) } else { seconds };
        Some((counter - first) / seconds)
    }
}

/// A moving mean: each new value counts for three tenths, so that it takes about five to believe a change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Smoothed(Option<f64>);

/// Weight of a new value, as in spirit's autoscaler.
const WEIGHT: f64 = 0.3;

impl Smoothed {
    /// Takes a value; gives the mean.
    pub fn record(&mut self, value: f64) -> f64 {
        let mean = self.0.map_or(value, |mean| mean + WEIGHT * (value - mean));
        self.0 = Some(mean);
        mean
    }
}

/// A measure that is believed when it was taken twice: the lesser of the last two.
#[derive(Debug, Clone, Copy, Default)]
pub struct Twice {
    last: Option<f64>,
    believed: Option<f64>,
}

impl Twice {
    /// Takes what was measured last, and may be told the same again; gives what is believed.
    pub fn record(&mut self, value: f64) -> Option<f64> {
        if self.last != Some(value) {
            self.believed = self.last.map(|last| last.min(value));
            self.last = Some(value);
        }
        self.believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_rate_is_the_growth_over_its_window() {
        let mut rate = Rate::over(at(10));
        assert_eq!(rate.record(at(0), 100.0), None);
        assert_eq!(rate.record(at(5), 150.0), Some(10.0));
        assert_eq!(rate.record(at(14), 150.0), Some(0.0));
    }

    #[test]
    fn a_counter_that_was_reset_begins_anew() {
        let mut rate = Rate::over(at(10));
        rate.record(at(0), 100.0);
        assert_eq!(rate.record(at(1), 3.0), None);
        assert_eq!(rate.record(at(2), 5.0), Some(2.0));
    }

    #[test]
    fn a_short_burst_is_no_rate_of_a_whole_window() {
        let mut rate = Rate::over_whole(at(300));
        rate.record(at(0), 0.0);
        assert_eq!(rate.record(at(3), 3.0), Some(0.01));
    }

    #[test]
    fn a_measure_is_believed_when_it_was_taken_twice() {
        let mut twice = Twice::default();
        let believed = [5.0, 300.0, 300.0, 310.0, 4.0].map(|value| twice.record(value));
        assert_eq!(believed, [None, Some(5.0), Some(5.0), Some(300.0), Some(4.0)]);
    }

    #[test]
    fn one_peak_is_not_believed_and_a_plateau_is() {
        let mut calm = Smoothed::default();
        calm.record(0.0);
        assert!((calm.record(10.0) - 3.0).abs() < 1e-9);
        for _ in 0..8 {
            calm.record(10.0);
        }
        assert!(calm.record(10.0) > 9.0);
    }
}
