//! Who said yes to a run, what was demanded of it and met, and where it stopped, when, by whom and why.

use pgmend_core::digits::thousands;
use pgmend_core::expect::Then;
use pgmend_core::id::RunId;
use pgmend_core::ledger::Entry;
use pgmend_core::plan::Plan;
use pgmend_core::run::RunState;
pub use pgmend_pg::guardrails::{BrokenGlass, Review, StoredApproval};
use pgmend_pg::store::{LastCheckpoint, StoredRun};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::engine::Engine;
use crate::error::Error;

/// The part of a report that an auditor reads.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Trail {
    /// The environment that was named, and what of it was compared with the connection.
    pub environment: Option<CheckedEnvironment>,
    /// What the policy demanded when the run started.
    pub guardrails: Vec<Demanded>,
    /// Approvals and vetoes of the plan, oldest first.
    pub approvals: Vec<StoredApproval>,
    /// The run whose approvals cover this undo.
    pub covered_by: Option<RunId>,
    /// Leave to run without the approvals, if it was used.
    pub glass: Option<BrokenGlass>,
    /// What somebody had to look at because of that.
    pub review: Option<Review>,
    /// What was asked of the first batch, and what came of it.
    pub canary: Option<String>,
    /// What the job says of its own result.
    pub expectations: Vec<Expectation>,
    /// Where the run was stopped or held.
    pub stops: Vec<Stop>,
}

/// An environment and what of it was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedEnvironment {
    /// Its name.
    pub name: String,
    /// `host`, `database`, `system_identifier`, `canary`.
    pub compared: Vec<String>,
}

/// A rule of the policy as it was when the run started. What was found is left out: it may name people, and the
/// ledger cannot forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demanded {
    /// Its name: `approvals`, `ticket`, `hours` …
    pub rule: String,
    /// What was asked for.
    pub demanded: String,
    /// Whether that was there; if not, the glass was broken.
    pub met: bool,
}

/// An expectation, what the plan said to it and what the run did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expectation {
    /// What is expected.
    pub expected: String,
    /// Before the run.
    pub before: String,
    /// After it.
    pub after: String,
}

/// A stop, a hold, or a person's wish for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// When.
    pub at: String,
    /// What, such as `run paused`.
    pub what: String,
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// When it was over, and by whom.
    pub until: Option<(String, String)>,
}

impl Engine {
    /// What the control schema knows of a run beside its rows.
    pub(super) async fn trail(
        &self,
        run: &StoredRun,
        plan: &Plan,
        at: &LastCheckpoint,
        entries: &[Entry],
    ) -> Result<Trail, Error> {
        let started: Json = body(entries.iter().find(|entry| entry.fact == "run_started"));
        let part = |name: &str| started.get(name).cloned().unwrap_or_default();
        Ok(Trail {
            environment: serde_json::from_value(part("environment")).unwrap_or_default(),
            guardrails: serde_json::from_value(part("guardrails")).unwrap_or_default(),
            approvals: self.session.approvals(run.plan_id).await?,
            covered_by: self.covering(run).await?,
            glass: self.session.broken_glass(run.run_id).await?,
            review: self.session.review(run.run_id).await?,
            canary: canary(plan, entries),
            expectations: expectations(plan, run, at),
            stops: stops(entries),
        })
    }
}

impl Engine {
    /// The run that is undone, if anybody approved it.
    async fn covering(&self, run: &StoredRun) -> Result<Option<RunId>, Error> {
        let Some(undone) = run.undo_of else { return Ok(None) };
        let forward = self.one_run(&undone.to_string()).await?;
        let approved = !self.session.approvals(forward.plan_id).await?.is_empty();
        Ok(approved.then_some(undone))
    }
}

fn body(entry: Option<&Entry>) -> Json {
    entry.and_then(|entry| serde_json::from_str(&entry.body).ok()).unwrap_or_default()
}

/// `2026-11-21T15:10:45Z`: the microseconds are there for the chain.
pub(super) fn second(at: &str) -> String {
    at.split('.').next().map_or_else(String::new, |at| format!("{}Z", at.trim_end_matches('Z')))
}

fn canary(plan: &Plan, entries: &[Entry]) -> Option<String> {
    let canary = plan.canary.as_ref()?;
    let then = match canary.then {
        Then::Go => "the rest when the answers are as before",
        Then::Pause => "a pause for somebody to look",
    };
    let checked = entries.iter().find(|entry| crate::run::expectations::is_canary(entry));
    let came = checked.map_or_else(
        || "it has not been looked at".to_owned(),
        |entry| format!("as expected at {}, told by {}", second(&entry.recorded_at), entry.actor),
    );
    Some(format!("a first batch of at most {} rows, then {then}: {came}", thousands(i64::from(canary.rows))))
}

fn expectations(plan: &Plan, run: &StoredRun, at: &LastCheckpoint) -> Vec<Expectation> {
    let expect = &plan.expect;
    // The run does not succeed before each of them holds.
    let after = match &run.state {
        RunState::Succeeded => "holds".to_owned(),
        RunState::Failed { failure } => format!("the run has failed: {failure}"),
        RunState::Running | RunState::Paused { .. } | RunState::Cancelled => "not asked yet".to_owned(),
    };
    let mut all = Vec::new();
    if let Some(band) = expect.rows {
        let bound = |limit: Option<i64>| limit.map_or_else(|| "any".to_owned(), thousands);
        all.push(Expectation {
            expected: format!("rows from {} to {}", bound(band.min), bound(band.max)),
            before: format!("{} planned", thousands(plan.counts.changed_rows.value)),
            after: format!("{} changed", thousands(at.changed_rows)),
        });
    }
    if let Some(scope) = &expect.scope {
        let before = "no row outside".to_owned();
        all.push(Expectation { expected: format!("within `{scope}`"), before, after: "as planned".into() });
    }
    for query in &expect.unchanged {
        let before = "remembered".to_owned();
        let after = if after == "holds" { "the same".to_owned() } else { after.clone() };
        all.push(Expectation { expected: format!("the same answer to `{query}`"), before, after });
    }
    for answer in &expect.after {
        let expected = format!("`{}` gives `{}`", answer.query, answer.equals);
        all.push(Expectation { expected, before: String::new(), after: after.clone() });
    }
    all
}

/// Facts that stop or hold a run, each with the fact that ends it.
const STOPS: [(&str, &str); 6] = [
    ("pause_asked", "pause_lifted"),
    ("cancel_asked", ""),
    ("run_paused", "run_resumed"),
    ("run_failed", "run_resumed"),
    ("run_cancelled", ""),
    ("run_held", "run_released"),
];

fn stops(entries: &[Entry]) -> Vec<Stop> {
    let mut stops: Vec<(&str, Stop)> = Vec::new();
    for entry in entries {
        for (end, stop) in stops.iter_mut().filter(|(end, stop)| *end == entry.fact && stop.until.is_none()) {
            debug_assert_eq!(*end, entry.fact);
            stop.until = Some((second(&entry.recorded_at), entry.actor.clone()));
        }
        let Some((fact, end)) = STOPS.iter().find(|(fact, _)| *fact == entry.fact) else { continue };
        let body = body(Some(entry));
        let why = ["why", "reason"].iter().find_map(|name| body.get(name).and_then(Json::as_str));
        let stop = Stop {
            at: second(&entry.recorded_at),
            what: fact.replace('_', " "),
            who: entry.actor.clone(),
            why: why.unwrap_or_default().to_owned(),
            until: None,
        };
        stops.push((end, stop));
    }
    stops.into_iter().map(|(_, stop)| stop).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(minute: u32, fact: &str, actor: &str, body: &str) -> Entry {
        Entry {
            entry_no: i64::from(minute),
            recorded_at: format!("2026-11-21T10:{minute:02}:00.000001Z"),
            fact: fact.into(),
            actor: actor.into(),
            body: body.into(),
            hash: String::new(),
        }
    }

    #[test]
    fn a_stop_lasts_until_what_ends_it() {
        let entries = [
            entry(1, "run_started", "alice", "{}"),
            entry(2, "pause_asked", "bob", r#"{"reason":"slow"}"#),
            entry(3, "run_paused", "alice", r#"{"why":"slow"}"#),
            entry(4, "pause_lifted", "bob", "{}"),
            entry(5, "run_resumed", "carol", "{}"),
            entry(6, "run_failed", "carol", r#"{"why":"no space"}"#),
        ];
        let told = stops(&entries);
        let until = |n: usize| told[n].until.as_ref().map(|(at, who)| (at.as_str(), who.as_str()));
        assert_eq!(
            told.iter().map(|s| s.what.as_str()).collect::<Vec<_>>(),
            ["pause asked", "run paused", "run failed"]
        );
        assert_eq!(until(0), Some(("2026-11-21T10:04:00Z", "bob")));
        assert_eq!(until(1), Some(("2026-11-21T10:05:00Z", "carol")));
        assert_eq!((until(2), told[2].why.as_str()), (None, "no space"));
    }
}
