//! Guardrails as the control schema holds them: policy, approvals, wishes, broken glass, reviews. Every function
//! decides for itself who may; nothing here does.

use pgmend_core::id::{PlanId, RunId};
use pgmend_core::ledger::Entry;
use pgmend_core::policy::Policy;
use serde::{Deserialize, Serialize};

use crate::error::PgError;
use crate::session::{Session, Statement};
use crate::store::from_json;

/// What the policy asks of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guardrail {
    /// Its name: `approvals`, `ticket`, `hours` …
    pub rule: String,
    /// What is asked for.
    pub demanded: String,
    /// What there is.
    pub found: String,
    /// Whether that is enough.
    pub met: bool,
}

/// An approval or a veto.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredApproval {
    /// `approved` or `vetoed`.
    pub verdict: String,
    /// Who.
    pub approver: String,
    /// Why.
    pub reason: String,
    /// When, by the server's clock.
    pub given_at: String,
    /// Until when it may start a run.
    pub expires_at: String,
    /// Who took it back, and why.
    pub revoked: Option<String>,
}

/// What somebody must look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewItem {
    /// The run.
    pub run_id: String,
    /// Its job.
    pub job: String,
    /// Why.
    pub why: String,
    /// Since when.
    pub opened_at: String,
}

/// Leave to run without the approvals, as it was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenGlass {
    /// Who gave it.
    pub granted_by: String,
    /// Who used it.
    pub granted_to: String,
    /// Why.
    pub reason: String,
    /// The ticket.
    pub ticket: String,
    /// When it was given, by the server's clock.
    pub granted_at: String,
    /// Until when it could be used.
    pub expires_at: String,
}

/// What became of what somebody had to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Since when.
    pub opened_at: String,
    /// Who closed it, when, and what they found; open when absent.
    pub closed: Option<String>,
}

/// Where a chain ends according to the control schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// The run, or the plan before it has one.
    pub chain: String,
    /// Number of the last entry.
    pub entry_no: i64,
    /// Its hash.
    pub hash: String,
}

/// Where a connection arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The host as it was connected to.
    pub host: String,
    /// The database.
    pub database: String,
    /// The cluster.
    pub system_identifier: String,
    /// What the canary's query gave.
    pub canary: Option<String>,
}

/// A person's wish for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// `pause` or `cancel`.
    pub wish: String,
    /// Why.
    pub reason: String,
    /// Who.
    pub asked_by: String,
    /// The run's plan, if the pause stands until somebody approves it again: an approval was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unapproved: Option<PlanId>,
}

impl Session {
    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        doing: &'static str,
        sql: &str,
        params: Vec<String>,
    ) -> Result<Vec<T>, PgError> {
        let sql = format!("select coalesce(json_agg(row_to_json(q)), '[]')::text from ({sql}) as q");
        let answer = self.run(&Statement::new(doing, sql, params)).await?;
        from_json(answer.rows.first().map_or(&[], Vec::as_slice), 0)
    }

    /// Where this connection arrived, and what the canary's query answers there.
    /// Lock:  what the canary's query takes, in a read-only transaction. Index: the query's own.
    pub async fn arrived(&self, canary: Option<&str>) -> Result<Arrival, PgError> {
        let sql = "select current_database(), (select system_identifier::text from pg_catalog.pg_control_system())";
        let answer = self.run(&Statement::new("identify the server", sql, vec![])).await?;
        let cell = |n: usize| answer.rows.first().and_then(|row| row.get(n).cloned().flatten()).unwrap_or_default();
        let (database, system_identifier) = (cell(0), cell(1));
        let canary = match canary {
            None => None,
            Some(query) => {
                let statements = [
                    Statement::new("begin a read", "begin read only", vec![]),
                    Statement::new("limit the canary", "select set_config('statement_timeout', '5000', true)", vec![]),
                    Statement::new(
                        "ask the canary",
                        format!("select answer::text from ({query}) as q (answer) limit 1"),
                        vec![],
                    ),
                    Statement::new("end a read", "rollback", vec![]),
                ];
                let answers = self.pipeline(&statements).await;
                self.run(&Statement::new("end a read", "rollback", vec![])).await?;
                let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
                answers.get(2).and_then(|a| a.scalar()).map(str::to_owned)
            }
        };
        Ok(Arrival { host: self.host(), database, system_identifier, canary })
    }

    /// Makes this the policy of the database. Only the schema's owner may.
    /// Lock:  one new row. Index: none.
    pub async fn set_policy(&self, environment: &str, policy: &Policy) -> Result<(), PgError> {
        let body = serde_json::to_string(policy).map_err(|e| PgError::corrupt(e.to_string()))?;
        let sql = "select pgmend.set_policy($1, $2::jsonb)::text";
        self.run(&Statement::new("set the policy", sql, vec![environment.to_owned(), body])).await?;
        Ok(())
    }

    /// The environment and policy in force, if one was set.
    /// Lock:  none. Index: `policy_pkey`.
    pub async fn policy(&self) -> Result<Option<(String, Policy)>, PgError> {
        #[derive(Deserialize)]
        struct Row {
            environment: Option<String>,
            body: Option<Policy>,
        }
        let sql = "select environment, body from pgmend.current_policy()";
        let rows: Vec<Row> = self.list("read the policy", sql, vec![]).await?;
        Ok(rows.into_iter().next().and_then(|row| Some((row.environment?, row.body?))))
    }

    /// What the policy asks of a stored plan.
    /// Lock:  none. Index: `plan_pkey`, `approval_once`.
    pub async fn guardrails(&self, plan: PlanId) -> Result<Vec<Guardrail>, PgError> {
        let sql = "select rule, demanded, present as found, met from pgmend.guardrails($1::uuid)";
        self.list("read the guardrails", sql, vec![plan.to_string()]).await
    }

    /// Approvals and vetoes of a plan, oldest first.
    /// Lock:  none. Index: `approval_once` or a scan of a small table.
    pub async fn approvals(&self, plan: PlanId) -> Result<Vec<StoredApproval>, PgError> {
        let sql = "select verdict, approver, reason, to_char(given_at, 'YYYY-MM-DD HH24:MI:SSOF') as given_at, \
                   to_char(expires_at, 'YYYY-MM-DD HH24:MI:SSOF') as expires_at, revoked_by || ': ' || revoke_reason as revoked \
                   from pgmend.approval where plan_id = $1::uuid order by approval_id";
        self.list("read approvals", sql, vec![plan.to_string()]).await
    }

    /// Says yes or no to a plan that was shown with this digest.
    /// Lock:  the plan's row for share; one new row. Index: `plan_pkey`, `approval_once`.
    pub async fn approve(&self, plan: PlanId, digest: &str, verdict: &str, reason: &str) -> Result<(), PgError> {
        let sql = "select pgmend.approve($1::uuid, $2, $3, $4)::text";
        let params = vec![plan.to_string(), digest.to_owned(), verdict.to_owned(), reason.to_owned()];
        self.run(&Statement::new("record the approval", sql, params)).await?;
        Ok(())
    }

    /// Takes this login's yes back; tells whether a run is stopped by it.
    /// Lock:  one row. Index: `approval_once`.
    pub async fn revoke_approval(&self, plan: PlanId, reason: &str) -> Result<bool, PgError> {
        let sql = "select pgmend.revoke_approval($1::uuid, $2)::text";
        let statement = Statement::new("take the approval back", sql, vec![plan.to_string(), reason.to_owned()]);
        Ok(self.run(&statement).await?.scalar() == Some("true"))
    }

    /// Asks a run to `pause` or to `cancel`.
    /// Lock:  one row. Index: `control_pkey`.
    pub async fn ask(&self, run: RunId, wish: &str, reason: &str) -> Result<(), PgError> {
        let sql = "select pgmend.ask($1::uuid, $2, $3)::text";
        let params = vec![run.to_string(), wish.to_owned(), reason.to_owned()];
        self.run(&Statement::new("ask the run to stop", sql, params)).await?;
        Ok(())
    }

    /// Lifts a pause that a person asked for.
    /// Lock:  one row. Index: `control_pkey`.
    pub async fn lift(&self, run: RunId) -> Result<(), PgError> {
        self.run(&Statement::new("lift the pause", "select pgmend.lift($1::uuid)::text", vec![run.to_string()]))
            .await?;
        Ok(())
    }

    /// What a person asked of a run, if anything.
    /// What `pgmend.lift` would refuse is told by the same conditions.
    /// Lock:  none. Index: `control_pkey`, `run_pkey`, `approval_once`.
    pub async fn wish(&self, run: RunId) -> Result<Option<Wish>, PgError> {
        let sql = "select c.wish, c.reason, c.asked_by, case when c.wish = 'pause' \
                   and exists (select from pgmend.approval a where a.plan_id = r.plan_id and a.revoked_at is not null \
                               and a.revoke_reason <> 'said anew') \
                   and (select count(*) from pgmend.approval a where a.plan_id = r.plan_id and a.revoked_at is null \
                        and a.verdict = 'approved') < (select n.required from pgmend.approvals_required(r.plan_id) as n) \
                   then r.plan_id end as unapproved \
                   from pgmend.control c join pgmend.run r on r.run_id = c.run_id where c.run_id = $1::uuid";
        Ok(self.list("read what was asked", sql, vec![run.to_string()]).await?.pop())
    }

    /// Lets another role run a plan without its approvals, for some minutes.
    /// Lock:  one new row. Index: `plan_pkey`.
    pub async fn grant_break_glass(
        &self,
        plan: PlanId,
        digest: &str,
        to: &str,
        reason: &str,
        ticket: &str,
        minutes: u32,
    ) -> Result<String, PgError> {
        let sql = "select pgmend.grant_break_glass($1::uuid, $2, $3::name, $4, $5, $6::int)::text";
        let texts = [digest, to, reason, ticket].map(str::to_owned);
        let params = [plan.to_string()].into_iter().chain(texts).chain([minutes.to_string()]).collect();
        let answer = self.run(&Statement::new("let the glass be broken", sql, params)).await?;
        Ok(answer.scalar().unwrap_or_default().to_owned())
    }

    /// Whether this login has leave to run the plan without its approvals.
    /// Lock:  none. Index: `break_glass_plan`.
    pub async fn may_break_glass(&self, plan: PlanId) -> Result<bool, PgError> {
        let sql = "select exists (select from pgmend.break_glass where plan_id = $1::uuid and granted_to = session_user \
                   and used_by is null and expires_at > clock_timestamp())::text";
        let statement = Statement::new("look for leave to break the glass", sql, vec![plan.to_string()]);
        Ok(self.run(&statement).await?.scalar() == Some("true"))
    }

    /// Reviews that nobody has closed.
    /// Lock:  none. Index: a scan of a small table.
    pub async fn open_reviews(&self) -> Result<Vec<ReviewItem>, PgError> {
        let sql = "select run_id::text, job, why, to_char(opened_at, 'YYYY-MM-DD HH24:MI:SSOF') as opened_at \
                   from pgmend.review_item join pgmend.run using (run_id) where closed_at is null order by opened_at";
        self.list("read reviews", sql, vec![]).await
    }

    /// The leave that a run used.
    /// Lock:  none. Index: a scan of a small table.
    pub async fn broken_glass(&self, run: RunId) -> Result<Option<BrokenGlass>, PgError> {
        let sql = "select granted_by, granted_to, reason, ticket, to_char(granted_at, 'YYYY-MM-DD HH24:MI:SSOF') as granted_at, \
                   to_char(expires_at, 'YYYY-MM-DD HH24:MI:SSOF') as expires_at from pgmend.break_glass where used_by = $1::uuid";
        Ok(self.list("read the broken glass", sql, vec![run.to_string()]).await?.pop())
    }

    /// The review of a run, open or closed.
    /// Lock:  none. Index: `review_item_pkey`.
    pub async fn review(&self, run: RunId) -> Result<Option<Review>, PgError> {
        let sql = "select to_char(opened_at, 'YYYY-MM-DD HH24:MI:SSOF') as opened_at, \
                   case when closed_at is not null then format('%s at %s: %s', closed_by, \
                   to_char(closed_at, 'YYYY-MM-DD HH24:MI:SSOF'), note) end as closed \
                   from pgmend.review_item where run_id = $1::uuid";
        Ok(self.list("read the review", sql, vec![run.to_string()]).await?.pop())
    }

    /// The secret of this database's tokens; `None` for a role that may not know it.
    /// Lock:  none. Index: `token_key_pkey`.
    pub async fn token_secret(&self) -> Result<Option<String>, PgError> {
        let may = "select coalesce(has_function_privilege(to_regprocedure('pgmend.token_secret()')::oid, 'execute'), false)::text";
        if self.run(&Statement::new("ask for the key of tokens", may, vec![])).await?.scalar() != Some("true") {
            return Ok(None);
        }
        let sql = "select pgmend.token_secret()";
        let answer = self.run(&Statement::new("read the key of tokens", sql, vec![])).await?;
        Ok(answer.scalar().map(str::to_owned))
    }

    /// Closes the review of a run.
    /// Lock:  one row. Index: `review_item_pkey`.
    pub async fn close_review(&self, run: RunId, note: &str) -> Result<(), PgError> {
        let sql = "select pgmend.close_review($1::uuid, $2)::text";
        self.run(&Statement::new("close the review", sql, vec![run.to_string(), note.to_owned()])).await?;
        Ok(())
    }

    /// Where every chain ends.
    /// Lock:  none. Index: `ledger_head_pkey`.
    pub async fn chain_heads(&self) -> Result<Vec<ChainHead>, PgError> {
        let sql = "select run_id::text as chain, entry_no, hash from pgmend.ledger_head order by run_id";
        self.list("read the ledger's heads", sql, vec![]).await
    }

    /// Chains that have entries or should have: those of the ledger, and every run.
    /// Lock:  none. Index: `ledger_pkey`, `run_pkey`.
    pub async fn chains(&self) -> Result<Vec<String>, PgError> {
        #[derive(Deserialize)]
        struct Row {
            chain: String,
        }
        let sql = "select run_id::text as chain from pgmend.ledger union select run_id::text from pgmend.run \
                   union select run_id::text from pgmend.ledger_head order by 1";
        let rows: Vec<Row> = self.list("read the ledger's chains", sql, vec![]).await?;
        Ok(rows.into_iter().map(|row| row.chain).collect())
    }

    /// One chain, in order.
    /// Lock:  none. Index: `ledger_pkey`.
    pub async fn chain(&self, chain: &str) -> Result<Vec<Entry>, PgError> {
        let sql = "select entry_no, to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as recorded_at, \
                   fact, actor, body, hash from pgmend.ledger where run_id = $1::uuid order by entry_no";
        self.list("read the ledger", sql, vec![chain.to_owned()]).await
    }
}
