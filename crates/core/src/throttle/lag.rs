//! How far standbys are behind. The server's own figure is what the standby's last reply said: it stays as it was on
//! an idle primary, and grows only with replies. So the primary's past positions are kept, and a standby is as late as
//! the position that it has replayed is old; or as late as it will be once it comes to what was written last, where it
//! replays more slowly than the primary writes: a run that waits for the lag itself has long written too much.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Positions that are remembered: one a second for an hour. A standby that is further behind is at least that late.
const POSITIONS_MAX: usize = 3_600;
/// Standbys that are remembered as having been in step.
const STANDBYS_MAX: usize = 1_000;

/// Less than this is on its way, and tells nothing of how fast a standby replays; in bytes.
const QUEUE_MIN: f64 = 1_048_576.0;
/// A standby must have had a queue for so long before the end of it is foretold.
const WATCHED_MIN: Duration = Duration::from_millis(500);
/// What it replayed longer ago tells nothing of now.
const WATCHED_MAX: Duration = Duration::from_secs(10);

/// A standby as the primary sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standby {
    /// Its name or address.
    pub name: String,
    /// `streaming`, `catchup`, `backup` …
    pub state: String,
    /// Seconds by the server's own figure.
    pub lag_s: Option<f64>,
    /// The position that it has replayed, in bytes; none before its first reply.
    pub replayed: Option<f64>,
}

/// How late a standby is.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    /// Its name.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
    /// Bytes.
    pub bytes: f64,
}

/// Where the primary was, and which standbys were in step.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    positions: VecDeque<(Duration, f64)>,
    in_step: BTreeSet<String>,
    queues: BTreeMap<String, Queue>,
}

impl Trail {
    /// How late each standby is, at a time and a position of the primary in bytes. One that is not streaming and never
    /// was while we looked is being rebuilt: it counts for nothing. One that fell out of step counts.
    pub fn late(&mut self, at: Duration, position: f64, standbys: &[Standby]) -> Vec<Late> {
        if self.positions.back().is_none_or(|(_, last)| position > *last) {
            self.positions.push_back((at, position));
        }
        if self.positions.len() > POSITIONS_MAX {
            self.positions.pop_front();
        }
        let mut late = Vec::new();
        for standby in standbys {
            if standby.state == "streaming" && self.in_step.len() < STANDBYS_MAX {
                self.in_step.insert(standby.name.clone());
            }
            if standby.state != "streaming" && !self.in_step.contains(&standby.name) {
                continue;
            }
            let Some(replayed) = standby.replayed else { continue };
            let bytes = (position - replayed).max(0.0);
            let ahead = self.ahead(at, &standby.name, replayed, bytes);
            let seconds = match bytes {
                0.0 => 0.0,
                _ => self.age(at, replayed).max(standby.lag_s.unwrap_or(0.0)).max(ahead),
            };
            late.push(Late { name: standby.name.clone(), seconds, bytes });
        }
        late
    }

    /// Whether some standby has a queue: it is worth a closer look then.
    pub fn is_behind(&self) -> bool {
        self.queues.values().any(|queue| !queue.looks.is_empty())
    }

    /// Seconds until a standby has replayed all that is written now; 0 where that cannot be told.
    fn ahead(&mut self, at: Duration, name: &str, replayed: f64, bytes: f64) -> f64 {
        if self.queues.len() >= STANDBYS_MAX && !self.queues.contains_key(name) {
            return 0.0;
        }
        self.queues.entry(name.to_owned()).or_default().look(at, replayed, bytes).unwrap_or(0.0)
    }

    /// Seconds since the primary left a position: since the first time that it was seen beyond it.
    fn age(&self, at: Duration, replayed: f64) -> f64 {
        let beyond = self.positions.iter().find(|(_, position)| *position > replayed);
        beyond.map_or(0.0, |(left, _)| at.saturating_sub(*left).as_secs_f64())
    }
}

/// What a standby had to replay at each look since it was last in step: when, what it had replayed, how much was waiting.
#[derive(Debug, Clone, Default)]
struct Queue {
    looks: VecDeque<(Duration, f64, f64)>,
}

impl Queue {
    /// Seconds until it is through, by how fast it was while it always had something to replay; `None` where it was not
    /// watched for long enough, or stands still: then the age of what it lacks tells.
    fn look(&mut self, at: Duration, replayed: f64, waiting: f64) -> Option<f64> {
        if waiting < QUEUE_MIN {
            self.looks.clear();
            return None;
        }
        while self.looks.front().is_some_and(|(then, ..)| at.saturating_sub(*then) > WATCHED_MAX) {
            self.looks.pop_front();
        }
        // All that it has replayed since then was waiting then: it never waited for the primary.
        let busy = self.looks.iter().find(|(_, from, queued)| replayed - from <= *queued).copied();
        self.looks.push_back((at, replayed, waiting));
        let (since, from, _) = busy?;
        let span = at.saturating_sub(since);
        let rate = (replayed - from) / span.as_secs_f64();
        (span >= WATCHED_MIN && rate > 0.0).then(|| waiting / rate)
    }
}

/// The latest standby by a measure.
pub fn latest(late: &[Late], measure: impl Fn(&Late) -> f64) -> Option<(f64, String)> {
    let latest = late.iter().max_by(|a, b| measure(a).total_cmp(&measure(b)))?;
    Some((measure(latest), latest.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby(state: &str, replayed: f64, lag_s: Option<f64>) -> Standby {
        Standby { name: "s1".into(), state: state.into(), lag_s, replayed: Some(replayed) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_standby_that_has_replayed_all_is_not_late_whatever_its_last_reply_said() {
        let late = Trail::default().late(at(0), 100.0, &[standby("streaming", 100.0, Some(99.0))]);
        assert_eq!((late[0].seconds, late[0].bytes), (0.0, 0.0));
    }

    #[test]
    fn a_stuck_standby_is_as_late_as_what_it_has_not_replayed_is_old() {
        let mut trail = Trail::default();
        trail.late(at(0), 100.0, &[]);
        trail.late(at(10), 200.0, &[]);
        let late = trail.late(at(14), 300.0, &[standby("streaming", 100.0, None)]);
        assert_eq!((late[0].seconds, late[0].bytes), (4.0, 200.0));
        assert_eq!(trail.late(at(14), 300.0, &[standby("streaming", 100.0, Some(9.0))])[0].seconds, 9.0);
    }

    #[test]
    fn a_slow_standby_is_as_late_as_it_will_be_for_what_is_written_now() {
        let (mut trail, mib) = (Trail::default(), QUEUE_MIN);
        trail.late(at(0), 0.0, &[standby("streaming", 0.0, None)]);
        assert!(!trail.is_behind());
        // The primary writes ten times as fast as it replays.
        trail.late(at(1), 100.0 * mib, &[standby("streaming", 10.0 * mib, None)]);
        assert!(trail.is_behind());
        let late = trail.late(at(2), 200.0 * mib, &[standby("streaming", 20.0 * mib, None)]);
        assert_eq!(late[0].seconds, 18.0);
        let late = trail.late(at(3), 200.0 * mib, &[standby("streaming", 199.9 * mib, None)]);
        assert!(late[0].seconds <= 2.0 && !trail.is_behind(), "{late:?}");
    }

    #[test]
    fn a_standby_that_keeps_up_is_late_by_what_is_on_its_way_alone() {
        let (mut trail, mib) = (Trail::default(), QUEUE_MIN);
        // Little at first, then a burst of which it lacks a little at each look.
        for second in 0..20_u32 {
            let position = f64::from(second) * if second < 10 { 0.001 } else { 50.0 } * mib;
            let replayed = if second < 10 { position } else { position - 2.0 * mib };
            let late = trail.late(at(second.into()), position, &[standby("streaming", replayed, None)]);
            assert!(late[0].seconds <= 2.0, "{second}: {late:?}");
        }
        // One that stands still is told by its age.
        for second in 20..25 {
            let late = trail.late(at(second), 2_000.0 * mib, &[standby("streaming", 948.0 * mib, None)]);
            assert!(late[0].seconds <= 6.0, "{second}: {late:?}");
        }
    }

    #[test]
    fn a_standby_that_is_rebuilt_counts_for_nothing_until_it_was_in_step() {
        let mut trail = Trail::default();
        assert!(trail.late(at(0), 100.0, &[standby("catchup", 1.0, None)]).is_empty());
        trail.late(at(1), 100.0, &[standby("streaming", 100.0, None)]);
        assert_eq!(trail.late(at(2), 200.0, &[standby("catchup", 100.0, None)]).len(), 1);
    }
}
