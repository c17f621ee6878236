//! Runs with several workers: the run is divided into partitions before its first batch, workers take them one after
//! the other, here and in other processes, and whoever comes last ends the run (docs/design/parallel-workers.md).

use std::convert::Infallible;
use std::time::Duration;

use pgmend_core::id::RunId;
use pgmend_core::limits::{PARTITIONS_PER_WORKER, WORKERS_MAX};
use pgmend_core::plan::{Plan, RunSql};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::retry::backoff;
use pgmend_core::run::RunState;
use pgmend_pg::batch::Lease;
use pgmend_pg::error::LEASE_LOST;
use pgmend_pg::partitions::{Partition, Standstill, Taken};
use pgmend_pg::scene::Scene;
use pgmend_pg::store::{LeaseAnswer, StoredRun};
use tokio::sync::{mpsc, watch};

use super::fault;
use super::interruption::wait_or_stop;
use super::nights::Away;
use super::recover::{RECONNECTS_MAX, TOO_MANY_CONNECTIONS, jitter, may_connect_soon};
use super::totals::{Told, Totals};
use super::worker::Worker;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Outcome, RunOptions};
use crate::progress::{Event, Observer, Stop};

/// How often a worker without a partition looks for one: a dead worker's is taken over within its lease and this.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events on their way to the listener; workers wait for a slow one rather than grow a queue.
const EVENTS_MAX: usize = 256;
/// Pages of the target that are sampled for the bounds of the partitions: a second of reading at worst.
const SAMPLED_PAGES: f64 = 1_000.0;
/// How often the end of one command may find a partition open again: each time means a failover.
const REOPENED_MAX: u32 = 10;
/// How often the rows of workers elsewhere are counted in.
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// How long such a look may take, connecting again included.
const COUNT_TIMEOUT: Duration = Duration::from_secs(20);

impl Engine {
    /// Divides a run that has no batch yet, if it is to have several workers. Its own lease is held.
    pub(super) async fn divide(
        &self,
        lease: &Lease,
        plan: &Plan,
        run: &StoredRun,
        options: &RunOptions,
    ) -> Result<bool, Error> {
        if let Some(tenants) = &plan.tenants {
            return self.divide_by_tenant(lease, plan, tenants, run).await;
        }
        let workers = workers(plan, options);
        if workers < 2 || plan.one_worker.is_some() {
            return Ok(false);
        }
        let parts = workers * PARTITIONS_PER_WORKER;
        let uppers = match &plan.sql {
            RunSql::Freeze { .. } => evenly(plan.change_set.as_ref().map_or(0, |set| set.rows), parts),
            RunSql::Stream { quantiles: Some(quantiles), .. } => {
                let Some(upper) = &run.upper_bound else { return Ok(false) };
                let mut uppers = self.quantiles(plan, quantiles, upper, parts).await?;
                uppers.push(upper.clone());
                uppers
            }
            RunSql::Stream { quantiles: None, .. } => return Ok(false),
        };
        if uppers.len() < 2 {
            return Ok(false);
        }
        Ok(self.session.divide(lease, &uppers).await? > 0)
    }

    /// Keys that cut the target into parts of about as many rows, from a sample of its pages: sparse keys and any key
    /// type will do, since the server alone orders them.
    async fn quantiles(&self, plan: &Plan, sql: &str, upper: &[String], parts: u32) -> Result<Vec<Vec<String>>, Error> {
        let pages = self.session.pages_of(plan.target_oid).await?;
        let percent = (100.0 * SAMPLED_PAGES / pages.max(1.0)).clamp(0.000_1, 100.0);
        let own = [percent.to_string(), parts.to_string()].into_iter().chain(upper.iter().cloned()).collect();
        let scene = Scene::of_batch(&plan.settings, &plan.limits);
        let tx = self.session.read(&scene, vec![]).await?;
        let answer = tx.query("sample the keys", sql, own).await;
        tx.end().await?;
        let keys = answer?.rows.into_iter().map(|row| row.into_iter().collect::<Option<Vec<String>>>());
        Ok(keys.flatten().collect())
    }

    /// Drives a divided run: its partitions side by side, then its end. A failover may take along the end of a
    /// partition, or the division itself: then what is missing is driven again.
    pub(super) async fn drive_divided(
        &mut self,
        plan: Plan,
        run: StoredRun,
        options: &RunOptions,
        observer: &mut Observer,
        resumed: bool,
    ) -> Result<Outcome, Error> {
        observer.tell(&Event::Started {
            run_id: run.run_id.to_string(),
            job: run.job.clone(),
            environment: self.environment.as_ref().map(|named| named.name.clone()),
            planned_rows: run.planned_rows,
            changed_rows: self.session.totals(run.run_id).await?.changed_rows,
            resumed,
        });
        for _ in 0..REOPENED_MAX {
            let ended = self.drive_partitions(&plan, &run, options, observer).await?;
            let all_done = ended.iter().any(|end| matches!(end, Ok((Ended::AllDone, _))));
            let standstill = ended.iter().flatten().find_map(|(end, _)| match end {
                Ended::Standstill(why) => Some(*why),
                Ended::AllDone | Ended::Stopped => None,
            });
            self.away = ended.iter().flatten().find_map(|(_, away)| *away);
            if self.session.is_closed() {
                self.reconnect().await?;
            }
            let now = self.one_run(&run.run_id.to_string()).await?;
            if let (Some(why), RunState::Running) = (standstill, &now.state) {
                return self.stand_still(&plan, &run, why, observer, resumed).await;
            }
            if !all_done || now.state.ended() {
                let failed = ended.into_iter().find_map(Result::err);
                return match failed {
                    Some(error) if now.state == RunState::Running => Err(error),
                    Some(_) | None => self.say_ended(&now, resumed, observer).await,
                };
            }
            match self.end_divided(&plan, &run, options, observer, resumed).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                // A lease that was taken just before a failover may be lost with it, like the end of a partition.
                Err(Error::Refused(refusal)) if refusal.code == Code::LeaseHeld => {}
                Err(error) => return Err(error),
            }
            if !self.session.is_divided(run.run_id).await? {
                return Box::pin(self.drive_once(run, options, observer, true)).await;
            }
        }
        let message = format!("partitions of run {} were open again {REOPENED_MAX} times at its end", run.run_id);
        let help = format!(
            "look whether the server fails over again and again; then type: pgmend run {} --execute",
            run.run_id
        );
        Err(Refusal::new(Code::PartitionOpen, message, help).into())
    }

    /// How the run stands, told once for all its workers here.
    async fn say_ended(&self, run: &StoredRun, resumed: bool, observer: &mut Observer) -> Result<Outcome, Error> {
        let outcome = self.outcome(run, resumed).await?;
        observer.tell(&outcome.event());
        Ok(outcome)
    }

    /// All partitions are done: takes the run's own lease and ends it, unless somebody else does. `None` when a
    /// partition is open again.
    async fn end_divided(
        &mut self,
        plan: &Plan,
        run: &StoredRun,
        options: &RunOptions,
        observer: &mut Observer,
        resumed: bool,
    ) -> Result<Option<Outcome>, Error> {
        let lease = self.lease_of_the_end(plan, run, observer).await?;
        let divided = self.session.is_divided(run.run_id).await?;
        let run = self.one_run(&run.run_id.to_string()).await?;
        let Some(lease) = lease else {
            let again = !divided && observer.stop() == Stop::None;
            return if again { Ok(None) } else { self.say_ended(&run, resumed, observer).await.map(Some) };
        };
        if !divided {
            self.session.release(&lease).await?;
            return Ok(None);
        }
        let mut worker = Worker::new(self, plan.clone(), run, lease, options, observer, resumed).await?;
        worker.divided = true;
        let outcome = Box::pin(worker.drive()).await?;
        let reopened = outcome.state == RunState::Running && observer.stop() == Stop::None;
        Ok(Some(outcome).filter(|_| !reopened))
    }

    /// The lease of the run itself; `None` where somebody else has ended or stopped it, or this process is to stop.
    pub(super) async fn lease_of_the_end(
        &self,
        plan: &Plan,
        run: &StoredRun,
        observer: &mut Observer,
    ) -> Result<Option<Lease>, Error> {
        let owner = uuid::Uuid::now_v7().to_string();
        let lease = loop {
            let holder = super::ownership::holder();
            match self.session.acquire_lease(run.run_id, &owner, &holder, plan.limits.lease_seconds).await? {
                LeaseAnswer::Acquired(lease) => break lease,
                // Its holder lives and ends the run, or its lease runs out.
                LeaseAnswer::Held { .. } => wait_or_stop(observer.stop_receiver(), LOOK_EVERY).await,
            }
            let now = self.one_run(&run.run_id.to_string()).await?;
            if now.state != RunState::Running || observer.stop() != Stop::None {
                return Ok(None);
            }
        };
        if self.one_run(&run.run_id.to_string()).await?.state != RunState::Running {
            self.session.release(&lease).await?;
            return Ok(None);
        }
        Ok(Some(lease))
    }

    /// Engines of their own for so many workers, or for as many as the server has connections for; for one at least.
    async fn connected(&self, workers: u32) -> Result<Vec<Engine>, Error> {
        let mut engines = Vec::new();
        for _ in 0..workers {
            match Engine::again(self).await {
                Ok(engine) => engines.push(engine),
                Err(Error::Database { sqlstate, .. }) if sqlstate == TOO_MANY_CONNECTIONS && !engines.is_empty() => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(engines)
    }

    /// As many workers as the run may have, each with connections of its own, until no partition is left for them.
    async fn drive_partitions(
        &mut self,
        plan: &Plan,
        run: &StoredRun,
        options: &RunOptions,
        observer: &mut Observer,
    ) -> Result<Vec<Result<(Ended, Option<Away>), Error>>, Error> {
        let workers = workers(plan, options);
        let here = options.workers_here.unwrap_or(workers).clamp(1, workers);
        let (events, mut heard) = mpsc::channel(EVENTS_MAX);
        let (stop, _) = watch::channel(observer.stop());
        let mut tasks = tokio::task::JoinSet::new();
        // Before any worker of this command has changed a row.
        let changed_rows = self.session.totals(run.run_id).await?.changed_rows;
        self.slice.see_run(changed_rows);
        // All of them connect before the first one works: who fails then would leave the others' leases behind.
        for mut engine in self.connected(here).await? {
            let (plan, run, options) = (plan.clone(), run.clone(), options.clone());
            let (events, stopped) = (events.clone(), stop.subscribe());
            tasks.spawn(async move {
                let ended = engine.work(plan, run, options, events, stopped, workers).await;
                ended.map(|ended| (ended, engine.away.take()))
            });
        }
        drop(events);
        let mut totals = Totals::new(changed_rows);
        let mut counting = std::pin::pin!(self.count_on(run.run_id));
        let (mut signal, mut listening) = (observer.stop_receiver(), true);
        let mut ended = Vec::new();
        loop {
            tokio::select! {
                event = heard.recv() => match event {
                    Some(told) => { if let Some(event) = totals.over_all(told) { observer.tell(&event); } }
                    None => break,
                },
                never = &mut counting => match never {},
                changed = signal.changed(), if listening => {
                    if changed.is_err() {
                        // A sender that is gone will never ask.
                        listening = false;
                    } else {
                        stop.send_replace(*signal.borrow());
                    }
                }
            }
        }
        while let Some(task) = tasks.join_next().await {
            ended.push(task.unwrap_or_else(|e| Err(Error::Corrupt(format!("a worker ended unexpectedly: {e}")))));
        }
        Ok(ended)
    }

    /// Counts the rows of other processes from time to time. A look that fails is made again: meanwhile the rows of this
    /// process count by themselves.
    async fn count_on(&mut self, run: RunId) -> Infallible {
        loop {
            tokio::time::sleep(COUNT_EVERY).await;
            let looked = tokio::time::timeout(COUNT_TIMEOUT, async {
                if self.session.is_closed() {
                    self.reconnect().await?;
                }
                self.session.totals(run).await
            });
            match looked.await {
                Ok(Ok(at)) => self.slice.see_run(at.changed_rows),
                Ok(Err(_)) => {}
                // Nobody waits for its answer any more.
                Err(_) => self.session.close(),
            }
        }
    }

    /// Takes the next partition, and tells the end of the one before. Connects again if need be: of a lease whose answer
    /// was lost nobody knows, and it runs out.
    async fn take_next(
        &mut self,
        plan: &Plan,
        run: &StoredRun,
        taker: &Taker,
        mut done: Option<Lease>,
        stop: watch::Receiver<Stop>,
    ) -> Result<Taken, Error> {
        let mut attempt = 0;
        loop {
            let error = match self.take_part(plan, run, taker, done.as_ref()).await {
                Ok(taken) => {
                    if done.is_some() {
                        fault::point("lease_released");
                    }
                    return Ok(taken);
                }
                Err(error) => error,
            };
            if error.sqlstate == LEASE_LOST && done.take().is_some() {
                // Somebody has taken that one over, and ends it.
                continue;
            }
            attempt += 1;
            if !may_connect_soon(&error) || attempt > RECONNECTS_MAX || *stop.borrow() != Stop::None {
                return Err(super::nights::cut_off(error, run.run_id));
            }
            wait_or_stop(stop.clone(), backoff(attempt, jitter())).await;
            match self.reconnect().await {
                Err(error) if !may_connect_soon(&error) => return Err(super::nights::cut_off(error, run.run_id)),
                // The next attempt finds out.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// One worker: takes partitions until all are done, or the run is stopped.
    async fn work(
        &mut self,
        plan: Plan,
        run: StoredRun,
        options: RunOptions,
        events: mpsc::Sender<Told>,
        stop: watch::Receiver<Stop>,
        most: u32,
    ) -> Result<Ended, Error> {
        let taker =
            Taker { owner: uuid::Uuid::now_v7().to_string(), holder: super::ownership::holder(), workers: most };
        // The tenant that was driven last: its end is told with the question for the next one.
        let mut done: Option<Lease> = None;
        loop {
            if *stop.borrow() != Stop::None {
                if let Some(lease) = &done {
                    // If it does not arrive, whoever goes on finds it exhausted.
                    let _ = self.session.close_partition(lease).await;
                }
                // Those that have a partition say so in the database.
                return Ok(Ended::Stopped);
            }
            let taken = self.take_next(&plan, &run, &taker, done.take(), stop.clone()).await?;
            let (partition, lease) = match taken {
                Taken::Partition(partition, lease) => (partition, lease),
                Taken::AllDone => return Ok(Ended::AllDone),
                Taken::Stopped => return Ok(Ended::Stopped),
                Taken::Standstill(why) => return Ok(Ended::Standstill(why)),
                Taken::NoneFree => {
                    wait_or_stop(stop.clone(), LOOK_EVERY).await;
                    continue;
                }
            };
            let (partition_no, events) = (partition.partition_no, events.clone());
            let mut observer = Observer::with_stop(
                move |event| {
                    // Progress that nobody takes up is dropped, and the next event tells the same totals.
                    let _ = events.try_send(Told { partition_no, event: event.clone() });
                },
                stop.clone(),
            );
            let run = within(&run, &partition);
            let worker = Worker::new(self, plan.clone(), run, lease.clone(), &options, &mut observer, true).await;
            let mut worker = match worker {
                Ok(worker) => worker,
                Err(error) => {
                    // So that others need not wait. If it does not arrive, the lease runs out by itself.
                    let _ = self.session.release(&lease).await;
                    return Err(error);
                }
            };
            worker.partition = Some(partition);
            worker.narrow_to_tenant()?;
            worker.sharing = most;
            let tenant = worker.tenant().is_some();
            let driven = Box::pin(worker.drive_part()).await;
            if driven.is_err() && !self.session.is_closed() {
                // So that others need not wait. If it does not arrive, the lease runs out by itself.
                let _ = self.session.release(&lease).await;
            }
            match driven {
                Ok(None) => done = Some(lease).filter(|_| tenant),
                Ok(Some(outcome)) if outcome.state == RunState::Running => {}
                Ok(Some(_)) => return Ok(Ended::Stopped),
                // Somebody has taken this partition over; there may be others.
                Err(Error::Refused(refusal)) if refusal.code == Code::LeaseHeld => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Who takes partitions, and among how many.
pub(super) struct Taker {
    /// This worker, and no other.
    pub owner: String,
    /// How people call its process.
    pub holder: String,
    /// Workers of the run at once.
    pub workers: u32,
}

/// What a worker ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// No partition of the run is open any more.
    AllDone,
    /// The run was stopped.
    Stopped,
    /// No tenant can be taken, and not all are done.
    Standstill(Standstill),
}

/// The workers that a run may have, wherever they are.
fn workers(plan: &Plan, options: &RunOptions) -> u32 {
    options.workers.or(plan.limits.workers).unwrap_or(1).clamp(1, WORKERS_MAX)
}

/// The run as a worker of one of its partitions sees it: its range ends where the partition does.
fn within(run: &StoredRun, partition: &Partition) -> StoredRun {
    StoredRun { upper_bound: run.upper_bound.as_ref().map(|_| partition.upper.clone()), ..run.clone() }
}

/// The last ordinals of parts of about the same size.
fn evenly(rows: i64, parts: u32) -> Vec<Vec<String>> {
    let parts = i64::from(parts).min(rows);
    (1..=parts).map(|part| vec![(i128::from(rows) * i128::from(part) / i128::from(parts)).to_string()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_divided_evenly_and_none_is_left_out() {
        assert_eq!(evenly(10, 4), [["2"], ["5"], ["7"], ["10"]]);
        assert_eq!(evenly(2, 4), [["1"], ["2"]]);
        assert!(evenly(0, 4).is_empty());
    }
}
