//! How far standbys are behind. The server's own figure is what the standby's last reply said: it stays as it was on
//! an idle primary, and grows only with replies. So the primary's past positions are kept, and a standby is as late as
//! the position that it has replayed is old.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Positions that are remembered: one a second for an hour. A standby that is further behind is at least that late.
const POSITIONS_MAX: usize = 3_600;
/// Standbys that are remembered as having been in step.
const STANDBYS_MAX: usize = 1_000;

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
            let seconds = if bytes == 0.0 { 0.0 } else { self.age(at, replayed).max(standby.lag_s.unwrap_or(0.0)) };
            late.push(Late { name: standby.name.clone(), seconds, bytes });
        }
        late
    }

    /// Seconds since the primary left a position: since the first time that it was seen beyond it.
    fn age(&self, at: Duration, replayed: f64) -> f64 {
        let beyond = self.positions.iter().find(|(_, position)| *position > replayed);
        beyond.map_or(0.0, |(left, _)| at.saturating_sub(*left).as_secs_f64())
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
    fn a_standby_that_is_rebuilt_counts_for_nothing_until_it_was_in_step() {
        let mut trail = Trail::default();
        assert!(trail.late(at(0), 100.0, &[standby("catchup", 1.0, None)]).is_empty());
        trail.late(at(1), 100.0, &[standby("streaming", 100.0, None)]);
        assert_eq!(trail.late(at(2), 200.0, &[standby("catchup", 100.0, None)]).len(), 1);
    }
}
