//! What the gate writes: plans and the start of runs, through functions that decide for themselves.

use pgmend_core::id::RunId;
use pgmend_core::plan::Plan;

use crate::error::PgError;
use crate::readtx::FreezeTx;
use crate::session::{Session, Statement, array_literal};

/// What starts a run.
#[derive(Debug)]
pub struct RunStart<'a> {
    /// The run's id, made by the client before anything is sent.
    pub run_id: RunId,
    /// The plan.
    pub plan: &'a Plan,
    /// The instant that stands for `now()`.
    pub instant: &'a str,
    /// The greatest key, for a stream.
    pub upper_bound: Option<&'a [String]>,
    /// The table of images, if the run has one of its own.
    pub image_table: Option<&'a str>,
    /// Operating-system user, host, version.
    pub client: &'a str,
    /// Why the same change is made again.
    pub again: Option<&'a str>,
    /// Body of the ledger's first entry.
    pub body: &'a serde_json::Value,
}

/// Lock:  one new row. Index: `plan_pkey`.
fn store(plan: &Plan) -> Statement {
    let body = serde_json::to_string(plan).unwrap_or_default();
    let sql = "select pgmend.store_plan($1::uuid, $2, $3, $4, $5, $6::oid, $7::uuid, $8, $9, $10::name, \
               $11::name, $12::timestamptz)";
    let params = vec![
        Some(plan.plan_id.to_string()),
        Some(plan.job.clone()),
        Some(plan.kind.name().to_owned()),
        Some(plan.signature.0.clone()),
        Some(plan.digest().0),
        Some(plan.target_oid.to_string()),
        plan.undo_of.map(|run| run.to_string()),
        plan.undo_where.clone(),
        Some(body),
        plan.change_set.as_ref().map(|c| c.relation.name.clone()),
        Some(plan.settings.role.clone()),
        Some(plan.expires_at.clone()),
    ];
    Statement { doing: "store the plan", sql: sql.into(), params }
}

impl Session {
    /// Stores a plan.
    pub async fn store_plan(&self, plan: &Plan) -> Result<(), PgError> {
        self.run(&store(plan)).await?;
        Ok(())
    }

    /// Starts a run and its ledger: the plan must be known, fresh and unused, and its change neither made nor under way.
    pub async fn start_run(&self, start: &RunStart<'_>) -> Result<(), PgError> {
        let sql = "select pgmend.start_run($1::uuid, $2::uuid, $3, $4, $5::timestamptz, $6::text[], $7::bigint, $8::name, \
                   $9::name, $10, $11, $12)";
        let params = vec![
            Some(start.run_id.to_string()),
            Some(start.plan.plan_id.to_string()),
            Some(start.plan.digest().0),
            Some(start.plan.target.to_string()),
            Some(start.instant.to_owned()),
            start.upper_bound.map(array_literal),
            Some(start.plan.counts.changed_rows.value.to_string()),
            start.image_table.map(str::to_owned),
            Some(start.plan.settings.role.clone()),
            Some(start.client.to_owned()),
            start.again.map(str::to_owned),
            Some(start.body.to_string()),
        ];
        self.run(&Statement { doing: "start the run", sql: sql.into(), params }).await?;
        Ok(())
    }
}

impl FreezeTx<'_> {
    /// Stores the plan in the transaction that computed its change set.
    pub async fn store_plan(&self, plan: &Plan) -> Result<(), PgError> {
        self.read.send_statement(store(plan)).await
    }
}
