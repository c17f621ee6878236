//! The smooth layer: how long a run rests between two batches. It steers by load before a hard limit is met.
//!
//! The law is spirit's, turned from a number of workers to a pace: below 0.4 of the limits the pace grows, up to 0.7 it
//! stays, up to 1.0 it sheds, beyond it halves. A shed also delays growth, never the reverse.

use std::time::Duration;

/// The pace never falls below one twentieth: slower than that is a hold, which the hard limits decide.
const PACE_MIN: f64 = 0.05;
/// Growth at most, as everywhere.
const GROWTH: f64 = 1.5;
/// What is kept when load is high.
const SHED: f64 = 0.8;
/// What is kept when a limit is reached.
const HALVE: f64 = 0.5;
/// Time after a shed before the pace grows.
const COOLDOWN: Duration = Duration::from_secs(15);
/// Time between two changes: what one did must be seen before the next.
const TICK: Duration = Duration::from_secs(2);
/// The shortest rest: what batches earn is saved up to it. Whoever works beside is hurt by the beginning of work more than
/// by its length (docs/design/company.md).
pub const REST_MIN: Duration = Duration::from_secs(1);
/// The same where the pace is bound by company, whom each beginning may hurt.
const REST_BESIDE: Duration = Duration::from_secs(4);
/// The longest rest after one batch.
const REST_MAX: Duration = Duration::from_secs(10);

/// The pace of a run: 1 is as fast as it can.
#[derive(Debug, Clone)]
pub struct Controller {
    pace: f64,
    changed: Option<Duration>,
    shed: Option<Duration>,
    /// Rest that the batches since the last one have earned.
    owed: Duration,
}

impl Default for Controller {
    fn default() -> Self {
        Self { pace: 1.0, changed: None, shed: None, owed: Duration::ZERO }
    }
}

impl Controller {
    /// The pace, 0 to 1.
    pub fn pace(&self) -> f64 {
        self.pace
    }

    /// Takes note of the load as a share of its limits. What is not known changes nothing.
    pub fn observe(&mut self, now: Duration, utilization: Option<f64>) {
        let Some(load) = utilization else { return };
        if self.changed.is_some_and(|at| now.saturating_sub(at) < TICK) {
            return;
        }
        let cooling = self.shed.is_some_and(|at| now.saturating_sub(at) < COOLDOWN);
        let factor = match load {
            load if load >= 1.0 => HALVE,
            load if load >= 0.7 => SHED,
            load if load < 0.4 && !cooling => GROWTH,
            _ => return,
        };
        let pace = (self.pace * factor).clamp(PACE_MIN, 1.0);
        if factor < 1.0 {
            self.shed = Some(now);
        }
        if pace != self.pace {
            self.pace = pace;
            self.changed = Some(now);
        }
    }

    /// How long to rest after a batch that took so long, at this pace or at `most` if that is slower; nothing at full
    /// pace, and while less than a second is owed; four where `most` decides.
    pub fn rest(&mut self, took: Duration, most: f64) -> Duration {
        let pace = self.pace.min(most);
        if pace >= 1.0 {
            self.owed = Duration::ZERO;
            return Duration::ZERO;
        }
        let earned_s = (took.as_secs_f64() * (1.0 / pace - 1.0)).min(REST_MAX.as_secs_f64());
        self.owed = (self.owed + Duration::from_secs_f64(earned_s)).min(REST_MAX);
        if self.owed < if most < self.pace { REST_BESIDE } else { REST_MIN } {
            return Duration::ZERO;
        }
        std::mem::take(&mut self.owed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_quiet_database_costs_no_rest() {
        let mut controller = Controller::default();
        for second in 0..60 {
            controller.observe(at(second), Some(0.1));
        }
        assert_eq!(controller.rest(at(1), 1.0), Duration::ZERO);
    }

    #[test]
    fn load_is_answered_quickly_and_forgotten_slowly() {
        let mut controller = Controller::default();
        controller.observe(at(0), Some(1.2));
        assert_eq!(controller.pace(), 0.5);
        assert_eq!(controller.rest(at(2), 1.0), at(2));
        assert_eq!(controller.rest(Duration::from_millis(600), 1.0), Duration::ZERO, "less than a second is owed");
        assert_eq!(controller.rest(Duration::from_millis(600), 1.0), Duration::from_millis(1_200));
        assert_eq!(controller.rest(at(1), 0.25), Duration::ZERO, "in company it is four");
        assert_eq!(controller.rest(at(1), 0.25), at(6));
        controller.observe(at(1), Some(1.2));
        assert_eq!(controller.pace(), 0.5);
        controller.observe(at(2), Some(0.8));
        assert_eq!(controller.pace(), 0.4);
        controller.observe(at(10), Some(0.1));
        assert_eq!(controller.pace(), 0.4);
        controller.observe(at(17), Some(0.1));
        assert!((controller.pace() - 0.6).abs() < 1e-9);
        controller.observe(at(19), Some(0.5));
        assert!((controller.pace() - 0.6).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn whatever_the_load_the_pace_is_within_its_bounds_and_grows_by_half_at_most(
            loads in proptest::collection::vec(proptest::option::of(0.0_f64..3.0), 1..200),
        ) {
            let mut controller = Controller::default();
            for (second, load) in (0_u64..).zip(loads) {
                let before = controller.pace();
                controller.observe(at(second), load);
                prop_assert!((PACE_MIN..=1.0).contains(&controller.pace()));
                prop_assert!(controller.pace() <= before * GROWTH + 1e-9);
                prop_assert!(load.is_none_or(|load| load < 0.4) || controller.pace() <= before);
                prop_assert!(controller.rest(at(100), 0.0) <= REST_MAX);
            }
        }
    }
}
