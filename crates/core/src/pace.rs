//! How fast a run may go, as people ask for it: rows a second, rests between batches, and when to stop for today.
//! [`meter`] decides from these how long to wait before a batch.

pub mod meter;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digits::thousands;
use crate::limits::BATCH_ROWS_CEILING;
use crate::refusal::{Code, Refusal};

/// Rows a second that can be asked for; faster than any table is changed row by row.
pub const RATE_MAX: u32 = 10_000_000;
/// The longest rest, as a multiple of the batch before it: gh-ost's bound, a run at 1 % of its speed.
pub const NICE_MAX: f64 = 100.0;
/// Minutes for which a change of a live run's pace counts unless pinned: what somebody set in an incident must not
/// govern the run for weeks (freno's rule).
pub const TUNING_MINUTES: u32 = 60;
/// The longest time for which such a change can be asked for, in minutes: a week.
pub const TUNING_MINUTES_MAX: u32 = 7 * 24 * 60;
/// The longest that a run can be asked to last, in seconds.
const SPAN_SECONDS_MAX: u64 = 400 * 24 * 3_600;

/// A length of time as people write it: `90s`, `20min`, `2h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    seconds: u64,
}

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];

impl Span {
    /// In seconds; 1 to 400 days.
    pub fn seconds(self) -> u64 {
        self.seconds
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = if unit == "m" { "min" } else { unit };
        let seconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
        let seconds = seconds.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
        match seconds {
            Some(seconds @ 1..=SPAN_SECONDS_MAX) => Ok(Self { seconds }),
            Some(_) => Err(format!("`{text}` is out of range; choose 1s to 400d")),
            None => Err(format!("`{text}` is no length of time; write 90s, 20min, 2h or 1d")),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| self.seconds.is_multiple_of(*seconds));
        let (name, seconds) = unit.copied().unwrap_or(("s", 1));
        write!(f, "{}{name}", self.seconds / seconds)
    }
}

/// How fast a run may go, and when it stops for today. Everything absent asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pace {
    /// Rows changed a second, at most; 1 to 10,000,000. No batch is larger than one second of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Rest as a multiple of the time worked, saved up to a second; 0 to 100. Goes before what company asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<f64>,
    /// Rows after which one command stops, resumable; 1 and more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_max: Option<u64>,
    /// Time after which one command stops, resumable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<Span>,
}

/// `nice` is finite once it is checked.
impl Eq for Pace {}

impl Pace {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The pace, if everything is in its range.
    pub fn checked(self) -> Result<Self, Refusal> {
        let bad = |message, help| Err(Refusal::new(Code::BadJob, message, help));
        if let Some(rate) = self.rate.filter(|rate| !(1..=RATE_MAX).contains(rate)) {
            return bad(format!("rate = {rate} is out of range"), format!("choose 1 to {RATE_MAX} rows a second"));
        }
        if let Some(nice) = self.nice.filter(|nice| !(0.0..=NICE_MAX).contains(nice)) {
            return bad(
                format!("nice = {nice} is out of range"),
                "choose 0 to 100; 1 rests as long as it works".into(),
            );
        }
        if self.rows_max == Some(0) {
            return bad("rows_max = 0 would change nothing".into(), "choose 1 or more".into());
        }
        Ok(self)
    }

    /// This pace, with what it leaves open taken from another.
    pub fn over(&self, under: &Pace) -> Pace {
        Pace {
            rate: self.rate.or(under.rate),
            nice: self.nice.or(under.nice),
            rows_max: self.rows_max.or(under.rows_max),
            stop_after: self.stop_after.or(under.stop_after),
        }
    }

    /// This pace after what people changed while the run goes.
    pub fn tuned(&self, changes: impl IntoIterator<Item = (Setting, f64)>) -> Pace {
        let mut pace = self.clone();
        for (setting, value) in changes {
            match setting {
                Setting::Rate => pace.rate = Some(value as u32).filter(|rate| *rate > 0),
                Setting::Nice => pace.nice = Some(value),
                Setting::BatchRows => {}
            }
        }
        pace
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate.map(|rate| format!("at most {} rows/s", thousands(rate.into())));
        let nice = self.nice.filter(|nice| *nice > 0.0).map(|nice| format!("rests {nice} × each batch"));
        let rows = self
            .rows_max
            .map(|rows| format!("stops after {} rows", thousands(i64::try_from(rows).unwrap_or(i64::MAX))));
        let time = self.stop_after.map(|span| format!("stops after {span}"));
        let all: Vec<String> = [rate, nice, rows, time].into_iter().flatten().collect();
        f.write_str(&all.join(", "))
    }
}

/// What can be changed of a live run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Rows a second; 0 for as fast as it goes.
    Rate,
    /// Rest as a multiple of the time worked, saved up to a second; 0 for none, even in company.
    Nice,
    /// Rows of every batch, instead of those that the job or the measured time says.
    BatchRows,
}

impl Setting {
    /// All of them.
    pub const ALL: [Setting; 3] = [Setting::Rate, Setting::Nice, Setting::BatchRows];

    /// The name as stored, the CHECK constraint's word.
    pub fn name(self) -> &'static str {
        match self {
            Setting::Rate => "rate",
            Setting::Nice => "nice",
            Setting::BatchRows => "batch_rows",
        }
    }

    /// Refuses a value out of bounds. `batch_rows_max` is what job and policy allow.
    pub fn check(self, value: f64, batch_rows_max: u32) -> Result<(), Refusal> {
        let (least, most, whole) = match self {
            Setting::Rate => (0.0, f64::from(RATE_MAX), true),
            Setting::Nice => (0.0, NICE_MAX, false),
            Setting::BatchRows => (1.0, f64::from(batch_rows_max.min(BATCH_ROWS_CEILING)), true),
        };
        if (least..=most).contains(&value) && (!whole || value.fract() == 0.0) {
            return Ok(());
        }
        let message = format!("{} = {value} is out of bounds", self.name());
        let number = if whole { "a whole number of " } else { "" };
        Err(Refusal::new(Code::PaceBounds, message, format!("choose {number}{least} to {most}")))
    }
}

/// The minutes for which a change of a live run counts, in their range.
pub fn tuning_minutes(minutes: u64) -> Result<u32, Refusal> {
    u32::try_from(minutes).ok().filter(|minutes| (1..=TUNING_MINUTES_MAX).contains(minutes)).ok_or_else(|| {
        let message = format!("a change of the pace cannot last {minutes} minutes");
        Refusal::new(Code::PaceBounds, message, "choose 1min to 7d, or --pin it to the end of the run")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_as_people_write_it_and_prints_as_it_reads() {
        for (text, seconds) in [("90s", 90), ("20min", 1_200), ("2h", 7_200), ("1d", 86_400), ("61min", 3_660)] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.seconds(), span.to_string().as_str()), (seconds, text));
        }
        assert_eq!("5m".parse::<Span>().unwrap().to_string(), "5min");
        for wrong in ["", "5", "min", "0s", "-1s", "1.5h", "401d", "99999999999999999999s", "1 h"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_absent_asks_for_nothing_and_is_not_stored() {
        assert_eq!(serde_json::to_string(&Pace::default()).unwrap(), "{}");
        let pace: Pace = toml::from_str("rate = 500\nstop_after = \"20min\"").unwrap();
        assert_eq!(pace.to_string(), "at most 500 rows/s, stops after 20min");
        let fast = Pace { rate: Some(20_000), rows_max: Some(1_000_000), ..Pace::default() };
        assert_eq!(fast.to_string(), "at most 20,000 rows/s, stops after 1,000,000 rows");
        assert!(toml::from_str::<Pace>("rat = 5").is_err() && toml::from_str::<Pace>("stop_after = \"soon\"").is_err());
    }

    #[test]
    fn a_pace_out_of_range_is_refused() {
        for text in ["rate = 0", "rate = 10000001", "nice = -1", "nice = 101", "nice = nan", "rows_max = 0"] {
            assert!(toml::from_str::<Pace>(text).unwrap().checked().is_err(), "{text}");
        }
    }

    #[test]
    fn a_flag_goes_before_the_file_and_a_person_before_both() {
        let file = Pace { rate: Some(500), nice: Some(1.0), ..Pace::default() };
        let flags = Pace { rate: Some(100), rows_max: Some(7), ..Pace::default() };
        let pace = flags.over(&file);
        assert_eq!((pace.rate, pace.nice, pace.rows_max), (Some(100), Some(1.0), Some(7)));
        let tuned = pace.tuned([(Setting::Rate, 50.0), (Setting::Nice, 0.0)]);
        assert_eq!((tuned.rate, tuned.nice, tuned.rows_max), (Some(50), Some(0.0), Some(7)));
        assert_eq!(pace.tuned([(Setting::Rate, 0.0)]).rate, None);
    }

    #[test]
    fn no_change_of_a_live_run_passes_its_bounds() {
        assert!(Setting::BatchRows.check(500.0, 500).is_ok());
        assert_eq!(Setting::BatchRows.check(501.0, 500).unwrap_err().help, "choose a whole number of 1 to 500");
        assert!(Setting::BatchRows.check(50_001.0, u32::MAX).is_err() && Setting::BatchRows.check(0.0, 9).is_err());
        assert!(Setting::Rate.check(0.5, 1).is_err() && Setting::Rate.check(0.0, 1).is_ok());
        assert!(Setting::Nice.check(0.5, 1).is_ok() && Setting::Nice.check(f64::NAN, 1).is_err());
        assert!(tuning_minutes(0).is_err() && tuning_minutes(60).is_ok() && tuning_minutes(u64::MAX).is_err());
    }
}
