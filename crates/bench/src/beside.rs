//! A run beside an application: what it does to the application's slowest transactions, against a script that sleeps
//! between its batches and loops that keep to a rate.
//!
//! The machine changes more within minutes than a run does to it, so everything is looked at in turns: each round is one
//! stretch of the application on a fresh table, with a look at each neighbour, in another order than the round before. What
//! is compared are the p99 of all transactions of all looks.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgmend::{Engine, Mode, Observer, Pace, PlanOptions, RunOptions};
use pgmend_testkit::{Binaries, Sql};
use tempfile::TempDir;

use crate::error::BenchError;
use crate::lap::Work;
use crate::loops::BY_HAND;
use crate::stage::{REPAIR, Stage};

/// Transactions that the application makes each second, over its sessions: well within what two cores can do.
pub const TRANSACTIONS_PER_S: u32 = 300;
pub const SESSIONS: u32 = 8;
/// How long a look is.
pub const LOOK_S: u64 = 22;
/// Between two looks, before the first and after the last.
const SETTLE: Duration = Duration::from_secs(3);
/// How long the application stays at most: it is ended once a round is over.
const ROUND_S: u64 = 1_800;
/// What the script does: the defaults of the published ones (Rails' `in_batches`, Fly's guide for Ecto).
pub const SCRIPT_ROWS: u32 = 1_000;
pub const SCRIPT_SLEEP_MS: u32 = 100;
/// The part of the keys that the run has to itself, from the first, and that of each loop.
const RUN_KEYS: f64 = 0.4;
const LOOP_KEYS: f64 = 0.12;
/// Rows below which a look would run out of keys: the script changes 9,000 a second here, two hundred thousand in a look.
pub const ROWS_MIN: u64 = 1_700_000;
/// How much slower the application's p99 may get.
pub const P99_TARGET: f64 = 1.15;

/// Reads four rows for each that it writes, anywhere in the table that is repaired.
const READ: &str = "\\set id random(1, :rows)\nselect amount, region from orders where id = :id;\n";
const WRITE: &str = "\\set id random(1, :rows)\nupdate orders set amount = amount + 0.01 where id = :id;\n";

/// What goes on beside the application.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Neighbour {
    Nothing,
    /// A plan with its counts and samples.
    Plan,
    /// A run with its defaults.
    Run,
    /// The same run at a rate that a person chose.
    RunAt(Rate),
    /// So many rows at a time, and the same sleep after each.
    Script,
    /// So many rows at a time, waiting after each until the rate allows the next.
    Loop(u32, Rate),
}

/// A rate that others have shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// So many times what the run does with its defaults.
    OfTheRun(f64),
    OfTheScript,
}

/// More than a fixed rate may be able to do: the run is to do 0.8 of that, and this is above 1 / 0.8.
const MORE: Rate = Rate::OfTheRun(1.3);
/// The looks of a round, in the order of the first: whoever goes by a rate comes after the one that shows it. The first of
/// the run begins it, the second goes on with it.
const LOOKS: [Neighbour; 11] = [
    Neighbour::Nothing,
    Neighbour::Run,
    Neighbour::Script,
    Neighbour::RunAt(Rate::OfTheScript),
    Neighbour::Loop(10_000, Rate::OfTheScript),
    Neighbour::Nothing,
    Neighbour::Run,
    Neighbour::RunAt(MORE),
    Neighbour::Loop(10_000, MORE),
    Neighbour::Loop(10_000, Rate::OfTheRun(1.0)),
    Neighbour::Loop(1_000, Rate::OfTheRun(1.0)),
];

impl Neighbour {
    pub fn name(self) -> String {
        match self {
            Neighbour::Nothing => "nothing".into(),
            Neighbour::Plan => "pgmend's plan".into(),
            Neighbour::Run => "pgmend with images, as it comes".into(),
            Neighbour::RunAt(rate) => format!("pgmend with images, --rate of {}", rate.name()),
            Neighbour::Script => format!("a script: {SCRIPT_ROWS} rows, then {SCRIPT_SLEEP_MS} ms of sleep"),
            Neighbour::Loop(rows, rate) => format!("a loop of {rows} rows at {}", rate.name()),
        }
    }
}

impl Rate {
    fn name(self) -> String {
        match self {
            Rate::OfTheRun(1.0) => "the run's rate".into(),
            Rate::OfTheRun(times) => format!("{times} times the run's rate"),
            Rate::OfTheScript => "the script's rate".into(),
        }
    }
}

/// What the application saw beside a neighbour, in all looks.
#[derive(Debug, Clone)]
pub struct Seen {
    pub neighbour: Neighbour,
    rows: f64,
    seconds: f64,
    took_ms: Vec<f64>,
}

impl Seen {
    /// What the neighbour did; `None` where it changes nothing.
    pub fn rows_per_s(&self) -> Option<f64> {
        (self.rows > 0.0).then(|| self.rows / self.seconds)
    }

    pub fn transactions(&self) -> usize {
        self.took_ms.len()
    }

    /// The time that this share of the transactions did not exceed.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.took_ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
    }

    pub fn p99_ms(&self) -> f64 {
        self.percentile_ms(0.99)
    }
}

/// What the application saw beside each neighbour, in the order of the looks.
#[derive(Debug, Clone, Default)]
pub struct Beside(Vec<Seen>);

impl Beside {
    /// One more round, the first being 0.
    pub fn round(&mut self, stage: &Stage, round: usize) -> Result<(), BenchError> {
        let mut table = Table::fresh(stage)?;
        let load = Load::start(stage)?;
        let mut spans = Vec::new();
        for neighbour in order(round) {
            std::thread::sleep(SETTLE);
            let per_s = self.per_s(neighbour);
            let from = now();
            table.meet(neighbour, per_s)?;
            let to = now();
            let seen = self.entry(neighbour);
            seen.rows += table.newly_changed()?;
            seen.seconds += to - from;
            spans.push((neighbour, from, to));
        }
        std::thread::sleep(SETTLE);
        let times = load.end()?;
        for (neighbour, from, to) in spans {
            let within = times.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, ms)| ms);
            self.entry(neighbour).took_ms.extend(within);
        }
        self.tell();
        Ok(())
    }

    /// All of it.
    pub fn seen(&self) -> &[Seen] {
        &self.0
    }

    /// What was seen beside one of them.
    pub fn beside(&self, neighbour: Neighbour) -> Option<&Seen> {
        self.0.iter().find(|seen| seen.neighbour == neighbour)
    }

    /// The application's own p99, in milliseconds.
    pub fn alone_ms(&self) -> f64 {
        self.beside(Neighbour::Nothing).map_or(f64::NAN, Seen::p99_ms)
    }

    /// The p99 beside a neighbour, against the application's own.
    pub fn slowed(&self, neighbour: Neighbour) -> Option<f64> {
        Some(self.beside(neighbour)?.p99_ms() / self.alone_ms())
    }

    /// The run's rate by the highest fixed one, of the same run or of a loop, at which the application's p99 keeps within the
    /// target. 1 where no other does that is faster than the run.
    pub fn capacity_used(&self, fixed: impl Fn(Neighbour) -> bool) -> Option<f64> {
        let run = self.beside(Neighbour::Run)?.rows_per_s()?;
        let kept = self.0.iter().filter(|seen| fixed(seen.neighbour) && seen.p99_ms() <= self.alone_ms() * P99_TARGET);
        Some(run / kept.filter_map(Seen::rows_per_s).fold(run, f64::max))
    }

    /// What a neighbour adds to p99, by what another one adds.
    pub fn harm(&self, neighbour: Neighbour, against: Neighbour) -> Option<f64> {
        let added = |neighbour| Some((self.beside(neighbour)?.p99_ms() - self.alone_ms()).max(0.0));
        let other = added(against)?;
        Some(added(neighbour)? / other).filter(|ratio| ratio.is_finite())
    }

    fn entry(&mut self, neighbour: Neighbour) -> &mut Seen {
        let known = self.0.iter().position(|seen| seen.neighbour == neighbour);
        let place = known.unwrap_or_else(|| {
            self.0.push(Seen { neighbour, rows: 0.0, seconds: 0.0, took_ms: Vec::new() });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    /// The rate that a neighbour is to keep to.
    fn per_s(&self, neighbour: Neighbour) -> Option<f64> {
        let (Neighbour::RunAt(rate) | Neighbour::Loop(_, rate)) = neighbour else { return None };
        let (of, times) = match rate {
            Rate::OfTheRun(times) => (Neighbour::Run, times),
            Rate::OfTheScript => (Neighbour::Script, 1.0),
        };
        Some(self.beside(of)?.rows_per_s()? * times)
    }

    fn tell(&self) {
        for seen in &self.0 {
            eprintln!(
                "beside {}: {:.0} rows/s, p50 {:.2} ms, p99 {:.2} ms of {}",
                seen.neighbour.name(),
                seen.rows_per_s().unwrap_or(0.0),
                seen.percentile_ms(0.5),
                seen.p99_ms(),
                seen.transactions()
            );
        }
    }
}

/// The looks of a round: the plan first, since the run needs it, and the others in turns, forth and back.
fn order(round: usize) -> Vec<Neighbour> {
    let mut looks = LOOKS.to_vec();
    looks.rotate_left(round * 3 % LOOKS.len());
    if round % 2 == 1 {
        looks.reverse();
    }
    looks.insert(0, Neighbour::Plan);
    looks
}

/// A fresh table, and who changes it.
struct Table<'a> {
    stage: &'a Stage,
    url: String,
    sql: Sql,
    plan_id: String,
    changed_rows: f64,
    loops: f64,
}

impl<'a> Table<'a> {
    fn fresh(stage: &'a Stage) -> Result<Self, BenchError> {
        let url = stage.fresh()?;
        let mut sql = stage.sql()?;
        sql.run(BY_HAND)?;
        Ok(Self { stage, url, sql, plan_id: String::new(), changed_rows: 0.0, loops: 0.0 })
    }

    /// Lets a neighbour work for as long as a look is.
    fn meet(&mut self, neighbour: Neighbour, per_s: Option<f64>) -> Result<(), BenchError> {
        match neighbour {
            Neighbour::Nothing => std::thread::sleep(Duration::from_secs(LOOK_S)),
            Neighbour::Plan => self.plan()?,
            Neighbour::Run => self.run(Pace::default())?,
            Neighbour::RunAt(_) => {
                // With a ratio of rest that somebody chose, the rate is what decides.
                self.run(Pace { rate: per_s.map(|rows| rows.round() as u32), nice: Some(0.0), ..Pace::default() })?;
            }
            Neighbour::Script => {
                let sleep_s = f64::from(SCRIPT_SLEEP_MS) / 1_000.0;
                self.by_hand(SCRIPT_ROWS, &format!("sleep_s => {sleep_s}"))?;
            }
            Neighbour::Loop(rows, _) => self.by_hand(rows, &format!("rows_per_s => {}", per_s.unwrap_or(0.0)))?,
        }
        Ok(())
    }

    fn plan(&mut self) -> Result<(), BenchError> {
        let work =
            Work { name: "beside", statement: REPAIR, images: true, mode: Some(Mode::Stream), ..Work::default() };
        let planned = self.stage.runtime()?.block_on(async {
            let mut engine = Engine::connect(Some(&self.url)).await?;
            engine.plan(&work.job(), &PlanOptions::default()).await
        })?;
        self.plan_id = planned.plan.plan_id.to_string();
        Ok(())
    }

    /// Begins the run, or goes on with it.
    fn run(&mut self, pace: Pace) -> Result<(), BenchError> {
        let stop_after = format!("{LOOK_S}s").parse().map_err(BenchError::new)?;
        let options = RunOptions { pace: Pace { stop_after: Some(stop_after), ..pace }, ..RunOptions::default() };
        self.stage.runtime()?.block_on(async {
            let mut engine = Engine::connect(Some(&self.url)).await?;
            engine.run_plan(&self.plan_id, &options, &mut Observer::new(|_| {})).await
        })?;
        Ok(())
    }

    /// A loop over keys that nobody else has.
    fn by_hand(&mut self, rows: u32, pace: &str) -> Result<(), BenchError> {
        let after = (self.stage.rows as f64 * (RUN_KEYS + LOOP_KEYS * self.loops)) as u64;
        self.loops += 1.0;
        self.sql.run(&format!("call by_hand({rows}, {pace}, seconds => {LOOK_S}, after => {after})"))?;
        Ok(())
    }

    /// Rows that were changed since this was asked last.
    fn newly_changed(&mut self) -> Result<f64, BenchError> {
        let changed = self.sql.value("select count(*) from orders where region <> 'unknown'")?;
        let changed = changed.and_then(|rows| rows.parse().ok()).unwrap_or(0.0);
        Ok(changed - std::mem::replace(&mut self.changed_rows, changed))
    }
}

/// The application: pgbench, with a log of every transaction.
struct Load {
    child: Child,
    folder: TempDir,
}

impl Load {
    fn start(stage: &Stage) -> Result<Self, BenchError> {
        let folder = TempDir::new()?;
        for (name, script) in [("read.sql", READ), ("write.sql", WRITE)] {
            std::fs::write(folder.path().join(name), script)?;
        }
        let (host, port, database) = stage.address();
        let child = Command::new(Binaries::find()?.program("pgbench"))
            .args(["--no-vacuum", "--log", "--protocol=prepared", "--file=read.sql@4", "--file=write.sql@1"])
            .args(["--host", &host, "--port", &port.to_string(), "--username", "postgres"])
            .args(["--client", &SESSIONS.to_string(), "--rate", &TRANSACTIONS_PER_S.to_string()])
            .args(["--time", &ROUND_S.to_string(), "--define", &format!("rows={}", stage.rows), &database])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, folder })
    }

    /// When each transaction ended, in seconds of the epoch, and the milliseconds that it took. The last of them may be
    /// missing, which pgbench had not written.
    fn end(mut self) -> Result<Vec<(f64, f64)>, BenchError> {
        if self.child.try_wait()?.is_some() {
            return Err(BenchError::new("pgbench ended before its round"));
        }
        self.child.kill()?;
        self.child.wait()?;
        let mut times = Vec::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgbench_log")) {
                times.extend(std::fs::read_to_string(path)?.lines().filter_map(transaction));
            }
        }
        Ok(times)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A round that failed leaves no application behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When a transaction ended and how long it took, the wait for its turn included: "client transaction time_us script epoch_s
/// epoch_us …".
fn transaction(line: &str) -> Option<(f64, f64)> {
    let fields: Vec<f64> = line.split(' ').map_while(|field| field.parse().ok()).collect();
    let [_, _, took_us, _, seconds, micros, ..] = fields[..] else { return None };
    Some((seconds + micros / 1e6, took_us / 1_000.0))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(neighbour: Neighbour, rows: f64, p99_ms: f64) -> Seen {
        // One of fifty is slow.
        let took_ms = (0..100).map(|n| if n < 98 { 0.1 } else { p99_ms }).collect();
        Seen { neighbour, rows, seconds: 1.0, took_ms }
    }

    #[test]
    fn whoever_goes_by_a_rate_is_looked_at_after_the_one_that_shows_it() {
        let first = order(0);
        let place = |neighbour: Neighbour| first.iter().position(|one| *one == neighbour).expect("it is looked at");
        for (at, neighbour) in first.iter().enumerate() {
            let (Neighbour::RunAt(rate) | Neighbour::Loop(_, rate)) = neighbour else { continue };
            let shown = if *rate == Rate::OfTheScript { Neighbour::Script } else { Neighbour::Run };
            assert!(place(shown) < at, "{neighbour:?}");
        }
        for round in 1..20 {
            let looks = order(round);
            assert_eq!((looks.len(), looks[0]), (first.len(), Neighbour::Plan), "a run needs its plan");
            assert!(first.iter().all(|one| looks.contains(one)), "round {round}");
        }
    }

    #[test]
    fn a_rate_that_hurts_is_no_capacity_and_harm_is_what_is_added() {
        let at = |times| Neighbour::RunAt(Rate::OfTheRun(times));
        let mut beside = Beside(vec![
            seen(Neighbour::Nothing, 0.0, 1.0),
            seen(Neighbour::Run, 1_000.0, 1.1),
            seen(at(1.3), 1_300.0, 1.16),
            seen(Neighbour::Script, 9_000.0, 3.0),
            seen(Neighbour::RunAt(Rate::OfTheScript), 9_000.0, 1.5),
        ]);
        assert_eq!(beside.capacity_used(|one| matches!(one, Neighbour::RunAt(_))), Some(1.0));
        beside.0[2] = seen(at(1.3), 1_300.0, 1.15);
        let used = beside.capacity_used(|one| matches!(one, Neighbour::RunAt(_))).expect("it is known");
        assert!((used - 1.0 / 1.3).abs() < 1e-9, "{used}");
        let harm = beside.harm(Neighbour::RunAt(Rate::OfTheScript), Neighbour::Script).expect("it is known");
        assert!((harm - 0.25).abs() < 1e-9, "{harm}");
        assert_eq!(beside.harm(Neighbour::Run, Neighbour::Nothing), None, "nothing adds nothing");
        assert_eq!(beside.per_s(Neighbour::Loop(1_000, Rate::OfTheScript)), Some(9_000.0));
    }
}
