//! Runs that go tenant by tenant: each tenant is a partition, canaries first, then small to large. A tenant that fails,
//! or whose rows others hold, is left behind alone; what says something about the run stops all of it
//! (docs/design/parallel-workers.md).

use pgmend_core::expect::Then;
use pgmend_core::mask::MASKED;
use pgmend_core::plan::{Plan, RunSql};
use pgmend_core::refusal::Code;
use pgmend_core::run::RunState;
use pgmend_core::tenants::{ROUNDS_MAX, Reach, Tenant, Tenants, is_contention, reach};
use pgmend_pg::PgError;
use pgmend_pg::batch::Lease;
use pgmend_pg::error::LEASE_LOST;
use pgmend_pg::partitions::{Standstill, Taken};
use pgmend_pg::store::{Fact, StoredRun};
use pgmend_pg::tenants::{StoredTenant, TenantBounds, TenantPart};

use super::partitions::Taker;
use super::worker::Worker;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::progress::{Event, Observer};

/// A person has paused this tenant; raised by the control schema for its next batch.
pub(super) const TENANT_PAUSED: &str = "PM754";
/// Why a run pauses after its canary tenants; the ledger's entry with these words says that somebody was to look.
const LOOK: &str = "the canary tenants are done: look at their rows, then go on";
/// Tenants that a reason names one by one; `status` lists more.
const NAMED_MAX: usize = 3;

impl Engine {
    /// Divides a run that has no batch yet by its tenants. Its own lease is held. False where no tenant has a row: then
    /// there is nothing to divide.
    pub(super) async fn divide_by_tenant(
        &self,
        lease: &Lease,
        plan: &Plan,
        tenants: &Tenants,
        run: &StoredRun,
    ) -> Result<bool, Error> {
        // Everybody may read it, also where the plan shows its values because somebody asked for that.
        let label = |tenant: &'_ Tenant| match plan.shows_values {
            true => tenant.value.as_ref().map(|_| MASKED.to_owned()),
            false => tenant.shown.clone(),
        };
        let part = |tenant: &'_ Tenant| -> Option<(Option<Vec<String>>, Vec<String>)> {
            match (tenant.ordinals, &run.upper_bound) {
                (Some((first, last)), _) => Some((Some(vec![(first - 1).to_string()]), vec![last.to_string()])),
                (None, Some(upper)) => Some((None, upper.clone())),
                (None, None) => None,
            }
        };
        let parts: Option<Vec<TenantPart>> = tenants
            .tenants
            .iter()
            .map(|tenant| {
                let (lower, upper) = part(tenant)?;
                Some(TenantPart { lower, upper, tenant: label(tenant), canary: tenant.canary })
            })
            .collect();
        match parts {
            Some(parts) if !parts.is_empty() => Ok(self.session.divide_by_tenant(lease, &parts).await? > 0),
            Some(_) | None => Ok(false),
        }
    }

    /// Takes a partition: the next range of keys, or the next tenant, whose answer closes the one that is done.
    pub(super) async fn take_part(
        &self,
        plan: &Plan,
        run: &StoredRun,
        taker: &Taker,
        done: Option<&Lease>,
    ) -> Result<Taken, PgError> {
        let (seconds, Taker { owner, holder, workers }) = (plan.limits.lease_seconds, taker);
        let Some(tenants) = &plan.tenants else {
            return self.session.take_partition(run.run_id, owner, holder, seconds, *workers).await;
        };
        let look = (tenants.mode.then == Then::Pause).then_some(LOOK);
        let bounds = TenantBounds { workers: *workers, failed_max: tenants.mode.failed_max, look };
        self.session.take_tenant(run.run_id, owner, holder, seconds, bounds, done).await
    }

    /// No tenant can be taken, although not all are done: says so in the database, under the lease of the run itself.
    pub(super) async fn stand_still(
        &mut self,
        plan: &Plan,
        run: &StoredRun,
        why: Standstill,
        observer: &mut Observer,
        resumed: bool,
    ) -> Result<Outcome, Error> {
        let lease = match self.lease_of_the_end(plan, run, observer).await? {
            Some(lease) => lease,
            None => return self.outcome(&self.one_run(&run.run_id.to_string()).await?, resumed).await,
        };
        let all = self.session.tenants(run.run_id).await?;
        let state = standing(&all, why);
        let (fact, said) = match &state {
            RunState::Failed { failure } => ("run_failed", failure.as_str()),
            RunState::Paused { reason } => ("run_paused", reason.as_str()),
            RunState::Running | RunState::Succeeded | RunState::Cancelled => ("run_stopped", ""),
        };
        let at = self.session.totals(run.run_id).await?;
        let failed = all.iter().filter(|tenant| tenant.state == "failed").count();
        let body = serde_json::json!({ "why": said, "batch": at.batch_no, "changed_rows": at.changed_rows,
            "dead_rows": at.dead_rows, "failed_tenants": failed });
        let stopped =
            self.session.change_state(&lease, &["running"], &state, None, Fact { name: fact, body: &body }).await;
        self.session.release(&lease).await?;
        stopped?;
        let now = self.one_run(&run.run_id.to_string()).await?;
        let outcome = self.outcome(&now, resumed).await?;
        observer.tell(&outcome.event());
        Ok(outcome)
    }
}

/// The state of a run in which no tenant can be taken.
fn standing(all: &[StoredTenant], why: Standstill) -> RunState {
    let error = |tenant: &StoredTenant| {
        format!("{}: {}", tenant.tenant, tenant.message.as_deref().unwrap_or("an error that was not recorded"))
    };
    match why {
        Standstill::Look => RunState::Paused { reason: LOOK.to_owned() },
        Standstill::Paused => {
            let paused = all.iter().filter(|tenant| tenant.state == "open" && tenant.paused_by.is_some());
            let names: Vec<String> = paused.map(|tenant| tenant.tenant.clone()).collect();
            let are = if names.len() == 1 { " is" } else { "s are" };
            let reason = format!(
                "{} tenant{are} paused, and nothing else is left: {}; pgmend resume RUN --tenant NAME lifts it",
                names.len(),
                some(&names)
            );
            RunState::Paused { reason }
        }
        Standstill::Failed => {
            let failed: Vec<String> = all.iter().filter(|tenant| tenant.state == "failed").map(error).collect();
            let rest = match all.iter().filter(|tenant| tenant.state == "open").count() {
                0 => "the others are done".to_owned(),
                1 => "1 is not done".to_owned(),
                n => format!("{n} are not done"),
            };
            let failure = format!(
                "{} of {} tenants failed ({}), {rest}; the same run tries them again: {}",
                failed.len(),
                all.len(),
                Code::TenantsFailed,
                some(&failed)
            );
            RunState::Failed { failure }
        }
    }
}

/// The first of many names.
fn some(named: &[String]) -> String {
    let more = named.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", named.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join("; "))
}

impl Worker<'_, '_> {
    /// The tenant that it drives, if it drives one.
    pub(super) fn tenant(&self) -> Option<&Tenant> {
        let partition = self.partition.as_ref()?;
        self.plan.tenants.as_ref()?.numbered(partition.partition_no)
    }

    /// Takes over the SQL of the tenant that it drives: of a streamed plan, the statement narrowed to it, whose value is
    /// one more parameter. Ordinals of a frozen plan need nothing of the kind.
    pub(super) fn narrow_to_tenant(&mut self) -> Result<(), Error> {
        let Some(tenant) = self.tenant().cloned() else {
            return match &self.plan.tenants {
                Some(_) => Err(Error::Corrupt("a partition is no tenant of the plan".into())),
                None => Ok(()),
            };
        };
        if matches!(self.plan.sql, RunSql::Freeze { .. }) {
            return Ok(());
        }
        let tenants = self.plan.tenants.as_ref();
        let sql = tenants.and_then(|t| if tenant.value.is_some() { t.sql.as_ref() } else { t.null_sql.as_ref() });
        let sql = sql.ok_or_else(|| Error::Corrupt("a streamed plan has no SQL for its tenant".into()))?;
        self.plan.sql = sql.as_ref().clone();
        // Before the instant, which comes after the job's parameters.
        let place = self.params.len().saturating_sub(1);
        self.params.insert(place, tenant.value);
        Ok(())
    }

    /// Whether the tenant's rows that others hold may be left for later.
    pub(super) fn may_wait_for_others(&self) -> bool {
        self.tenant().is_some() && self.partition.as_ref().is_some_and(|part| part.rounds < ROUNDS_MAX)
    }

    /// Stops with the tenant alone, if what stops it concerns nobody else. False: it stops the run.
    pub(super) async fn stops_alone(&mut self, state: &RunState) -> Result<bool, Error> {
        let Some(tenant) = self.tenant().map(|tenant| tenant.name().to_owned()) else { return Ok(false) };
        let sqlstate = self.trouble.clone();
        let (failed, why) = match state {
            // The lease is given back as the worker leaves; the wish keeps the tenant from being taken.
            RunState::Paused { .. } if sqlstate == TENANT_PAUSED => {
                self.observer.tell(&Event::Tenant { tenant, state: "paused".into(), why: String::new() });
                return Ok(true);
            }
            RunState::Paused { reason } if is_contention(&sqlstate) => (!self.may_wait_for_others(), reason.clone()),
            RunState::Failed { failure } if reach(&sqlstate) == Reach::Tenant => (true, failure.clone()),
            RunState::Paused { .. }
            | RunState::Failed { .. }
            | RunState::Running
            | RunState::Succeeded
            | RunState::Cancelled => return Ok(false),
        };
        self.leave_behind(failed, &sqlstate, &why).await?;
        let state = if failed { "failed" } else { "set aside" };
        self.observer.tell(&Event::Tenant { tenant, state: state.into(), why });
        Ok(true)
    }

    /// Records it; once more if the connection breaks. A lease that is gone by then was given back by the first time, or
    /// taken over: either way the tenant is not ours any more.
    async fn leave_behind(&mut self, failed: bool, sqlstate: &str, why: &str) -> Result<(), Error> {
        let mut left = self.session().leave_tenant(&self.lease, failed, sqlstate, why).await;
        if left.as_ref().is_err_and(PgError::is_connection) {
            self.reload().await?;
            left = self.session().leave_tenant(&self.lease, failed, sqlstate, why).await;
        }
        match left {
            Err(error) if error.sqlstate == LEASE_LOST => Ok(()),
            left => Ok(left?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(number: i32, state: &str) -> StoredTenant {
        StoredTenant {
            number,
            tenant: number.to_string(),
            state: state.into(),
            rounds: 0,
            sqlstate: Some("23514".into()),
            message: Some("change a batch: no (23514)".into()),
            driven: false,
            paused_by: (state == "open").then(|| "alice".into()),
            pause_reason: None,
            changed_rows: 0,
            conflict_rows: 0,
            dead_rows: 0,
            batches: 0,
        }
    }

    #[test]
    fn the_first_of_many_failures_are_told_with_their_errors() {
        let all: Vec<StoredTenant> = (1..=5).map(|n| stored(n, "failed")).chain([stored(6, "done")]).collect();
        let RunState::Failed { failure } = standing(&all, Standstill::Failed) else { panic!("it failed") };
        assert!(failure.starts_with("5 of 6 tenants failed (PM756), the others are done"), "{failure}");
        assert!(failure.ends_with("; and 2 more"), "{failure}");
        assert_eq!(failure.matches("23514").count(), NAMED_MAX);
    }

    #[test]
    fn a_run_with_nothing_left_but_a_paused_tenant_says_how_to_go_on() {
        let all = [stored(1, "done"), stored(2, "open")];
        let RunState::Paused { reason } = standing(&all, Standstill::Paused) else { panic!("it is paused") };
        assert!(reason.starts_with("1 tenant is paused") && reason.contains("resume RUN --tenant"), "{reason}");
    }
}
