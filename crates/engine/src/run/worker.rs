//! The worker: drives one run to its end, one batch and one transaction at a time.

use std::sync::Arc;

use pgmend_core::dead_letters::DeadLetters;
use pgmend_core::density::Density;
use pgmend_core::halving::Halving;
use pgmend_core::id::RunId;
use pgmend_core::mask::Mask;
use pgmend_core::plan::{Plan, RunSql};
use pgmend_core::refusal::Code;
use pgmend_core::run::RunState;
use pgmend_core::sizing::Sizing;
use pgmend_core::vacuum::Schedule;
use pgmend_pg::batch::Lease;
use pgmend_pg::conninfo::Conninfo;
use pgmend_pg::error::LEASE_LOST;
use pgmend_pg::partitions::Partition;
use pgmend_pg::scene::Scene;
use pgmend_pg::store::{LastCheckpoint, StoredRun};
use pgmend_pg::written::Written;
use pgmend_pg::{PgError, Session};

use super::blockers::BlockerWatch;
use super::equipment::Equipment;
use super::expectations::UNEXPECTED;
use super::frozen::Spanned;
use super::halves::FirstHalf;
use super::ownership::Heartbeat;
use super::pace::Pacer;
use super::slice::Claim;
use super::step::Step;
use super::stream::Prefetched;
use super::wishes::Wishes;
use crate::encryption::OpenedLetters;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Outcome, RunOptions};
use crate::progress::{Event, Observer};
use crate::throttle::Throttle;

/// What follows after a look at whether the next batch may begin.
pub(super) enum Turn {
    /// The batch.
    Go,
    /// Another look: at a wish to stop, at a lease to renew.
    Again,
    /// The end of the run, for now.
    Stop(RunState),
}

/// What follows once the range is exhausted.
enum Close {
    /// Nothing: all is done and recorded.
    Done,
    /// More batches.
    More,
    /// The end of the run, for now.
    Stop(RunState),
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
    /// Rows of the command's that its batch under way may change, until it is known what became of it.
    pub claim: Option<Claim>,
    pub throttle: Throttle,
    pub scene: Scene,
    pub sizing: Sizing,
    pub at: LastCheckpoint,
    /// The pass over the range: 0, or the sweep's number.
    pub pass: i32,
    /// `$1..$p` and the instant.
    pub params: Vec<Option<String>>,
    /// The bound of the next batch, asked for together with the last commit.
    pub prefetched: Option<Prefetched>,
    /// Whether batches in two halves pay.
    pub halving: Halving,
    /// The first half of the stretch under way, as far as this worker has done it.
    pub first_half: FirstHalf,
    /// How many of the rows in its way match.
    pub density: Density,
    /// The same for a frozen run: the next range with its keys.
    pub spanned: Option<Spanned>,
    /// Where windows without a match have been skipped to, ahead of the checkpoint.
    pub skipped_to: Option<Vec<String>>,
    /// Whether the last step found nothing to change, and there is more to look at.
    pub searching: bool,
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
    /// SQLSTATE of the error that it stops for; empty where it stops for another reason.
    pub trouble: String,
    pub resumed: bool,
    /// The canary batch was as expected, as far as this worker knows.
    pub canary_seen: bool,
    /// What may be shown of keys.
    pub shown: Mask,
    /// Looks who keeps batches waiting, since one ran into a lock.
    pub blockers: Option<BlockerWatch>,
    /// When the target is vacuumed on the way.
    pub vacuums: Option<Schedule>,
    /// Batches after which the command stops.
    pub stop_after: Option<u64>,
    /// Opens the rows of dead letters, where the change set is encrypted.
    pub letters: Option<OpenedLetters>,
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
        let plan_dead_letters = plan.dead_letters;
        let at = match first_of_partition(&lease) {
            true => LastCheckpoint::default(),
            false => engine.session.last_checkpoint(run.run_id, lease.partition_no).await?,
        };
        let Equipment { heartbeat, wishes, throttle, shown, image_key, sizing, density, halving } =
            Equipment::of(engine, &plan, &lease, resumed).await?;
        let vacuums = super::vacuum::schedule(&plan, options.vacuum_every.or(plan.limits.vacuum_every));
        let params = plan.params.iter().map(|p| Some(p.value.clone())).chain([Some(run.instant.clone())]).collect();
        Ok(Self {
            heartbeat,
            wishes,
            pacer: Pacer::new(options.pace.over(&plan.pace), options.until_done, Arc::clone(&engine.slice)),
            throttle,
            scene: Scene { image_key, ..scene_of(&plan) },
            sizing,
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
            halving,
            first_half: FirstHalf::default(),
            density,
            spanned: None,
            skipped_to: None,
            searching: false,
            claim: None,
            cornering: None,
            apart: false,
            dead_letters: options.dead_letters.unwrap_or(plan_dead_letters),
            partition: None,
            divided: false,
            sharing: 1,
            others: LastCheckpoint::default(),
            attempt: 0,
            trouble: String::new(),
            resumed,
            shown,
            canary_seen: false,
            blockers: None,
            vacuums,
            stop_after: options.stop_after_batches,
            letters: None,
        })
    }

    /// Drives the run to its end, or to where it stops.
    pub async fn drive(self) -> Result<Outcome, Error> {
        let left = Box::pin(self.drive_part()).await?;
        left.ok_or_else(|| Error::Corrupt("a run is no partition".into()))
    }

    /// Drives the run or a partition of it to its end, or to where it stops. `None`: the partition is exhausted, and its
    /// worker ready for the next one.
    pub async fn drive_part(mut self) -> Result<Option<Outcome>, Error> {
        self.say_started();
        loop {
            if let Some(reason) = self.stop_wish() {
                return self.stop(RunState::Paused { reason }).await.map(Some);
            }
            match self.turn().await? {
                Turn::Go => {}
                Turn::Again => continue,
                Turn::Stop(state) => return self.stop(state).await.map(Some),
            }
            if !self.claim().await {
                continue;
            }
            match self.batch().await {
                Ok(Step::Applied(batch)) => {
                    self.searching = false;
                    self.advance(batch);
                }
                Ok(Step::Skipped) => {
                    self.searching = true;
                    self.claim = None;
                    self.attempt = 0;
                }
                Ok(Step::Exhausted) => {
                    self.claim = None;
                    match self.exhausted().await? {
                        Close::Done if self.partition.is_some() => {
                            self.pass_on().await;
                            return Ok(None);
                        }
                        Close::Done => return self.leave().await.map(Some),
                        Close::More => {}
                        Close::Stop(state) => return self.stop(state).await.map(Some),
                    }
                }
                Err(error) => {
                    if let Some(state) = self.recover(error).await? {
                        return self.stop(state).await.map(Some);
                    }
                    self.claim = None;
                }
            }
        }
    }

    fn say_started(&mut self) {
        if self.divided {
            // Whoever divided the run has told.
            return;
        }
        self.observer.tell(&Event::Started {
            run_id: self.run.run_id.to_string(),
            job: self.run.job.clone(),
            environment: self.engine.environment.as_ref().map(|named| named.name.clone()),
            planned_rows: self.run.planned_rows,
            changed_rows: self.at.changed_rows,
            resumed: self.resumed,
        });
    }

    /// Waits until the next batch may begin, or finds out that it may not.
    async fn turn(&mut self) -> Result<Turn, Error> {
        match self.ready().await {
            Ok(Turn::Go) => self.hold().await,
            Ok(other @ (Turn::Again | Turn::Stop(_))) => Ok(other),
            Err(error) => Ok(self.recover(error).await?.map_or(Turn::Again, Turn::Stop)),
        }
    }

    /// Whether the lease, what the job expects and the pace let the next batch begin; vacuums if it is time.
    async fn ready(&mut self) -> Result<Turn, PgError> {
        if !self.heartbeat.trusted() {
            self.regain_trust().await?;
        }
        if let Some(state) = self.stop_search().await? {
            return Ok(Turn::Stop(state));
        }
        match self.stop_unexpected().await? {
            Some(state) => Ok(Turn::Stop(state)),
            None => match self.pace().await? {
                Turn::Go => self.vacuum().await,
                other @ (Turn::Again | Turn::Stop(_)) => Ok(other),
            },
        }
    }

    /// The next batch.
    async fn batch(&mut self) -> Result<Step, PgError> {
        self.need_image_key().await?;
        match self.sql() {
            _ if self.apart => self.apart_batch().await,
            RunSql::Stream { .. } => self.stream_batch().await,
            RunSql::Freeze { .. } => self.frozen_batch().await,
        }
    }

    /// The range is exhausted: closes the partition, or ends the run. The end of a tenant travels with the question for
    /// the next one.
    async fn exhausted(&mut self) -> Result<Close, Error> {
        if self.partition.is_some() {
            // The next partition may have no batch either. This one is looked through again when the run goes on.
            match self.asked_to_stop().await {
                Ok(None) => {}
                Ok(Some(state)) => return Ok(Close::Stop(state)),
                Err(error) => return Ok(self.recover(error).await?.map_or(Close::More, Close::Stop)),
            }
        }
        if self.tenant().is_some() {
            return Ok(Close::Done);
        }
        if self.partition.is_some() {
            let closed = self.session().close_partition(&self.lease).await;
            return match closed {
                Ok(()) => Ok(Close::Done),
                Err(error) => Ok(self.recover(error).await?.map_or(Close::More, Close::Stop)),
            };
        }
        match self.finish().await {
            Ok(true) => Ok(Close::Done),
            Ok(false) => Ok(Close::More),
            Err(error) if error.sqlstate == UNEXPECTED => Ok(Close::Stop(RunState::Failed { failure: error.message })),
            // A failover took the end of a partition along: whoever divided the run drives it again.
            Err(error) if self.divided && error.sqlstate == Code::PartitionOpen.as_str() => {
                Ok(Close::Stop(RunState::Running))
            }
            // The checks and the record of the end can be made again.
            Err(error) => Ok(self.recover_end(error).await?.map_or(Close::More, Close::Stop)),
        }
    }

    pub fn session(&self) -> &Session {
        &self.engine.session
    }

    pub fn run_id(&self) -> RunId {
        self.run.run_id
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
}

/// The scene of this plan's batches.
fn scene_of(plan: &Plan) -> Scene {
    let written = plan.counted.as_ref().map(|counted| Written::by(plan.kind, plan.target_oid, counted));
    Scene { written, ..Scene::of_batch(&plan.settings, &plan.limits) }
}

/// Whether nobody has driven this partition before: then it has no batch, and there is nothing to read.
pub(super) fn first_of_partition(lease: &Lease) -> bool {
    lease.partition_no > 0 && lease.fence == 1
}
