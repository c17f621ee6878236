//! A run beside an application: what it does to the application's slowest transactions, against loops that keep to
//! a fixed rate.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgmend::{Mode, PlanOptions};
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
/// How long the application is looked at alone, and beside a loop.
const LOOK_S: u64 = 25;
/// How long it is there for a run.
const RUN_S: u64 = 120;
/// Rows that the loop by hand takes at a time.
const SCRIPT_ROWS: u32 = 10_000;
/// Rates at which the loop is tried, as shares of the run's.
const RATES: [f64; 5] = [1.25, 1.0, 0.75, 0.5, 0.25];
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

/// All of it: alone, beside a run, beside the loop at the run's rate, and at others.
pub fn all(stage: &Stage) -> Result<Vec<Seen>, BenchError> {
    let mut seen = vec![alone(stage)?];
    let run = beside_a_run(stage)?;
    let rate = run.rows_per_s.unwrap_or(0.0);
    seen.push(run);
    for share in RATES {
        seen.push(beside_a_loop(stage, rate * share)?);
    }
    Ok(seen)
}

/// The share of the hand-tuned capacity that the run used: its rate by the highest at which the loop keeps the target.
/// `None` where it does at no rate.
pub fn capacity_used(seen: &[Seen]) -> Option<f64> {
    let (alone, run, loops) = (seen.first()?, seen.get(1)?, seen.get(2..)?);
    let kept = loops.iter().filter(|s| s.p99_ms <= alone.p99_ms * P99_TARGET).filter_map(|s| s.rows_per_s);
    Some(run.rows_per_s? / kept.reduce(f64::max)?)
}

/// The run's harm by that of the loop at the same rate: what each adds to p99.
pub fn harm(seen: &[Seen]) -> Option<f64> {
    let (alone, run, same) = (seen.first()?, seen.get(1)?, seen.get(3)?);
    let added = |seen: &Seen| (seen.p99_ms - alone.p99_ms).max(0.0);
    (added(same) > 0.0).then(|| added(run) / added(same))
}

fn alone(stage: &Stage) -> Result<Seen, BenchError> {
    stage.fresh()?;
    let load = Load::start(stage, LOOK_S)?;
    let from = now();
    std::thread::sleep(Duration::from_secs(LOOK_S).saturating_sub(SETTLE));
    load.seen("nothing".into(), from, now(), None)
}

fn beside_a_run(stage: &Stage) -> Result<Seen, BenchError> {
    let url = stage.fresh()?;
    let load = Load::start(stage, RUN_S)?;
    let work = Work { name: "beside", statement: REPAIR, images: true, mode: Some(Mode::Stream), ..Work::default() };
    let from = now();
    let (lap, _) = stage.runtime()?.block_on(lap::mend_beside(&url, work, &PlanOptions::default()))?;
    let to = now();
    load.seen("pgmend with images, as it comes".into(), from, to, Some(lap.rows as f64 / (to - from)))
}

fn beside_a_loop(stage: &Stage, rows_per_s: f64) -> Result<Seen, BenchError> {
    stage.fresh()?;
    let mut sql = stage.sql()?;
    sql.run(BY_HAND)?;
    let load = Load::start(stage, LOOK_S)?;
    let from = now();
    sql.run(&format!("call by_hand({SCRIPT_ROWS}, {rows_per_s}, {})", LOOK_S - SETTLE.as_secs()))?;
    let to = now();
    let changed = sql.value("select count(*) from orders where region <> 'unknown'")?;
    let changed: f64 = changed.and_then(|n| n.parse().ok()).unwrap_or(0.0);
    let name = format!("a loop of {SCRIPT_ROWS} rows at {rows_per_s:.0} rows/s");
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
