//! Runs: one resumable execution of one plan. The same call starts, resumes or refuses.

mod apart;
mod approval;
mod blockers;
mod cursor;
mod departure;
mod equipment;
pub(crate) mod expectations;
pub(crate) mod fault;
mod finish;
mod frozen;
pub(crate) mod gate;
mod halves;
mod hold;
mod image_key;
mod interruption;
mod nights;
mod ownership;
mod pace;
mod partitions;
mod prepare;
mod recover;
mod retry;
mod run_sql;
mod slice;
mod step;
mod stream;
mod tenants;
mod totals;
mod vacuum;
mod wishes;
mod worker;

pub(crate) use equipment::Equipment;
pub use fault::POINTS as FAULT_POINTS;
pub(crate) use hold::BESIDE;
pub(crate) use nights::Away;
pub(crate) use ownership::take as take_lease;
pub(crate) use pace::Metered;
pub(crate) use slice::Slice;

use pgmend_core::id::RunId;
use pgmend_core::job::Job;
use pgmend_core::plan::{Plan, RunSql};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_pg::Statement;
use pgmend_pg::batch::Lease;
use pgmend_pg::gate::RunStart;
use pgmend_pg::images::ImageTable;
use pgmend_pg::scene::Scene;
use pgmend_pg::store::{Fact, StoredRun};

use crate::encryption::OpenedLetters;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Outcome, Planned, Retried, RunOptions};
use crate::progress::Observer;

/// What the ledger is told of a resumption.
fn resumption(plan: &Plan, run: &StoredRun, options: &RunOptions) -> serde_json::Value {
    let mut body = serde_json::json!({ "client": crate::engine::client() });
    if let Some(limit) = options.dead_letters.filter(|limit| *limit != plan.dead_letters) {
        body["dead_letters_max"] = limit.allowed(run.planned_rows).into();
    }
    body
}

/// Tries the open dead letters of a run whose lease is held.
pub(crate) async fn retry(
    engine: &mut Engine,
    plan: Plan,
    run: StoredRun,
    lease: Lease,
    letters: Option<OpenedLetters>,
    observer: &mut Observer,
) -> Result<Retried, Error> {
    let options = RunOptions::default();
    let worker = worker::Worker::new(engine, plan, run, lease, &options, observer, true).await?;
    let retried = Box::pin(worker.retry(letters)).await;
    engine.session.mark(None);
    retried
}

impl Engine {
    /// Runs a job to its end: resumes its unfinished run, else uses its fresh plan, else plans first.
    pub async fn run(&mut self, job: &Job, options: &RunOptions, observer: &mut Observer) -> Result<Outcome, Error> {
        self.refuse_standby()?;
        self.ensure_control_schema().await?;
        let options = &RunOptions { pace: options.pace.over(&job.file.pace), ..options.clone() };
        let signature = self.signature_of(job).await?;
        let runs = self.session.runs_of_signature(&signature.0).await?;
        if let Some(unfinished) = runs.iter().find(|r| !r.state.ended()) {
            let planned = self.session.plan_of(unfinished.plan_id).await?.plan;
            gate::refuse_changed(job, &planned, unfinished)?;
            // The job as it is now may allow more dead letters than the plan that is under way.
            let own = Some(job.file.dead_letters).filter(|limit| !limit.is_default());
            let options = RunOptions {
                dead_letters: options.dead_letters.or(own),
                workers: options.workers.or(job.file.limits.workers),
                vacuum_every: options.vacuum_every.or(job.file.limits.vacuum_every),
                ..options.clone()
            };
            return self.drive(unfinished.clone(), &options, observer, true).await;
        }
        gate::refuse_done(&runs, options)?;
        self.refuse_reworded(job, &signature.0).await?;
        let plan = match self.usable_plan(job, &signature.0).await? {
            Some(plan) => plan,
            None => self.plan(job, &options.plan).await?.plan,
        };
        self.start(plan, options, observer).await
    }

    /// Runs a stored plan to its end, or resumes the run that uses it.
    pub async fn run_plan(
        &mut self,
        plan_id: &str,
        options: &RunOptions,
        observer: &mut Observer,
    ) -> Result<Outcome, Error> {
        self.refuse_standby()?;
        let stored = self.stored_plan(plan_id).await?;
        let plan = stored.plan;
        if let Some(run) = stored.run {
            let run = self.one_run(&run.to_string()).await?;
            if run.state.ended() {
                let message = format!(
                    "plan {} has been used by run {}, which has {}",
                    plan.plan_id,
                    run.run_id,
                    run.state.name()
                );
                return Err(Refusal::new(Code::ConsumedPlan, message, "plan again").into());
            }
            return self.drive(run, options, observer, true).await;
        }
        gate::refuse_done(&self.session.runs_of_signature(&plan.signature.0).await?, options)?;
        self.refuse_stale(&plan, stored.fresh).await?;
        if plan.undo_of.is_some() {
            return Box::pin(self.start_undo(plan, options, observer)).await;
        }
        self.start(plan, options, observer).await
    }

    /// Goes on with an unfinished run.
    pub async fn resume(&mut self, run: &str, observer: &mut Observer) -> Result<Outcome, Error> {
        self.resume_with(run, &RunOptions::default(), observer).await
    }

    /// Goes on with an unfinished run, at another pace for example.
    pub async fn resume_with(
        &mut self,
        run: &str,
        options: &RunOptions,
        observer: &mut Observer,
    ) -> Result<Outcome, Error> {
        self.refuse_standby()?;
        self.need_control_schema().await?;
        let run = self.meant_run(run).await?;
        if run.state.ended() {
            let message = format!("run {} is over: {}", run.run_id, run.state.name());
            return Err(Refusal::new(Code::WrongState, message, "plan again to make the change again").into());
        }
        self.refuse_letters_of_none(&run, options).await?;
        self.lift(&run).await?;
        self.drive(run, options, observer, true).await
    }

    /// Starts the run of a plan that passed the gate.
    pub(crate) async fn start(
        &mut self,
        plan: Plan,
        options: &RunOptions,
        observer: &mut Observer,
    ) -> Result<Outcome, Error> {
        fault::point("planned");
        gate::refuse_unexpected(&plan)?;
        gate::refuse_blocked(&plan)?;
        crate::plan::privileges::refuse_unprivileged(&plan)?;
        self.refuse_unnamed_environment().await?;
        let digest = plan.digest().0;
        let planned = Planned {
            guardrails: Vec::new(),
            signals: Vec::new(),
            plan,
            digest,
            stored: true,
            used_by: None,
            expired: false,
        };
        let demanded = match self.refuse_unmet(&planned).await {
            Err(Error::Refused(refusal)) if refusal.code == Code::OutsideHours && options.until_done => {
                self.wait_to_start(observer).await?;
                self.refuse_unmet(&planned).await?
            }
            met => met?,
        };
        let plan = planned.plan;
        gate::refuse_altered(&self.session, &plan).await?;
        let run_id = RunId::from_uuid(uuid::Uuid::now_v7());
        let client = crate::engine::client();
        let instant = self.session.surroundings().await?.now;
        let upper_bound = self.greatest_key(&plan).await?;
        let image_table =
            plan.images.layout.is_some().then(|| ImageTable::Images.name(&instant, &plan.job, &run_id.short()));
        let body = serde_json::json!({ "plan": plan.plan_id, "digest": plan.digest(), "client": client, "again": options.again,
            "role": plan.settings.role, "commit": plan.about.get("commit"),
            "environment": self.checked_environment(), "guardrails": demanded,
            "change": self.change_digest(&plan).await?,
            "unchanged": expectations::baseline(&self.session, &plan, run_id).await? });
        let started = self
            .session
            .start_run(&RunStart {
                run_id,
                plan: &plan,
                instant: &instant,
                upper_bound: upper_bound.as_deref(),
                image_table: image_table.as_deref(),
                client: &client,
                again: options.again.as_deref(),
                body: &body,
            })
            .await;
        if let Err(error) = started {
            if error.is_connection() {
                // Whether it has started, the same command will see; nothing was changed yet.
                return Err(error.into());
            }
            // Somebody was faster with the same change: theirs is the run, and who drives it is the lease's business.
            let runs = self.session.runs_of_signature(&plan.signature.0).await?;
            return match runs.into_iter().find(|r| !r.state.ended()) {
                Some(run) => self.drive(run, options, observer, true).await,
                None => Err(error.into()),
            };
        }
        fault::point("run_started");
        let run = self.one_run(&run_id.to_string()).await?;
        self.drive(run, options, observer, false).await
    }

    /// The upper bound of a streamed run, fixed when it starts: new rows beyond it are not chased.
    async fn greatest_key(&self, plan: &Plan) -> Result<Option<Vec<String>>, Error> {
        let RunSql::Stream { greatest_key, .. } = &plan.sql else { return Ok(None) };
        let scene = Scene::of_batch(&plan.settings, &plan.limits);
        let statement = Statement::new("read the greatest key", greatest_key.clone(), vec![]);
        let answer = self.session.read_once(&scene, statement).await?;
        Ok(answer.rows.first().map(|row| row.iter().flatten().cloned().collect()))
    }

    /// Takes the lease and applies batch after batch.
    async fn drive_once(
        &mut self,
        run: StoredRun,
        options: &RunOptions,
        observer: &mut Observer,
        resumed: bool,
    ) -> Result<Outcome, Error> {
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        self.refuse_other_server(&plan)?;
        self.refuse_unnamed_environment().await?;
        if resumed {
            self.refuse_held_back(&run).await?;
            self.refuse_more_letters(&plan, &run, options).await?;
        }
        if self.session.is_divided(run.run_id).await? {
            let run = self.wake(run, &plan, options, observer).await?;
            let plan = Plan { throttle: self.throttle_within(plan.throttle.clone())?, ..plan };
            return Box::pin(self.drive_divided(plan, run, options, observer, resumed)).await;
        }
        let lease = ownership::take(&self.session, run.run_id, plan.limits.lease_seconds, observer).await?;
        fault::point("lease_taken");
        let driven = self.drive_under(&lease, plan, run, options, observer, resumed).await;
        if driven.is_err() && !self.session.is_closed() {
            // So that the same command need not wait. If it does not arrive, the lease runs out by itself.
            let _ = self.session.release(&lease).await;
        }
        driven
    }

    /// Drives a run whose lease is held.
    async fn drive_under(
        &mut self,
        lease: &Lease,
        plan: Plan,
        run: StoredRun,
        options: &RunOptions,
        observer: &mut Observer,
        resumed: bool,
    ) -> Result<Outcome, Error> {
        let run = self.one_run(&run.run_id.to_string()).await?;
        if run.state.ended() {
            // Finished by whoever held the lease before us.
            self.session.release(lease).await?;
            return self.outcome(&run, resumed).await;
        }
        if resumed {
            let body = resumption(&plan, &run, options);
            let fact = Fact { name: "run_resumed", body: &body };
            self.session.change_state(lease, &["paused", "failed", "running"], &RunState::Running, None, fact).await?;
            fault::point("run_resumed");
        }
        if let Some(name) = &run.image_table {
            let comment = format!("images of run {}, job {}", run.run_id, run.job);
            self.session.create_images(name, &plan.images, &plan.settings.role, &comment).await?;
            fault::point("images_created");
        }
        let run = if resumed { self.one_run(&run.run_id.to_string()).await? } else { run };
        // The environment may have become stricter since the plan was made.
        let plan = Plan { throttle: self.throttle_within(plan.throttle.clone())?, ..plan };
        if self.divide(lease, &plan, &run, options).await? {
            self.session.release(lease).await?;
            fault::point("run_divided");
            return Box::pin(self.drive_divided(plan, run, options, observer, resumed)).await;
        }
        let worker = worker::Worker::new(self, plan, run, lease.clone(), options, observer, resumed).await?;
        // On the heap: the loop's state is large, and callers hold it for as long as the run lasts.
        Box::pin(worker.drive()).await
    }

    /// A divided run that was stopped runs again; one that runs is joined as it is.
    async fn wake(
        &self,
        run: StoredRun,
        plan: &Plan,
        options: &RunOptions,
        observer: &mut Observer,
    ) -> Result<StoredRun, Error> {
        if run.state == RunState::Running || run.state.ended() {
            return Ok(run);
        }
        let lease = ownership::take(&self.session, run.run_id, plan.limits.lease_seconds, observer).await?;
        let now = self.one_run(&run.run_id.to_string()).await?;
        if now.state != RunState::Running && !now.state.ended() {
            let body = resumption(plan, &run, options);
            let fact = Fact { name: "run_resumed", body: &body };
            self.session.change_state(&lease, &["paused", "failed"], &RunState::Running, None, fact).await?;
            self.session.reopen_tenants(&lease).await?;
        }
        self.session.release(&lease).await?;
        self.one_run(&run.run_id.to_string()).await
    }

    /// The only run that an id or a job's name means.
    pub(crate) async fn one_run(&self, name: &str) -> Result<StoredRun, Error> {
        let found = self.session.find_runs(name).await?;
        found.into_iter().next().ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("there is no run or job `{name}`"), "type: pgmend list").into()
        })
    }
}
