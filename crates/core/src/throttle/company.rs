//! Who works beside a run. An application that is there gets room before any limit is met: what hurts its slowest
//! transactions first is a core that is taken, a lock that is held, and WAL that is written before its own commit; no count of
//! waiting sessions shows those (docs/design/company.md).

use std::collections::VecDeque;

/// Looks a second apart that are remembered.
const LOOKS: usize = 10;
/// Looks with company of those that make it an application: a person who types one query is none.
const LOOKS_MIN: usize = 2;
/// Sessions that make company: one alone is a monitoring agent, or a person.
const SESSIONS_MIN: f64 = 2.0;
/// What a run takes of a machine at full pace, in cores: its own session, and the writing and cleaning that it causes.
const TAKEN: f64 = 2.0;
/// The pace in company at least: slower than that is for the signals to decide.
const PACE_MIN: f64 = 0.25;
/// What a batch in company may last, in milliseconds: as long as a slow transaction of the application itself.
const BATCH_MS: f64 = 25.0;

/// How a run behaves for now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manners {
    /// The pace at most, 0 to 1.
    pub pace_max: f64,
    /// Milliseconds that a batch aims at, at most.
    pub batch_ms: Option<f64>,
}

impl Manners {
    /// Nobody is there who could be hurt.
    pub const ALONE: Manners = Manners { pace_max: 1.0, batch_ms: None };
}

/// What was seen of others lately.
#[derive(Debug, Clone)]
pub struct Company {
    cores: f64,
    /// How many sessions did something, and how many were at work at that moment.
    looks: VecDeque<(f64, f64)>,
}

impl Company {
    /// Of a server with so many cores.
    pub fn new(cores: u32) -> Self {
        Self { cores: f64::from(cores.max(1)), looks: VecDeque::with_capacity(LOOKS) }
    }

    /// Takes note of a look, about a second after the one before: sessions of others that did something since, and those
    /// that were at work right then.
    pub fn look(&mut self, sessions: f64, working: f64) {
        while self.looks.len() >= LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((sessions, working));
    }

    /// How to behave.
    pub fn manners(&self) -> Manners {
        let seen = self.looks.iter().filter(|(sessions, _)| *sessions >= SESSIONS_MIN).count();
        if seen < LOOKS_MIN {
            return Manners::ALONE;
        }
        let working = self.looks.iter().map(|(_, working)| working).sum::<f64>() / self.looks.len() as f64;
        Manners { pace_max: pace_beside(self.cores, working), batch_ms: Some(BATCH_MS) }
    }
}

/// The pace at most that a run on so many cores would have beside what a single look shows: sessions of others that did
/// something, and those that were at work. `None` where that is no application. One look cannot tell how long they
/// stay.
pub fn glimpse(cores: u32, sessions: f64, working: f64) -> Option<f64> {
    (sessions >= SESSIONS_MIN).then(|| pace_beside(f64::from(cores.max(1)), working))
}

fn pace_beside(cores: f64, working: f64) -> f64 {
    ((cores - working) / TAKEN).clamp(PACE_MIN, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glimpse_says_what_a_run_would_do_if_it_went_on_like_that() {
        assert_eq!(glimpse(2, 1.0, 1.0), None, "an agent");
        assert_eq!(glimpse(2, 5.0, 1.0), Some(0.5));
        assert_eq!(glimpse(64, 5.0, 4.0), Some(1.0));
        assert_eq!(glimpse(2, f64::INFINITY, 0.0), Some(1.0));
        assert_eq!(glimpse(2, 9.0, 9.0), Some(PACE_MIN));
    }

    fn after(cores: u32, looks: &[(f64, f64)]) -> Manners {
        let mut company = Company::new(cores);
        for (sessions, working) in looks {
            company.look(*sessions, *working);
        }
        company.manners()
    }

    #[test]
    fn alone_a_run_takes_what_there_is() {
        assert_eq!(after(2, &[]), Manners::ALONE);
        assert_eq!(after(2, &[(0.0, 0.0); 20]), Manners::ALONE);
    }

    #[test]
    fn one_query_of_a_person_is_no_company() {
        assert_eq!(after(2, &[(0.0, 0.0), (3.0, 1.0), (0.0, 0.0)]), Manners::ALONE);
    }

    #[test]
    fn an_agent_that_looks_once_a_second_is_no_company() {
        assert_eq!(after(2, &[(1.0, 1.0); 20]), Manners::ALONE);
    }

    #[test]
    fn a_busy_application_on_a_small_machine_keeps_its_cores() {
        assert_eq!(after(2, &[(8.0, 0.0); 5]), Manners { pace_max: 1.0, batch_ms: Some(BATCH_MS) });
        assert_eq!(after(2, &[(8.0, 1.0); 5]).pace_max, 0.5);
        assert_eq!(after(2, &[(8.0, 4.0); 5]).pace_max, PACE_MIN);
    }

    #[test]
    fn where_there_is_room_the_pace_stays_full_and_the_locks_are_short() {
        assert_eq!(after(32, &[(80.0, 10.0); 5]), Manners { pace_max: 1.0, batch_ms: Some(BATCH_MS) });
    }

    #[test]
    fn company_that_left_is_forgotten_within_ten_looks() {
        let mut looks = vec![(8.0, 1.0); 30];
        looks.extend([(0.0, 0.0); LOOKS]);
        assert_eq!(after(2, &looks), Manners::ALONE);
        assert!(looks.pop().is_some() && looks.pop().is_some());
        assert_ne!(after(2, &looks), Manners::ALONE);
    }
}
