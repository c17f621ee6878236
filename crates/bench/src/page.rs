//! The page that the measurements make: ratios, with the targets beside them.

use std::fmt::Write as _;

use crate::arguments::Arguments;
use crate::beside::{P99_TARGET, Seen, capacity_used, harm};
use crate::contest::{
    BASE, Contest, DISTANT, FIXED, FREEZE, LOOP, MEND_DELETE, MEND_INSERT, ONE_DELETE, ONE_INSERT, STREAM, STREAM_BARE,
    UNDO, median,
};
use crate::error::BenchError;
use crate::forecast::Forecast;
use crate::lap::Lap;
use crate::memory::Memory;
use crate::stage::{REPAIR, Stage};

/// Rows a second against the one big UPDATE, at least.
const SPEED_TARGETS: [(&str, Option<f64>); 6] = [
    (LOOP, None),
    (STREAM_BARE, Some(0.95)),
    (STREAM, Some(0.85)),
    (FIXED, None),
    (FREEZE, Some(0.80)),
    (UNDO, Some(0.80)),
];
/// A plan with exact counts, as a share of the run's time, at most.
const PLAN_TARGET: f64 = 0.15;
/// The last tenth of the batches against the first, at least.
const TENTH_TARGET: f64 = 0.9;
const MEMORY_TARGET_MIB: f64 = 64.0;
const FORECAST_TARGET: f64 = 0.30;

/// The page so far.
pub struct Page {
    title: String,
    contest: String,
    scattered: String,
    beside: String,
    forecasts: String,
    memory: String,
    /// The rows of the README's table: of the contest, the forecasts, the memory.
    short: [String; 3],
    most_mib: f64,
}

impl Page {
    pub fn new(arguments: &Arguments) -> Self {
        let title = format!(
            "# Measurements\n\nMade by `cargo run --release -p pgmend-bench`, {} rounds. Only the ratios mean something: \
             each compares a lap with those of the plain statement next before and after it, on the same rows, on the same server. What lies behind them, and behind \
             what is missed: [what a batch costs](design/batch-speed.md).\n",
            arguments.rounds
        );
        Self {
            title,
            contest: String::new(),
            scattered: String::new(),
            beside: String::new(),
            forecasts: String::new(),
            memory: String::new(),
            short: <[String; 3]>::default(),
            most_mib: 0.0,
        }
    }

    /// What was measured on.
    pub fn describe(&mut self, stage: &Stage) -> Result<(), BenchError> {
        let mib = |bytes: i64| bytes / 1_048_576;
        let cores = std::thread::available_parallelism()?;
        let _ = write!(
            self.title,
            "\nPostgreSQL {}, {cores} cores, fsync on. {} rows in {} MiB, {} MiB with three indexes, none of them on the changed \
             column. Every lap starts from a fresh copy, vacuumed, analysed and written to disk (the undo: from the run's \
             result, treated likewise). A lap of pgmend is the whole run with its checks at the end; batches are adaptive \
             unless said.\n\n```sql\n{REPAIR}\n```\n",
            stage.version(),
            stage.rows,
            mib(stage.heap_bytes),
            mib(stage.all_bytes),
        );
        Ok(())
    }

    pub fn contest(&mut self, contest: &Contest) {
        let mut text = String::from(
            "\n## Speed\n\n| rows/s against the one big UPDATE | by the clock | target | by processor time |\n|---|---|---|---|\n",
        );
        for (name, target) in SPEED_TARGETS {
            text.extend(raced(name, name, BASE, contest, target));
        }
        text.extend(raced(&format!("{DISTANT}, against {STREAM} here"), DISTANT, STREAM, contest, Some(0.85)));
        for (name, base) in [(MEND_DELETE, ONE_DELETE), (MEND_INSERT, ONE_INSERT)] {
            text.extend(raced(&format!("{name}, against the one statement"), name, base, contest, None));
        }
        let base = contest.figures(BASE, |lap| Some(lap.rows_per_s()));
        if let Some(speed) = median(base) {
            let _ = write!(text, "\nThe one big UPDATE: {speed:.0} rows/s.\n");
        }
        text.push_str("\n| | measured | target |\n|---|---|---|\n");
        let plan = contest.figures(STREAM, |lap| lap.plan_seconds.map(|plan| plan / lap.seconds));
        text.extend(line("plan with exact counts, share of the run's time", plan, Some(PLAN_TARGET), false));
        for name in [STREAM_BARE, STREAM, FREEZE, UNDO] {
            let tenths = contest.figures(name, |lap: &Lap| lap.last_tenth);
            text.extend(line(
                &format!("last tenth of the batches against the first, {name}"),
                tenths,
                Some(TENTH_TARGET),
                true,
            ));
        }
        self.contest = text;
        let speeds = [(STREAM_BARE, 0.95), (STREAM, 0.85), (FREEZE, 0.80), (UNDO, 0.80)].into_iter().filter_map(
            |(name, target)| {
                let share = median(contest.shares(name, BASE))?;
                Some(format!("| {name}, rows/s against the one big UPDATE | {share:.2} | ≥ {target:.2} |\n"))
            },
        );
        let plan = median(contest.figures(STREAM, |lap| lap.plan_seconds.map(|plan| plan / lap.seconds)));
        let plan = plan.map(|share| {
            format!("| plan with exact counts, share of the run's time | {share:.2} | ≤ {PLAN_TARGET:.2} |\n")
        });
        self.short[0] = speeds.chain(plan).collect();
    }

    /// The table with an index in random order.
    pub fn scattered(&mut self, contest: &Contest) {
        let mut text = String::from(
            "\n## With an index in random order\n\nThe same table, but its second index is over `customer_id`, whose values come \
             in no order. Once a batch is committed, its dead entries lie scattered over the whole of that index, and each of its \
             pages that fills up is cleaned first (bottom-up deletion, PostgreSQL 14 and later): processor time that the one big \
             UPDATE does not spend, since nothing of it is dead before its end (its index is the larger afterwards). A loop by \
             hand pays the same.\n\n| rows/s against the one big UPDATE | by the clock | target | by processor time |\n|---|---|---|---|\n",
        );
        for name in [LOOP, STREAM_BARE] {
            text.extend(raced(name, name, BASE, contest, None));
        }
        text.extend(raced(&format!("{STREAM_BARE}, against the loop by hand"), STREAM_BARE, LOOP, contest, None));
        self.scattered = text;
    }

    /// The application beside a run.
    pub fn beside(&mut self, seen: &[Seen]) {
        let mut text = String::from(
            "\n## Beside an application\n\npgbench reads four rows for each that it writes, anywhere in the same table, 300 transactions \
             a second in 8 sessions; the time of a transaction includes its wait for its turn.\n\n\
             | beside | rows/s | transactions | p50 | p99 | p99 against alone |\n|---|---|---|---|---|---|\n",
        );
        let Some(alone) = seen.first() else { return };
        for s in seen {
            let rows = s.rows_per_s.map_or(String::new(), |rows| format!("{rows:.0}"));
            let ratio = s.p99_ms / alone.p99_ms;
            let Seen { beside, transactions, p50_ms, p99_ms, .. } = s;
            let _ =
                writeln!(text, "| {beside} | {rows} | {transactions} | {p50_ms:.2} ms | {p99_ms:.2} ms | {ratio:.2} |");
        }
        text.push_str("\n| | measured | target |\n|---|---|---|\n");
        let p99 = seen.get(1).map(|run| run.p99_ms / alone.p99_ms).into_iter().collect();
        let p99 = line("the application's p99 beside a run, against alone", p99, Some(P99_TARGET), false);
        let used = capacity_used(seen).into_iter().collect();
        let used = line("rows/s against the fastest loop that keeps that p99", used, Some(0.80), true);
        let harm = line(
            "what the run adds to p99, against the loop at its rate",
            harm(seen).into_iter().collect(),
            Some(0.50),
            false,
        );
        text.extend([p99, used, harm].into_iter().flatten());
        self.beside = text;
    }

    pub fn forecasts(&mut self, forecasts: &[Forecast]) {
        let mut text = format!(
            "\n## What the plan says and what comes\n\nAfter a rehearsal of three batches. The duration is to be within \
             ± {:.0} %, the rows exact.\n\n| run | rows planned | changed | planned | took | off by | |\n|---|---|---|---|---|---|---|\n",
            FORECAST_TARGET * 100.0
        );
        for f in forecasts {
            let off = f.planned_s / f.took_s - 1.0;
            let good = off.abs() <= FORECAST_TARGET && f.planned_rows == f.changed_rows;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.1} s | {:.1} s | {:+.0} % | {} |",
                f.name,
                f.planned_rows,
                f.changed_rows,
                f.planned_s,
                f.took_s,
                off * 100.0,
                verdict(good)
            );
        }
        if let Some(f) = forecasts.first() {
            let _ = write!(text, "\nBasis: {}.\n", f.basis);
        }
        self.forecasts = text;
        let within = |f: &&Forecast| (f.planned_s / f.took_s - 1.0).abs() <= FORECAST_TARGET;
        let (good, all) = (forecasts.iter().filter(within).count(), forecasts.len());
        self.short[1] =
            format!("| durations predicted within ± 30 % after a rehearsal | {good} of {all} | {all} of {all} |\n");
    }

    pub fn memory(&mut self, rows: u64, found: &[Memory]) {
        if self.memory.is_empty() {
            let head = format!(
                "\n## Memory\n\nThe highest resident memory of a process that plans and runs; target {MEMORY_TARGET_MIB} MiB.\n\n\
                 | rows of the table | scenario | rows changed | MiB | |\n|---|---|---|---|---|\n"
            );
            self.memory.push_str(&head);
        }
        for m in found {
            let good = verdict(m.mib <= MEMORY_TARGET_MIB);
            self.most_mib = self.most_mib.max(m.mib);
            let _ = writeln!(self.memory, "| {rows} | {} | {} | {:.1} | {good} |", m.scenario, m.changed_rows, m.mib);
        }
        self.short[2] =
            format!("| most resident memory of pgmend, MiB | {:.0} | ≤ {MEMORY_TARGET_MIB:.0} |\n", self.most_mib);
    }

    pub fn text(&self) -> String {
        let short = format!(
            "\n<!-- README: begin -->\n| | measured | target |\n|---|---|---|\n{}<!-- README: end -->\n",
            self.short.concat()
        );
        let parts = [&self.title, &short, &self.contest, &self.beside, &self.scattered, &self.forecasts, &self.memory];
        parts.map(String::as_str).concat()
    }

    pub fn write(&self, arguments: &Arguments) -> Result<(), BenchError> {
        if let Some(path) = &arguments.output {
            std::fs::write(path, self.text())?;
        }
        Ok(())
    }
}

/// One contestant: by the clock with its target, and by processor time.
fn raced(title: &str, name: &str, base: &str, contest: &Contest, target: Option<f64>) -> Option<String> {
    let clock = line(title, contest.shares(name, base), target, true)?;
    let cpu = median(contest.cpu_shares(name, base)).map_or(String::new(), |share| format!("{share:.2}"));
    Some(format!("{} {cpu} |\n", clock.trim_end()))
}

/// One row of a table: the median, how far the laps lie apart, the target and whether it is met.
fn line(name: &str, values: Vec<f64>, target: Option<f64>, at_least: bool) -> Option<String> {
    let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
    let middle = median(values)?;
    let target = target.map_or(String::new(), |target| {
        let good = if at_least { middle >= target } else { middle <= target };
        format!("{} {target:.2} {}", if at_least { "≥" } else { "≤" }, verdict(good))
    });
    Some(format!("| {name} | **{middle:.2}** ({low:.2} to {high:.2}) | {target} |\n"))
}

fn verdict(good: bool) -> &'static str {
    if good { "met" } else { "MISSED" }
}
