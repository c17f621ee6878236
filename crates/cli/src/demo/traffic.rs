//! Live traffic: an application that reads and writes the tables under repair while they are repaired.
//!
//! It never writes a column that is repaired. Every change adds one to a counter column that starts at 0, so the sum
//! of those columns must be the number of changes that were answered: a write that pgmend overwrote would be missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgmend_testkit::{PgErrorText, Sql};

use super::shop::{Shop, broken};
use crate::failure::Failure;

const THREADS: u64 = 2;
/// Leaves the processors to the runs: what is shown is that both go on, not how fast a laptop is.
const PAUSE: Duration = Duration::from_millis(1);

/// An application at work.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Tally, PgErrorText>>>,
}

/// What the application did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Statements that read.
    pub reads: u64,
    /// Statements that added one to a counter of one row.
    pub changes: u64,
    /// Statements that added a row.
    pub inserts: u64,
    took: Vec<Duration>,
}

impl Traffic {
    /// Starts the threads over keys 1 to `rows`.
    pub fn start(shop: &Shop, rows: u32) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for seed in 1..=THREADS {
            let sql = shop.sql()?;
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || work(sql, &stop, seed, u64::from(rows))));
        }
        Ok(Self { stop, threads })
    }

    /// Stops the threads and adds up what they did. A statement that failed is an error.
    pub fn stop(mut self) -> Result<Tally, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for thread in std::mem::take(&mut self.threads) {
            let done = thread.join().map_err(|_| broken("go on with its traffic")("a thread panicked"))?;
            sum.add(done.map_err(broken("go on with its traffic"))?);
        }
        Ok(sum)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.reads += other.reads;
        self.changes += other.changes;
        self.inserts += other.inserts;
        self.took.extend(other.took);
    }

    /// Milliseconds that a statement took: in the middle, the 99th of a hundred, the slowest.
    pub fn milliseconds(&self) -> [f64; 3] {
        let mut took = self.took.clone();
        took.sort();
        let last = took.len().saturating_sub(1);
        [last / 2, last * 99 / 100, last].map(|at| took.get(at).map_or(0.0, |t| t.as_secs_f64() * 1_000.0))
    }
}

/// The sum of the counters, which must be [`Tally::changes`].
pub const COUNTED: &str = "select (select sum(visits) from users) + (select sum(views) from orders)
     + (select sum(checks) from authorizations) + (select sum(looks) from assignment)";

fn work(mut sql: Sql, stop: &AtomicBool, seed: u64, rows: u64) -> Result<Tally, PgErrorText> {
    let mut tally = Tally::default();
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    while !stop.load(Ordering::Relaxed) {
        let key = 1 + dice.roll(rows);
        let (count, statement) = match dice.roll(40) {
            0 => (&mut tally.inserts, format!("insert into orders (user_id, amount) values ({key}, 12.50)")),
            1 => (
                &mut tally.inserts,
                "insert into users (email, role, country) \
                 values ('new-' || gen_random_uuid() || '@example.com', 'member', 'NO')"
                    .to_owned(),
            ),
            2..10 => (&mut tally.changes, format!("update users set visits = visits + 1 where user_id = {key}")),
            10..15 => (&mut tally.changes, format!("update orders set views = views + 1 where order_id = {key}")),
            15..20 => (
                &mut tally.changes,
                format!("update authorizations set checks = checks + 1 where authorization_id = {key}"),
            ),
            20..22 => {
                let key = 1 + key / 6;
                (&mut tally.changes, format!("update assignment set looks = looks + 1 where assignment_id = {key}"))
            }
            22..32 => (
                &mut tally.reads,
                format!("select email, amount from users join orders using (user_id) where user_id = {key}"),
            ),
            _ => (&mut tally.reads, format!("select year, provider_id from authorizations where order_id = {key}")),
        };
        let begun = Instant::now();
        sql.run(&statement)?;
        *count += 1;
        tally.took.push(begun.elapsed());
        std::thread::sleep(PAUSE);
    }
    Ok(tally)
}

/// Numbers without a pattern (xorshift); nothing depends on their quality.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

#[cfg(test)]
mod tests {
    use super::{Dice, Tally};
    use std::time::Duration;

    #[test]
    fn the_slowest_statement_is_told() {
        let took = (1..=200).rev().map(Duration::from_millis).collect();
        let tally = Tally { took, ..Tally::default() };
        assert_eq!(tally.milliseconds(), [100.0, 198.0, 200.0]);
        assert_eq!(Tally::default().milliseconds(), [0.0; 3]);
    }

    #[test]
    fn dice_reach_every_side() {
        let mut dice = Dice(1);
        let mut seen = [false; 40];
        for _ in 0..2_000 {
            seen[usize::try_from(dice.roll(40)).expect("a roll of 40 fits")] = true;
        }
        assert!(seen.iter().all(|s| *s));
    }
}
