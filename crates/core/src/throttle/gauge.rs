//! Gauges: one signal with its last reading, and whether it is over its limit. All of them are a board.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::signal::{Builtin, OnLoss, Signal, Source};

/// What a signal was found to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// A value.
    Value {
        /// In the signal's unit.
        value: f64,
        /// What it belongs to, such as the standby's name; may be empty.
        detail: String,
    },
    /// It was asked for and cannot be told, such as for lack of a right.
    Unreadable {
        /// Why.
        why: String,
    },
}

/// Why a run holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The signal's name.
    pub signal: String,
    /// Its value; `None` for one that was lost.
    pub value: Option<f64>,
    /// The limit that it reached.
    pub enter: f64,
    /// Where the run goes on.
    pub leave: f64,
    /// One sentence: `replay lag 14 s ≥ 10 s on standby1`.
    pub text: String,
    /// What to type to look closer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look: Option<String>,
}

/// What the throttle says between two batches.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Go on.
    Go,
    /// Signals are being read for the first time.
    Unread,
    /// Hold, for every one of these.
    Hold(Vec<Reason>),
}

/// A signal and what is known of it. Times count from a moment that the caller has chosen.
#[derive(Debug, Clone)]
pub struct Gauge {
    signal: Signal,
    begun: Duration,
    last: Option<(Duration, Reading)>,
    over: bool,
    was_readable: bool,
    trouble: Option<String>,
}

enum State {
    Fine,
    Unread,
    Over(Reason),
}

impl Gauge {
    /// A gauge that knows nothing yet.
    pub fn new(signal: Signal, begun: Duration) -> Self {
        Self { signal, begun, last: None, over: false, was_readable: false, trouble: None }
    }

    /// The signal.
    pub fn signal(&self) -> &Signal {
        &self.signal
    }

    /// Takes note of a reading. A value that is no number is none.
    pub fn record(&mut self, at: Duration, reading: Reading) {
        self.trouble = None;
        let reading = match reading {
            Reading::Value { value, .. } if !value.is_finite() => {
                Reading::Unreadable { why: "its value is no number".into() }
            }
            reading @ (Reading::Value { .. } | Reading::Unreadable { .. }) => reading,
        };
        if let (Reading::Value { value, .. }, Some(enter)) = (&reading, self.signal.enter) {
            self.over = if self.over { *value > self.signal.leave } else { *value >= enter };
            self.was_readable = true;
        }
        self.last = Some((at, reading));
    }

    /// Takes note that it could not be asked for, such as for lack of a connection. It grows stale.
    pub fn fail(&mut self, why: &str) {
        self.trouble = Some(why.to_owned());
    }

    /// The last value that still counts, as a share of the limit.
    pub fn utilization(&self, now: Duration) -> Option<f64> {
        let enter = self.signal.enter.filter(|enter| *enter > 0.0)?;
        match &self.last {
            Some((at, Reading::Value { value, .. })) if now.saturating_sub(*at) < self.stale() => Some(value / enter),
            Some(_) | None => None,
        }
    }

    /// The last reading, whatever its age.
    pub fn last(&self) -> Option<&Reading> {
        self.last.as_ref().map(|(_, reading)| reading)
    }

    fn stale(&self) -> Duration {
        Duration::from_secs_f64(self.signal.stale_s)
    }

    fn state(&mut self, now: Duration) -> State {
        let Some(enter) = self.signal.enter else { return State::Fine };
        let (age, known) = match &self.last {
            Some((at, reading)) => (now.saturating_sub(*at), Some(reading)),
            None => (now.saturating_sub(self.begun), None),
        };
        let fresh = age < self.stale();
        match known {
            Some(Reading::Value { value, detail }) if fresh => {
                if !self.over {
                    return State::Fine;
                }
                let (value, detail) = (*value, detail.clone());
                State::Over(self.reason(Some(value), self.sentence(value, enter, &detail), enter))
            }
            // A right that is taken away while the run goes on is a loss; one that was never there is told by the plan.
            Some(Reading::Unreadable { why }) if fresh => {
                if !self.signal.required && !self.was_readable {
                    return State::Fine;
                }
                let why = format!("cannot be read: {why}");
                self.lost(&why, enter)
            }
            None if fresh && self.signal.on_loss == OnLoss::Hold => State::Unread,
            Some(_) | None => {
                let why = self.trouble.as_ref().map_or(String::new(), |why| format!(": {why}"));
                self.lost(&format!("was not read for {} s{why}", age.as_secs()), enter)
            }
        }
    }

    fn lost(&mut self, why: &str, enter: f64) -> State {
        match self.signal.on_loss {
            OnLoss::Ignore => {
                // What it said last is forgotten, or it would come back over its limit at a value between the two.
                self.over = false;
                State::Fine
            }
            OnLoss::Hold => State::Over(self.reason(None, format!("{} {why}", self.signal.title()), enter)),
        }
    }

    fn reason(&self, value: Option<f64>, text: String, enter: f64) -> Reason {
        let (signal, leave) = (self.signal.name.clone(), self.signal.leave);
        Reason { signal, value, enter, leave, text, look: self.signal.look() }
    }

    /// Below its limit and not yet down to where the hold is left, it says so.
    fn sentence(&self, value: f64, enter: f64, detail: &str) -> String {
        let (title, unit) = (self.signal.title(), &self.signal.unit);
        let on = if detail.is_empty() { String::new() } else { format!(" on {detail}") };
        if matches!(self.signal.source, Source::FlagFile { .. }) {
            return format!("the file {detail} is there");
        }
        match self.signal.builtin() {
            Some(Builtin::ArchiveFailing) => return format!("the archiver fails{on}"),
            Some(Builtin::Vacuum) if value >= 2.0 => return format!("a vacuum prevents wraparound{on}"),
            Some(Builtin::Vacuum) => return format!("a vacuum runs{on}"),
            Some(_) | None => {}
        }
        if value >= enter {
            return format!("{title} {} ≥ {}{on}", unit.show(value), unit.bare(enter));
        }
        format!("{title} {}{on}, goes on at {}", unit.show(value), unit.bare(self.signal.leave))
    }
}

/// All gauges of a run.
#[derive(Debug, Clone, Default)]
pub struct Board {
    gauges: Vec<Gauge>,
}

impl Board {
    /// A board that knows nothing yet.
    pub fn new(signals: impl IntoIterator<Item = Signal>, begun: Duration) -> Self {
        Self { gauges: signals.into_iter().map(|signal| Gauge::new(signal, begun)).collect() }
    }

    /// The signals.
    pub fn signals(&self) -> impl Iterator<Item = &Signal> {
        self.gauges.iter().map(Gauge::signal)
    }

    /// The gauges.
    pub fn gauges(&self) -> &[Gauge] {
        &self.gauges
    }

    /// Takes note of a reading of the signal of that name.
    pub fn record(&mut self, name: &str, at: Duration, reading: Reading) {
        if let Some(gauge) = self.gauges.iter_mut().find(|gauge| gauge.signal.name == name) {
            gauge.record(at, reading);
        }
    }

    /// Lowers a signal's limit to what the server itself can bear.
    pub fn lower(&mut self, name: &str, most: f64) {
        let Some(gauge) = self.gauges.iter_mut().find(|gauge| gauge.signal.name == name) else { return };
        if let Some(enter) = gauge.signal.enter.filter(|enter| most.is_finite() && most < *enter) {
            gauge.signal.leave *= most / enter;
            gauge.signal.enter = Some(most);
        }
    }

    /// Sets other limits for a signal that has some. What it read last counts against them from the next look on.
    pub fn relimit(&mut self, name: &str, enter: Option<f64>, leave: f64) {
        let Some(gauge) = self.gauges.iter_mut().find(|gauge| gauge.signal.name == name) else { return };
        (gauge.signal.enter, gauge.signal.leave) = (enter, leave);
        gauge.over = match (gauge.last(), enter) {
            (Some(Reading::Value { value, .. }), Some(enter)) => *value >= enter || (gauge.over && *value > leave),
            (Some(_) | None, _) => false,
        };
    }

    /// Takes note that these signals could not be asked for.
    pub fn fail<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, why: &str) {
        for name in names {
            if let Some(gauge) = self.gauges.iter_mut().find(|gauge| gauge.signal.name == name) {
                gauge.fail(why);
            }
        }
    }

    /// Whether a run may go on. One reason to hold is enough; one signal that was not read yet is waited for.
    pub fn verdict(&mut self, now: Duration) -> Verdict {
        let mut reasons = Vec::new();
        let mut unread = false;
        for gauge in &mut self.gauges {
            match gauge.state(now) {
                State::Fine => {}
                State::Unread => unread = true,
                State::Over(reason) => reasons.push(reason),
            }
        }
        match (reasons.is_empty(), unread) {
            (false, _) => Verdict::Hold(reasons),
            (true, true) => Verdict::Unread,
            (true, false) => Verdict::Go,
        }
    }

    /// The greatest share of its limit that a signal of load has reached; `None` while none is known.
    pub fn utilization(&self, now: Duration) -> Option<f64> {
        let load = self.gauges.iter().filter(|gauge| gauge.signal.builtin().is_some_and(super::Builtin::is_load));
        load.filter_map(|gauge| gauge.utilization(now)).max_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(value: f64) -> Reading {
        Reading::Value { value, detail: "standby1".into() }
    }

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn board() -> Board {
        Board::new([Builtin::ReplayLag.signal()], at(0.0))
    }

    fn texts(verdict: Verdict) -> Vec<String> {
        match verdict {
            Verdict::Hold(reasons) => reasons.into_iter().map(|reason| reason.text).collect(),
            Verdict::Go | Verdict::Unread => Vec::new(),
        }
    }

    #[test]
    fn another_limit_counts_at_once_in_both_directions() {
        let mut board = board();
        board.record("replay_lag", at(1.0), value(14.0));
        assert_eq!(texts(board.verdict(at(1.0))).len(), 1);
        board.relimit("replay_lag", Some(20.0), 15.0);
        assert_eq!(board.verdict(at(1.0)), Verdict::Go);
        board.relimit("replay_lag", Some(12.0), 6.0);
        assert_eq!(texts(board.verdict(at(1.0))), ["replay lag 14 s ≥ 12 s on standby1"]);
        board.relimit("replay_lag", Some(20.0), 10.0);
        assert_eq!(texts(board.verdict(at(1.0))), ["replay lag 14 s on standby1, goes on at 10 s"]);
        board.relimit("nobody", Some(1.0), 1.0);
    }

    #[test]
    fn a_hold_is_entered_at_one_limit_and_left_at_a_lower_one() {
        let mut board = board();
        board.record("replay_lag", at(1.0), value(9.9));
        assert_eq!(board.verdict(at(1.0)), Verdict::Go);
        board.record("replay_lag", at(2.0), value(14.0));
        assert_eq!(texts(board.verdict(at(2.0))), ["replay lag 14 s ≥ 10 s on standby1"]);
        board.record("replay_lag", at(3.0), value(5.1));
        assert_eq!(texts(board.verdict(at(3.0))), ["replay lag 5.1 s on standby1, goes on at 5 s"]);
        board.record("replay_lag", at(4.0), value(5.0));
        assert_eq!(board.verdict(at(4.0)), Verdict::Go);
        board.record("replay_lag", at(5.0), value(7.0));
        assert_eq!(board.verdict(at(5.0)), Verdict::Go);
    }

    #[test]
    fn a_signal_that_goes_stale_is_over_its_limit_and_says_what_was_in_the_way() {
        let mut board = board();
        assert_eq!(board.verdict(at(4.9)), Verdict::Unread);
        board.record("replay_lag", at(4.9), value(0.0));
        assert_eq!(board.verdict(at(9.8)), Verdict::Go);
        board.fail(["replay_lag"], "no connection");
        assert_eq!(texts(board.verdict(at(9.9))), ["replay lag was not read for 5 s: no connection"]);
        board.record("replay_lag", at(11.0), value(0.0));
        assert_eq!(board.verdict(at(11.0)), Verdict::Go);
    }

    #[test]
    fn one_that_could_never_be_read_holds_only_if_it_is_required() {
        let no_right = || Reading::Unreadable { why: "no right".into() };
        let mut board = board();
        board.record("replay_lag", at(1.0), no_right());
        assert_eq!(board.verdict(at(1.0)), Verdict::Go);
        board.record("replay_lag", at(2.0), value(0.0));
        board.record("replay_lag", at(3.0), no_right());
        assert_eq!(texts(board.verdict(at(3.0))), ["replay lag cannot be read: no right"]);
        let mut required = Board::new([Signal { required: true, ..Builtin::ReplayLag.signal() }], at(0.0));
        required.record("replay_lag", at(1.0), no_right());
        assert_eq!(texts(required.verdict(at(1.0))).len(), 1);
    }

    #[test]
    fn what_the_worker_measures_is_forgotten_when_it_is_old() {
        let mut board = Board::new([Builtin::CommitLatency.signal()], at(0.0));
        assert_eq!(board.verdict(at(0.0)), Verdict::Go);
        board.record("commit_latency", at(1.0), value(300.0));
        assert_eq!(texts(board.verdict(at(2.0))).len(), 1);
        assert_eq!(board.verdict(at(16.1)), Verdict::Go);
        board.record("commit_latency", at(17.0), value(150.0));
        assert_eq!(board.verdict(at(17.0)), Verdict::Go);
    }

    #[test]
    fn a_limit_of_the_server_lowers_that_of_the_signal_and_never_raises_it() {
        let mut board = Board::new([Builtin::SlotWal.signal()], at(0.0));
        board.lower("slot_wal", 1e15);
        board.lower("slot_wal", 1_000.0);
        board.record("slot_wal", at(0.0), value(1_000.0));
        assert_eq!(texts(board.verdict(at(0.0))), ["slot wal 1000 B ≥ 1000 B on standby1"]);
        board.record("slot_wal", at(1.0), value(500.0));
        assert_eq!(board.verdict(at(1.0)), Verdict::Go);
    }

    #[test]
    fn a_value_that_is_no_number_is_not_read() {
        let mut board = board();
        board.record("replay_lag", at(0.5), value(1.0));
        board.record("replay_lag", at(1.0), value(f64::NAN));
        assert_eq!(texts(board.verdict(at(1.0))), ["replay lag cannot be read: its value is no number"]);
    }

    proptest! {
        #[test]
        fn a_fresh_value_at_the_limit_always_holds_and_one_at_the_lower_limit_never_does(
            values in proptest::collection::vec(0.0_f64..20.0, 1..60),
        ) {
            let mut board = board();
            for (second, reading) in (1_u32..).zip(values) {
                let now = at(f64::from(second));
                board.record("replay_lag", now, value(reading));
                let holds = board.verdict(now) != Verdict::Go;
                prop_assert!(reading < 10.0 || holds);
                prop_assert!(reading > 5.0 || !holds);
            }
        }
    }
}
