//! What runs do now: the list, one run's status and what to type next, its conflicts, and the images that
//! nobody needs any more.

pub(crate) mod blocker;
pub(crate) mod doing;
mod tenants;
mod tune;
mod wish;

pub use tenants::{Standing, TenantStatus, TenantsStatus};
pub use tune::{InForce, SignalInForce, Tuning};

use std::time::Duration;

use pgmend_core::id::RunId;
use pgmend_core::limits::UNDO_RETENTION_DAYS;
use pgmend_core::mask::{Mask, ValueKind, is_masked};
use pgmend_core::plan::{Plan, PlanKey};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_pg::archive::{Blocker, OldTable, Tenure};
use pgmend_pg::store::{LastCheckpoint, StoredRun};

use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Conflict, Prunable, RunSummary, Status, Vacuums};
use doing::Glance;

/// Conflicts that a caller gets; all of them are in `pgmend.conflict`.
const CONFLICTS_READ_MAX: i64 = 10_000;
/// Between the names of two processes.
const HOLDERS_JOINED: &str = " and ";
/// Processes that a status names one by one.
const HOLDERS_NAMED_MAX: usize = 4;
/// A run whose last batch began longer ago than this may be waiting for a lock.
const QUIET_S: f64 = 1.5;
/// Looks for a blocker: a worker waits for a lock in short turns, with pauses in between.
const BLOCKER_LOOKS: u32 = 8;
/// Time between two of them.
const BLOCKER_PAUSE: Duration = Duration::from_millis(250);

impl Engine {
    /// All runs, newest first, 200 at most.
    pub async fn list(&mut self) -> Result<Vec<RunSummary>, Error> {
        self.need_control_schema().await?;
        let runs = self.session.all_runs().await?;
        let at = self.checkpoints(&runs).await?;
        Ok(runs.iter().zip(at).map(|(run, at)| summary(run, &at)).collect())
    }

    /// What runs do and why they wait: the unfinished ones, or those that a name means. A job's name means its
    /// latest run and every unfinished one.
    pub async fn status(&mut self, name: Option<&str>) -> Result<Vec<Status>, Error> {
        self.need_control_schema().await?;
        let runs = match name {
            None => self.session.all_runs().await?.into_iter().filter(|r| !r.state.ended()).collect(),
            Some(name) => {
                let meant = self.meant_run(name).await?;
                let found = self.session.find_runs(name).await?;
                let by_job = meant.job == name;
                found
                    .into_iter()
                    .filter(|r| r.run_id == meant.run_id || (by_job && !r.state.ended()))
                    .collect::<Vec<_>>()
            }
        };
        let at = self.checkpoints(&runs).await?;
        let mut all = Vec::with_capacity(runs.len());
        for (run, at) in runs.iter().zip(at) {
            all.push(self.status_of(run, &at).await?);
        }
        Ok(all)
    }

    /// The conflicts of a run, in order.
    pub async fn conflicts(&mut self, run: &str) -> Result<Vec<Conflict>, Error> {
        self.need_control_schema().await?;
        let run = self.meant_run(run).await?;
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        self.conflicts_of(&run, &plan, CONFLICTS_READ_MAX).await
    }

    /// Images and change sets past their retention; with `execute` drops them, after saving digests of their
    /// keys, so that `trace` still tells which runs touched a row.
    pub async fn prune(&mut self, older_than_days: Option<u32>, execute: bool) -> Result<Vec<Prunable>, Error> {
        self.need_control_schema().await?;
        if execute {
            self.refuse_standby()?;
        }
        let days = older_than_days.unwrap_or(UNDO_RETENTION_DAYS);
        let mut all = Vec::new();
        for old in self.session.old_tables(days).await? {
            let dropped = execute && self.drop_old(&old, days).await?;
            all.push(Prunable {
                table: format!("pgmend.{}", old.name),
                job: old.job,
                belongs_to: old.belongs_to,
                size_bytes: old.size_bytes,
                since: old.since,
                dropped,
            });
        }
        Ok(all)
    }

    async fn drop_old(&self, old: &OldTable, days: u32) -> Result<bool, Error> {
        let dropped =
            self.session.drop_old_table(&old.name, days).await.map_err(|error| match error.sqlstate.as_str() {
                "42501" | "PM310" => Error::from(Refusal::new(
                    Code::Privilege,
                    format!("this role may not drop images: {}", error.message),
                    "let the owner of schema pgmend prune, or a member of pgmend_runner once they are 7 days old",
                )),
                _ => error.into(),
            })?;
        Ok(dropped.is_some())
    }

    /// The run that a name means: an id or a unique beginning or end of one; a job's latest forward run.
    pub(crate) async fn meant_run(&self, name: &str) -> Result<StoredRun, Error> {
        let found = self.session.find_runs(name).await?;
        let by_job = found.first().is_some_and(|run| run.job == name);
        if !by_job && found.len() > 1 {
            let message = format!("{} runs have an id like `{name}`", found.len());
            return Err(Refusal::new(
                Code::NotFound,
                message,
                "give the whole id, or its last digits; `pgmend list` shows them",
            )
            .into());
        }
        let newest = found.first().cloned();
        found.into_iter().find(|run| !by_job || run.kind != "undo").or(newest).ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("there is no run or job `{name}`"), "type: pgmend list").into()
        })
    }

    pub(crate) async fn conflicts_of(&self, run: &StoredRun, plan: &Plan, limit: i64) -> Result<Vec<Conflict>, Error> {
        let found = self.session.conflicts(run.run_id, limit).await?;
        let shown = self.shown_of(plan).await?;
        Ok(found
            .into_iter()
            .map(|(key, reason)| Conflict { key: key_text(plan.key.as_ref(), &key, &shown), reason })
            .collect())
    }

    async fn checkpoints(&self, runs: &[StoredRun]) -> Result<Vec<LastCheckpoint>, Error> {
        let ids: Vec<RunId> = runs.iter().map(|r| r.run_id).collect();
        let found = self.session.last_checkpoints(&ids).await?;
        let of = |run: &RunId| found.iter().find(|(id, _)| id == run).map(|(_, at)| at.clone()).unwrap_or_default();
        Ok(ids.iter().map(of).collect())
    }

    async fn status_of(&self, run: &StoredRun, at: &LastCheckpoint) -> Result<Status, Error> {
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        let tenure = if run.state.ended() { None } else { together(self.session.tenures(run.run_id).await?) };
        let driven = run.state == RunState::Running && tenure.as_ref().is_some_and(|t| t.left_s > 0.0);
        let pace = if driven { self.session.recent_pace(run.run_id).await? } else { None };
        let holds = if driven { self.session.holds(run.run_id).await? } else { Vec::new() };
        let holds: Vec<_> = holds.into_iter().filter(|hold| hold.active).collect();
        let vacuums = self.session.vacuums(run.run_id).await?;
        let quiet = driven
            && holds.is_empty()
            && vacuums.under_way_s.is_none()
            && pace.is_none_or(|(_, since_s)| since_s > QUIET_S);
        let blockers = if quiet { self.wait_for_blockers(run.target_oid).await? } else { Vec::new() };
        let moving = blockers.is_empty() && holds.is_empty() && !tenure.as_ref().is_some_and(silent);
        let rows_per_s = pace.map(|(rate, _)| rate).filter(|_| moving);
        let latest = self.latest_of_its_job(run).await?;
        let wish = if run.state.ended() { None } else { self.session.wish(run.run_id).await? };
        let (pace_asked, tuned, driving) = self.pace_of(run, &plan.pace).await?;
        let pace = pace_asked.tuned(tuned.iter().map(|change| (change.setting, change.value)));
        let lifted = !pace_asked.is_empty() && pace.to_string().is_empty();
        let limits = if run.state.ended() { Vec::new() } else { self.session.wanted(run.run_id).await?.limits };
        let glance = Glance {
            wish: wish.as_ref(),
            waits: driving.waits_for.as_deref().zip(driving.waits_s),
            run,
            at,
            plan: &plan,
            tenure: tenure.as_ref(),
            several: tenure.as_ref().is_some_and(|t| t.holder.contains(HOLDERS_JOINED)),
            rows_per_s,
            blockers: &blockers,
            holds: &holds,
            vacuuming_s: vacuums.under_way_s.filter(|_| driven),
        };
        Ok(Status {
            doing: glance.doing(),
            next: glance.next(latest),
            summary: summary(run, at),
            holder: tenure.as_ref().map(|t| t.holder.clone()),
            lease_left_s: tenure.as_ref().map(|t| t.left_s),
            batches: at.batch_no,
            conflict_rows: at.conflict_rows,
            dead_rows: at.dead_rows,
            rows_per_s,
            vacuums: Some(vacuums).filter(|vacuums| *vacuums != Vacuums::default()),
            holds: holds.clone(),
            pace: match lifted {
                true => Some("as fast as it goes".to_owned()),
                false => Some(pace).filter(|pace| !pace.is_empty()).map(|pace| pace.to_string()),
            },
            tuned,
            limits,
            reason: match &run.state {
                RunState::Paused { reason } => Some(reason.clone()),
                RunState::Failed { failure } => Some(failure.clone()),
                RunState::Running | RunState::Succeeded | RunState::Cancelled => None,
            },
            tenants: self.tenants_of(run, &plan).await?,
            findings: plan.findings,
        })
    }

    /// Who keeps the worker waiting. Looks more than once: a lock is waited for in short turns.
    async fn wait_for_blockers(&self, target_oid: u32) -> Result<Vec<Blocker>, Error> {
        for look in 0..BLOCKER_LOOKS {
            if look > 0 {
                tokio::time::sleep(BLOCKER_PAUSE).await;
            }
            let found = self.session.blockers(target_oid).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Whether the job's name means this run.
    pub(crate) async fn latest_of_its_job(&self, run: &StoredRun) -> Result<bool, Error> {
        let runs = self.session.find_runs(&run.job).await?;
        Ok(runs.iter().find(|r| r.job == run.job && r.kind != "undo").is_some_and(|r| r.run_id == run.run_id))
    }
}

/// A row of `list`.
fn summary(run: &StoredRun, at: &LastCheckpoint) -> RunSummary {
    RunSummary {
        run_id: run.run_id,
        job: run.job.clone(),
        kind: run.kind.clone(),
        target: run.target.clone(),
        state: run.state.name().to_owned(),
        started_by: run.started_by.clone(),
        started_at: run.started_at.clone(),
        ended_at: run.ended_at.clone(),
        changed_rows: at.changed_rows,
        planned_rows: run.planned_rows,
        undone_by: run.undone_by,
    }
}

/// `column=value, …`; a value is masked unless it is an integer or a uuid.
pub(crate) fn key_text(key: Option<&PlanKey>, values: &[String], mask: &Mask) -> String {
    let part = |(i, value): (usize, &String)| {
        let column = key.and_then(|k| k.columns.get(i)).map_or("?", String::as_str);
        let plain = key
            .and_then(|k| k.types.get(i))
            .is_some_and(|t| matches!(t.as_str(), "smallint" | "integer" | "bigint" | "uuid"));
        // Whoever has no key of tokens gets keys that the database has masked already.
        let masked = mask.key.is_none() && is_masked(value);
        let kind = if plain || masked { ValueKind::Plain } else { ValueKind::Sensitive };
        let shown = mask.show(column, kind, Some(value)).unwrap_or_default();
        format!("{column}={shown}")
    };
    values.iter().enumerate().map(part).collect::<Vec<_>>().join(", ")
}

/// The drivers of a run as one: those that live are named, each with its number of workers.
fn together(tenures: Vec<Tenure>) -> Option<Tenure> {
    let mut workers: Vec<(String, usize)> = Vec::new();
    for tenure in tenures.iter().filter(|tenure| tenure.left_s > 0.0) {
        match workers.iter_mut().find(|(holder, _)| *holder == tenure.holder) {
            Some((_, count)) => *count += 1,
            None => workers.push((tenure.holder.clone(), 1)),
        }
    }
    let first = tenures.into_iter().next()?;
    if workers.len() < 2 && workers.iter().all(|(_, count)| *count == 1) {
        return Some(first);
    }
    let named = workers.iter().take(HOLDERS_NAMED_MAX).map(|(holder, count)| match count {
        1 => holder.clone(),
        count => format!("{holder} ({count} workers)"),
    });
    let mut named: Vec<String> = named.collect();
    let more = workers.len().saturating_sub(HOLDERS_NAMED_MAX);
    named.extend((more > 0).then(|| format!("{more} more")));
    Some(Tenure { holder: named.join(HOLDERS_JOINED), ..first })
}

/// Whoever holds a lease lives if it renews it; a lease is renewed six times in its length.
pub(crate) fn silent(tenure: &Tenure) -> bool {
    tenure.silent_s > tenure.length_s / 2.0
}

#[cfg(test)]
mod tests {
    use pgmend_core::mask::MASKED;

    use super::*;

    #[test]
    fn every_process_that_drives_is_named_with_its_workers() {
        let tenure =
            |holder: &str, left_s: f64| Tenure { holder: holder.into(), left_s, silent_s: 1.0, length_s: 30.0 };
        assert_eq!(together(Vec::new()), None);
        let named = |tenures: Vec<Tenure>| together(tenures).map(|tenure| tenure.holder);
        assert_eq!(named(vec![tenure("a", 20.0), tenure("dead", -3.0)]).as_deref(), Some("a"));
        assert_eq!(named(vec![tenure("dead", -3.0)]).as_deref(), Some("dead"), "status says since when it is gone");
        let several = vec![tenure("a", 20.0), tenure("b", 19.0), tenure("a", 18.0), tenure("dead", -3.0)];
        assert_eq!(named(several).as_deref(), Some("a (2 workers) and b"));
        let many = (0..7).map(|n| tenure(&format!("p{n}"), 20.0)).collect();
        assert_eq!(named(many).as_deref(), Some("p0 and p1 and p2 and p3 and 3 more"));
    }

    #[test]
    fn only_integer_and_uuid_keys_are_shown() {
        let key = PlanKey {
            index: "i".into(),
            columns: vec!["id".into(), "email".into()],
            types: vec!["bigint".into(), "text".into()],
        };
        let text = key_text(Some(&key), &["7".into(), "a@b.c".into()], &Mask::default());
        assert_eq!(text, format!("id=7, email={MASKED}"));
        let masked = ["7".to_owned(), "‹4f7k0q›".to_owned()];
        assert_eq!(key_text(Some(&key), &masked, &Mask::default()), "id=7, email=‹4f7k0q›");
    }
}
