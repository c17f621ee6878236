//! What people ask of a run, from any machine: pause, go on, give up. The database holds the wish, and lets no
//! batch begin against it (`pgmend.begin_batch`).

use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_pg::store::{Fact, StoredRun};

use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::Status;
use crate::progress::Observer;

impl Engine {
    /// Asks a run to stop at the next batch boundary, until [`Engine::unpause`] or [`Engine::resume`].
    pub async fn pause(&mut self, run: &str, reason: &str) -> Result<Vec<Status>, Error> {
        let run = self.unfinished(run).await?;
        self.session.ask(run.run_id, "pause", said(reason)?).await?;
        self.status(Some(&run.run_id.to_string())).await
    }

    /// Lifts a pause, so that whoever starts the run again can go on with it.
    pub async fn unpause(&mut self, run: &str) -> Result<Vec<Status>, Error> {
        let run = self.unfinished(run).await?;
        self.lift(&run).await?;
        self.status(Some(&run.run_id.to_string())).await
    }

    /// Lifts what holds a run back; where an approval was taken back, says what its approver must type.
    pub(crate) async fn lift(&self, run: &StoredRun) -> Result<(), Error> {
        match self.session.lift(run.run_id).await {
            Err(error) if error.sqlstate == Code::ApprovalMissing.as_str() => {
                let environment =
                    self.environment.as_ref().map_or(String::new(), |named| format!(" --env {}", named.name));
                let help = format!(
                    "an approver types: pgmend approve {}{environment} --reason \"…\"; then the same line goes on",
                    run.plan_id
                );
                Err(Refusal::new(Code::ApprovalMissing, error.message, help).into())
            }
            lifted => Ok(lifted?),
        }
    }

    /// Gives a run up: at the next batch boundary if somebody drives it, at once if nobody does. What is committed
    /// stays, and can be undone.
    pub async fn cancel(&mut self, run: &str, reason: &str, observer: &mut Observer) -> Result<Vec<Status>, Error> {
        self.refuse_standby()?;
        let run = self.unfinished(run).await?;
        self.session.ask(run.run_id, "cancel", said(reason)?).await?;
        let driven = self.session.tenure(run.run_id).await?.is_some_and(|t| t.left_s > 0.0);
        if !driven || run.state != RunState::Running {
            self.give_up(&run, reason, observer).await?;
        }
        self.status(Some(&run.run_id.to_string())).await
    }

    /// Ends a run that nobody drives.
    pub(crate) async fn give_up(&mut self, run: &StoredRun, why: &str, observer: &mut Observer) -> Result<(), Error> {
        let seconds = pgmend_core::limits::LEASE_SECONDS;
        let lease = crate::run::take_lease(&self.session, run.run_id, seconds, observer).await?;
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        self.encrypt_given_up(&lease, &plan).await;
        let fact = Fact { name: "run_cancelled", body: &serde_json::json!({ "why": why }) };
        self.session.change_state(&lease, &["running", "paused", "failed"], &RunState::Cancelled, None, fact).await?;
        self.session.release(&lease).await?;
        Ok(())
    }

    /// Refuses to go on with a run that a person has stopped.
    pub(crate) async fn refuse_held_back(&self, run: &StoredRun) -> Result<(), Error> {
        let Some(wish) = self.session.wish(run.run_id).await? else { return Ok(()) };
        let (past, help) = match wish.wish.as_str() {
            "cancel" => ("cancelled", format!("plan again; to end it now: pgmend cancel {} --reason …", run.run_id)),
            _ => ("paused", format!("type: pgmend resume {}", run.run_id)),
        };
        let message = format!("run {} was {past} by {}: {}", run.run_id, wish.asked_by, wish.reason);
        Err(Refusal::new(Code::WrongState, message, help).into())
    }

    pub(super) async fn unfinished(&self, name: &str) -> Result<StoredRun, Error> {
        self.need_control_schema().await?;
        let run = self.meant_run(name).await?;
        if run.state.ended() {
            let message = format!("run {} is over: {}", run.run_id, run.state.name());
            return Err(Refusal::new(Code::WrongState, message, "type: pgmend list").into());
        }
        Ok(run)
    }
}

pub(super) fn said(reason: &str) -> Result<&str, Refusal> {
    if reason.trim().is_empty() {
        return Err(Refusal::new(Code::BadJob, "the reason is empty", "say why: --reason \"…\""));
    }
    Ok(reason)
}
