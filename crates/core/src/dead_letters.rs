//! Dead letters: how many rows a run may set aside with their error, and when it must stop instead.

use serde::{Deserialize, Serialize};

use crate::refusal::{Code, Refusal};

/// Rows tried one by one in one transaction: each takes a savepoint, and a backend keeps 64 subtransactions in
/// memory (`PGPROC_MAX_CACHED_SUBXIDS`); beyond that every reader of the table pays for it.
pub const APART_ROWS: u32 = 16;
/// Rows that may arrive among them before the batch is made smaller: still below those 64.
pub const APART_ROWS_MAX: u32 = 60;
/// Dead letters that no job may exceed: each costs its own savepoint, and a person reads them one by one.
pub const DEAD_LETTERS_MAX: i64 = 10_000;
/// As long as no row has been changed, so many failing rows say that the statement is wrong and not the rows. TiDB
/// ends a non-transactional statement whose first batch fails, for the same reason.
pub const FIRST_ROWS: i64 = 16;

/// How many rows may be set aside. None by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetters {
    /// Rows. 0 to 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_max: Option<i64>,
    /// Share of the planned rows, 0 to 1; with `rows_max` both bounds hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_max: Option<f64>,
}

/// `checked` leaves no NaN in it.
impl Eq for DeadLetters {}

/// Rows of a run up to now, those of the batch under way included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows that the plan expects to change.
    pub planned_rows: i64,
    /// Rows changed, found right, or left as conflicts.
    pub good_rows: i64,
    /// Rows set aside.
    pub dead_rows: i64,
}

/// What to do with a batch that sets rows aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Commit it.
    SetAside,
    /// More than are allowed: stop before it.
    TooMany {
        /// Rows allowed.
        allowed: i64,
    },
    /// Nothing but failures so far: stop before it.
    WrongStatement,
}

impl DeadLetters {
    /// The bounds, if both are in their ranges.
    pub fn checked(self) -> Result<Self, Refusal> {
        let refuse = |what: String, help: String| Err(Refusal::new(Code::BadJob, what, help));
        if let Some(rows) = self.rows_max.filter(|rows| !(0..=DEAD_LETTERS_MAX).contains(rows)) {
            let help = format!("choose 0 to {DEAD_LETTERS_MAX}");
            return refuse(format!("dead_letters.rows_max = {rows} is out of range"), help);
        }
        if let Some(share) = self.share_max.filter(|share| !(0.0..=1.0).contains(share)) {
            return refuse(format!("dead_letters.share_max = {share} is out of range"), "choose 0 to 1".into());
        }
        Ok(self)
    }

    /// Whether nothing is said about dead letters, so that none are allowed.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Rows that may be set aside in all, of so many planned.
    pub fn allowed(&self, planned_rows: i64) -> i64 {
        // Rounded down: a share of a thousandth allows none of 500 rows.
        let share = self.share_max.map(|share| (share * planned_rows.max(0) as f64) as i64);
        let rows = match (self.rows_max, share) {
            (None, None) => 0,
            (Some(rows), None) => rows,
            (None, Some(share)) => share,
            (Some(rows), Some(share)) => rows.min(share),
        };
        rows.clamp(0, DEAD_LETTERS_MAX)
    }

    /// Whether a batch that brings the run to this tally may be committed.
    pub fn verdict(&self, tally: Tally) -> Verdict {
        // A plan's estimate may be too low; a share is of what there is.
        let planned = tally.planned_rows.max(tally.good_rows + tally.dead_rows);
        let allowed = self.allowed(planned);
        if tally.good_rows == 0 && tally.dead_rows >= FIRST_ROWS.min(planned) {
            return Verdict::WrongStatement;
        }
        if tally.dead_rows > allowed { Verdict::TooMany { allowed } } else { Verdict::SetAside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(good_rows: i64, dead_rows: i64) -> Tally {
        Tally { planned_rows: 1_000, good_rows, dead_rows }
    }

    #[test]
    fn nothing_is_set_aside_unless_the_job_says_so() {
        assert_eq!(DeadLetters::default().allowed(1_000_000), 0);
        assert_eq!(DeadLetters::default().verdict(tally(10, 1)), Verdict::TooMany { allowed: 0 });
    }

    #[test]
    fn of_two_bounds_the_smaller_holds_and_a_share_is_rounded_down() {
        let share = DeadLetters { rows_max: None, share_max: Some(0.001) };
        assert_eq!((share.allowed(999), share.allowed(1_999)), (0, 1));
        let both = DeadLetters { rows_max: Some(3), ..share };
        assert_eq!((both.allowed(2_500), both.allowed(1_000_000)), (2, 3));
    }

    #[test]
    fn one_row_more_than_allowed_stops_the_run() {
        let limit = DeadLetters { rows_max: Some(2), share_max: None };
        assert_eq!(limit.verdict(tally(1, 2)), Verdict::SetAside);
        assert_eq!(limit.verdict(tally(1, 3)), Verdict::TooMany { allowed: 2 });
    }

    #[test]
    fn when_the_first_rows_all_fail_the_statement_is_to_blame() {
        let limit = DeadLetters { rows_max: Some(1_000), share_max: None };
        assert_eq!(limit.verdict(tally(0, FIRST_ROWS - 1)), Verdict::SetAside);
        assert_eq!(limit.verdict(tally(0, FIRST_ROWS)), Verdict::WrongStatement);
        assert_eq!(limit.verdict(tally(1, FIRST_ROWS)), Verdict::SetAside);
        let few = Tally { planned_rows: 3, good_rows: 0, dead_rows: 3 };
        assert_eq!(limit.verdict(few), Verdict::WrongStatement);
    }

    #[test]
    fn bounds_out_of_range_are_refused() {
        assert!(DeadLetters { rows_max: Some(-1), share_max: None }.checked().is_err());
        assert!(DeadLetters { rows_max: None, share_max: Some(f64::NAN) }.checked().is_err());
        assert!(DeadLetters { rows_max: Some(5), share_max: Some(0.5) }.checked().is_ok());
    }
}
