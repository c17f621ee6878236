//! Another limit for a signal of a live run, as people type it: `replay_lag=20s`, or `replay_lag=20s/10s` with where the
//! hold is left. What an environment says stays the outer bound.

use serde::{Deserialize, Serialize};

use super::definition::Throttle;
use super::signal::{Builtin, Signal, Unit};
use crate::refusal::{Code, Refusal};

/// Where a run goes on, as a share of where it holds, if the plan says nothing of it.
const HALF: f64 = 0.5;

/// Where a signal holds a live run, and where it lets it go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// The signal's name.
    pub signal: String,
    /// From this value on the run holds, in the signal's unit.
    pub enter: f64,
    /// At this value or below it goes on.
    pub leave: f64,
}

/// A limit as it was typed, before it is known what the run's plan says of its signal.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitAsked {
    /// The signal's name.
    pub signal: String,
    /// From this value on the run is to hold, in the signal's unit.
    pub enter: f64,
    /// At this value or below it is to go on; absent: as far below `enter` as the plan says of the signal.
    pub leave: Option<f64>,
}

impl LimitAsked {
    /// Reads what was typed. A built-in signal's value may have its unit.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        let wrong = |why: String| {
            Refusal::new(Code::PaceBounds, why, "write SIGNAL=ENTER or SIGNAL=ENTER/LEAVE, such as replay_lag=20s/10s")
        };
        let (name, values) = text.split_once('=').ok_or_else(|| wrong(format!("`{text}` names no limit")))?;
        let unit = Builtin::named(name).map_or(Unit::Of(String::new()), |builtin| builtin.signal().unit);
        let number =
            |value: &str| read(&unit, value).ok_or_else(|| wrong(format!("`{value}` is no value of signal `{name}`")));
        let (enter, leave) = match values.split_once('/') {
            Some((enter, leave)) => (number(enter)?, Some(number(leave)?)),
            None => (number(values)?, None),
        };
        if leave.is_some_and(|leave| leave > enter) {
            return Err(wrong(format!("signal `{name}` would leave a hold above where it enters it")));
        }
        Ok(Self { signal: name.to_owned(), enter, leave })
    }

    /// The limit among the signals of a run: what was not typed keeps the distance that the plan has between entering
    /// and leaving, as a ratio; half where the plan only watches. Refuses a limit of a signal that the run does not
    /// read.
    pub fn settle(&self, signals: &[Signal]) -> Result<Limit, Refusal> {
        let Some(planned) = signals.iter().find(|signal| signal.name == self.signal) else {
            let help = "pgmend tune RUN --list shows those that it reads";
            return Err(Refusal::new(Code::PaceBounds, format!("the run reads no signal `{}`", self.signal), help));
        };
        let ratio = match planned.enter {
            Some(enter) if enter > 0.0 => (planned.leave / enter).clamp(0.0, 1.0),
            Some(_) | None => HALF,
        };
        let leave = self.leave.unwrap_or(self.enter * ratio);
        Ok(Limit { signal: self.signal.clone(), enter: self.enter, leave })
    }
}

impl Limit {
    /// Refuses a limit that the run's environment does not allow.
    pub fn check(&self, environment: Option<&Throttle>) -> Result<(), Refusal> {
        match bound(&self.signal, environment) {
            Some(bound) if self.enter > bound.enter || self.leave > bound.leave => {
                let message = format!("the environment holds for `{}` from {} on", self.signal, bound.enter);
                let help = format!("choose {} or less, and {} or less to go on", bound.enter, bound.leave);
                Err(Refusal::new(Code::Throttle, message, help))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The limit, no laxer than the environment allows.
    pub fn within(self, environment: Option<&Throttle>) -> Self {
        match bound(&self.signal, environment) {
            Some(bound) => Self { enter: self.enter.min(bound.enter), leave: self.leave.min(bound.leave), ..self },
            None => self,
        }
    }
}

/// What an environment says of a signal, if it says anything.
fn bound(name: &str, environment: Option<&Throttle>) -> Option<Limit> {
    let environment = environment?;
    let said = Builtin::named(name).is_some_and(|builtin| environment.signal.contains_key(&builtin))
        || environment.sql.iter().any(|sql| sql.name == name)
        || environment.http.iter().any(|http| http.name == name);
    let signal = environment.signals().into_iter().find(|signal| said && signal.name == name)?;
    signal.enter.map(|enter| Limit { signal: signal.name, enter, leave: signal.leave })
}

/// A value in a signal's unit: seconds, milliseconds, bytes, a share, or a bare number.
fn read(unit: &Unit, text: &str) -> Option<f64> {
    let scales: &[(&str, f64)] = match unit {
        Unit::Seconds => &[("ms", 0.001), ("min", 60.0), ("h", 3_600.0), ("s", 1.0)],
        Unit::Milliseconds => &[("ms", 1.0), ("s", 1_000.0)],
        Unit::Bytes | Unit::BytesPerSecond => &[
            ("KiB", 1_024.0),
            ("MiB", 1_048_576.0),
            ("GiB", 1_073_741_824.0),
            ("TiB", 1_099_511_627_776.0),
            ("B", 1.0),
        ],
        Unit::Share => &[("%", 0.01)],
        Unit::Of(_) => &[],
    };
    let text = text.trim();
    let scaled = scales.iter().find_map(|(suffix, scale)| Some((text.strip_suffix(suffix)?, *scale)));
    let (number, scale) = scaled.unwrap_or((text, 1.0));
    number.trim().parse::<f64>().ok().map(|value| value * scale).filter(|value| value.is_finite() && *value >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> (f64, Option<f64>) {
        let limit = LimitAsked::read(text).unwrap();
        (limit.enter, limit.leave)
    }

    fn settled(text: &str, signals: &[Signal]) -> Limit {
        LimitAsked::read(text).unwrap().settle(signals).unwrap()
    }

    #[test]
    fn a_limit_is_written_in_its_signals_unit() {
        assert_eq!(typed("replay_lag=20s"), (20.0, None));
        assert_eq!(typed("replay_lag=2min/30s"), (120.0, Some(30.0)));
        assert_eq!(typed("oldest_snapshot=3h"), (10_800.0, None));
        assert_eq!(typed("slot_wal=8GiB/1GiB"), (8.0 * 1_073_741_824.0, Some(1_073_741_824.0)));
        assert_eq!(typed("wal_rate=16MiB"), (16.0 * 1_048_576.0, None));
        assert_eq!(typed("dead_tuples=60%/40%"), (0.6, Some(0.4)));
        assert_eq!(typed("active_sessions=3"), (3.0, None));
        assert_eq!(typed("p99=400/250"), (400.0, Some(250.0)));
        for wrong in [
            "",
            "replay_lag",
            "replay_lag=",
            "replay_lag=-1",
            "replay_lag=soon",
            "replay_lag=10/20",
            "slot_wal=8GB",
            "p99=nan",
        ] {
            assert_eq!(LimitAsked::read(wrong).unwrap_err().code, Code::PaceBounds, "{wrong}");
        }
    }

    #[test]
    fn no_limit_is_laxer_than_the_environment_says() {
        let environment: Throttle = toml::from_str("[signal.replay_lag]\nenter = 30\nleave = 15\n").unwrap();
        let signals = Throttle::default().signals();
        let check = |text: &str| {
            let settled = LimitAsked::read(text).unwrap().settle(&signals);
            settled.and_then(|limit| limit.check(Some(&environment))).map_err(|refused| refused.code)
        };
        assert_eq!(check("replay_lag=30s"), Ok(()));
        assert_eq!(check("replay_lag=31s"), Err(Code::Throttle));
        assert_eq!(check("replay_lag=30s/16s"), Err(Code::Throttle));
        assert_eq!(check("slot_wal=99GiB"), Ok(()), "the environment says nothing of it");
        assert_eq!(check("p99=5"), Err(Code::PaceBounds), "the run does not read it");
        let within = settled("replay_lag=2min", &signals).within(Some(&environment));
        assert_eq!((within.enter, within.leave), (30.0, 15.0));
    }

    #[test]
    fn what_is_not_typed_is_as_far_below_as_in_the_plan() {
        let left = |throttle: &str, text: &str| {
            let throttle: Throttle = toml::from_str(throttle).unwrap();
            settled(text, &throttle.signals()).leave
        };
        assert_eq!(left("", "replay_lag=20s"), 10.0);
        assert_eq!(left("", "commit_latency=500ms"), 200.0);
        assert_eq!(left("", "waiting_on_us=10"), 2.0);
        assert_eq!(left("", "archive_failing=2"), 0.0);
        assert_eq!(left("", "wal_rate=16MiB"), 8.0 * 1_048_576.0, "the plan only watches it");
        assert_eq!(left("", "dead_tuples=90%/10%"), 0.1, "what is typed counts");
        assert_eq!(left("[signal.replay_lag]\nenter = 4\nleave = 1\n", "replay_lag=8"), 2.0, "of this plan");
    }
}
