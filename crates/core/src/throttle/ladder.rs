//! The ladder: what a run does the longer it holds. Slow, hold, release connections, stop cleanly. Nothing is lost on
//! any rung: a run stops between two batches, and can be resumed.

use std::time::Duration;

/// Seconds of a hold after which the working connection is given back: the database may need it more.
pub const RELEASE_AFTER_S: u64 = 60;
/// Seconds of a hold after which the run stops, resumable: longer than any backup or failover, and short enough that
/// somebody learns of it on the same shift.
pub const HOLD_MAX_S: u64 = 4 * 3_600;

/// When the next rung is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// How long the working connection is kept.
    pub release_after: Duration,
    /// How long a hold may last.
    pub hold_max: Duration,
}

impl Default for Ladder {
    fn default() -> Self {
        Self { release_after: Duration::from_secs(RELEASE_AFTER_S), hold_max: Duration::from_secs(HOLD_MAX_S) }
    }
}

/// What a run that holds does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// Waits, connected.
    Hold,
    /// Waits without its working connection; one probe and the heartbeat remain.
    Release,
    /// Stops, resumable.
    Stop,
}

impl Ladder {
    /// The rung after so long a hold.
    pub fn rung(&self, held: Duration) -> Rung {
        if held >= self.hold_max {
            Rung::Stop
        } else if held >= self.release_after {
            Rung::Release
        } else {
            Rung::Hold
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_a_hold_the_higher_the_rung() {
        let ladder = Ladder::default();
        let rungs = [0, 59, 60, 14_399, 14_400].map(|s| ladder.rung(Duration::from_secs(s)));
        assert_eq!(rungs, [Rung::Hold, Rung::Hold, Rung::Release, Rung::Release, Rung::Stop]);
    }

    #[test]
    fn a_hold_that_must_be_short_stops_before_it_releases() {
        let ladder = Ladder { hold_max: Duration::from_secs(5), ..Ladder::default() };
        assert_eq!(ladder.rung(Duration::from_secs(5)), Rung::Stop);
    }
}
