//! A run's states and the one function that moves between them.

use serde::{Deserialize, Serialize};

/// What a run is. Who drives it is the lease's business, so a dead worker changes no state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunState {
    /// Batches are being applied, or could be: see the lease.
    Running,
    /// Stopped at a batch boundary, by a person or by a condition; `run` goes on.
    Paused {
        /// Why.
        reason: String,
    },
    /// The range is exhausted and the result checked.
    Succeeded,
    /// Stopped by an error; what is committed stays; `run` goes on once the cause is gone.
    Failed {
        /// What happened, without row values.
        failure: String,
    },
    /// Given up by a person; what is committed stays, and can be undone.
    Cancelled,
}

impl RunState {
    /// The name as stored, the CHECK constraint's word.
    pub fn name(&self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Paused { .. } => "paused",
            RunState::Succeeded => "succeeded",
            RunState::Failed { .. } => "failed",
            RunState::Cancelled => "cancelled",
        }
    }

    /// Why it stands still, where something other than its end made it.
    pub fn reason(&self) -> Option<&str> {
        match self {
            RunState::Paused { reason } => Some(reason),
            RunState::Failed { failure } => Some(failure),
            RunState::Running | RunState::Succeeded | RunState::Cancelled => None,
        }
    }

    /// Whether nothing more will be written by this run.
    pub fn ended(&self) -> bool {
        match self {
            RunState::Succeeded | RunState::Cancelled => true,
            RunState::Running | RunState::Paused { .. } | RunState::Failed { .. } => false,
        }
    }
}

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Stop at a batch boundary.
    Paused(String),
    /// Go on.
    Resumed,
    /// The range is exhausted.
    Finished,
    /// An error that no retry mends.
    Failed(String),
    /// Given up.
    Cancelled,
}

/// A state that does not allow an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {from} run cannot be {event}")]
pub struct IllegalTransition {
    /// The state's name.
    pub from: &'static str,
    /// The event's name.
    pub event: &'static str,
}

/// The state after an event.
pub fn transition(state: &RunState, event: Event) -> Result<RunState, IllegalTransition> {
    use {Event as E, RunState as S};
    match (state, event) {
        (S::Running, E::Paused(reason)) => Ok(S::Paused { reason }),
        (S::Running, E::Failed(failure)) => Ok(S::Failed { failure }),
        (S::Running, E::Finished) => Ok(S::Succeeded),
        // A worker that dies leaves `running`; whoever takes the lease resumes it.
        (S::Running | S::Paused { .. } | S::Failed { .. }, E::Resumed) => Ok(S::Running),
        (S::Running | S::Paused { .. } | S::Failed { .. }, E::Cancelled) => Ok(S::Cancelled),
        (S::Paused { .. } | S::Failed { .. }, E::Paused(_)) => refuse(state, "paused"),
        (S::Paused { .. } | S::Failed { .. }, E::Finished) => refuse(state, "finished"),
        (S::Paused { .. } | S::Failed { .. }, E::Failed(_)) => refuse(state, "failed"),
        (S::Succeeded | S::Cancelled, event) => refuse(state, event.name()),
    }
}

fn refuse(state: &RunState, event: &'static str) -> Result<RunState, IllegalTransition> {
    Err(IllegalTransition { from: state.name(), event })
}

impl Event {
    /// The event's name, past tense.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Paused(_) => "paused",
            Event::Resumed => "resumed",
            Event::Finished => "finished",
            Event::Failed(_) => "failed",
            Event::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_run_stays_ended() {
        for state in [RunState::Succeeded, RunState::Cancelled] {
            assert!(transition(&state, Event::Resumed).is_err());
            assert!(transition(&state, Event::Cancelled).is_err());
        }
    }

    #[test]
    fn a_failed_run_can_be_resumed() {
        let failed = RunState::Failed { failure: "x".into() };
        assert_eq!(transition(&failed, Event::Resumed), Ok(RunState::Running));
    }
}
