//! What the engine takes and gives: options in, participles out.

use pgmend_core::dead_letters::DeadLetters;
use pgmend_core::finding::Finding;
use pgmend_core::id::{PlanId, RunId};
use pgmend_core::pace::Pace;
use pgmend_core::plan::Plan;
use pgmend_core::run::RunState;
use pgmend_core::vacuum::Share;
use serde::Serialize;

use crate::control::TenantsStatus;
use crate::encryption::Identities;
use crate::progress::Event;
pub use pgmend_pg::dead_letters::DeadLetter;
pub use pgmend_pg::guardrails::{Guardrail, Wish};
pub use pgmend_pg::health::StoredHold;
pub use pgmend_pg::pace::{Tuned, TunedLimit};
pub use pgmend_pg::vacuum::Vacuums;

use crate::throttle::survey::SurveyedSignal;

/// How to plan.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// Show all values in samples instead of masking them.
    pub show_values: bool,
    /// Break the counts down by this column of the target.
    pub by: Option<String>,
    /// Run this many small batches for real and roll them back. 0 means no rehearsal.
    pub rehearse: u32,
    /// Compute and print only; store nothing even if there is a control schema.
    pub print_only: bool,
}

/// A plan that was made, and whether it can be run by its id.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// What the policy in force asks of it; none for a plan that is not stored.
    pub guardrails: Vec<Guardrail>,
    /// What a run holds for, each with its value now.
    pub signals: Vec<SurveyedSignal>,
    /// The plan.
    pub plan: Plan,
    /// Its digest.
    pub digest: String,
    /// Whether the control schema holds it. Without one a plan is printed only.
    pub stored: bool,
    /// The run that has used it: a plan starts one run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_by: Option<PlanUse>,
    /// Whether it was loaded too late to start a run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// The run that a plan has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanUse {
    /// The run.
    pub run_id: RunId,
    /// Its state.
    #[serde(flatten)]
    pub state: RunState,
}

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Make the same change again although it has been made; needs a reason.
    pub again: Option<String>,
    /// Options of the plan that the run makes when there is none.
    pub plan: PlanOptions,
    /// Stop, resumable, after this many batches. For tests and for a careful first slice.
    pub stop_after_batches: Option<u64>,
    /// How fast, and when to stop for today; goes before what the job says.
    pub pace: Pace,
    /// Go on by itself in the next allowed hours, and after a time without access, until the run is done.
    pub until_done: bool,
    /// How many rows may be set aside, instead of what the plan says.
    pub dead_letters: Option<DeadLetters>,
    /// Workers of the run, in all its processes, instead of what the plan says; for a run that is divided.
    pub workers: Option<u32>,
    /// Workers in this process; all of them when absent.
    pub workers_here: Option<u32>,
    /// Share of the target's rows after which it is vacuumed on the way, instead of what the plan says.
    pub vacuum_every: Option<Share>,
}

/// What an undo covers.
#[derive(Debug, Clone, Default)]
pub struct UndoOptions {
    /// A predicate over the target's current columns; only matching rows are restored.
    pub predicate: Option<String>,
    /// What opens encrypted images.
    pub identity: Option<Identities>,
    /// Options of its plan.
    pub plan: PlanOptions,
    /// How fast it runs, and whether it goes on by itself.
    pub run: RunOptions,
}

/// How a run ended, for now or for good.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The run.
    pub run_id: RunId,
    /// The plan.
    pub plan_id: PlanId,
    /// The job's name.
    pub job: String,
    /// update, delete, insert or undo.
    pub kind: String,
    /// What was done to its rows, for a sentence: changed, deleted, inserted, restored or taken back.
    #[serde(skip)]
    pub verb: &'static str,
    /// State now.
    pub state: RunState,
    /// Rows changed by the run, all its sessions together.
    pub changed_rows: i64,
    /// Rows seen and left alone (already right).
    pub skipped_rows: i64,
    /// Conflicts recorded.
    pub conflict_rows: i64,
    /// Rows set aside as dead letters, and neither changed nor settled since.
    pub dead_rows: i64,
    /// Batches committed.
    pub batches: i64,
    /// Rows that still match the statement after the run; `None` where that cannot be asked.
    pub residual_rows: Option<i64>,
    /// Of those, rows beyond the upper bound that was fixed when the run started.
    pub arrived_later_rows: Option<i64>,
    /// Seconds from start to end.
    pub duration_s: f64,
    /// Whether it went on from a checkpoint.
    pub resumed: bool,
    /// Sentences on the checks made at the end: what was compared and what came out.
    pub verification: Vec<String>,
    /// Whether its plan promises that an undo puts back all that it changes.
    pub reversible: bool,
    /// Where it does not, whether an undo puts back the rows of the target at least.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partly_undoable: bool,
    /// What the line of its undo needs besides: see `Plan::identity_flag`.
    #[serde(skip)]
    pub identity_flag: &'static str,
    /// What the line that tries its dead letters again needs besides: see `Plan::retry_flag`.
    #[serde(skip)]
    pub retry_flag: &'static str,
    /// What a person asked of the run and has not lifted: until then nobody goes on with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Wish>,
}

impl Outcome {
    /// The last event of a run.
    pub(crate) fn event(&self) -> Event {
        Event::Ended {
            state: self.state.name().to_owned(),
            reason: match &self.state {
                RunState::Paused { reason } => Some(reason.clone()),
                RunState::Failed { failure } => Some(failure.clone()),
                RunState::Running | RunState::Succeeded | RunState::Cancelled => None,
            },
            batches: self.batches,
            changed_rows: self.changed_rows,
            skipped_rows: self.skipped_rows,
            conflict_rows: self.conflict_rows,
            residual_rows: self.residual_rows,
            duration_s: self.duration_s,
        }
    }
}

/// A row of `list`.
#[derive(Debug, Clone, Serialize)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// The job.
    pub job: String,
    /// Update, delete, insert or undo.
    pub kind: String,
    /// The target.
    pub target: String,
    /// The state's name.
    pub state: String,
    /// Who started it.
    pub started_by: String,
    /// When.
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// Rows changed so far.
    pub changed_rows: i64,
    /// Rows that the plan expects to change.
    pub planned_rows: i64,
    /// The run that undid it.
    pub undone_by: Option<RunId>,
}

/// What `status` tells of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// As in `list`.
    pub summary: RunSummary,
    /// One sentence: what it does or why it waits.
    pub doing: String,
    /// What to type next, one line each.
    pub next: Vec<String>,
    /// Who holds the lease: `pid 4711 on host db1, 12 s left`.
    pub holder: Option<String>,
    /// Seconds that the lease has left; negative when it has run out.
    pub lease_left_s: Option<f64>,
    /// Batches committed.
    pub batches: i64,
    /// Conflicts.
    pub conflict_rows: i64,
    /// Dead letters that are open.
    pub dead_rows: i64,
    /// Why it holds, if it does.
    pub holds: Vec<StoredHold>,
    /// What came of its vacuums on the way, where it makes any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vacuums: Option<Vacuums>,
    /// Rows per second over the last batches, if it runs.
    pub rows_per_s: Option<f64>,
    /// The pace that it was started with, if any.
    pub pace: Option<String>,
    /// What people have changed of it since, as far as it counts now.
    pub tuned: Vec<Tuned>,
    /// What people have changed of its signals' limits, as far as it counts now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<TunedLimit>,
    /// Why it is paused or has failed.
    pub reason: Option<String>,
    /// Its tenants, where it goes tenant by tenant.
    pub tenants: Option<TenantsStatus>,
    /// Findings of its plan.
    pub findings: Vec<Finding>,
}

/// A conflict as listed.
#[derive(Debug, Clone, Serialize)]
pub struct Conflict {
    /// The row's key as text, `column=value`.
    pub key: String,
    /// Why: gone, changed since, key taken, unique value taken, referenced.
    pub reason: String,
}

/// What became of dead letters that were tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Retried {
    /// The run.
    pub run_id: Option<RunId>,
    /// Rows changed now.
    pub changed_rows: i64,
    /// Rows with nothing to change any more.
    pub passed_over_rows: i64,
    /// Rows that are conflicts now.
    pub conflict_rows: i64,
    /// Rows that failed again, or were not tried since a stop was asked for.
    pub open_rows: i64,
}

/// One run that touched a row.
#[derive(Debug, Clone, Serialize)]
pub struct Touch {
    /// The run.
    pub run_id: RunId,
    /// The job.
    pub job: String,
    /// Update, delete, insert or undo.
    pub kind: String,
    /// When the batch was committed.
    pub changed_at: String,
    /// By whom.
    pub changed_by: String,
    /// Column, before, after, masked unless asked for; empty when the images are pruned.
    pub columns: Vec<(String, Option<String>, Option<String>)>,
    /// Whether images are gone.
    pub pruned: bool,
    /// Whom its values are encrypted to, where no identity opened them; the columns are then empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_to: Option<String>,
}

/// A table of images or a change set that `prune` found.
#[derive(Debug, Clone, Serialize)]
pub struct Prunable {
    /// The table.
    pub table: String,
    /// Its job.
    pub job: String,
    /// The run or plan it belongs to.
    pub belongs_to: String,
    /// Bytes on disk.
    pub size_bytes: i64,
    /// Since when it is older than the retention.
    pub since: String,
    /// Whether it was dropped.
    pub dropped: bool,
}

/// What `init` did.
#[derive(Debug, Clone, Serialize)]
pub struct Initialised {
    /// Version before; `None` when the schema was not there.
    pub from_version: Option<i32>,
    /// Version now.
    pub to_version: i32,
    /// Roles that exist now.
    pub roles: Vec<String>,
    /// What could not be done and who can do it, with the SQL to type.
    pub notes: Vec<String>,
}
