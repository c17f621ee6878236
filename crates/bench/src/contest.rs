//! The contestants, in turn, each on a fresh copy of the table.

use std::time::Duration;

use pgmend::{Mode, PlanOptions};
use pgmend_testkit::FaultProxy;

use crate::arguments::Arguments;
use crate::error::BenchError;
use crate::lap::{self, Lap, Work};
use crate::loops::BY_HAND;
use crate::stage::{DELETE, INSERT, RANKED, REPAIR, Shape, Stage};

/// The one big UPDATE: what the others are measured against.
pub const BASE: &str = "one UPDATE";
pub const LOOP: &str = "loop: PL/pgSQL with COMMIT, 5,000 rows a batch";
pub const STREAM_BARE: &str = "stream without images";
pub const STREAM: &str = "stream with images";
pub const UNDO: &str = "undo: change set and run";
pub const UNDO_PLANNED: &str = "undo, its whole plan included";
pub const TWO: &str = "two workers: stream with images";
pub const FIXED: &str = "5,000 rows a batch: stream with images";
pub const DISTANT: &str = "10 ms away: stream with images";
pub const FREEZE: &str = "freeze + apply: change set and run";
pub const FREEZE_PLANNED: &str = "freeze + apply, its whole plan included";
pub const ONE_RANKED: &str = "ranked: one UPDATE from window functions";
pub const MEND_RANKED: &str = "ranked: freeze + apply, change set and run";
pub const ONE_DELETE: &str = "delete: one DELETE of a quarter of the rows";
pub const MEND_DELETE: &str = "delete: pgmend with images";
pub const ONE_INSERT: &str = "insert: one INSERT … SELECT of a quarter of the rows";
pub const MEND_INSERT: &str = "insert: pgmend with images, its plan included";

/// Heats of a round: contestants that share a copy of the table, in order. The one big update comes again and again,
/// since a shared machine is twice as fast in one minute as in the next.
const HEATS: [&[&str]; 16] = [
    &[BASE],
    &[STREAM_BARE],
    &[STREAM, UNDO],
    &[BASE],
    &[TWO],
    &[LOOP],
    &[BASE],
    &[FREEZE],
    &[FIXED],
    &[DISTANT],
    &[ONE_RANKED],
    &[MEND_RANKED],
    &[ONE_DELETE],
    &[MEND_DELETE],
    &[ONE_INSERT],
    &[MEND_INSERT],
];

/// Half of a round trip to a server in another place.
const ONE_WAY: Duration = Duration::from_millis(5);

/// All laps so far, in the order of time.
#[derive(Debug, Default)]
pub struct Contest {
    laps: Vec<(&'static str, Lap)>,
}

impl Contest {
    /// One alternation. Each round begins with another heat, so that nobody always follows the same one.
    pub fn round(&mut self, stage: &Stage, arguments: &Arguments, round: usize) -> Result<(), BenchError> {
        for heat in 0..HEATS.len() {
            let heat = HEATS[(heat + round * 3) % HEATS.len()];
            // The other table is there to show one thing: what its index does to a loop.
            let wanted = |name: &&str| match stage.shape {
                Shape::Scattered => [BASE, LOOP, STREAM_BARE].contains(name),
                Shape::Ordered | Shape::Narrow => *name == BASE || arguments.wants(name),
            };
            if !heat.iter().any(wanted) {
                continue;
            }
            let url = stage.fresh()?;
            for name in heat.iter().copied().filter(|name| stage.shape != Shape::Scattered || wanted(name)) {
                let lap = measure(stage, &url, name)?;
                self.record(round, name, lap);
            }
        }
        Ok(())
    }

    /// Takes note of a lap, and tells of it.
    pub fn record(&mut self, round: usize, name: &'static str, lap: Lap) {
        eprintln!(
            "round {}: {name}: {:.0} rows/s, {:.1} s, {:.1} s of processor, plan {:.1} s, {} batches",
            round + 1,
            lap.rows_per_s(),
            lap.seconds,
            lap.cpu_seconds.unwrap_or(0.0),
            lap.plan_seconds.unwrap_or(0.0),
            lap.batches.unwrap_or(1)
        );
        let planned = [(FREEZE, FREEZE_PLANNED), (UNDO, UNDO_PLANNED)].into_iter().find(|(of, _)| *of == name);
        match (planned, lap.without_reading()) {
            (Some((_, planned)), Some(bare)) => self.laps.extend([(planned, lap), (name, bare)]),
            _ => self.laps.push((name, lap)),
        }
    }

    /// Rows a second of each lap as a share of another's: of the mean of those next to it, before and after.
    pub fn shares(&self, name: &str, base: &str) -> Vec<f64> {
        self.compared(name, base, |lap| Some(lap.rows_per_s()))
    }

    /// The same by processor time.
    pub fn cpu_shares(&self, name: &str, base: &str) -> Vec<f64> {
        self.compared(name, base, Lap::rows_per_cpu_s)
    }

    fn compared(&self, name: &str, base: &str, figure: impl Fn(&Lap) -> Option<f64>) -> Vec<f64> {
        let measured = |(lap_name, lap): &(&str, Lap)| if *lap_name == base { figure(lap) } else { None };
        let share = |(at, (lap_name, lap)): (usize, &(&'static str, Lap))| {
            let (before, after) = self.laps.split_at(at);
            let beside = before.iter().rev().find_map(measured).into_iter().chain(after.iter().find_map(measured));
            let beside: Vec<f64> = beside.collect();
            if *lap_name != name || beside.is_empty() {
                return None;
            }
            Some(figure(lap)? * beside.len() as f64 / beside.iter().sum::<f64>())
        };
        self.laps.iter().enumerate().filter_map(share).collect()
    }

    /// A figure of each lap.
    pub fn figures(&self, name: &str, figure: impl Fn(&Lap) -> Option<f64>) -> Vec<f64> {
        self.laps.iter().filter(|(lap_name, _)| *lap_name == name).filter_map(|(_, lap)| figure(lap)).collect()
    }
}

/// The middle value; of an even number the mean of the two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

/// One lap of a contestant, on the copy at `url`.
pub fn measure(stage: &Stage, url: &str, name: &'static str) -> Result<Lap, BenchError> {
    let (rows, quarter) = (stage.rows as i64, (stage.rows / 4) as i64);
    let stream = Work { name: "repair", statement: REPAIR, images: true, mode: Some(Mode::Stream), ..Work::default() };
    let meter = || stage.cpu_seconds();
    let mend = |work: Work<'_>| -> Result<Lap, BenchError> {
        let (lap, _) = stage.runtime()?.block_on(lap::mend(url, work, &PlanOptions::default(), &meter))?;
        Ok(lap)
    };
    // A frozen plan computes the changes, which the others do while they run.
    let with_plan = |lap: Lap| Lap {
        seconds: lap.seconds + lap.plan_seconds.unwrap_or(0.0),
        cpu_seconds: lap.cpu_seconds.zip(lap.plan_cpu_seconds).map(|(run, plan)| run + plan),
        ..lap
    };
    match name {
        BASE => lap::plain(stage, REPAIR, rows),
        LOOP => {
            stage.sql()?.run(BY_HAND)?;
            lap::plain(stage, "call by_hand(5000)", rows)
        }
        STREAM_BARE => mend(Work { images: false, ..stream }),
        STREAM => mend(stream),
        TWO => mend(Work { workers: Some(2), ..stream }),
        FIXED => mend(Work { batch_rows: Some(5_000), ..stream }),
        DISTANT => {
            let proxy = FaultProxy::start(url)?;
            proxy.delay(ONE_WAY, ONE_WAY);
            let runtime = stage.runtime()?;
            Ok(runtime.block_on(lap::mend(&proxy.url(), stream, &PlanOptions::default(), &meter))?.0)
        }
        FREEZE => mend(Work { mode: Some(Mode::Freeze), ..stream }).map(with_plan),
        UNDO => {
            // As for the others: a table at rest.
            let mut sql = stage.sql()?;
            sql.run("vacuum analyze orders")?;
            sql.run("checkpoint")?;
            stage.runtime()?.block_on(lap::undo(url, "repair", &meter))
        }
        ONE_RANKED => lap::plain(stage, RANKED, rows),
        MEND_RANKED => mend(Work { statement: RANKED, mode: None, ..stream })
            .map(with_plan)
            .map(|lap| lap.without_reading().unwrap_or(lap)),
        ONE_DELETE => lap::plain(stage, DELETE, quarter),
        MEND_DELETE => mend(Work { statement: DELETE, mode: None, ..stream }),
        ONE_INSERT => lap::plain(stage, INSERT, quarter),
        MEND_INSERT => mend(Work { statement: INSERT, mode: None, ..stream }).map(with_plan),
        other => Err(BenchError::new(format!("nobody is called {other}"))),
    }
}
