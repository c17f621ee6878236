//! Progress events: what a run tells while it goes. The run never waits for a listener.

use pgmend_core::throttle::Reason;
use serde::Serialize;

use crate::log::Level;

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins or goes on.
    Started {
        /// The run's id.
        run_id: String,
        /// The job.
        job: String,
        /// The environment that was named, if any.
        environment: Option<String>,
        /// Rows that the plan expects to change.
        planned_rows: i64,
        /// Rows changed by earlier sessions.
        changed_rows: i64,
        /// Whether it goes on from a checkpoint.
        resumed: bool,
    },
    /// A batch is committed.
    Batch {
        /// The batch's number.
        batch_no: i64,
        /// Rows changed by it.
        rows: i64,
        /// Rows changed by the run so far.
        changed_rows: i64,
        /// Rows skipped so far (already right).
        skipped_rows: i64,
        /// Conflicts so far.
        conflict_rows: i64,
        /// Rows set aside so far.
        dead_rows: i64,
        /// Milliseconds that the batch took.
        took_ms: f64,
        /// Rows of the next batch.
        next_batch_rows: u32,
        /// Rows changed by the whole run, as planned.
        planned_rows: i64,
        /// Where the cursor stands, `column=value`, masked.
        cursor: String,
    },
    /// An error that is being retried.
    Retrying {
        /// Which retry.
        attempt: u32,
        /// Seconds until it.
        wait_s: f64,
        /// The error, without row values.
        error: String,
        /// Its SQLSTATE.
        sqlstate: String,
        /// Who was in the way, with the shape of its statement, where that was seen.
        #[serde(skip_serializing_if = "Option::is_none")]
        blocked_by: Option<String>,
    },
    /// Another worker's lease has to run out first.
    WaitingForLease {
        /// Who holds it.
        holder: String,
        /// Seconds left.
        left_s: f64,
    },
    /// The pace that was asked for lets the next batch wait.
    Pacing {
        /// What was asked for.
        why: String,
        /// Seconds until the next batch.
        wait_s: f64,
    },
    /// No connection is held while something else has to come first: the allowed hours, access, an approval.
    Waiting {
        /// What for, and until when where that is known.
        what: String,
        /// Seconds until the next look.
        wait_s: f64,
    },
    /// Counting what is left.
    Sweeping {
        /// Which pass.
        pass: u32,
    },
    /// The target is being vacuumed.
    Vacuuming {
        /// The target.
        table: String,
        /// Rows changed by the run so far.
        changed_rows: i64,
    },
    /// A vacuum is over.
    Vacuumed {
        /// The target.
        table: String,
        /// `done`, `skipped`, `gave_way`, `too_long` or `failed`.
        outcome: String,
        /// Why it was not made.
        why: Option<String>,
        /// Seconds that it took.
        took_s: f64,
    },
    /// Signals are over their limits: no batch begins until they are back. Told again from time to time.
    Holding {
        /// Seconds since the hold began.
        held_s: f64,
        /// Every signal that holds it.
        reasons: Vec<Reason>,
    },
    /// The hold is over.
    Released {
        /// Seconds that it lasted.
        held_s: f64,
    },
    /// Load is near its limits, or is so no more: the run rests between batches.
    Slowed {
        /// The share of time in which it works: 1 is no rest.
        pace: f64,
    },
    /// One tenant of the run stops; the others go on.
    Tenant {
        /// The tenant, as it may be shown.
        tenant: String,
        /// `failed`, `set aside` (others hold its rows: it is tried again after the others) or `paused` by a person.
        state: String,
        /// The error, without row values; empty for a pause.
        why: String,
    },
    /// A stop was asked for; the batch is being finished.
    Stopping,
    /// The run is over, or over for now.
    Ended {
        /// The state's name: `succeeded`, `paused`, `failed`, `cancelled`.
        state: String,
        /// Why it is paused or has failed.
        reason: Option<String>,
        /// Batches committed by the run.
        batches: i64,
        /// Rows changed by the run.
        changed_rows: i64,
        /// Rows seen and left alone.
        skipped_rows: i64,
        /// Conflicts recorded.
        conflict_rows: i64,
        /// Rows that still match, where that can be asked.
        residual_rows: Option<i64>,
        /// Seconds since the run was started, pauses included.
        duration_s: f64,
    },
}

impl Event {
    /// How much it matters to whoever reads the log.
    pub fn level(&self) -> Level {
        match self {
            Event::Ended { state, .. } | Event::Tenant { state, .. } if state == "failed" => Level::Error,
            Event::Vacuumed { outcome, .. } if outcome != "done" => Level::Warn,
            Event::Retrying { .. }
            | Event::WaitingForLease { .. }
            | Event::Waiting { .. }
            | Event::Holding { .. }
            | Event::Tenant { .. } => Level::Warn,
            Event::Started { .. }
            | Event::Batch { .. }
            | Event::Pacing { .. }
            | Event::Sweeping { .. }
            | Event::Released { .. }
            | Event::Slowed { .. }
            | Event::Vacuuming { .. }
            | Event::Vacuumed { .. }
            | Event::Stopping
            | Event::Ended { .. } => Level::Info,
        }
    }
}

type Sink = Box<dyn FnMut(&Event) + Send>;

/// Takes the events of a run and carries the wish to stop.
pub struct Observer {
    /// Never locked, only reached through `&mut`: makes an observer `Sync`, and so a run's future `Send`, whatever
    /// the sink captures.
    sink: std::sync::Mutex<Sink>,
    stop: tokio::sync::watch::Receiver<Stop>,
    /// Keeps the channel open for observers that never ask to stop.
    _keep: Option<tokio::sync::watch::Sender<Stop>>,
}

/// A wish to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    None,
    /// Finish the batch, then stop.
    AfterBatch,
    /// Cancel the statement now.
    Now,
}

impl Observer {
    /// Hears nothing, never asks to stop.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Calls `sink` for each event.
    pub fn new(sink: impl FnMut(&Event) + Send + 'static) -> Self {
        let (keep, stop) = tokio::sync::watch::channel(Stop::None);
        Self { sink: std::sync::Mutex::new(Box::new(sink)), stop, _keep: Some(keep) }
    }

    /// Also carries a wish to stop, from a signal handler for example.
    pub fn with_stop(sink: impl FnMut(&Event) + Send + 'static, stop: tokio::sync::watch::Receiver<Stop>) -> Self {
        Self { sink: std::sync::Mutex::new(Box::new(sink)), stop, _keep: None }
    }

    /// Tells an event.
    pub fn tell(&mut self, event: &Event) {
        self.sink.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)(event);
    }

    /// The wish to stop, now.
    pub fn stop(&self) -> Stop {
        *self.stop.borrow()
    }

    /// A receiver of the wish to stop, to wait on.
    pub fn stop_receiver(&self) -> tokio::sync::watch::Receiver<Stop> {
        self.stop.clone()
    }
}
