//! A run beside an application: what it does to the application's slowest transactions, against loops that keep to
//! a fixed rate.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgmend::{Mode, Pace};
use pgmend_testkit::Binaries;
use tempfile::TempDir;

use crate::error::BenchError;
use crate::lap::{self, Work};
use crate::loops::BY_HAND;
use crate::stage::{REPAIR, Stage};

/// Transactions that the application makes each second, over its sessions: well within what two cores can do.
const TRANSACTIONS_PER_S: u32 = 300;
const SESSIONS: u32 = 8;
/// Before anything is measured, and between two measurements.
const SETTLE: Duration = Duration::from_secs(3);
/// How long the application is looked at: long enough for 18,000 transactions, 180 of which are slower than its p99.
const LOOK_S: u64 = 60;
/// How long it stays at most where a run plans and checks besides.
const RUN_S: u64 = 2 * LOOK_S;
/// Rows that the usual script takes at a time.
const SCRIPT_ROWS: u32 = 10_000;
/// The loops that are tried: their rows at a time, and their rate as a share of the run's. The first is the usual script
/// at the run's rate; among them the fastest that spares the application is looked for.
const LOOPS: [(u32, f64); 4] = [(SCRIPT_ROWS, 1.0), (1_000, 1.0), (SCRIPT_ROWS, 2.0), (SCRIPT_ROWS, 0.5)];
/// How much slower the application's p99 may get.
pub const P99_TARGET: f64 = 1.15;

/// Reads four rows for each that it writes, anywhere in the table that is repaired.
const READ: &str = "\\set id random(1, :rows)\nselect amount, region from orders where id = :id;\n";
const WRITE: &str = "\\set id random(1, :rows)\nupdate orders set amount = amount + 0.01 where id = :id;\n";

/// What the application saw while something went on beside it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub beside: String,
    pub rows_per_s: Option<f64>,
    pub transactions: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// What the application saw: alone before and after everything else, beside a run, and beside loops.
#[derive(Debug, Clone)]
pub struct Beside {
    pub alone: [Seen; 2],
    pub run: Seen,
    pub loops: Vec<Seen>,
}

impl Beside {
    /// All of it, in this order.
    pub fn measure(stage: &Stage) -> Result<Self, BenchError> {
        let before = alone(stage, "nothing")?;
        let run = beside_a_run(stage)?;
        let rate = run.rows_per_s.unwrap_or(0.0);
        let loops = LOOPS.iter().map(|(rows, share)| beside_a_loop(stage, *rows, rate * share));
        let loops = loops.collect::<Result<_, _>>()?;
        Ok(Self { alone: [before, alone(stage, "nothing, at the end")?], run, loops })
    }

    /// The application's own p99, in milliseconds.
    pub fn alone_ms(&self) -> f64 {
        self.alone.iter().map(|seen| seen.p99_ms).sum::<f64>() / self.alone.len() as f64
    }

    /// The run's rate by the highest at which a loop spares the application. `None` where none of them does.
    pub fn capacity_used(&self) -> Option<f64> {
        let kept = self.loops.iter().filter(|seen| seen.p99_ms <= self.alone_ms() * P99_TARGET);
        Some(self.run.rows_per_s? / kept.filter_map(|seen| seen.rows_per_s).reduce(f64::max)?)
    }

    /// The run's harm by that of the usual script at the same rate: what each adds to p99.
    pub fn harm(&self) -> Option<f64> {
        let added = |seen: &Seen| (seen.p99_ms - self.alone_ms()).max(0.0);
        let script = added(self.loops.first()?);
        (script > 0.0).then(|| added(&self.run) / script)
    }
}

fn alone(stage: &Stage, name: &str) -> Result<Seen, BenchError> {
    stage.fresh()?;
    let load = Load::start(stage, LOOK_S)?;
    let from = now();
    std::thread::sleep(Duration::from_secs(LOOK_S).saturating_sub(SETTLE));
    load.seen(name.into(), from, now(), None)
}

/// The run is stopped after a while; its plan is looked at too.
fn beside_a_run(stage: &Stage) -> Result<Seen, BenchError> {
    let url = stage.fresh()?;
    let load = Load::start(stage, RUN_S)?;
    let work = Work { name: "beside", statement: REPAIR, images: true, mode: Some(Mode::Stream), ..Work::default() };
    let pace = Pace { stop_after: Some(format!("{LOOK_S}s").parse().map_err(BenchError::new)?), ..Pace::default() };
    let from = now();
    let lap = stage.runtime()?.block_on(lap::mend_beside(&url, work, pace))?;
    let to = now();
    load.seen("pgmend with images, as it comes".into(), from, to, Some(lap.rows_per_s()))
}

fn beside_a_loop(stage: &Stage, rows: u32, rows_per_s: f64) -> Result<Seen, BenchError> {
    stage.fresh()?;
    let mut sql = stage.sql()?;
    sql.run(BY_HAND)?;
    let load = Load::start(stage, LOOK_S)?;
    let from = now();
    sql.run(&format!("call by_hand({rows}, {rows_per_s}, {})", LOOK_S - SETTLE.as_secs()))?;
    let to = now();
    let changed = sql.value("select count(*) from orders where region <> 'unknown'")?;
    let changed: f64 = changed.and_then(|n| n.parse().ok()).unwrap_or(0.0);
    let name = format!("a loop of {rows} rows at {rows_per_s:.0} rows/s");
    load.seen(name, from, to, Some(changed / (to - from)))
}

/// The application: pgbench, with a log of every transaction.
struct Load {
    child: Child,
    folder: TempDir,
}

impl Load {
    fn start(stage: &Stage, seconds: u64) -> Result<Self, BenchError> {
        let folder = TempDir::new()?;
        for (name, script) in [("read.sql", READ), ("write.sql", WRITE)] {
            std::fs::write(folder.path().join(name), script)?;
        }
        let (host, port, database) = stage.address();
        let child = Command::new(Binaries::find()?.program("pgbench"))
            .args(["--no-vacuum", "--log", "--protocol=prepared", "--file=read.sql@4", "--file=write.sql@1"])
            .args(["--host", &host, "--port", &port.to_string(), "--username", "postgres"])
            .args(["--client", &SESSIONS.to_string(), "--rate", &TRANSACTIONS_PER_S.to_string()])
            .args(["--time", &seconds.to_string(), "--define", &format!("rows={}", stage.rows), &database])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(SETTLE);
        Ok(Self { child, folder })
    }

    /// What it saw between two moments, in seconds of the epoch.
    fn seen(mut self, beside: String, from: f64, to: f64, rows_per_s: Option<f64>) -> Result<Seen, BenchError> {
        if !self.child.wait()?.success() {
            return Err(BenchError::new("pgbench failed"));
        }
        let mut took_ms = Vec::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgbench_log")) {
                continue;
            }
            took_ms.extend(std::fs::read_to_string(path)?.lines().filter_map(|line| transaction(line, from, to)));
        }
        took_ms.sort_by(f64::total_cmp);
        let rank = |share: f64| took_ms.get((took_ms.len() as f64 * share) as usize).copied().unwrap_or(0.0);
        let seen = Seen { beside, rows_per_s, transactions: took_ms.len(), p50_ms: rank(0.5), p99_ms: rank(0.99) };
        eprintln!(
            "beside {}: {:.0} rows/s, p50 {:.2} ms, p99 {:.2} ms",
            seen.beside,
            rows_per_s.unwrap_or(0.0),
            seen.p50_ms,
            seen.p99_ms
        );
        Ok(seen)
    }
}

/// Milliseconds of a transaction that ended between two moments: "client transaction time_us script epoch_s epoch_us …",
/// the wait for its turn included.
fn transaction(line: &str, from: f64, to: f64) -> Option<f64> {
    let fields: Vec<f64> = line.split(' ').map_while(|field| field.parse().ok()).collect();
    let [_, _, took_us, _, seconds, micros, ..] = fields[..] else { return None };
    let at = seconds + micros / 1e6;
    (from..=to).contains(&at).then_some(took_us / 1_000.0)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
