//! Who works beside a run. An application that is there gets room before any limit is met: what hurts its slowest
//! transactions first is a core that is taken, a lock that is held, and WAL that is written before its own commit; no count of
//! waiting sessions shows those (docs/design/company.md).

use std::collections::VecDeque;

/// Looks a second apart that are remembered.
const LOOKS: usize = 10;
/// Looks with company of those that make it an application: a person who types one query is none. The first look of a
/// run counts by itself: until more is known it is careful.
const LOOKS_MIN: usize = 2;
/// Sessions that make company: one alone is a monitoring agent, or a person.
const SESSIONS_MIN: f64 = 2.0;
/// Transactions of the application that may meet the run at its work while no core is free for them. About one in five of
/// these takes visibly longer (measured), so that one of two hundred does: half of what makes a p99.
const MET_MAX: f64 = 0.025;
/// What a batch in company aims at, in milliseconds: whoever meets a locked row waits for that long, more or less. Half of it
/// costs a quarter of the rows and spares nobody (measured).
const BATCH_MS: f64 = 50.0;

/// How a run behaves for now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manners {
    /// The part of the time that one worker works at most, above 0 and up to 1.
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
    cores: u32,
    /// How many sessions did something, and how many were at work at that moment.
    looks: VecDeque<(f64, f64)>,
}

impl Company {
    /// Of a server with so many cores.
    pub fn new(cores: u32) -> Self {
        Self { cores, looks: VecDeque::with_capacity(LOOKS) }
    }

    /// Takes note of a look, about a second after the one before: sessions of others that did something since, and those
    /// that were at work right then.
    pub fn look(&mut self, sessions: f64, working: f64) {
        while self.looks.len() >= LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((sessions, working));
    }

    /// How each of so many workers behaves.
    pub fn manners(&self, workers: u32) -> Manners {
        let seen = self.looks.iter().filter(|(sessions, _)| *sessions >= SESSIONS_MIN).count();
        if seen < LOOKS_MIN.min(self.looks.len().max(1)) {
            return Manners::ALONE;
        }
        let working = self.looks.iter().map(|(_, working)| working).sum::<f64>() / self.looks.len() as f64;
        Manners { pace_max: pace_beside(self.cores, working, workers), batch_ms: Some(BATCH_MS) }
    }
}

/// The pace at most that a run on so many cores would have beside what a single look shows: sessions of others that did
/// something, and those that were at work. `None` where that is no application. One look cannot tell how long they
/// stay.
pub fn glimpse(cores: u32, sessions: f64, working: f64) -> Option<f64> {
    (sessions >= SESSIONS_MIN).then(|| pace_beside(cores, working, 1))
}

/// The part of the time that each of so many workers may work: so much that no more than [`MET_MAX`] of the
/// application's transactions find the run at work and no core free.
fn pace_beside(cores: u32, working: f64, workers: u32) -> f64 {
    // A core for each worker, and one for the writing and cleaning that they cause.
    let beside = |workers: u32| MET_MAX / no_core_free(cores.saturating_sub(workers + 1), working);
    let workers = workers.max(1);
    if beside(workers) >= 1.0 {
        return 1.0;
    }
    // Workers that rest most of the time rarely work at once, but any of them is in the way.
    beside(1).min(1.0) / f64::from(workers)
}

/// The share of transactions that find all of so many cores taken by other transactions, where so many are at work on
/// average: they arrive independently of each other (Poisson).
fn no_core_free(cores: u32, working: f64) -> f64 {
    let mut exactly = (-working.max(0.0)).exp();
    let mut fewer = 0.0;
    for n in 0..cores {
        fewer += exactly;
        exactly *= working / f64::from(n + 1);
    }
    (1.0 - fewer).clamp(f64::EPSILON, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glimpse_says_what_a_run_would_do_if_it_went_on_like_that() {
        assert_eq!(glimpse(2, 1.0, 1.0), None, "an agent");
        assert_eq!(glimpse(2, 5.0, 1.0), Some(MET_MAX));
        assert_eq!(glimpse(64, 5.0, 4.0), Some(1.0));
        assert_eq!(glimpse(2, f64::INFINITY, 0.0), Some(MET_MAX));
        assert_eq!(glimpse(4, 9.0, 9_000.0), Some(MET_MAX));
    }

    fn after(cores: u32, looks: &[(f64, f64)], workers: u32) -> Manners {
        let mut company = Company::new(cores);
        for (sessions, working) in looks {
            company.look(*sessions, *working);
        }
        company.manners(workers)
    }

    #[test]
    fn alone_a_run_takes_what_there_is() {
        assert_eq!(after(2, &[], 1), Manners::ALONE);
        assert_eq!(after(2, &[(0.0, 0.0); 20], 1), Manners::ALONE);
    }

    #[test]
    fn one_query_of_a_person_is_no_company() {
        assert_eq!(after(2, &[(0.0, 0.0), (3.0, 1.0), (0.0, 0.0)], 1), Manners::ALONE);
    }

    #[test]
    fn the_first_look_of_a_run_is_believed_until_the_next_says_otherwise() {
        assert_eq!(after(2, &[(3.0, 1.0)], 1).pace_max, MET_MAX);
        assert_eq!(after(2, &[(3.0, 1.0), (1.0, 0.0)], 1), Manners::ALONE);
    }

    #[test]
    fn an_agent_that_looks_once_a_second_is_no_company() {
        assert_eq!(after(2, &[(1.0, 1.0); 20], 1), Manners::ALONE);
    }

    #[test]
    fn the_more_cores_are_free_the_more_a_run_works() {
        let pace = |cores: u32, working: f64| after(cores, &[(8.0, working); 5], 1).pace_max;
        assert_eq!(pace(2, 0.1), MET_MAX, "every transaction finds both cores taken");
        assert!((pace(4, 0.3) - 0.68).abs() < 0.01, "one of 27 transactions finds two others: {}", pace(4, 0.3));
        assert!((pace(8, 3.0) - 0.30).abs() < 0.01, "one of twelve finds six others: {}", pace(8, 3.0));
        assert_eq!((pace(4, 0.1), pace(8, 1.0), pace(16, 4.0)), (1.0, 1.0, 1.0));
        assert_eq!(pace(64, 900.0), MET_MAX);
    }

    #[test]
    fn workers_share_the_time_that_is_left_to_a_run() {
        let pace = |cores: u32, workers: u32| after(cores, &[(8.0, 0.1); 5], workers).pace_max;
        assert_eq!(pace(2, 2), MET_MAX / 2.0);
        assert_eq!((pace(4, 1), pace(4, 2), pace(8, 2)), (1.0, 0.5, 1.0));
    }

    #[test]
    fn where_there_is_room_the_pace_stays_full_and_the_locks_are_short() {
        assert_eq!(after(32, &[(80.0, 10.0); 5], 1), Manners { pace_max: 1.0, batch_ms: Some(BATCH_MS) });
        assert_eq!(after(2, &[(80.0, 10.0); 5], 1), Manners { pace_max: MET_MAX, batch_ms: Some(BATCH_MS) });
    }

    #[test]
    fn company_that_left_is_forgotten_within_ten_looks() {
        let mut looks = vec![(8.0, 1.0); 30];
        looks.extend([(0.0, 0.0); LOOKS]);
        assert_eq!(after(2, &looks, 1), Manners::ALONE);
        assert!(looks.pop().is_some() && looks.pop().is_some());
        assert_ne!(after(2, &looks, 1), Manners::ALONE);
    }
}
