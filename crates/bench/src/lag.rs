//! A run beside a standby that replays slowly: how late it gets.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pgmend::{Engine, Event, Job, JobFile, Mode, Observer, PlanOptions, RunOptions};
use pgmend_testkit::{Sql, Standby};

use crate::error::BenchError;
use crate::lap::{self, Work};
use crate::stage::{REPAIR, Stage};

/// The standby replays for so long …
const REPLAYS: Duration = Duration::from_millis(20);
/// … and then rests for so long.
const RESTS: Duration = Duration::from_millis(180);
/// How often it is looked at how late it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the standby may take to be in step before it is slowed.
const IN_STEP: Duration = Duration::from_secs(600);

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Lagged {
    pub rows: u64,
    pub limit_s: u64,
    pub replays_ms: f64,
    pub of_ms: f64,
    pub looked_every_ms: f64,
    pub seconds: f64,
    /// The same run with no standby.
    pub alone_s: f64,
    pub held_s: f64,
    pub holds: usize,
    pub longest_batch_s: f64,
    /// How long the standby replays what the largest batch wrote, at the speed that it showed.
    pub batch_replayed_s: f64,
    pub most_s: f64,
}

/// Runs the repair, alone and beside a slow standby.
pub fn measure(stage: &Stage, limit_s: u64) -> Result<Lagged, BenchError> {
    let url = stage.fresh()?;
    let work = Work { name: "alone", statement: REPAIR, images: true, mode: Some(Mode::Stream), ..Work::default() };
    let (alone, _) = stage.runtime()?.block_on(lap::mend(&url, work, &PlanOptions::default(), &|| None))?;
    let url = stage.fresh()?;
    let standby = Standby::follow(stage.server())?;
    standby.start()?;
    let watch = Watch::start(stage, &standby)?;
    watch.wait_until_in_step()?;
    let brake = Brake::on(&standby)?;
    let told = Told::default();
    let ran = stage.runtime()?.block_on(run(&url, limit_s, &told));
    // Until all of it is replayed, it gets later.
    let caught_up = watch.wait_until_in_step();
    drop(brake);
    let seen = watch.end()?;
    let seconds = ran?;
    caught_up?;
    let told = told.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let lagged = Lagged {
        rows: stage.rows,
        limit_s,
        replays_ms: REPLAYS.as_secs_f64() * 1_000.0,
        of_ms: (REPLAYS + RESTS).as_secs_f64() * 1_000.0,
        looked_every_ms: LOOK_EVERY.as_secs_f64() * 1_000.0,
        seconds,
        alone_s: alone.seconds,
        held_s: told.held_s,
        holds: told.holds,
        longest_batch_s: told.longest_ms / 1_000.0,
        batch_replayed_s: told.share_of_largest() * seen.busy_s(),
        most_s: seen.most_s(),
    };
    eprintln!(
        "lag: {:.1} s at most of {limit_s} s, {} holds, {:.1} s of {:.1} s held",
        lagged.most_s, lagged.holds, lagged.held_s, lagged.seconds
    );
    Ok(lagged)
}

async fn run(url: &str, limit_s: u64, told: &Told) -> Result<f64, BenchError> {
    let leave = limit_s as f64 / 2.0;
    // Whoever looks at the lag works beside the run, and is no application.
    let limits = format!(
        "mode = \"stream\"\n[throttle]\nfull_pace = \"the lag is watched\"\n\
         [throttle.signal.replay_lag]\nenter = {limit_s}\nleave = {leave}\n"
    );
    let file = JobFile::parse(&limits).map_err(|refusal| BenchError::new(refusal.to_string()))?;
    let job = Job { file, ..Job::from_statement("lag", REPAIR) };
    let mut engine = Engine::connect(Some(url)).await?;
    let began = Instant::now();
    engine.run(&job, &RunOptions::default(), &mut told.observer()).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// What the run told.
#[derive(Debug, Clone, Default)]
struct Tale {
    rows: i64,
    most_rows: i64,
    longest_ms: f64,
    held_s: f64,
    holds: usize,
}

impl Tale {
    fn share_of_largest(&self) -> f64 {
        self.most_rows as f64 / self.rows.max(1) as f64
    }
}

#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Tale>>);

impl Told {
    fn observer(&self) -> Observer {
        let told = Arc::clone(&self.0);
        Observer::new(move |event| {
            let mut tale = told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Event::Batch { rows, took_ms, .. } = event {
                tale.rows += rows;
                tale.most_rows = tale.most_rows.max(*rows);
                tale.longest_ms = tale.longest_ms.max(*took_ms);
            } else if let Event::Released { held_s } = event {
                tale.held_s += held_s;
                tale.holds += 1;
            }
        })
    }
}

/// Stops a standby's replay again and again.
struct Brake {
    child: Child,
    replaying: String,
}

impl Brake {
    fn on(standby: &Standby) -> Result<Self, BenchError> {
        let mut sql = Sql::connect(&standby.url("postgres"))?;
        let pid = sql.value("select pid from pg_stat_activity where backend_type = 'startup'")?;
        let replaying = pid.ok_or_else(|| BenchError::new("the standby replays nothing"))?;
        let script = format!(
            "while kill -STOP {replaying}; do sleep {}; kill -CONT {replaying}; sleep {}; done",
            RESTS.as_secs_f64(),
            REPLAYS.as_secs_f64()
        );
        let child = Command::new("sh").arg("-c").arg(script).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, replaying })
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        let _gone = self.child.kill().and_then(|()| self.child.wait());
        let _goes_on = Command::new("kill").args(["-CONT", &self.replaying]).status();
    }
}

/// Where the primary was, and how far the standby, in bytes, at so many seconds.
type Look = (f64, f64, f64);

/// Looks at both until it is told to end.
struct Watch {
    looks: Arc<Mutex<Vec<Look>>>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<(), BenchError>>,
}

impl Watch {
    fn start(stage: &Stage, standby: &Standby) -> Result<Self, BenchError> {
        let (mut primary, mut replica) = (stage.sql()?, Sql::connect(&standby.url("postgres"))?);
        let looks = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (kept, ends) = (Arc::clone(&looks), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            while !ends.load(Ordering::Relaxed) {
                let replayed = bytes(&mut replica, "pg_last_wal_replay_lsn()")?;
                let written = bytes(&mut primary, "pg_current_wal_flush_lsn()")?;
                let look = (began.elapsed().as_secs_f64(), written, replayed);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                sleep(LOOK_EVERY);
            }
            Ok(())
        });
        Ok(Self { looks, over, thread })
    }

    /// The standby has replayed what was written when this was asked.
    fn wait_until_in_step(&self) -> Result<(), BenchError> {
        let began = Instant::now();
        let mut wanted = None;
        while began.elapsed() < IN_STEP && !self.thread.is_finished() {
            // The look that comes after this was asked.
            sleep(LOOK_EVERY * 2);
            let last = self.looks.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
            if last.is_some_and(|(_, written, replayed)| replayed >= *wanted.get_or_insert(written)) {
                return Ok(());
            }
        }
        Err(BenchError::new("the standby did not catch up"))
    }

    fn end(self) -> Result<Seen, BenchError> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| BenchError::new("whoever watched the standby is gone"))??;
        Ok(Seen(self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

fn bytes(sql: &mut Sql, position: &str) -> Result<f64, BenchError> {
    let found = sql.value(&format!("select pg_wal_lsn_diff({position}, '0/0')::float8"))?;
    found.and_then(|n| n.parse().ok()).ok_or_else(|| BenchError::new(format!("{position} is not told")))
}

/// All looks, in order.
struct Seen(Vec<Look>);

impl Seen {
    /// The age, at its oldest, of the first position of the primary that the standby had not replayed.
    fn most_s(&self) -> f64 {
        let mut left = 0;
        let mut most: f64 = 0.0;
        for (at, written, replayed) in &self.0 {
            while self.0.get(left).is_some_and(|(_, then, _)| then <= replayed) {
                left += 1;
            }
            if written > replayed
                && let Some((since, _, _)) = self.0.get(left)
            {
                most = most.max(at - since);
            }
        }
        most
    }

    /// Seconds in which there was something to replay.
    fn busy_s(&self) -> f64 {
        let pairs = self.0.windows(2).filter_map(|pair| match pair {
            [(from, written, replayed), (to, _, _)] if written > replayed => Some(to - from),
            _ => None,
        });
        pairs.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn a_standby_is_as_late_as_the_first_position_that_it_lacks_is_old() {
        let seen = Seen(vec![
            (0.0, 100.0, 100.0),
            (1.0, 200.0, 100.0),
            (2.0, 300.0, 100.0),
            (3.0, 300.0, 200.0),
            (4.0, 300.0, 300.0),
        ]);
        assert_eq!((seen.most_s(), seen.busy_s()), (1.0, 3.0));
    }
}
