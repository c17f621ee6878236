//! One measured execution: a plain statement, or a job of pgmend.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pgmend::{Engine, Event, Job, Mode, Observer, Plan, PlanOptions, RunOptions, UndoOptions};

use crate::error::BenchError;
use crate::stage::Stage;

/// What one execution took.
#[derive(Debug, Clone, Default)]
pub struct Lap {
    pub rows: i64,
    /// All of it: for pgmend without the plan, unless the plan is part of the work (freeze, undo).
    pub seconds: f64,
    pub plan_seconds: Option<f64>,
    /// The part of the plan that computed the change set.
    pub freeze_seconds: Option<f64>,
    /// Processor time of the server and of this process, over the same span.
    pub cpu_seconds: Option<f64>,
    pub plan_cpu_seconds: Option<f64>,
    pub batches: Option<i64>,
    /// Rows a second of the last tenth of the batches, as a share of the first tenth's.
    pub last_tenth: Option<f64>,
}

impl Lap {
    pub fn rows_per_s(&self) -> f64 {
        self.rows as f64 / self.seconds
    }

    /// The same without what a plan reads for people (counts, samples, a breakdown), which a streamed plan reads as well and
    /// outside its lap: what is left is computing the change set, and the run.
    pub fn without_reading(&self) -> Option<Self> {
        let reading = self.plan_seconds? - self.freeze_seconds?;
        Some(Self { seconds: self.seconds - reading, cpu_seconds: None, ..self.clone() })
    }

    pub fn rows_per_cpu_s(&self) -> Option<f64> {
        self.cpu_seconds.map(|seconds| self.rows as f64 / seconds)
    }
}

/// A job over the bench's table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work<'a> {
    pub name: &'a str,
    pub statement: &'a str,
    pub images: bool,
    pub mode: Option<Mode>,
    pub batch_rows: Option<u32>,
    pub workers: Option<u32>,
}

impl Work<'_> {
    pub fn job(&self) -> Job {
        let mut job = Job::from_statement(self.name, self.statement);
        job.file.mode = self.mode;
        job.file.limits.batch_rows = self.batch_rows;
        job.file.limits.workers = self.workers;
        job.file.images.keep = self.images;
        if !self.images {
            job.file.images.reason = Some("measured without".into());
        }
        job
    }
}

/// What tells the processor time used so far.
pub type Meter<'a> = &'a dyn Fn() -> Option<f64>;

/// Takes the time by the clock and by the processor.
struct Watch<'a> {
    meter: Meter<'a>,
    began: Instant,
    cpu: Option<f64>,
}

impl<'a> Watch<'a> {
    fn start(meter: Meter<'a>) -> Self {
        Self { meter, began: Instant::now(), cpu: meter() }
    }

    fn stop(&self) -> (f64, Option<f64>) {
        let seconds = self.began.elapsed().as_secs_f64();
        (seconds, (self.meter)().zip(self.cpu).map(|(now, then)| now - then))
    }
}

/// Runs SQL and counts the rows with another statement, outside the clock.
pub fn plain(stage: &Stage, statement: &str, rows: i64) -> Result<Lap, BenchError> {
    let mut sql = stage.sql()?;
    let meter = || stage.cpu_seconds();
    let watch = Watch::start(&meter);
    sql.run(statement)?;
    let (seconds, cpu_seconds) = watch.stop();
    Ok(Lap { rows, seconds, cpu_seconds, ..Lap::default() })
}

/// When each batch ended, with its rows.
#[derive(Debug, Clone, Default)]
struct Stamps(Arc<Mutex<Vec<(Instant, i64)>>>);

impl Stamps {
    fn observer(&self) -> Observer {
        let stamps = self.clone();
        Observer::new(move |event| {
            if let Event::Started { .. } = event {
                stamps.push(0);
            } else if let Event::Batch { rows, .. } = event {
                stamps.push(*rows);
            }
        })
    }

    fn push(&self, rows: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), rows));
    }

    fn last_tenth(&self) -> Option<f64> {
        let stamps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tenth = stamps.len().saturating_sub(1) / 10;
        let speed = |part: &[(Instant, i64)]| {
            let (first, rest) = part.split_first()?;
            let rows: i64 = rest.iter().map(|(_, rows)| rows).sum();
            Some(rows as f64 / rest.last()?.0.duration_since(first.0).as_secs_f64())
        };
        if tenth == 0 {
            return None;
        }
        Some(speed(&stamps[stamps.len() - 1 - tenth..])? / speed(&stamps[..=tenth])?)
    }
}

/// Plans and runs a job; gives its plan too.
pub async fn mend(
    url: &str,
    work: Work<'_>,
    options: &PlanOptions,
    meter: Meter<'_>,
) -> Result<(Lap, Plan), BenchError> {
    let mut engine = Engine::connect(Some(url)).await?;
    let stamps = Stamps::default();
    let watch = Watch::start(meter);
    let planned = engine.plan(&work.job(), options).await?;
    let (plan_seconds, plan_cpu_seconds) = watch.stop();
    let again = RunOptions { again: Some("measured again".into()), ..RunOptions::default() };
    let watch = Watch::start(meter);
    let outcome = engine.run_plan(&planned.plan.plan_id.to_string(), &again, &mut stamps.observer()).await?;
    let (seconds, cpu_seconds) = watch.stop();
    let lap = Lap {
        rows: outcome.changed_rows,
        seconds,
        cpu_seconds,
        plan_seconds: Some(plan_seconds),
        freeze_seconds: freeze_seconds(&planned.plan),
        plan_cpu_seconds,
        batches: Some(outcome.batches),
        last_tenth: stamps.last_tenth(),
    };
    let plan = planned.plan;
    let promised = plan.counts.changed_rows.value;
    if lap.rows != promised {
        return Err(BenchError::new(format!("{}: {promised} rows planned, {} changed", work.name, lap.rows)));
    }
    Ok((lap, plan))
}

/// Undoes the latest run of a job, its plan included.
pub async fn undo(url: &str, job: &str, meter: Meter<'_>) -> Result<Lap, BenchError> {
    let mut engine = Engine::connect(Some(url)).await?;
    let stamps = Stamps::default();
    let watch = Watch::start(meter);
    let planned = engine.plan_undo(job, &UndoOptions::default()).await?;
    let (plan_seconds, plan_cpu_seconds) = watch.stop();
    let id = planned.plan.plan_id.to_string();
    let outcome = engine.run_plan(&id, &RunOptions::default(), &mut stamps.observer()).await?;
    let (seconds, cpu_seconds) = watch.stop();
    if outcome.conflict_rows != 0 {
        return Err(BenchError::new(format!("the undo of {job} found {} conflicts", outcome.conflict_rows)));
    }
    Ok(Lap {
        rows: outcome.changed_rows,
        seconds,
        cpu_seconds,
        plan_seconds: Some(plan_seconds),
        freeze_seconds: freeze_seconds(&planned.plan),
        plan_cpu_seconds,
        batches: Some(outcome.batches),
        last_tenth: stamps.last_tenth(),
    })
}

fn freeze_seconds(plan: &Plan) -> Option<f64> {
    plan.change_set.as_ref().map(|change_set| change_set.took_ms / 1_000.0)
}
