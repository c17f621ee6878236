//! The plan that `run JOB` will use, found or made before anything is written, so that it can be shown.

use pgmend_core::job::Job;

use super::gate;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Planned, RunOptions};

impl Engine {
    /// The plan that [`Engine::run`] will start: the newest usable stored one, or a new one. `None` when an unfinished
    /// run of the same change exists, which will be resumed. Refuses a change that has been made.
    pub async fn prepare(&mut self, job: &Job, options: &RunOptions) -> Result<Option<Planned>, Error> {
        self.refuse_standby()?;
        self.ensure_control_schema().await?;
        let signature = self.signature_of(job).await?;
        let runs = self.session.runs_of_signature(&signature.0).await?;
        if runs.iter().any(|r| !r.state.ended()) {
            return Ok(None);
        }
        gate::refuse_done(&runs, options)?;
        self.refuse_reworded(job, &signature.0).await?;
        // A stored plan that changes nothing is looked at again: rows may have come since.
        if let Some(plan) = self.usable_plan(job, &signature.0).await?.filter(|plan| !plan.changes_nothing()) {
            let digest = plan.digest().0;
            let guardrails = self.session.guardrails(plan.plan_id).await?;
            let signals = self.survey(&plan).await?;
            return Ok(Some(Planned {
                guardrails,
                signals,
                plan,
                digest,
                stored: true,
                used_by: None,
                expired: false,
            }));
        }
        self.plan(job, &options.plan).await.map(Some)
    }
}
