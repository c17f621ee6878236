//! The worker: drives one run to its end, one batch and one transaction at a time.

use std::time::{Duration, Instant};

use pgmend_core::dead_letters::{APART_ROWS, DeadLetters};
use pgmend_core::id::RunId;
use pgmend_core::mask::Mask;
use pgmend_core::plan::{Plan, RunSql};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_core::sizing::Sizing;
use pgmend_core::table::RelationName;
use pgmend_pg::batch::Lease;
use pgmend_pg::conninfo::Conninfo;
use pgmend_pg::error::LEASE_LOST;
use pgmend_pg::partitions::{IMAGE_BATCH_STRIDE, Partition};
use pgmend_pg::scene::Scene;
use pgmend_pg::store::{End, Fact, LastCheckpoint, StoredRun};
use pgmend_pg::{PgError, Session};

use super::expectations::UNEXPECTED;
use super::fault;
use super::frozen::Spanned;
use super::hold::Held;
use super::ownership::Heartbeat;
use super::pace::{Paced, Pacer};
use super::wishes::Wishes;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Outcome, RunOptions};
use crate::plan::statements::{DEAD_LETTERS, IMAGE_TABLE};
use crate::progress::{Event, Observer, Stop};
use crate::throttle::Throttle;

/// A guard of ours: not as many rows as the plan expects. The run is given up.
pub(super) const OTHER_COUNT: &str = "PM509";

/// A batch that was committed.
pub(super) struct Applied {
    pub changed_rows: i64,
    pub skipped_rows: i64,
    pub conflict_rows: i64,
    pub dead_rows: i64,
    pub took_ms: f64,
    /// WAL that the server wrote meanwhile, in bytes.
    pub wal_bytes: Option<f64>,
    /// Where the cursor stands now.
    pub cursor: Vec<String>,
}

/// What one step came to.
pub(super) enum Step {
    Applied(Applied),
    /// Nothing to change was found as far as was looked; there is more to look at.
    Skipped,
    /// The range is exhausted.
    Exhausted,
}

/// Drives a run. Consumed by its end: after an error there is no worker left with a stale cursor.
pub(super) struct Worker<'e, 'o> {
    pub engine: &'e mut Engine,
    pub observer: &'o mut Observer,
    pub conninfo: Conninfo,
    pub plan: Plan,
    pub run: StoredRun,
    pub lease: Lease,
    pub heartbeat: Heartbeat,
    /// What people want of the run now, as the heartbeat hears it.
    pub wishes: Wishes,
    pub pacer: Pacer,
    pub throttle: Throttle,
    pub scene: Scene,
    pub sizing: Sizing,
    pub at: LastCheckpoint,
    /// The pass over the range: 0, or the sweep's number.
    pub pass: i32,
    /// `$1..$p` and the instant.
    pub params: Vec<Option<String>>,
    /// The bound of the next batch, asked for together with the last commit.
    pub prefetched: Option<Option<Vec<String>>>,
    /// The same for a frozen run: the next range with its keys.
    pub spanned: Option<Spanned>,
    /// Where windows without a match have been skipped to, ahead of the checkpoint.
    pub skipped_to: Option<Vec<String>>,
    /// Rows of the next batch while a row that fails, or that somebody else holds, is being cornered.
    pub cornering: Option<u32>,
    /// Whether the rows of the next batch are tried one by one.
    pub apart: bool,
    /// How many rows may be set aside.
    pub dead_letters: DeadLetters,
    /// The partition that it drives; `None` for the run itself.
    pub partition: Option<Partition>,
    /// Whether it drives the end of a run whose partitions others have driven.
    pub divided: bool,
    /// Workers that share what the run may cost.
    pub sharing: u32,
    /// The counts of the run's other partitions, as far as known.
    pub others: LastCheckpoint,
    pub attempt: u32,
    pub resumed: bool,
    /// The canary batch was as expected, as far as this worker knows.
    pub canary_seen: bool,
    /// What may be shown of keys.
    pub shown: Mask,
    stop_after: Option<u64>,
    batches_here: u64,
}

impl<'e, 'o> Worker<'e, 'o> {
    pub async fn new(
        engine: &'e mut Engine,
        plan: Plan,
        run: StoredRun,
        lease: Lease,
        options: &RunOptions,
        observer: &'o mut Observer,
        resumed: bool,
    ) -> Result<Self, Error> {
        let conninfo = engine.conninfo.clone();
        let shown = engine.shown_of(&plan).await?;
        let plan_dead_letters = plan.dead_letters;
        let at = engine.session.last_checkpoint(run.run_id, lease.partition_no).await?;
        let wishes = Wishes::new();
        let params = plan.params.iter().map(|p| Some(p.value.clone())).chain([Some(run.instant.clone())]).collect();
        Ok(Self {
            heartbeat: Heartbeat::start(&conninfo, &lease, plan.limits.lease_seconds, &wishes),
            wishes,
            pacer: Pacer::new(options.pace.over(&plan.pace), options.until_done),
            throttle: Throttle::start(&conninfo, &lease, &plan, resumed),
            scene: Scene::of_batch(&plan.settings, &plan.limits),
            sizing: Sizing::new(&plan.limits).within_wal(plan.throttle.wal_batch_bytes()),
            engine,
            observer,
            conninfo,
            plan,
            run,
            lease,
            pass: at.pass,
            at,
            params,
            prefetched: None,
            spanned: None,
            skipped_to: None,
            cornering: None,
            apart: false,
            dead_letters: options.dead_letters.unwrap_or(plan_dead_letters),
            partition: None,
            divided: false,
            sharing: 1,
            others: LastCheckpoint::default(),
            attempt: 0,
            resumed,
            shown,
            canary_seen: false,
            stop_after: options.stop_after_batches,
            batches_here: 0,
        })
    }

    /// Drives the run to its end, or to where it stops.
    pub async fn drive(mut self) -> Result<Outcome, Error> {
        if !self.divided {
            self.observer.tell(&Event::Started {
                run_id: self.run.run_id.to_string(),
                job: self.run.job.clone(),
                environment: self.engine.environment.as_ref().map(|named| named.name.clone()),
                planned_rows: self.run.planned_rows,
                changed_rows: self.at.changed_rows,
                resumed: self.resumed,
            });
        }
        loop {
            if let Some(reason) = self.stop_wish() {
                return self.stop(RunState::Paused { reason }).await;
            }
            if !self.heartbeat.trusted()
                && let Err(error) = self.regain_trust().await
            {
                match self.recover(error).await? {
                    Some(state) => return self.stop(state).await,
                    None => continue,
                }
            }
            match self.stop_unexpected().await {
                Ok(None) => {}
                Ok(Some(state)) => return self.stop(state).await,
                Err(error) => match self.recover(error).await? {
                    Some(state) => return self.stop(state).await,
                    None => continue,
                },
            }
            match self.pace().await {
                Ok(Paced::Go) => {}
                Ok(Paced::Again) => continue,
                Ok(Paced::Stop(state)) => return self.stop(state).await,
                Err(error) => match self.recover(error).await? {
                    Some(state) => return self.stop(state).await,
                    None => continue,
                },
            }
            match self.hold().await? {
                Held::Go => {}
                Held::Again => continue,
                Held::Stop(state) => return self.stop(state).await,
            }
            let step = match self.sql() {
                _ if self.apart => self.apart_batch().await,
                RunSql::Stream { .. } => self.stream_batch().await,
                RunSql::Freeze { .. } => self.frozen_batch().await,
            };
            match step {
                Ok(Step::Applied(batch)) => self.advance(batch),
                Ok(Step::Skipped) => self.attempt = 0,
                Ok(Step::Exhausted) if self.partition.is_some() => {
                    match self.session().close_partition(&self.lease).await {
                        Ok(()) => return self.leave().await,
                        Err(error) => {
                            if let Some(state) = self.recover(error).await? {
                                return self.stop(state).await;
                            }
                        }
                    }
                }
                Ok(Step::Exhausted) => match self.finish().await {
                    Ok(true) => return self.leave().await,
                    Ok(false) => {}
                    Err(error) if error.sqlstate == UNEXPECTED => {
                        return self.stop(RunState::Failed { failure: error.message }).await;
                    }
                    // The checks and the record of the end can be made again.
                    Err(error) => {
                        if let Some(state) = self.recover_end(error).await? {
                            return self.stop(state).await;
                        }
                    }
                },
                Err(error) => {
                    if let Some(state) = self.recover(error).await? {
                        return self.stop(state).await;
                    }
                }
            }
        }
    }

    pub fn sql(&self) -> RunSql {
        self.plan.sweep.as_ref().filter(|_| self.pass > 0).unwrap_or(&self.plan.sql).clone()
    }

    /// The number under which images of the next batch are kept: unique in the run, whatever its partition.
    pub fn image_batch_no(&self) -> i64 {
        i64::from(self.lease.partition_no) * IMAGE_BATCH_STRIDE + self.at.batch_no + 1
    }

    /// Whether other workers have driven all that this pass is about.
    pub fn driven_by_others(&self) -> bool {
        self.divided && self.pass == 0
    }

    /// Reads what other workers of the run have done.
    pub async fn look_around(&mut self) -> Result<(), PgError> {
        let all = self.session().totals(self.run_id()).await?;
        self.others = LastCheckpoint {
            changed_rows: all.changed_rows - self.at.changed_rows,
            skipped_rows: all.skipped_rows - self.at.skipped_rows,
            conflict_rows: all.conflict_rows - self.at.conflict_rows,
            dead_rows: all.dead_rows - self.at.dead_rows,
            ..LastCheckpoint::default()
        };
        Ok(())
    }

    /// The counts of the whole run, as far as known.
    pub fn total(&self) -> LastCheckpoint {
        LastCheckpoint {
            changed_rows: self.at.changed_rows + self.others.changed_rows,
            skipped_rows: self.at.skipped_rows + self.others.skipped_rows,
            conflict_rows: self.at.conflict_rows + self.others.conflict_rows,
            dead_rows: self.at.dead_rows + self.others.dead_rows,
            ..self.at.clone()
        }
    }

    pub fn session(&self) -> &Session {
        &self.engine.session
    }

    pub fn run_id(&self) -> RunId {
        self.run.run_id
    }

    /// The statement over the run's own table of images, and its own dead letters.
    pub fn with_images(&self, sql: &str) -> String {
        let sql = match sql.contains(DEAD_LETTERS) {
            true => sql.replace(DEAD_LETTERS, &open_letters(self.run_id())),
            false => sql.to_owned(),
        };
        match &self.run.image_table {
            Some(name) => sql.replace(IMAGE_TABLE, &RelationName::new("pgmend", name).sql()),
            None => sql,
        }
    }

    /// The job's parameters followed by a statement's own.
    pub fn params_with(&self, own: impl IntoIterator<Item = String>) -> Vec<Option<String>> {
        self.params.iter().cloned().chain(own.into_iter().map(Some)).collect()
    }

    /// Rows for the next batch.
    pub fn batch_rows(&self) -> u32 {
        let canary = self.plan.canary.as_ref().filter(|_| self.at.batch_no == 0 && !self.plan.one_transaction);
        let most = canary.map_or(u32::MAX, |canary| canary.rows);
        let most = most.min(self.sizing.rows()).min(self.paced_rows());
        // Apart, all that may be tried at once are: whether the first rows all fail is asked of these.
        if self.apart { APART_ROWS.min(most) } else { self.cornering.unwrap_or(most).min(most) }
    }

    pub(super) fn stop_wish(&mut self) -> Option<String> {
        if self.stop_after.is_some_and(|most| self.batches_here >= most) {
            return Some(format!("stopped after {} batches, as asked", self.batches_here));
        }
        match self.observer.stop() {
            Stop::None => None,
            Stop::AfterBatch | Stop::Now => {
                self.observer.tell(&Event::Stopping);
                Some("stopped by a signal".into())
            }
        }
    }

    /// Takes note of a committed batch.
    pub(super) fn advance(&mut self, batch: Applied) {
        fault::point("batch_committed");
        self.at.batch_no += 1;
        self.at.pass = self.pass;
        self.at.cursor = Some(batch.cursor);
        self.at.changed_rows += batch.changed_rows;
        self.at.skipped_rows += batch.skipped_rows;
        self.at.conflict_rows += batch.conflict_rows;
        self.at.dead_rows += batch.dead_rows;
        self.batches_here += 1;
        self.pacer.record(batch.changed_rows, batch.took_ms);
        self.attempt = 0;
        self.skipped_to = None;
        self.throttle.batch(Duration::from_secs_f64(batch.took_ms.max(0.0) / 1_000.0));
        if let Some(rows) = self.cornering {
            // The row that failed lies ahead, or fails no more: back to the full size step by step.
            self.cornering = Some(rows.saturating_mul(2)).filter(|rows| *rows < self.sizing.rows());
        } else {
            if let Some(took) = self.heartbeat.round_trip() {
                // Two of them; a batch's commit waits for nothing.
                self.sizing.set_overhead(took.as_secs_f64() * 2_000.0);
            }
            self.sizing.set_company(self.throttle.manners().batch_ms);
            if let Some(bytes) = batch.wal_bytes {
                self.sizing.record_wal(batch.changed_rows.max(0) as u64, bytes);
            }
            self.sizing.record((batch.changed_rows + batch.skipped_rows).max(0) as u64, batch.took_ms);
        }
        // A worker of a partition tells of that alone; whoever started it sums up.
        let total = if self.divided { self.total() } else { self.at.clone() };
        self.observer.tell(&Event::Batch {
            batch_no: self.at.batch_no,
            rows: batch.changed_rows,
            changed_rows: total.changed_rows,
            skipped_rows: total.skipped_rows,
            conflict_rows: total.conflict_rows,
            dead_rows: total.dead_rows,
            took_ms: batch.took_ms,
            next_batch_rows: self.batch_rows(),
            planned_rows: self.run.planned_rows,
            cursor: self.shown_cursor(),
        });
    }

    /// Stops at a batch boundary and says so in the database.
    pub async fn stop(mut self, state: RunState) -> Result<Outcome, Error> {
        if state == RunState::Running {
            // Another worker has stopped the run, and has said so.
            return self.leave().await;
        }
        let (name, why) = match &state {
            RunState::Failed { failure } => ("run_failed", failure.clone()),
            RunState::Paused { reason } => ("run_paused", reason.clone()),
            RunState::Cancelled => ("run_cancelled", String::new()),
            RunState::Running | RunState::Succeeded => ("run_stopped", String::new()),
        };
        let body = serde_json::json!({ "why": why, "batch": self.at.batch_no, "changed_rows": self.at.changed_rows, "dead_rows": self.at.dead_rows });
        let fact = Fact { name, body: &body };
        if self.record(&state, None, fact).await.is_err_and(|error| error.is_connection()) {
            self.reload().await?;
        }
        self.record(&state, None, fact).await?;
        fault::point("run_stopped");
        self.leave().await
    }

    /// Records the state that the run has come to; once only, also when the answer to the first time was lost.
    pub async fn record(&self, state: &RunState, end: Option<&End>, fact: Fact<'_>) -> Result<(), PgError> {
        let runs = self.session().find_runs(&self.run_id().to_string()).await?;
        // Of several workers one says why they stop.
        let said =
            |run: &StoredRun| run.state == *state || (self.partition.is_some() && run.state != RunState::Running);
        if runs.first().is_some_and(said) {
            return Ok(());
        }
        self.session().change_state(&self.lease, &["running"], state, end, fact).await
    }

    /// Gives the lease back and tells how the run stands. If the connection breaks, once more.
    async fn leave(mut self) -> Result<Outcome, Error> {
        if let Ok(outcome) = self.last_words().await {
            return Ok(outcome);
        }
        self.reload().await?;
        self.last_words().await
    }

    async fn last_words(&mut self) -> Result<Outcome, Error> {
        self.throttle.settle().await;
        if self.throttle.told {
            // The sampler may have been late. Nobody's rows depend on it: if it fails, `status` goes by the lease.
            let _told = self.session().set_holds(&self.lease, &[]).await;
        }
        self.session().release(&self.lease).await?;
        fault::point("lease_released");
        self.run = self.engine.one_run(&self.run_id().to_string()).await?;
        let outcome = self.engine.outcome(&self.run, self.resumed).await?;
        self.observer.tell(&outcome.event());
        Ok(outcome)
    }

    /// The lease was not renewed in time: renew it from here, or find out that it is gone.
    async fn regain_trust(&mut self) -> Result<(), PgError> {
        let seconds = self.plan.limits.lease_seconds;
        if self.heartbeat.lost() || !self.session().heartbeat(&self.lease, seconds).await? {
            return Err(PgError::new("renew the lease", LEASE_LOST, "the lease has been taken over"));
        }
        self.heartbeat = Heartbeat::start(&self.conninfo, &self.lease, seconds, &self.wishes);
        Ok(())
    }

    /// A run that has all its rows in one batch and knows their number changes exactly as many, or none.
    pub fn refuse_other_count(&self, changed_rows: i64) -> Result<(), PgError> {
        let Some(expected) = self.plan.expect_rows else { return Ok(()) };
        let fixed = self.plan.limits.batch_rows.map(|rows| rows.min(self.paced_rows()));
        let in_one = self.plan.one_transaction || fixed.is_some_and(|rows| i64::from(rows) >= expected);
        if !in_one || self.at.batch_no > 0 || changed_rows == expected {
            return Ok(());
        }
        let message = format!("{changed_rows} rows would have changed in one batch, {expected} are expected");
        Err(PgError::new("change the rows", OTHER_COUNT, message))
    }

    pub fn lease_lost(&self) -> Error {
        let message = format!("another process has taken over run {}", self.run_id());
        Refusal::new(Code::LeaseHeld, message, format!("watch it: pgmend status {}", self.run_id().short())).into()
    }
}

/// The keys of a run's open dead letters, as a relation. Lock: none. Index: `dead_letter_run_id`.
fn open_letters(run: RunId) -> String {
    format!("(select l.key from pgmend.dead_letter as l where l.run_id = '{run}' and l.state = 'open')")
}

/// Runs a future, cancelling the session's statement if a second stop is asked for.
pub(super) async fn cancellable<T>(
    session: &Session,
    mut stop: tokio::sync::watch::Receiver<Stop>,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return result,
            changed = stop.changed() => {
                if changed.is_err() {
                    return work.await;
                }
                if *stop.borrow() == Stop::Now {
                    // Best effort: if the request does not arrive, the statement's own timeout ends it.
                    let _ = session.canceller().cancel().await;
                }
            }
        }
    }
}

/// Waits, but no longer than until somebody wants to stop.
pub(super) async fn wait_or_stop(mut stop: tokio::sync::watch::Receiver<Stop>, wait: Duration) {
    let wished = async {
        // A sender that is gone will never ask.
        if stop.wait_for(|wish| *wish != Stop::None).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = wished => {}
    }
}

/// Milliseconds since.
pub(super) fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}
