//! The tenants of a run, as people see and control them: how each stands, a pause of one, and its end.

use pgmend_core::plan::Plan;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_core::tenants::Tenant;
use pgmend_pg::PgError;
use pgmend_pg::store::StoredRun;
use pgmend_pg::tenants::StoredTenant;
use serde::Serialize;

use super::wish::said;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::Status;

/// How a tenant of a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It stopped with an error; the run tries it again when it goes on.
    Failed,
    /// A person has paused it.
    Paused,
    /// A worker drives it.
    Running,
    /// Its turn has not come, or comes again.
    Waiting,
    /// All its rows are as they should be.
    Done,
}

impl Standing {
    /// The word as printed.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Failed => "failed",
            Standing::Paused => "paused",
            Standing::Running => "running",
            Standing::Waiting => "waiting",
            Standing::Done => "done",
        }
    }
}

/// A tenant of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantStatus {
    /// The tenant, as it may be shown; absent for NULL.
    pub tenant: Option<String>,
    /// How it stands.
    pub standing: Standing,
    /// Whether it comes before those that are none.
    pub canary: bool,
    /// Rows that will change, as planned.
    pub planned_rows: i64,
    /// Rows changed.
    pub changed_rows: i64,
    /// Conflicts.
    pub conflict_rows: i64,
    /// Rows set aside.
    pub dead_rows: i64,
    /// Batches committed.
    pub batches: i64,
    /// How often it was set aside because others held its rows.
    pub rounds: i32,
    /// SQLSTATE of the last error that it stopped with.
    pub sqlstate: Option<String>,
    /// That error, or why a person has paused it and who.
    pub why: Option<String>,
}

impl TenantStatus {
    /// What people call it.
    pub fn name(&self) -> &str {
        self.tenant.as_deref().unwrap_or("NULL")
    }
}

/// The tenants of a run, in the order of its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantsStatus {
    /// The column.
    pub column: String,
    /// The tenants.
    pub tenants: Vec<TenantStatus>,
}

impl TenantsStatus {
    /// How many stand like this.
    pub fn count(&self, standing: Standing) -> usize {
        self.tenants.iter().filter(|tenant| tenant.standing == standing).count()
    }
}

fn standing(stored: &StoredTenant, running: bool) -> Standing {
    match stored.state.as_str() {
        "done" => Standing::Done,
        "failed" => Standing::Failed,
        _ if stored.paused_by.is_some() => Standing::Paused,
        _ if stored.driven && running => Standing::Running,
        _ => Standing::Waiting,
    }
}

fn why(stored: &StoredTenant) -> Option<String> {
    let paused = stored.paused_by.as_ref().zip(stored.pause_reason.as_ref());
    paused.map(|(by, reason)| format!("by {by}: {reason}")).or_else(|| stored.message.clone())
}

impl Engine {
    /// The tenants of a run; `None` for a run that has none, or is not divided yet.
    pub(crate) async fn tenants_of(&self, run: &StoredRun, plan: &Plan) -> Result<Option<TenantsStatus>, PgError> {
        let Some(planned) = &plan.tenants else { return Ok(None) };
        let stored = self.session.tenants(run.run_id).await?;
        let running = run.state == RunState::Running;
        let told = stored.iter().map(|stored| {
            let tenant = planned.numbered(stored.number);
            let standing = standing(stored, running);
            TenantStatus {
                tenant: tenant.map_or_else(|| Some("?".to_owned()), |t| t.shown.clone()),
                standing,
                canary: tenant.is_some_and(|t| t.canary),
                planned_rows: tenant.map_or(0, |t| t.rows),
                changed_rows: stored.changed_rows,
                conflict_rows: stored.conflict_rows,
                dead_rows: stored.dead_rows,
                batches: stored.batches,
                rounds: stored.rounds,
                sqlstate: stored.sqlstate.clone().filter(|_| standing != Standing::Done),
                why: why(stored).filter(|_| standing != Standing::Done),
            }
        });
        let tenants: Vec<TenantStatus> = told.collect();
        Ok(Some(TenantsStatus { column: planned.mode.column.clone(), tenants }).filter(|all| !all.tenants.is_empty()))
    }

    /// Asks for a pause of one tenant at its next batch; the others go on.
    pub async fn pause_tenant(&mut self, run: &str, tenant: &str, reason: &str) -> Result<Vec<Status>, Error> {
        self.refuse_standby()?;
        let reason = said(reason)?;
        let (run, number) = self.meant_tenant(run, tenant).await?;
        self.session.ask_tenant(run.run_id, number, reason).await.map_err(|e| refused(e, &run))?;
        self.status(Some(&run.run_id.to_string())).await
    }

    /// Lifts the pause of one tenant; one that has failed is tried again by whoever drives the run.
    pub async fn resume_tenant(&mut self, run: &str, tenant: &str) -> Result<Vec<Status>, Error> {
        self.refuse_standby()?;
        let (run, number) = self.meant_tenant(run, tenant).await?;
        self.session.lift_tenant(run.run_id, number).await.map_err(|e| refused(e, &run))?;
        self.status(Some(&run.run_id.to_string())).await
    }

    async fn meant_tenant(&self, run: &str, named: &str) -> Result<(StoredRun, i32), Error> {
        let run = self.unfinished(run).await?;
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        let Some(tenants) = &plan.tenants else {
            let message = format!("run {} does not go tenant by tenant", run.run_id);
            let help = format!("pause all of it: pgmend pause {} --reason \"…\"", run.run_id.short());
            return Err(Refusal::new(Code::NoSuchTenant, message, help).into());
        };
        if let Some(number) = tenants.find(named) {
            return Ok((run, number));
        }
        let some: Vec<&str> = tenants.tenants.iter().take(5).map(Tenant::name).collect();
        let message = format!("run {} has no tenant `{named}` in `{}`", run.run_id, tenants.mode.column);
        let help = format!("it has {} of them, such as: {}", tenants.tenants.len(), some.join(", "));
        Err(Refusal::new(Code::NoSuchTenant, message, help).into())
    }
}

/// What the control schema refuses about one tenant.
fn refused(error: PgError, run: &StoredRun) -> Error {
    let help = format!("see how they stand: pgmend status {}", run.run_id.short());
    let code = [Code::WrongState, Code::NoSuchTenant].into_iter().find(|code| code.as_str() == error.sqlstate);
    code.map_or_else(|| error.clone().into(), |code| Refusal::new(code, error.message.clone(), help).into())
}
