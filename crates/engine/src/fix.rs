//! The small fix by hand: a person reads the rows, types their number, and exactly those rows are changed in
//! one transaction, or none. Leaves the same paper trail as any run.

use pgmend_core::job::{Job, Mode};
use pgmend_core::limits::BATCH_ROWS_CEILING;
use pgmend_core::plan::{Certainty, Plan};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;

use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Outcome, PlanOptions, RunOptions};
use crate::progress::Observer;

impl Engine {
    /// Plans a job, shows the plan to `confirm`, and commits all of it in one transaction if the answer is yes and
    /// exactly the expected number of rows changes. `show_values` is for a person at a terminal: what is shown is kept in
    /// the plan.
    pub async fn fix(
        &mut self,
        job: &Job,
        show_values: bool,
        confirm: &mut dyn FnMut(&Plan) -> bool,
        observer: &mut Observer,
    ) -> Result<Outcome, Error> {
        self.refuse_standby()?;
        self.ensure_control_schema().await?;
        let signature = self.signature_of(job).await?;
        let runs = self.session.runs_of_signature(&signature.0).await?;
        if let Some(unfinished) = runs.iter().find(|r| !r.state.ended()) {
            let message =
                format!("run {} ({}) makes the same change and has not ended", unfinished.run_id, unfinished.job);
            let help = format!("go on with it: pgmend run {} --execute", unfinished.run_id);
            return Err(Refusal::new(Code::WrongState, message, help).into());
        }
        let plan = self.plan_fix(job, show_values).await?;
        if plan.counts.changed_rows.certainty != Certainty::Exact {
            let message = format!("the rows could only be estimated, at {}", plan.counts.changed_rows.value);
            return Err(Refusal::new(
                Code::Expectation,
                message,
                "give the count more time (--count-budget-ms), or run it as a job",
            )
            .into());
        }
        if !confirm(&plan) {
            return Err(Refusal::new(
                Code::Expectation,
                "declined; nothing was written",
                "type the number of rows to commit them",
            )
            .into());
        }
        // A person who has seen the rows and typed their number means it, also the second time.
        let made_before = runs.iter().any(|r| r.state == RunState::Succeeded);
        let again = made_before.then(|| format!("confirmed by hand: {} rows", plan.counts.changed_rows.value));
        let planned_rows = plan.counts.changed_rows.value;
        let options = RunOptions { again, ..RunOptions::default() };
        let outcome = Box::pin(self.start(plan, &options, observer)).await?;
        if outcome.state == RunState::Cancelled && outcome.changed_rows == 0 {
            let message = format!(
                "not {planned_rows} rows would have changed: someone else changed them meanwhile; nothing was written"
            );
            return Err(
                Refusal::new(Code::Expectation, message, "look at the rows again: type the same command").into()
            );
        }
        Ok(outcome)
    }

    /// A plan whose rows are fixed now, so that the rows shown are the rows changed; where the statement does not
    /// allow that, the number of rows is still checked before the commit.
    async fn plan_fix(&mut self, job: &Job, show_values: bool) -> Result<Plan, Error> {
        let mut job = job.clone();
        job.file.limits.batch_rows = Some(BATCH_ROWS_CEILING);
        job.file.limits.rows_per_transaction_max = BATCH_ROWS_CEILING;
        let options = PlanOptions { show_values, ..PlanOptions::default() };
        let frozen =
            Job { file: pgmend_core::job::JobFile { mode: Some(Mode::Freeze), ..job.file.clone() }, ..job.clone() };
        let planned = match self.plan(&frozen, &options).await {
            Err(Error::Refused(refusal)) if refusal.code == Code::CannotFreeze && job.file.mode.is_none() => {
                self.plan(&job, &options).await?
            }
            planned => planned?,
        };
        let rows = planned.plan.counts.changed_rows.value;
        if rows > i64::from(BATCH_ROWS_CEILING) {
            let message = format!("{rows} rows are too many for one transaction, which may hold {BATCH_ROWS_CEILING}");
            return Err(Refusal::new(Code::Expectation, message, "run it as a job: leave --expect out").into());
        }
        Ok(planned.plan)
    }
}
