//! Another pace for a live run, from any machine. The database keeps the change with who and why, and lets it expire;
//! whoever drives the run hears of it within a second.

use pgmend_core::limits::BATCH_ROWS_CEILING;
use pgmend_core::pace::{Pace, Setting};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_pg::pace::{Driving, Tuned};
use pgmend_pg::store::StoredRun;

use super::wish::said;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::Status;

/// What to change of a live run's pace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuning {
    /// Each setting with its value; 0 switches rate and rest off, `None` goes back to what the run was started with.
    pub changes: Vec<(Setting, Option<f64>)>,
    /// Minutes for which that counts; `None` pins it to the end of the run.
    pub minutes: Option<u32>,
}

impl Engine {
    /// Changes the pace of a run that has not ended.
    pub async fn tune(&mut self, run: &str, tuning: &Tuning, reason: &str) -> Result<Vec<Status>, Error> {
        self.refuse_standby()?;
        let reason = said(reason)?;
        let run = self.unfinished(run).await?;
        if tuning.changes.is_empty() {
            let help = "say what: --rate, --nice, --batch-rows or --reset";
            return Err(Refusal::new(Code::PaceBounds, "nothing is asked for", help).into());
        }
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        let policy = self.session.policy().await?.and_then(|(_, policy)| policy.batch_rows_max);
        let most = policy.unwrap_or(BATCH_ROWS_CEILING).min(plan.limits.rows_per_transaction_max);
        for (setting, value) in &tuning.changes {
            if let Some(value) = value {
                setting.check(*value, most)?;
            }
        }
        if plan.one_transaction {
            let message = format!("run {} has all its rows in one transaction, which has no pace", run.run_id);
            return Err(Refusal::new(Code::WrongState, message, "pause or cancel it instead").into());
        }
        self.session.tune(run.run_id, &tuning.changes, tuning.minutes, reason).await?;
        self.status(Some(&run.run_id.to_string())).await
    }

    /// The pace of a run that has not ended: as it was started, and as people have changed it.
    pub(super) async fn pace_of(&self, run: &StoredRun, planned: &Pace) -> Result<(Pace, Vec<Tuned>, Driving), Error> {
        if run.state.ended() {
            return Ok((planned.clone(), Vec::new(), Driving::default()));
        }
        let driving = self.session.driving(run.run_id).await?;
        // With several drivers, the one that waits longest tells what is waited for.
        let longest = |a: &Driving, b: &Driving| a.waits_s.unwrap_or(0.0).total_cmp(&b.waits_s.unwrap_or(0.0));
        let driving = driving.into_iter().max_by(longest);
        let pace = driving.as_ref().map_or_else(|| planned.clone(), |driving| driving.pace.clone());
        let tuned = self.session.wanted(run.run_id).await?.tuned;
        Ok((pace, tuned, driving.unwrap_or_default()))
    }
}
