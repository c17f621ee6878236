//! Dead letters of a run: who they are, and trying them again once they are mended.

use pgmend_core::dead_letters::DEAD_LETTERS_MAX;
use pgmend_core::mask::Mask;
use pgmend_core::plan::Plan;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_pg::dead_letters::StoredLetter;
use pgmend_pg::scene::Scene;
use pgmend_pg::store::StoredRun;

use crate::control::key_text;
use crate::encryption::{Identities, OpenedLetters};
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{DeadLetter, Retried};
use crate::progress::Observer;
use crate::run;

impl Engine {
    /// The rows that a run has set aside, in that order; `show_values` shows keys that are masked otherwise. A job's
    /// name means its latest forward run.
    pub async fn dead_letters(&mut self, run: &str, show_values: bool) -> Result<Vec<DeadLetter>, Error> {
        self.need_control_schema().await?;
        let run = self.meant_run(run).await?;
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        self.letters_of(&run, &plan, DEAD_LETTERS_MAX, show_values).await
    }

    /// What the line that tries them again needs besides, after a space: the identity where a change set has their new
    /// values and is encrypted.
    pub async fn retry_flag(&mut self, run: &str) -> Result<&'static str, Error> {
        let run = self.meant_run(run).await?;
        Ok(self.session.plan_of(run.plan_id).await?.plan.retry_flag())
    }

    pub(crate) async fn letters_of(
        &self,
        run: &StoredRun,
        plan: &Plan,
        limit: i64,
        show_values: bool,
    ) -> Result<Vec<DeadLetter>, Error> {
        let found = self.session.dead_letters(run.run_id, false, 0, limit).await?;
        let mask = Mask { show_all: show_values, ..self.shown_of(plan).await? };
        Ok(found.into_iter().map(|letter| listed(letter, plan, &mask)).collect())
    }

    /// Tries the open dead letters of a run again, once each, as further batches of that run.
    pub async fn retry_dead_letters(&mut self, run: &str, observer: &mut Observer) -> Result<Retried, Error> {
        self.retry_dead_letters_with(run, None, observer).await
    }

    /// The same with the identity that opens the change set, where it is encrypted.
    pub async fn retry_dead_letters_with(
        &mut self,
        run: &str,
        identities: Option<&Identities>,
        observer: &mut Observer,
    ) -> Result<Retried, Error> {
        self.refuse_standby()?;
        self.need_control_schema().await?;
        let run = self.meant_run(run).await?;
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        self.refuse_other_server(&plan)?;
        self.refuse_unnamed_environment().await?;
        if self.session.dead_letters(run.run_id, true, 0, 1).await?.is_empty() {
            return Ok(Retried { run_id: Some(run.run_id), ..Retried::default() });
        }
        self.refuse_no_retry(&run).await?;
        self.refuse_held_back(&run).await?;
        let letters = self.opened_letters(&run, &plan, identities).await?;
        let lease = run::take_lease(&self.session, run.run_id, plan.limits.lease_seconds, observer).await?;
        let retried = run::retry(self, plan, run, lease.clone(), letters, observer).await;
        if retried.is_err() && !self.session.is_closed() {
            // So that the same command need not wait. If it does not arrive, the lease runs out by itself.
            let _ = self.session.release(&lease).await;
        }
        retried
    }

    /// What opens the rows, where the change set that holds their new values is encrypted.
    async fn opened_letters(
        &self,
        run: &StoredRun,
        plan: &Plan,
        identities: Option<&Identities>,
    ) -> Result<Option<OpenedLetters>, Error> {
        let Some(change_set) = &plan.change_set else { return Ok(None) };
        if !self.session.is_encrypted(&change_set.relation.name).await? {
            return Ok(None);
        }
        if identities.is_none() {
            let message = format!(
                "the dead letters of run {} cannot be retried as they are: its change set is encrypted",
                run.run_id
            );
            let help = "add --identity FILE, which stays on this machine; or plan a new change for these rows, whose keys \
                        pgmend dead-letters RUN --export FILE lists";
            return Err(Refusal::new(Code::EncryptedRows, message, help).into());
        }
        let keys = self.opened_keys(run.run_id, identities).await?;
        let tx = self.session.read(&Scene::of_batch(&plan.settings, &plan.limits), vec![]).await?;
        let opened = OpenedLetters::prepare(&tx, change_set, keys).await;
        tx.end().await?;
        opened.map(Some)
    }

    /// Refuses where the retried rows could not be put back with the rest, or nobody wants the change any more.
    async fn refuse_no_retry(&self, run: &StoredRun) -> Result<(), Error> {
        let undoing = self.session.runs_undoing(run.run_id).await?;
        let why = if run.state == RunState::Cancelled {
            "it was given up"
        } else if run.undone_by.is_some() {
            "it was undone"
        } else if undoing.iter().any(|undo| !undo.state.ended()) {
            "its undo has not ended"
        } else if run.pruned {
            "its images are pruned, so that its undo could not put the rows back"
        } else {
            return Ok(());
        };
        let message = format!("the dead letters of run {} cannot be retried: {why}", run.run_id);
        Err(Refusal::new(Code::CannotRetry, message, "plan a new change for these rows").into())
    }
}

fn listed(letter: StoredLetter, plan: &Plan, mask: &Mask) -> DeadLetter {
    let key = match letter.key.as_slice() {
        [] => format!("row n = {} of the change set", letter.ordinal.unwrap_or(0)),
        [..] => key_text(plan.key.as_ref(), &letter.key, mask),
    };
    letter.shown_as(key)
}
