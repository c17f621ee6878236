//! When a run vacuums its target, so that updating every row does not double the table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Rows below which a vacuum costs more than the dead rows that it takes away.
pub const VACUUM_ROWS_MIN: i64 = 1_000;
/// How long one vacuum may take, in milliseconds: one that is slower is autovacuum's business.
pub const VACUUM_MS_MAX: u64 = 3_600_000;
/// `vacuum_cost_delay` in milliseconds where the server has none: autovacuum's own.
pub const VACUUM_COST_DELAY_MS: u64 = 2;
/// Vacuums that gave way to somebody before the run goes on without: it is tried again after the next share.
pub const VACUUM_TRIES_MAX: u32 = 3;

/// A share of a table's rows, in percent: 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    percent: u8,
}

impl Share {
    /// So many of these rows; never fewer than a vacuum is worth.
    pub fn of(self, rows: i64) -> i64 {
        (rows.max(0) / 100 * i64::from(self.percent)).max(VACUUM_ROWS_MIN)
    }

    /// The share as a number, 0.01 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.percent) / 100.0
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<u8>().ok());
        match percent {
            Some(percent @ 1..=100) => Ok(Self { percent }),
            Some(_) => Err(format!("`{text}` is out of range; choose 1% to 100%")),
            None => Err(format!("`{text}` is no share; write it in percent, such as 10%")),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> String {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent)
    }
}

/// When the next vacuum of a run is due, by the rows that the run has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Rows changed between two vacuums.
    every_rows: i64,
    /// Rows that the run had changed at the last one, as far as known.
    last_rows: i64,
    /// Vacuums since that gave way to somebody.
    tries: u32,
}

impl Schedule {
    /// Vacuums after each such share of a table of so many rows.
    pub fn new(every: Share, table_rows: i64) -> Self {
        Self { every_rows: every.of(table_rows), last_rows: 0, tries: 0 }
    }

    /// Rows that have to be changed since the last vacuum. With `urgent`, when dead rows hold the run, as few as a vacuum
    /// is worth.
    pub fn due_rows(&self, urgent: bool) -> i64 {
        if urgent { VACUUM_ROWS_MIN } else { self.every_rows }
    }

    /// Whether a vacuum is due after so many changed rows.
    pub fn is_due(&self, changed_rows: i64, urgent: bool) -> bool {
        changed_rows.saturating_sub(self.last_rows) >= self.due_rows(urgent)
    }

    /// The table was vacuumed, or was to be, when the run had changed so many rows.
    pub fn done(&mut self, changed_rows: i64) {
        (self.last_rows, self.tries) = (self.last_rows.max(changed_rows), 0);
    }

    /// A vacuum gave way: it is tried again soon, but not for ever.
    pub fn gave_way(&mut self, changed_rows: i64) {
        self.tries += 1;
        if self.tries >= VACUUM_TRIES_MAX {
            self.done(changed_rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_in_percent() {
        assert_eq!("10%".parse::<Share>().unwrap().of(2_000_000), 200_000);
        assert_eq!("100 %".parse::<Share>().unwrap().to_string(), "100%");
        for wrong in ["", "10", "0%", "101%", "0.5%", "-1%", "%", "300%"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
        assert_eq!(serde_json::to_string(&"5%".parse::<Share>().unwrap()).unwrap(), "\"5%\"");
    }

    #[test]
    fn a_vacuum_is_due_after_each_share_and_never_for_a_handful_of_rows() {
        let mut schedule = Schedule::new("10%".parse().unwrap(), 50_000);
        assert!(!schedule.is_due(4_999, false) && schedule.is_due(5_000, false));
        schedule.done(5_200);
        assert!(!schedule.is_due(10_199, false) && schedule.is_due(10_200, false));
        let small = Schedule::new("1%".parse().unwrap(), 200);
        assert!(!small.is_due(VACUUM_ROWS_MIN - 1, false) && small.is_due(VACUUM_ROWS_MIN, false));
    }

    #[test]
    fn dead_rows_that_hold_the_run_do_not_wait_for_the_share() {
        let schedule = Schedule::new("50%".parse().unwrap(), 1_000_000);
        assert!(schedule.is_due(VACUUM_ROWS_MIN, true) && !schedule.is_due(VACUUM_ROWS_MIN, false));
    }

    #[test]
    fn a_vacuum_that_gives_way_again_and_again_waits_for_the_next_share() {
        let mut schedule = Schedule::new("10%".parse().unwrap(), 50_000);
        for _ in 0..VACUUM_TRIES_MAX {
            assert!(schedule.is_due(5_000, false));
            schedule.gave_way(5_000);
        }
        assert!(!schedule.is_due(5_000, false) && schedule.is_due(10_000, false));
    }
}
