//! The paper trail of a run: what was asked for, what was planned, what happened, how it was checked and how to
//! take it back. Markdown to paste into a ticket, or JSON.

pub(crate) mod markdown;
mod trail;
mod watch;

use std::collections::BTreeMap;

use pgmend_core::finding::Finding;
use pgmend_core::id::{PlanId, RunId};
use pgmend_core::job::BoundParam;
use pgmend_core::ledger::{self, Entry};
use pgmend_core::limits::CONFLICTS_LISTED_MAX;
use pgmend_core::plan::{Counts, Estimates, Plan};
use pgmend_core::run::RunState;
use pgmend_pg::archive::Pace;
use pgmend_pg::health::StoredHold;
use pgmend_pg::store::{LastCheckpoint, StoredRun};
use serde::Serialize;
use serde_json::Value as Json;

use crate::control::TenantsStatus;
use crate::control::doing::word;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Conflict, DeadLetter, Vacuums};
pub use trail::{BrokenGlass, CheckedEnvironment, Demanded, Expectation, Review, Stop, StoredApproval, Trail};
pub use watch::WatchedRow;

/// The paper trail of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The run.
    pub run_id: RunId,
    /// Its plan.
    pub plan_id: PlanId,
    /// The plan's digest.
    pub digest: String,
    /// The job.
    pub job: String,
    /// Goal, owner and ticket, where given.
    pub about: BTreeMap<String, String>,
    /// update, delete, insert or undo.
    pub kind: String,
    /// The target.
    pub target: String,
    /// The database.
    pub database: String,
    /// The state's name.
    pub state: String,
    /// Why it is paused or has failed.
    pub reason: Option<String>,
    /// Why the same change was made again.
    pub again_reason: Option<String>,
    /// The run that it undoes.
    pub undo_of: Option<RunId>,
    /// The run that undid it.
    pub undone_by: Option<RunId>,
    /// `session_user` that planned, and when.
    pub planned_by: (String, String),
    /// `session_user` that started it, and when.
    pub started_by: (String, String),
    /// The role that it acted as.
    pub effective_role: String,
    /// Operating-system user, host and version.
    pub client: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// Seconds from start to end, or to now.
    pub duration_s: f64,
    /// The statement as typed.
    pub statement: String,
    /// The statement as understood.
    pub canonical: String,
    /// Name, type and value of each parameter, masked unless it is plain.
    pub params: Vec<(String, String, String)>,
    /// Stream or freeze, and why.
    pub mode: (String, String),
    /// Planned rows.
    pub counts: Counts,
    /// Planned cost.
    pub estimates: Estimates,
    /// Findings of the plan.
    pub findings: Vec<Finding>,
    /// Rows changed.
    pub changed_rows: i64,
    /// Rows seen and left alone.
    pub skipped_rows: i64,
    /// Conflicts.
    pub conflict_rows: i64,
    /// Rows set aside and not settled since.
    pub dead_rows: i64,
    /// How fast the batches went.
    pub pace: Option<Paced>,
    /// Signals that the run held for, and for how long.
    pub holds: Vec<StoredHold>,
    /// What came of its vacuums on the way.
    pub vacuums: Vacuums,
    /// Rows that still match.
    pub residual_rows: Option<i64>,
    /// Of those, rows that came after the start.
    pub arrived_later_rows: Option<i64>,
    /// Its tenants, where it goes tenant by tenant.
    pub tenants: Option<TenantsStatus>,
    /// Approvals, guardrails, expectations, stops.
    #[serde(flatten)]
    pub trail: Trail,
    /// Rows that the job watches.
    pub watched: Vec<WatchedRow>,
    /// Checks at the end.
    pub verification: Vec<String>,
    /// The first conflicts.
    pub conflicts: Vec<Conflict>,
    /// The first dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// What happened, from the ledger.
    pub events: Vec<Happening>,
    /// Whether the ledger's chain holds, in a sentence.
    pub ledger: String,
    /// Tables with images: name, bytes, `None` when they are gone.
    pub images: Vec<(String, Option<i64>)>,
    /// Whether it can be undone, and why (not).
    pub undo: (bool, String),
    /// The line that undoes it.
    pub undo_line: Option<String>,
}

/// How fast the batches of a run went.
#[derive(Debug, Clone, Serialize)]
pub struct Paced {
    /// Batches.
    pub batches: i64,
    /// Milliseconds: half of the batches, nine of ten, all.
    pub took_ms: (f64, f64, f64),
    /// Rows of the largest batch.
    pub rows_max: i64,
    /// Rows per second of execution in the first tenth of the batches, and in the last.
    pub rows_per_s: (Option<f64>, Option<f64>),
}

/// An entry of the ledger, as people read it.
#[derive(Debug, Clone, Serialize)]
pub struct Happening {
    /// When.
    pub at: String,
    /// What, such as `run paused`.
    pub fact: String,
    /// Who.
    pub actor: String,
    /// Why or how much, from the entry's body.
    pub detail: String,
}

impl Engine {
    /// The paper trail of a run; a job's name means its latest forward run.
    pub async fn report(&mut self, name: &str) -> Result<Report, Error> {
        self.need_control_schema().await?;
        let run = self.meant_run(name).await?;
        let stored = self.session.plan_of(run.plan_id).await?;
        let at = self.session.totals(run.run_id).await?;
        let pace = self.session.pace(run.run_id).await?;
        let entries = self.session.chain(&run.run_id.to_string()).await?;
        // What was said to the plan before it had a run.
        let prior = self.session.chain(&run.plan_id.to_string()).await?;
        let conflicts = self.conflicts_of(&run, &stored.plan, CONFLICTS_LISTED_MAX).await?;
        let dead_letters = self.letters_of(&run, &stored.plan, CONFLICTS_LISTED_MAX, false).await?;
        let mut images = Vec::new();
        let change_set = stored.plan.change_set.as_ref().map(|c| &c.relation.name);
        for name in run.image_table.iter().chain(change_set) {
            images.push((format!("pgmend.{name}"), self.session.image_bytes(name).await?));
        }
        let latest = self.latest_of_its_job(&run).await?;
        let holds = self.session.holds(run.run_id).await?;
        let vacuums = self.session.vacuums(run.run_id).await?;
        let trail = self.trail(&run, &stored.plan, &at, &entries).await?;
        let watched = self.watched(&run, &stored.plan).await?;
        let tenants = self.tenants_of(&run, &stored.plan).await?;
        let kept =
            Kept { tenants, watched, conflicts, dead_letters, images, holds, vacuums, latest, prior, entries, trail };
        Ok(assemble(run, stored.plan, stored.digest, &at, pace, kept))
    }
}

/// What the control schema keeps beside the run itself.
struct Kept {
    tenants: Option<TenantsStatus>,
    conflicts: Vec<Conflict>,
    dead_letters: Vec<DeadLetter>,
    images: Vec<(String, Option<i64>)>,
    holds: Vec<StoredHold>,
    vacuums: Vacuums,
    latest: bool,
    /// The plan's chain of the ledger.
    prior: Vec<Entry>,
    /// The run's.
    entries: Vec<Entry>,
    trail: Trail,
    watched: Vec<WatchedRow>,
}

fn assemble(run: StoredRun, plan: Plan, digest: String, at: &LastCheckpoint, pace: Option<Pace>, kept: Kept) -> Report {
    let undo = undoable(&run, &plan, at);
    // Compared with what the run took, its rests included.
    let estimates = Estimates { duration_s: plan.lasts_s(&plan.pace), ..plan.estimates.clone() };
    let shown =
        |(place, p): (usize, &BoundParam)| (p.name.clone(), p.type_sql.clone(), plan.shown_param(place).to_owned());
    let params = plan.params.iter().enumerate().map(shown).collect();
    let name = if kept.latest { word(&run.job) } else { run.run_id.to_string() };
    let environment = kept.trail.environment.as_ref().map_or(String::new(), |e| format!(" --env {}", word(&e.name)));
    Report {
        run_id: run.run_id,
        plan_id: run.plan_id,
        digest,
        reason: match &run.state {
            RunState::Paused { reason } => Some(reason.clone()),
            RunState::Failed { failure } => Some(failure.clone()),
            RunState::Running | RunState::Succeeded | RunState::Cancelled => None,
        },
        state: run.state.name().to_owned(),
        undo_line: undo.0.then(|| format!("pgmend undo {name}{} --execute{environment}", plan.identity_flag())),
        undo,
        job: run.job,
        about: plan.about,
        kind: run.kind,
        target: run.target,
        database: plan.database.database,
        again_reason: run.again_reason,
        undo_of: run.undo_of,
        undone_by: run.undone_by,
        planned_by: (plan.planned_by, plan.planned_at),
        started_by: (run.started_by, run.started_at),
        effective_role: run.effective_role,
        client: run.client,
        ended_at: run.ended_at,
        duration_s: run.duration_s,
        statement: plan.statement,
        canonical: plan.canonical,
        params,
        mode: (plan.mode.name().to_owned(), plan.mode_reason),
        counts: plan.counts,
        estimates,
        findings: plan.findings,
        changed_rows: at.changed_rows,
        skipped_rows: at.skipped_rows,
        conflict_rows: at.conflict_rows,
        dead_rows: at.dead_rows,
        pace: pace.map(|p| Paced {
            batches: p.batches,
            took_ms: (p.p50_ms, p.p90_ms, p.max_ms),
            rows_max: p.rows_max,
            rows_per_s: (p.first_rows_per_s, p.last_rows_per_s),
        }),
        holds: kept.holds,
        vacuums: kept.vacuums,
        residual_rows: run.residual_rows,
        arrived_later_rows: run.arrived_later_rows,
        verification: run.verification,
        conflicts: kept.conflicts,
        dead_letters: kept.dead_letters,
        events: kept.prior.iter().chain(&kept.entries).map(happening).collect(),
        ledger: verdict(&kept.prior, &kept.entries),
        tenants: kept.tenants,
        trail: kept.trail,
        watched: kept.watched,
        images: kept.images,
    }
}

fn undoable(run: &StoredRun, plan: &Plan, at: &LastCheckpoint) -> (bool, String) {
    if let Some(undo) = run.undone_by {
        return (false, format!("it is undone, by run {undo}"));
    }
    if run.pruned {
        return (false, "its images are pruned".into());
    }
    if at.changed_rows == 0 {
        return (false, "it changed no row".into());
    }
    (plan.reversible.0 || plan.partly_undoable, plan.reversible.1.clone())
}

fn verdict(prior: &[Entry], entries: &[Entry]) -> String {
    let broken = ledger::broken_at(prior).or_else(|| ledger::broken_at(entries));
    match (broken, prior.len() + entries.len()) {
        (Some(entry), _) => format!("BROKEN at entry {entry}: the record was altered after it was written"),
        (None, 0) => "EMPTY: nothing was recorded".into(),
        (None, n) => format!("intact, {n} entries"),
    }
}

fn happening(entry: &Entry) -> Happening {
    let body: BTreeMap<String, Json> = serde_json::from_str(&entry.body).unwrap_or_default();
    let part = |(name, value): (&String, &Json)| match value {
        Json::Null => None,
        Json::String(text) if text.is_empty() => None,
        Json::String(text) if name == "why" => Some(text.clone()),
        Json::String(text) => Some(format!("{}: {text}", name.replace('_', " "))),
        other @ (Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => {
            Some(format!("{}: {other}", name.replace('_', " ")))
        }
    };
    // Digests are too long for a line; what was demanded has a section of its own, role and commit stand above.
    let told = body.iter().filter(|(name, _)| {
        !["digest", "plan", "unchanged", "guardrails", "environment", "change", "role", "commit"]
            .contains(&name.as_str())
    });
    Happening {
        at: trail::second(&entry.recorded_at),
        fact: entry.fact.replace('_', " "),
        actor: entry.actor.clone(),
        detail: told.filter_map(part).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_tells_its_reason_and_leaves_out_what_is_empty() {
        let entry = Entry {
            entry_no: 2,
            recorded_at: "2026-11-21T10:00:00Z".into(),
            fact: "run_paused".into(),
            actor: "alice".into(),
            body: r#"{"why":"stopped by a signal","changed_rows":3,"again":null}"#.into(),
            hash: String::new(),
        };
        let told = happening(&entry);
        assert_eq!((told.fact.as_str(), told.detail.as_str()), ("run paused", "changed rows: 3; stopped by a signal"));
    }
}
