//! How a worker leaves its run: it stops at a batch boundary and says why, or the run is over; it gives the lease back.

use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_pg::PgError;
use pgmend_pg::store::{End, Fact, StoredRun};

use super::fault;
use super::worker::Worker;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::progress::{Event, Stop};

impl Worker<'_, '_> {
    /// Why this process is to stop, if anybody wants it to.
    pub(super) fn stop_wish(&mut self) -> Option<String> {
        let batches = self.engine.slice.batches();
        if self.stop_after.is_some_and(|most| batches >= most) {
            return Some(format!("stopped after {batches} batches, as asked"));
        }
        match self.observer.stop() {
            Stop::None => None,
            Stop::AfterBatch | Stop::Now => {
                self.observer.tell(&Event::Stopping);
                Some("stopped by a signal".into())
            }
        }
    }

    /// Why a search for rows to change is to end, if anybody wants it to. It may take longer than any batch, and only of a batch the
    /// server says whether it may begin.
    /// Lock: none. Index: `control_pkey`, `run_pkey`.
    pub(super) async fn stop_search(&self) -> Result<Option<RunState>, PgError> {
        if !self.searching {
            return Ok(None);
        }
        let asked = self.asked_to_stop().await?;
        if asked.is_some() || self.partition.is_none() {
            return Ok(asked);
        }
        let runs = self.session().find_runs(&self.run_id().to_string()).await?;
        // Another worker has stopped the run, and has said why.
        Ok(runs.first().is_some_and(|run| run.state != RunState::Running).then_some(RunState::Running))
    }

    /// What a person's wish comes to where there is no batch for the server to refuse.
    /// Lock: none. Index: `control_pkey`.
    pub(super) async fn asked_to_stop(&self) -> Result<Option<RunState>, PgError> {
        if !self.wishes.asked() {
            return Ok(None);
        }
        let wish = self.session().wish(self.run_id()).await?;
        Ok(wish.map(|wish| match wish.wish.as_str() {
            "pause" => RunState::Paused { reason: wish.reason },
            _ => RunState::Cancelled,
        }))
    }

    /// Stops at a batch boundary and says so in the database.
    pub async fn stop(mut self, state: RunState) -> Result<Outcome, Error> {
        if state == RunState::Running {
            // Another worker has stopped the run, and has said so.
            return self.leave().await;
        }
        if self.stops_alone(&state).await? {
            return self.leave().await;
        }
        let (name, why) = match &state {
            RunState::Failed { failure } => ("run_failed", failure.clone()),
            RunState::Paused { reason } => ("run_paused", reason.clone()),
            RunState::Cancelled => ("run_cancelled", String::new()),
            RunState::Running | RunState::Succeeded => ("run_stopped", String::new()),
        };
        if state == RunState::Cancelled {
            self.engine.encrypt_given_up(&self.lease, &self.plan).await;
        }
        let body = serde_json::json!({ "why": why, "batch": self.at.batch_no, "changed_rows": self.at.changed_rows, "dead_rows": self.at.dead_rows });
        let fact = Fact { name, body: &body };
        if self.record(&state, None, fact).await.is_err_and(|error| error.is_connection()) {
            self.reload().await?;
        }
        self.record(&state, None, fact).await?;
        fault::point("run_stopped");
        self.leave().await
    }

    /// Records the state that the run has come to; once only, also when the answer to the first time was lost.
    pub async fn record(&self, state: &RunState, end: Option<&End>, fact: Fact<'_>) -> Result<(), PgError> {
        let runs = self.session().find_runs(&self.run_id().to_string()).await?;
        // Of several workers one says why they stop.
        let said =
            |run: &StoredRun| run.state == *state || (self.partition.is_some() && run.state != RunState::Running);
        if runs.first().is_some_and(said) {
            return Ok(());
        }
        self.session().change_state(&self.lease, &["running"], state, end, fact).await
    }

    /// Gives the lease back and tells how the run stands. If the connection breaks, once more.
    pub(super) async fn leave(mut self) -> Result<Outcome, Error> {
        if let Ok(outcome) = self.last_words().await {
            return Ok(outcome);
        }
        self.reload().await?;
        self.last_words().await
    }

    async fn last_words(&mut self) -> Result<Outcome, Error> {
        self.throttle.settle().await;
        if self.throttle.told {
            // The sampler may have been late. Nobody's rows depend on it: if it fails, `status` goes by the lease.
            let _told = self.session().set_holds(&self.lease, &[]).await;
        }
        self.session().release(&self.lease).await?;
        fault::point("lease_released");
        self.run = self.engine.one_run(&self.run_id().to_string()).await?;
        let outcome = self.engine.outcome(&self.run, self.resumed).await?;
        self.observer.tell(&outcome.event());
        Ok(outcome)
    }

    pub fn lease_lost(&self) -> Error {
        let message = format!("another process has taken over run {}", self.run_id());
        Refusal::new(Code::LeaseHeld, message, format!("watch it: pgmend status {}", self.run_id().short())).into()
    }
}
