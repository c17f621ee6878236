//! What the job says of its own result: answers that must not change, a band that the rows must not leave, and a
//! first batch to look at.

use pgmend_core::digest::Digest;
use pgmend_core::expect::Then;
use pgmend_core::id::RunId;
use pgmend_core::plan::Plan;
use pgmend_core::run::RunState;
use pgmend_pg::readtx::ReadTx;
use pgmend_pg::scene::Scene;
use pgmend_pg::{PgError, Session};

use super::worker::Worker;

/// A guard of ours: the result is not what the job expects. The run stops, and can be resumed or undone.
pub(super) const UNEXPECTED: &str = "PM533";
/// Time for each query, in milliseconds.
const QUERY_BUDGET_MS: u64 = 120_000;

/// Answers of the job's `unchanged` queries, as digests that only this run can compare: the ledger keeps no values.
pub(super) async fn baseline(session: &Session, plan: &Plan, run: RunId) -> Result<Vec<String>, PgError> {
    if plan.expect.unchanged.is_empty() {
        return Ok(Vec::new());
    }
    let tx = session.read(&scene(plan), vec![]).await?;
    let answers = unchanged(&tx, plan).await;
    tx.end().await?;
    Ok(answers?.iter().map(|answer| digest(run, answer.as_deref())).collect())
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

fn scene(plan: &Plan) -> Scene {
    Scene { statement_timeout_ms: QUERY_BUDGET_MS, ..Scene::of_batch(&plan.settings, &plan.limits) }
}

fn digest(run: RunId, answer: Option<&str>) -> String {
    Digest::of(&(run, answer)).0
}

impl Worker<'_, '_> {
    /// After each batch: whether the run must stop here.
    pub(super) async fn stop_unexpected(&mut self) -> Result<Option<RunState>, PgError> {
        if let Some(failure) = self.plan.expect.rows.and_then(|band| band.exceeded(self.at.changed_rows)) {
            return Ok(Some(RunState::Failed { failure }));
        }
        let Some(canary) = self.plan.canary.clone().filter(|_| self.at.batch_no == 1) else { return Ok(None) };
        if let Some(failure) = self.changed_answer().await? {
            return Ok(Some(RunState::Failed { failure: format!("after the canary batch, {failure}") }));
        }
        let reason = "the canary batch is committed: look at its rows, then go on".to_owned();
        Ok((canary.then == Then::Pause).then_some(RunState::Paused { reason }))
    }

    /// At the end: a sentence on what holds, or an error on what does not.
    pub(super) async fn hold_expectations(&self) -> Result<Option<String>, PgError> {
        let expect = &self.plan.expect;
        if expect.is_empty() {
            return Ok(None);
        }
        let unexpected = |why: String| Err(PgError::new("check what the job expects", UNEXPECTED, why));
        if let Some(why) = expect.rows.and_then(|band| band.refuses(self.at.changed_rows)) {
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
