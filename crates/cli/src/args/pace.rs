//! How fast a run may go: flags of `run`, and `tune`.

use clap::Args;
use pgmend::{Pace, RunOptions, Setting, Span, Tuning};
use pgmend_core::pace::{TUNING_MINUTES, tuning_minutes};
use pgmend_core::throttle::LimitAsked;

use crate::failure::Failure;

/// The pace of one command; each goes before the job file.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Pace (each overrides the job file)")]
pub struct PaceFlags {
    /// Rows a second, at most
    #[arg(long, value_name = "ROWS", value_parser = rate, allow_negative_numbers = true)]
    pub rate: Option<u32>,
    /// Rest, as a multiple of the time worked: 1 works half of the time, 0 all of it, even beside an application
    #[arg(long, value_name = "RATIO", allow_negative_numbers = true)]
    pub nice: Option<f64>,
    /// Stop, resumable, after this many rows
    #[arg(long, value_name = "ROWS")]
    pub rows_max: Option<u64>,
    /// Stop, resumable, after this time, such as 90s, 20min or 2h
    #[arg(long, value_name = "TIME")]
    pub stop_after: Option<Span>,
    /// Go on by itself in the next allowed hours, until the run is done
    #[arg(long)]
    pub until_done: bool,
}

impl PaceFlags {
    /// How to run at this pace.
    pub fn options(&self) -> Result<RunOptions, Failure> {
        Ok(RunOptions { pace: self.pace()?, until_done: self.until_done, ..RunOptions::default() })
    }

    /// The pace that was typed, in its ranges.
    pub fn pace(&self) -> Result<Pace, Failure> {
        let pace = Pace { rate: self.rate, nice: self.nice, rows_max: self.rows_max, stop_after: self.stop_after };
        Ok(pace.checked()?)
    }
}

/// `tune`.
#[derive(Debug, Clone, Args)]
pub struct Tune {
    /// A run's id, or a job's name for its latest run
    #[arg(value_name = "RUN|JOB")]
    pub run: String,
    /// Rows a second, at most; 0 for as fast as it goes
    #[arg(long, value_name = "ROWS", value_parser = rate, allow_negative_numbers = true)]
    pub rate: Option<u32>,
    /// Rest, as a multiple of the time worked; 0 for none, even beside an application
    #[arg(long, value_name = "RATIO", allow_negative_numbers = true)]
    pub nice: Option<f64>,
    /// Rows of every batch
    #[arg(long, value_name = "ROWS", allow_negative_numbers = true)]
    pub batch_rows: Option<u32>,
    /// Another limit for a signal, such as replay_lag=20s, or replay_lag=20s/10s with where it goes on (as far below as
    /// in the plan when absent); may be repeated
    #[arg(long = "limit", value_name = "SIGNAL=ENTER[/LEAVE]")]
    pub limits: Vec<String>,
    /// Go back to the pace that the run was started with, and to the limits of its plan
    #[arg(long, conflicts_with_all = ["rate", "nice", "batch_rows", "limits", "pin"])]
    pub reset: bool,
    /// Change nothing: show the pace and the limits that count now
    #[arg(long, conflicts_with_all = ["rate", "nice", "batch_rows", "limits", "reset", "pin", "reason"])]
    pub list: bool,
    /// How long it counts
    #[arg(long = "for", value_name = "TIME", default_value = "60min", conflicts_with = "pin")]
    pub time: Span,
    /// Let it count to the end of the run
    #[arg(long)]
    pub pin: bool,
    /// Why; kept in the ledger, and shown to whoever wonders
    #[arg(long, required_unless_present = "list")]
    pub reason: Option<String>,
}

impl Tune {
    /// What was typed, in its ranges.
    pub fn tuning(&self) -> Result<Tuning, Failure> {
        if self.reset {
            let changes = Setting::ALL.map(|setting| (setting, None)).to_vec();
            return Ok(Tuning { changes, limits: Vec::new(), reset_limits: true, minutes: Some(TUNING_MINUTES) });
        }
        let values = [
            (Setting::Rate, self.rate.map(f64::from)),
            (Setting::Nice, self.nice),
            (Setting::BatchRows, self.batch_rows.map(f64::from)),
        ];
        let changes = values.into_iter().filter(|(_, value)| value.is_some()).collect();
        let minutes = tuning_minutes(self.time.seconds().div_ceil(60));
        let limits = self.limits.iter().map(|text| LimitAsked::read(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Tuning { changes, limits, reset_limits: false, minutes: if self.pin { None } else { Some(minutes?) } })
    }
}

/// `500`, or `500/s`.
fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| "write rows a second, such as 500".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use pgmend::Setting;

    use super::rate;
    use crate::args::{Cli, Command, Tune};

    fn tune(flags: &[&str]) -> Tune {
        let typed = ["pgmend", "tune", "fix", "--reason", "slow"].iter().chain(flags);
        let Command::Tune(tune) = Cli::try_parse_from(typed).unwrap().command else { unreachable!("`tune` was typed") };
        tune
    }

    #[test]
    fn a_negative_number_is_told_what_it_should_be() {
        let typed = ["pgmend", "tune", "fix", "--reason", "slow", "--rate", "-5"];
        let refused = Cli::try_parse_from(typed).map(|_| ()).expect_err("no rate").to_string();
        assert!(refused.contains("write rows a second, such as 500") && !refused.contains("-- -5"), "{refused}");
    }

    #[test]
    fn a_rate_is_rows_a_second() {
        assert_eq!((rate("500"), rate("500/s")), (Ok(500), Ok(500)));
        assert!(rate("fast").is_err() && rate("500/min").is_err() && rate("-1").is_err());
    }

    #[test]
    fn a_change_of_the_pace_counts_for_an_hour_unless_said_otherwise() {
        let slower = tune(&["--rate", "200"]).tuning().unwrap();
        assert_eq!((slower.changes, slower.minutes), (vec![(Setting::Rate, Some(200.0))], Some(60)));
        assert_eq!(tune(&["--nice", "1", "--for", "90s"]).tuning().unwrap().minutes, Some(2));
        assert_eq!(tune(&["--nice", "1", "--pin"]).tuning().unwrap().minutes, None);
        assert_eq!(tune(&["--reset"]).tuning().unwrap().changes.len(), 3);
        assert!(tune(&["--nice", "1", "--for", "8d"]).tuning().is_err());
    }

    #[test]
    fn limits_are_typed_by_signal_and_to_look_at_them_needs_no_reason() {
        let typed = tune(&["--limit", "replay_lag=20s", "--limit", "slot_wal=8GiB/1GiB"]).tuning().unwrap();
        assert_eq!((typed.limits.len(), typed.limits[0].enter, typed.reset_limits), (2, 20.0, false));
        assert!(tune(&["--limit", "replay_lag"]).tuning().is_err());
        assert!(tune(&["--reset"]).tuning().unwrap().reset_limits);
        let list = Cli::try_parse_from(["pgmend", "tune", "fix", "--list"]).unwrap();
        assert!(matches!(list.command, Command::Tune(Tune { list: true, .. })));
        assert!(Cli::try_parse_from(["pgmend", "tune", "fix", "--rate", "5"]).is_err(), "a change needs a reason");
    }
}
