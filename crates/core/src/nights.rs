//! Nights: how many of the allowed windows a change takes, and when it ends. The calendar itself, time zones and
//! daylight saving included, is PostgreSQL's (`pgmend.windows`); here windows are seconds from now.

use serde::{Deserialize, Serialize};

use crate::pace::Pace;

/// A window of the allowed hours, in seconds from now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// When it opens; 0 if it is open.
    pub opens_s: f64,
    /// When it closes.
    pub closes_s: f64,
}

/// How a run of a given pace goes through the windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    /// Windows that it needs, the one it ends in included.
    pub windows: u32,
    /// Seconds from now to its end; `None` if it does not end within the windows known.
    pub ends_in_s: Option<f64>,
}

/// What a plan says of its nights, each figure at the slow and at the fast end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nights {
    /// Rows changed in an hour in which it may run.
    pub rows_per_hour: (i64, i64),
    /// What that rests on.
    pub basis: String,
    /// The way through the allowed hours; `None` where every hour is allowed.
    pub hours: Option<Ends>,
}

/// When a run ends that keeps to the allowed hours, each figure at the slow and at the fast end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Windows that it takes.
    pub windows: (u32, u32),
    /// When it ends if it starts now, local time; `None` if not within the windows of the next 400 days.
    pub at: Option<(String, String)>,
    /// The time zone.
    pub zone: String,
}

/// Rows a second that a run of `rows` rows makes when its batches take `work_s` seconds together and it goes at
/// `pace`; `None` for a run without rows.
pub fn rows_per_s(rows: i64, work_s: f64, pace: &Pace) -> Option<f64> {
    let with_rests = work_s * (1.0 + pace.nice.unwrap_or(0.0));
    let speed = rows as f64 / with_rests.max(0.001);
    (rows > 0).then(|| pace.rate.map_or(speed, |rate| speed.min(f64::from(rate))))
}

/// Seconds from the first batch to the last of a run of `rows` rows whose batches take `work_s` seconds together, at
/// `pace`. Holds, and stops at `rows_max` or after `stop_after`, are left out.
pub fn lasts_s(rows: i64, work_s: f64, pace: &Pace) -> f64 {
    let with_rests = work_s * (1.0 + pace.nice.unwrap_or(0.0));
    pace.rate.map_or(with_rests, |rate| with_rests.max(rows as f64 / f64::from(rate)))
}

/// The way of `rows` rows at `rows_per_s` through the windows, in order; through the next hours where there are none
/// to keep to.
pub fn course(rows: i64, rows_per_s: f64, windows: Option<&[Window]>) -> Course {
    let mut left_s = rows.max(0) as f64 / rows_per_s.max(f64::MIN_POSITIVE);
    let Some(windows) = windows else { return Course { windows: 1, ends_in_s: Some(left_s) } };
    for (number, window) in (1..).zip(windows) {
        let open_s = (window.closes_s - window.opens_s).max(0.0);
        if left_s <= open_s {
            return Course { windows: number, ends_in_s: Some(window.opens_s + left_s) };
        }
        left_s -= open_s;
    }
    Course { windows: u32::try_from(windows.len()).unwrap_or(u32::MAX), ends_in_s: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Four hours from now on, then four hours each night.
    fn nights(many: u32) -> Vec<Window> {
        (0..many).map(|n| f64::from(n) * 86_400.0).map(|at| Window { opens_s: at, closes_s: at + 14_400.0 }).collect()
    }

    #[test]
    fn a_run_goes_from_window_to_window() {
        // 1,000 rows a second: 14.4 million a night.
        let whole = |rows| course(rows, 1_000.0, Some(&nights(10)));
        assert_eq!(whole(14_400_000), Course { windows: 1, ends_in_s: Some(14_400.0) });
        assert_eq!(whole(14_401_000), Course { windows: 2, ends_in_s: Some(86_401.0) });
        assert_eq!(whole(40_000_000), Course { windows: 3, ends_in_s: Some(2.0 * 86_400.0 + 11_200.0) });
        assert_eq!(whole(145_000_000), Course { windows: 10, ends_in_s: None });
        assert_eq!(course(40_000_000, 1_000.0, None), Course { windows: 1, ends_in_s: Some(40_000.0) });
        assert_eq!(course(5, 1.0, Some(&[])), Course { windows: 0, ends_in_s: None });
    }

    #[test]
    fn rate_and_rests_make_it_slower() {
        let pace = |rate, nice| Pace { rate, nice, ..Pace::default() };
        assert_eq!(rows_per_s(1_000, 1.0, &Pace::default()), Some(1_000.0));
        assert_eq!(rows_per_s(1_000, 1.0, &pace(Some(200), None)), Some(200.0));
        assert_eq!(rows_per_s(1_000, 1.0, &pace(None, Some(1.0))), Some(500.0));
        assert_eq!(rows_per_s(1_000, 1.0, &pace(Some(2_000), Some(3.0))), Some(250.0));
        assert_eq!(rows_per_s(0, 1.0, &Pace::default()), None);
        assert_eq!(lasts_s(40_000, 3.0, &Pace::default()), 3.0);
        assert_eq!(lasts_s(40_000, 3.0, &pace(Some(4_000), Some(1.0))), 10.0);
        assert_eq!(lasts_s(40_000, 3.0, &pace(Some(40_000), Some(3.0))), 12.0);
    }

    proptest! {
        #[test]
        fn the_open_hours_up_to_the_end_are_just_enough(rows in 1_i64..100_000_000, speed in 1.0_f64..10_000.0) {
            let windows = nights(400);
            let course = course(rows, speed, Some(&windows));
            if let Some(end) = course.ends_in_s {
                let open: f64 = windows.iter().map(|w| (end.min(w.closes_s) - w.opens_s).max(0.0)).sum();
                prop_assert!((open * speed - rows as f64).abs() <= 1.0 + rows as f64 * 1e-9);
            } else {
                prop_assert!(400.0 * 14_400.0 * speed < rows as f64);
            }
        }
    }
}
