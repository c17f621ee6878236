//! What the job says of its own result: answers that must not change, a band that the rows must not leave, and a
//! first batch to look at.

use pgmend_core::expect::{Canary, Then};
use pgmend_core::id::RunId;
use pgmend_core::ledger::Entry;
use pgmend_core::mask::TokenKey;
use pgmend_core::plan::Plan;
use pgmend_core::refusal::Code;
use pgmend_core::run::RunState;
use pgmend_pg::readtx::ReadTx;
use pgmend_pg::scene::Scene;
use pgmend_pg::store::Fact;
use pgmend_pg::{PgError, Session};

use super::worker::Worker;

/// A guard of ours: the result is not what the job expects. The run stops, and can be resumed or undone.
pub(super) const UNEXPECTED: &str = Code::Unexpected.as_str();
/// Why a run pauses after its canary batch; the ledger's entry with these words says that it was looked at.
const CANARY_PAUSE: &str = "the canary batch is committed: look at its rows, then go on";
/// Time for each query, in milliseconds.
const QUERY_BUDGET_MS: u64 = 120_000;

/// Answers of the job's `unchanged` queries, as keyed digests of this run: the ledger keeps no values, and nobody
/// without the key can try guesses.
pub(super) async fn baseline(session: &Session, plan: &Plan, run: RunId) -> Result<Vec<String>, PgError> {
    if plan.expect.unchanged.is_empty() {
        return Ok(Vec::new());
    }
    let tx = session.read(&scene(plan), vec![]).await?;
    let answers = unchanged(&tx, plan).await;
    tx.end().await?;
    let answers = answers?;
    let secret = session
        .token_secret()
        .await?
        .ok_or_else(|| PgError::new("remember the answers", "42501", "this role may not read the key of tokens"))?;
    let key = TokenKey::from_secret(secret.as_bytes());
    Ok(answers.iter().map(|answer| key.digest(&(run, answer)).0).collect())
}

async fn unchanged(tx: &ReadTx<'_>, plan: &Plan) -> Result<Vec<Option<String>>, PgError> {
    let mut answers = Vec::new();
    for query in &plan.expect.unchanged {
        answers.push(value(tx, query).await?);
    }
    Ok(answers)
}

/// The one value of a query, as text.
pub(crate) async fn value(tx: &ReadTx<'_>, query: &str) -> Result<Option<String>, PgError> {
    let sql = format!("select answer::text from ({}) as q (answer) limit 1", query.trim().trim_end_matches(';'));
    let answer = tx.query("ask what the job expects", &sql, vec![]).await?;
    Ok(answer.scalar().map(str::to_owned))
}

/// Whether an entry of the ledger says that the canary batch was as expected.
pub(crate) fn is_canary(entry: &Entry) -> bool {
    let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap_or_default();
    match entry.fact.as_str() {
        "run_checked" => body["what"] == "canary",
        "run_paused" => body["why"] == CANARY_PAUSE,
        _ => false,
    }
}

fn scene(plan: &Plan) -> Scene {
    Scene { statement_timeout_ms: QUERY_BUDGET_MS, ..Scene::of_batch(&plan.settings, &plan.limits) }
}

impl Worker<'_, '_> {
    /// Before each batch: whether the run must stop here.
    pub(super) async fn stop_unexpected(&mut self) -> Result<Option<RunState>, PgError> {
        if let Some(failure) = self.plan.expect.rows.and_then(|band| band.exceeded(self.at.changed_rows)) {
            return Ok(Some(RunState::Failed { failure }));
        }
        if self.canary_seen || self.at.batch_no != 1 {
            return Ok(None);
        }
        let Some(canary) = self.plan.canary.clone() else { return Ok(None) };
        self.look_at_canary(&canary).await
    }

    /// The canary batch is committed. That it was as expected is in the ledger, and asked for there: a worker may
    /// have died between the batch and this.
    async fn look_at_canary(&mut self, canary: &Canary) -> Result<Option<RunState>, PgError> {
        let chain = self.session().chain(&self.run_id().to_string()).await?;
        if chain.iter().any(is_canary) {
            self.canary_seen = true;
            return Ok(None);
        }
        if let Some(failure) = self.changed_answer().await? {
            return Ok(Some(RunState::Failed { failure: format!("after the canary batch, {failure}") }));
        }
        if canary.then == Then::Pause {
            return Ok(Some(RunState::Paused { reason: CANARY_PAUSE.to_owned() }));
        }
        let body = serde_json::json!({ "what": "canary", "rows": self.at.changed_rows });
        self.session().record_fact(&self.lease, Fact { name: "run_checked", body: &body }).await?;
        self.canary_seen = true;
        Ok(None)
    }

    /// At the end: a sentence on what holds, or an error on what does not.
    pub(super) async fn hold_expectations(&self) -> Result<Option<String>, PgError> {
        let expect = &self.plan.expect;
        if expect.is_empty() {
            return Ok(None);
        }
        let unexpected = |why: String| Err(PgError::new("check what the job expects", UNEXPECTED, why));
        if let Some(why) = expect.rows.and_then(|band| band.refuses(self.total().changed_rows)) {
            return unexpected(why);
        }
        if let Some(why) = self.changed_answer().await? {
            return unexpected(why);
        }
        let tx = self.session().read(&scene(&self.plan), vec![]).await?;
        let mut differing = Ok(None);
        for (n, after) in expect.after.iter().enumerate() {
            match value(&tx, &after.query).await {
                Ok(found) if found.as_deref() == Some(after.equals.as_str()) => {}
                Ok(_) => {
                    differing = Ok(Some(format!("query {} of expect.after does not give what is expected", n + 1)))
                }
                Err(error) => differing = Err(error),
            }
            if !matches!(differing, Ok(None)) {
                break;
            }
        }
        tx.end().await?;
        match differing? {
            Some(why) => unexpected(why),
            None => Ok(Some("what the job expects holds".into())),
        }
    }

    /// The first `unchanged` query that gives something else than when the run started.
    async fn changed_answer(&self) -> Result<Option<String>, PgError> {
        if self.plan.expect.unchanged.is_empty() {
            return Ok(None);
        }
        let chain = self.session().chain(&self.run_id().to_string()).await?;
        let started = chain.iter().find(|entry| entry.fact == "run_started");
        let body: serde_json::Value = started.and_then(|e| serde_json::from_str(&e.body).ok()).unwrap_or_default();
        let before: Vec<String> = serde_json::from_value(body["unchanged"].clone()).unwrap_or_default();
        let now = baseline(self.session(), &self.plan, self.run_id()).await?;
        if before.len() != now.len() {
            return Err(PgError::corrupt(format!("run {} has no answers from its start", self.run_id())));
        }
        let differing = before.iter().zip(&now).position(|(then, now)| then != now);
        Ok(differing.map(|n| format!("query {} of expect.unchanged gives something else than before the run", n + 1)))
    }
}
