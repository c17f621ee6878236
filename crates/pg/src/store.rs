//! The control schema's rows: plans, runs, leases, checkpoints. Raw rows become valid values here.

use std::sync::atomic::Ordering;

use pgmend_core::id::{PlanId, RunId};
use pgmend_core::plan::Plan;
use pgmend_core::run::RunState;
use serde::Deserialize;

use crate::batch::Lease;
use crate::error::PgError;
use crate::session::{Answer, Session, Statement, array_literal};

/// A stored plan.
#[derive(Debug, Clone)]
pub struct StoredPlan {
    /// The plan.
    pub plan: Plan,
    /// Its digest as stored.
    pub digest: String,
    /// Whether it may still start a run.
    pub fresh: bool,
    /// The run that consumed it.
    pub run: Option<RunId>,
}

/// A stored run.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// The run.
    pub run_id: RunId,
    /// Its plan.
    pub plan_id: PlanId,
    /// The job's name.
    pub job: String,
    /// update, delete, insert or undo.
    pub kind: String,
    /// Target for people.
    pub target: String,
    /// The target's oid.
    pub target_oid: u32,
    /// The run it undoes.
    pub undo_of: Option<RunId>,
    /// The run that undid it, if one has succeeded.
    pub undone_by: Option<RunId>,
    /// State.
    pub state: RunState,
    /// The instant that stands for `now()`.
    pub instant: String,
    /// Upper bound of the keys; `None` for a frozen run or an empty table.
    pub upper_bound: Option<Vec<String>>,
    /// Rows that the plan expects to change.
    pub planned_rows: i64,
    /// Table of images.
    pub image_table: Option<String>,
    /// `session_user` that started it.
    pub started_by: String,
    /// The role that it acts as.
    pub effective_role: String,
    /// Operating-system user, host and version of pgmend.
    pub client: String,
    /// When it started.
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// Seconds from start to end or now.
    pub duration_s: f64,
    /// Rows that still match.
    pub residual_rows: Option<i64>,
    /// Of those, beyond the upper bound.
    pub arrived_later_rows: Option<i64>,
    /// Checks at the end.
    pub verification: Vec<String>,
    /// Whether images are gone.
    pub pruned: bool,
    /// Why it was made again.
    pub again_reason: Option<String>,
    /// Seconds since it ended.
    pub ended_s_ago: Option<f64>,
}

/// The last checkpoint of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LastCheckpoint {
    /// Number of the last batch; 0 when there is none.
    pub batch_no: i64,
    /// The pass that it belongs to.
    pub pass: i32,
    /// Where the cursor stands: everything up to here is done.
    pub cursor: Option<Vec<String>>,
    /// Where the first half of the rows is done up to, if that is ahead of the cursor.
    pub first_half_to: Option<Vec<String>>,
    /// Rows changed so far.
    pub changed_rows: i64,
    /// Rows skipped so far.
    pub skipped_rows: i64,
    /// Conflicts so far.
    pub conflict_rows: i64,
    /// Dead letters that are open.
    pub dead_rows: i64,
}

/// Whether the control schema can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlSchema {
    /// It is not there.
    Missing,
    /// It is there, and this role may not use it.
    Forbidden,
    /// It is there, in this version.
    Version(i32),
}

/// What `acquire_lease` answered.
#[derive(Debug, Clone)]
pub enum LeaseAnswer {
    /// It is ours.
    Acquired(Lease),
    /// Someone holds it.
    Held {
        /// Who.
        holder: String,
        /// Seconds that it has left.
        left_s: f64,
    },
}

fn known(version: i64) -> Result<ControlSchema, PgError> {
    let version = i32::try_from(version).map_err(|_| PgError::corrupt("a version out of range"))?;
    Ok(if version == 0 { ControlSchema::Missing } else { ControlSchema::Version(version) })
}

const RUN_COLUMNS: &str = include_str!("../sql/store/run.sql");

impl Session {
    /// Whether the control schema is there, and whether this role may use it.
    pub async fn control_schema(&self) -> Result<ControlSchema, PgError> {
        let version = "select coalesce(max(version), 0)::text from pgmend.schema_version";
        let version = Statement::new("read the control schema's version", version, vec![]);
        if self.installed.load(Ordering::Relaxed) {
            // It was there a moment ago: one question instead of three, unless it is gone.
            if let Ok(found) = self.run(&version).await {
                return known(found.number()?);
            }
        }
        let exists = "select coalesce((select has_schema_privilege(oid, 'usage')::text from pg_catalog.pg_namespace \
                      where nspname = 'pgmend'), 'missing')";
        let found = self.run(&Statement::new("look for the control schema", exists, vec![])).await?;
        match found.scalar() {
            Some("true") => {}
            Some("false") => return Ok(ControlSchema::Forbidden),
            Some(_) | None => return Ok(ControlSchema::Missing),
        }
        let there = "select coalesce((select has_table_privilege(c.oid, 'select')::text from pg_catalog.pg_class c \
                     where c.oid = to_regclass('pgmend.schema_version')), 'missing')";
        match self.run(&Statement::new("look for the control schema", there, vec![])).await?.scalar() {
            Some("true") => {}
            Some("false") => return Ok(ControlSchema::Forbidden),
            Some(_) | None => return Ok(ControlSchema::Missing),
        }
        let version = self.run(&version).await?.number()?;
        self.installed.store(version > 0, Ordering::Relaxed);
        known(version)
    }

    /// The plans whose id starts with `prefix`, or ends with it: the short id that people see is its end.
    pub async fn find_plans(&self, prefix: &str) -> Result<Vec<StoredPlan>, PgError> {
        self.plans("p.plan_id::text like $1 || '%' or (length($1) >= 8 and p.plan_id::text like '%' || $1)", prefix, 2)
            .await
    }

    /// Plans of the job, newest first.
    pub async fn plans_of_signature(&self, signature: &str) -> Result<Vec<StoredPlan>, PgError> {
        self.plans("p.signature = $1", signature, 5).await
    }

    async fn plans(&self, predicate: &str, value: &str, limit: u32) -> Result<Vec<StoredPlan>, PgError> {
        let sql = format!(
            "select b.body, p.digest, (p.expires_at > clock_timestamp())::text, r.run_id::text, b.masked::text \
               from pgmend.plan p cross join lateral pgmend.plan_body(p.plan_id) b \
               left join pgmend.run r on r.plan_id = p.plan_id \
              where {predicate} order by p.planned_at desc limit {limit}"
        );
        let answer = self.run(&Statement::new("read a plan", sql, vec![value.to_owned()])).await?;
        answer.rows.into_iter().map(stored_plan).collect()
    }

    /// Runs that a name means: an id or its beginning or end, else the job of that name, newest first.
    pub async fn find_runs(&self, name: &str) -> Result<Vec<StoredRun>, PgError> {
        let by_id = "r.run_id::text = $1 or (length($1) >= 8 and (r.run_id::text like $1 || '%' or r.run_id::text like '%' || $1))";
        let found = self.runs(&format!("where {by_id}"), Some(name)).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        self.runs("where r.job = $1", Some(name)).await
    }

    /// All runs, newest first, 200 at most.
    pub async fn all_runs(&self) -> Result<Vec<StoredRun>, PgError> {
        self.runs("", None).await
    }

    /// Runs of a signature, newest first.
    pub async fn runs_of_signature(&self, signature: &str) -> Result<Vec<StoredRun>, PgError> {
        self.runs("where r.signature = $1", Some(signature)).await
    }

    /// Runs of a job that have not ended, undos left out, newest first. Lock: none. Index: `run_job_started_at`.
    pub async fn unfinished_runs_of_job(&self, job: &str) -> Result<Vec<StoredRun>, PgError> {
        self.runs("where r.job = $1 and r.ended_at is null and r.undo_of is null", Some(job)).await
    }

    /// Runs that undo this one, newest first.
    pub async fn runs_undoing(&self, run: RunId) -> Result<Vec<StoredRun>, PgError> {
        self.runs("where r.undo_of = $1::uuid", Some(&run.to_string())).await
    }

    /// Runs on a table, newest first.
    pub async fn runs_on(&self, target_oid: u32) -> Result<Vec<StoredRun>, PgError> {
        self.runs("where r.target_oid = $1::oid", Some(&target_oid.to_string())).await
    }

    async fn runs(&self, clause: &str, param: Option<&str>) -> Result<Vec<StoredRun>, PgError> {
        let sql = format!("{RUN_COLUMNS} {clause} order by r.started_at desc limit 200");
        let params = param.map(str::to_owned).into_iter().collect();
        let answer = self.run(&Statement::new("read runs", sql, params)).await?;
        answer.rows.iter().map(|row| stored_run(row)).collect()
    }

    /// The plan of a run.
    pub async fn plan_of(&self, plan: PlanId) -> Result<StoredPlan, PgError> {
        let mut plans = self.plans("p.plan_id = $1::uuid", &plan.to_string(), 1).await?;
        plans.pop().ok_or_else(|| PgError::corrupt(format!("run without its plan {plan}")))
    }

    /// The last checkpoint. Reads the primary key backwards. The order names the table's column: a bare
    /// `batch_no` would mean the output, which is text, and put batch 9 after batch 13.
    pub async fn last_checkpoint(&self, run: RunId, partition_no: i32) -> Result<LastCheckpoint, PgError> {
        let sql = "select b.batch_no::text, to_json(b.cursor_to)::text, b.changed_total::text, b.skipped_total::text, \
                   b.conflict_total::text, b.pass::text, b.dead_total::text, to_json(b.first_half_to)::text from pgmend.batch b where b.run_id = $1::uuid and b.partition_no = $2::int \
                   order by b.batch_no desc limit 1";
        let params = vec![run.to_string(), partition_no.to_string()];
        let answer = self.run(&Statement::new("read the checkpoint", sql, params)).await?;
        let Some(row) = answer.rows.first() else { return Ok(LastCheckpoint::default()) };
        Ok(LastCheckpoint {
            batch_no: number(row, 0)?,
            cursor: Some(from_json::<Vec<String>>(row, 1)?).filter(|cursor| !cursor.is_empty()),
            changed_rows: number(row, 2)?,
            skipped_rows: number(row, 3)?,
            conflict_rows: number(row, 4)?,
            pass: i32::try_from(number(row, 5)?).map_err(|_| PgError::corrupt("a pass out of range"))?,
            dead_rows: number(row, 6)?,
            first_half_to: row.get(7).is_some_and(Option::is_some).then(|| from_json(row, 7)).transpose()?,
        })
    }

    /// Takes the lease, or tells who holds it.
    pub async fn acquire_lease(
        &self,
        run: RunId,
        owner: &str,
        holder: &str,
        seconds: u64,
    ) -> Result<LeaseAnswer, PgError> {
        let sql = "select acquired::text, fence::text, held_by, left_s::text \
                   from pgmend.acquire_lease($1::uuid, 0, $2, $3, $4::double precision)";
        let params = vec![run.to_string(), owner.to_owned(), holder.to_owned(), seconds.to_string()];
        let answer = self.run(&Statement::new("take the lease", sql, params)).await?;
        let row = answer.rows.first().ok_or_else(|| PgError::corrupt("no answer about the lease"))?;
        if text(row, 0)? == "true" {
            return Ok(LeaseAnswer::Acquired(Lease { run, partition_no: 0, fence: number(row, 1)? }));
        }
        Ok(LeaseAnswer::Held {
            holder: row.get(2).cloned().flatten().unwrap_or_else(|| "someone".into()),
            left_s: row.get(3).cloned().flatten().and_then(|s| s.parse().ok()).unwrap_or(1.0),
        })
    }

    /// Renews the lease; false when it has been taken over.
    pub async fn heartbeat(&self, lease: &Lease, seconds: u64) -> Result<bool, PgError> {
        let sql = "select pgmend.heartbeat($1::uuid, $2::int, $3::bigint, $4::double precision)::text";
        let params =
            vec![lease.run.to_string(), lease.partition_no.to_string(), lease.fence.to_string(), seconds.to_string()];
        Ok(self.run(&Statement::new("renew the lease", sql, params)).await?.scalar() == Some("true"))
    }

    /// Gives the lease back.
    pub async fn release(&self, lease: &Lease) -> Result<(), PgError> {
        let sql = "select pgmend.release_lease($1::uuid, $2::int, $3::bigint)";
        let params = vec![lease.run.to_string(), lease.partition_no.to_string(), lease.fence.to_string()];
        self.run(&Statement::new("release the lease", sql, params)).await?;
        Ok(())
    }

    /// Moves a run to another state, while the lease is held, and says so in its ledger, or neither.
    pub async fn change_state(
        &self,
        lease: &Lease,
        from: &[&str],
        to: &RunState,
        end: Option<&End>,
        fact: Fact<'_>,
    ) -> Result<(), PgError> {
        let reason = match to {
            RunState::Paused { reason } => Some(reason.clone()),
            RunState::Failed { failure } => Some(failure.clone()),
            RunState::Running | RunState::Succeeded | RunState::Cancelled => None,
        };
        let from: Vec<String> = from.iter().map(|&s| s.to_owned()).collect();
        let params = vec![
            Some(lease.run.to_string()),
            Some(lease.fence.to_string()),
            Some(array_literal(&from)),
            Some(to.name().to_owned()),
            reason,
            end.and_then(|e| e.residual_rows).map(|n| n.to_string()),
            end.and_then(|e| e.arrived_later_rows).map(|n| n.to_string()),
            end.map(|e| array_literal(&e.verification)),
            Some(fact.name.to_owned()),
            Some(fact.body.to_string()),
        ];
        let sql = "select pgmend.change_state($1::uuid, $2::bigint, $3::text[], $4, $5, $6::bigint, $7::bigint, $8::text[], \
                   $9, $10)";
        self.run(&Statement { doing: "change the run's state", sql: sql.into(), params }).await?;
        Ok(())
    }

    /// Tells a run's ledger what its worker did, while the lease is held.
    pub async fn record_fact(&self, lease: &Lease, fact: Fact<'_>) -> Result<(), PgError> {
        let sql = "select pgmend.record_fact($1::uuid, $2::bigint, $3, $4)::text";
        let params = vec![lease.run.to_string(), lease.fence.to_string(), fact.name.to_owned(), fact.body.to_string()];
        self.run(&Statement::new("append to the ledger", sql, params)).await?;
        Ok(())
    }

    /// Conflicts of a run: key, masked for whoever only reads, and reason.
    pub async fn conflicts(&self, run: RunId, limit: i64) -> Result<Vec<(Vec<String>, String)>, PgError> {
        let sql = "select to_json(c.key)::text, c.reason from pgmend.conflicts_of($1::uuid, null, $2::bigint) as c order by c.n";
        let answer = self.run(&Statement::new("read conflicts", sql, vec![run.to_string(), limit.to_string()])).await?;
        answer.rows.iter().map(|row| Ok((from_json(row, 0)?, text(row, 1)?))).collect()
    }
}

/// An entry of a run's ledger to be.
#[derive(Debug, Clone, Copy)]
pub struct Fact<'a> {
    /// What happened, past tense.
    pub name: &'a str,
    /// Details, without row values.
    pub body: &'a serde_json::Value,
}

/// What a run found at its end.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Rows that still match.
    pub residual_rows: Option<i64>,
    /// Of those, beyond the upper bound.
    pub arrived_later_rows: Option<i64>,
    /// Checks made.
    pub verification: Vec<String>,
}

fn stored_plan(row: Vec<Option<String>>) -> Result<StoredPlan, PgError> {
    let plan: Plan = serde_json::from_str(&text(&row, 0)?)
        .map_err(|e| PgError::corrupt(format!("a stored plan does not read: {e}")))?;
    if plan.format != pgmend_core::plan::FORMAT {
        return Err(PgError::corrupt(format!(
            "plan {} has format {}, this pgmend knows {}",
            plan.plan_id,
            plan.format,
            pgmend_core::plan::FORMAT
        )));
    }
    let digest = text(&row, 1)?;
    // What was masked for this reader has no digest of its own.
    let masked = text(&row, 4)? == "true";
    if !masked && plan.digest().0 != digest {
        return Err(PgError::corrupt(format!("plan {} does not have the digest it was stored with", plan.plan_id)));
    }
    let run = row.get(3).cloned().flatten().map(|id| id.parse()).transpose();
    let run = run.map_err(|_| PgError::corrupt("a run's id is no uuid"))?;
    Ok(StoredPlan { plan, digest, fresh: text(&row, 2)? == "true", run })
}

#[derive(Deserialize)]
struct RunRow {
    run_id: RunId,
    plan_id: PlanId,
    job: String,
    kind: String,
    target: String,
    target_oid: u32,
    undo_of: Option<RunId>,
    undone_by: Option<RunId>,
    state: String,
    reason: Option<String>,
    instant: String,
    upper_bound: Option<Vec<String>>,
    planned_rows: i64,
    image_table: Option<String>,
    started_by: String,
    effective_role: String,
    client: String,
    started_at: String,
    ended_at: Option<String>,
    duration_s: f64,
    residual_rows: Option<i64>,
    arrived_later_rows: Option<i64>,
    verification: Vec<String>,
    pruned: bool,
    again_reason: Option<String>,
    ended_s_ago: Option<f64>,
}

fn stored_run(row: &[Option<String>]) -> Result<StoredRun, PgError> {
    let row: RunRow = from_json(row, 0)?;
    let state = match (row.state.as_str(), row.reason) {
        ("running", None) => RunState::Running,
        ("paused", Some(reason)) => RunState::Paused { reason },
        ("failed", Some(failure)) => RunState::Failed { failure },
        ("succeeded", None) => RunState::Succeeded,
        ("cancelled", _) => RunState::Cancelled,
        (state, _) => {
            return Err(PgError::corrupt(format!(
                "run {} is {state} with columns that do not belong to it",
                row.run_id
            )));
        }
    };
    Ok(StoredRun {
        run_id: row.run_id,
        plan_id: row.plan_id,
        job: row.job,
        kind: row.kind,
        target: row.target,
        target_oid: row.target_oid,
        undo_of: row.undo_of,
        undone_by: row.undone_by,
        state,
        instant: row.instant,
        upper_bound: row.upper_bound,
        planned_rows: row.planned_rows,
        image_table: row.image_table,
        started_by: row.started_by,
        effective_role: row.effective_role,
        client: row.client,
        started_at: row.started_at,
        ended_at: row.ended_at,
        duration_s: row.duration_s,
        residual_rows: row.residual_rows,
        arrived_later_rows: row.arrived_later_rows,
        verification: row.verification,
        pruned: row.pruned,
        again_reason: row.again_reason,
        ended_s_ago: row.ended_s_ago,
    })
}

pub(crate) fn text(row: &[Option<String>], at: usize) -> Result<String, PgError> {
    row.get(at).cloned().flatten().ok_or_else(|| PgError::corrupt("a NULL where a value must be"))
}

pub(crate) fn number(row: &[Option<String>], at: usize) -> Result<i64, PgError> {
    text(row, at)?.parse().map_err(|_| PgError::corrupt("a number that does not read"))
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(row: &[Option<String>], at: usize) -> Result<T, PgError> {
    serde_json::from_str(&text(row, at)?).map_err(|e| PgError::corrupt(format!("a stored value does not read: {e}")))
}

impl Answer {
    /// The number in the first column of the first row.
    pub fn number(&self) -> Result<i64, PgError> {
        number(self.rows.first().map_or(&[], Vec::as_slice), 0)
    }
}
