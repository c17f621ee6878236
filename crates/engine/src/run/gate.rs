//! The gate: nothing writes to a user's table before all of these have said yes.

use pgmend_core::changed::{differences, rewordings};
use pgmend_core::digest::Digest;
use pgmend_core::finding::Severity;
use pgmend_core::job::Job;
use pgmend_core::plan::{Certainty, ChangeKind, Plan};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_pg::Session;
use pgmend_pg::store::StoredRun;

use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::RunOptions;
use crate::plan::{about, bind, freeze, planning_scene, planning_scene_of, signature};

impl Engine {
    /// The signature of a job against this database.
    pub(crate) async fn signature_of(&self, job: &Job) -> Result<Digest, Error> {
        let statement = bind::parse(job, self.here.escapes_in_strings)?;
        let tx = self.session.read(&planning_scene_of(&self.here, job), self.params(job)).await?;
        let bound = bind::bind(&tx, job, statement, &self.here.settings).await;
        tx.end().await?;
        let bound = bound?;
        Ok(signature(&bound.statement.canonical(), job, &bound, &self.here, &self.plan_tokens().await?))
    }

    /// A stored plan of this change that may start a run: fresh, unused, true to the database and to the
    /// job's limits.
    pub(crate) async fn usable_plan(&self, job: &Job, signature: &str) -> Result<Option<Plan>, Error> {
        let mut newest = None;
        let recipient = self.recipient_for(job).await?;
        for stored in self.session.plans_of_signature(signature).await? {
            let same_job = stored.plan.limits == job.file.limits
                && stored.plan.images.keep == job.file.images.keep
                && stored.plan.images.recipient == recipient
                && job.file.mode.is_none_or(|mode| mode == stored.plan.mode)
                && job.file.key.as_ref().is_none_or(|key| stored.plan.key.as_ref().is_some_and(|k| k.columns == *key))
                && stored.plan.expect_rows == job.file.expect_rows
                && stored.plan.expect == job.file.expect
                && stored.plan.canary == job.file.canary
                && stored.plan.tenants.as_ref().map(|t| &t.mode) == job.file.tenants.as_ref()
                && stored.plan.job == job.name;
            // What a blocker names may be mended by now: that plan forbids its own run, not that of the next one.
            let free = refuse_blocked(&stored.plan).is_ok();
            if stored.run.is_none() && same_job && free && self.refuse_stale(&stored.plan, stored.fresh).await.is_ok() {
                // One that may start goes before a newer one that may not: planning again voids no approval.
                if self.session.guardrails(stored.plan.plan_id).await?.iter().all(|guardrail| guardrail.met) {
                    return Ok(Some(stored.plan));
                }
                if same_facts(job, &stored.plan) {
                    newest.get_or_insert(stored.plan);
                }
            }
        }
        Ok(newest)
    }

    /// Refuses a plan that no longer describes the database, field by field.
    pub(crate) async fn refuse_stale(&self, plan: &Plan, fresh: bool) -> Result<(), Error> {
        self.refuse_other_server(plan)?;
        let mut differences = Vec::new();
        let mut differs = |field: &str, planned: &str, now: &str| {
            if planned != now {
                differences.push(format!("{field} was {planned} and is {now}"));
            }
        };
        let (then, now) = (&plan.settings, &self.here.settings);
        differs("role", &then.role, &now.role);
        differs("search_path", &then.search_path, &now.search_path);
        differs("TimeZone", &then.time_zone, &now.time_zone);
        differs("DateStyle", &then.date_style, &now.date_style);
        differs("IntervalStyle", &then.interval_style, &now.interval_style);
        for (name, planned) in &then.formats {
            differs(name, planned, now.formats.get(name).map_or("unknown", String::as_str));
        }
        let tx = self.session.read(&planning_scene(&self.here), vec![]).await?;
        let oid = tx.resolve(Some(&plan.target.schema), &plan.target.name).await;
        let fingerprint = match &oid {
            Ok(Some(oid)) => tx.table(*oid, &now.search_path).await.map(|t| Some(t.fingerprint)),
            Ok(None) => Ok(None),
            Err(error) => Err(error.clone()),
        };
        tx.end().await?;
        match fingerprint? {
            None => differences.push(format!("table {} is gone", plan.target)),
            Some(fingerprint) if fingerprint != plan.fingerprint => {
                differences.push(format!(
                    "the definition of {} (columns, indexes, constraints, triggers) has changed",
                    plan.target
                ));
            }
            Some(_) => {}
        }
        if !fresh {
            differences.push(format!("the plan expired at {}", plan.expires_at));
        }
        if differences.is_empty() {
            return Ok(());
        }
        let message = format!("plan {} is stale: {}", plan.plan_id, differences.join("; "));
        Err(Refusal::new(Code::StalePlan, message, "plan again").into())
    }

    /// A plan belongs to one database of one cluster.
    pub(crate) fn refuse_other_server(&self, plan: &Plan) -> Result<(), Error> {
        let (then, now) = (&plan.database, &self.here.database);
        if then.system_identifier == now.system_identifier && then.database_oid == now.database_oid {
            return Ok(());
        }
        let message = format!(
            "the plan is for database {} of cluster {}, this is {} of {}",
            then.database, then.system_identifier, now.database, now.system_identifier
        );
        Err(Refusal::new(Code::WrongServer, message, "connect to the database that was planned for, or plan again")
            .into())
    }
}

impl Engine {
    /// A run that sets no row aside, whatever its limit, is not told another one: who types it would wait for nothing.
    pub(crate) async fn refuse_letters_of_none(&self, run: &StoredRun, options: &RunOptions) -> Result<(), Error> {
        if options.dead_letters.is_none_or(|limit| limit.allowed(run.planned_rows.max(1)) == 0) {
            return Ok(());
        }
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        let why = match plan.may_set_rows_aside() {
            true => return Ok(()),
            false if plan.kind == ChangeKind::Undo => "an undo has conflicts instead",
            false if plan.one_transaction => "all its rows change together",
            false => "the exact number of its rows is given",
        };
        let message = format!("run {} sets no row aside: {why}", run.run_id);
        let help = format!("mend the rows and go on: pgmend run {} --execute", run.run_id);
        Err(Refusal::new(Code::WrongState, message, help).into())
    }

    /// Where people had to approve a plan, they have approved its limit of dead letters too.
    pub(crate) async fn refuse_more_letters(
        &self,
        plan: &Plan,
        run: &StoredRun,
        options: &RunOptions,
    ) -> Result<(), Error> {
        let Some(wanted) = options.dead_letters.map(|limit| limit.allowed(run.planned_rows)) else { return Ok(()) };
        let approved = plan.dead_letters.allowed(run.planned_rows);
        if wanted <= approved {
            return Ok(());
        }
        let demanded = self.session.guardrails(plan.plan_id).await?;
        if demanded.iter().all(|guardrail| guardrail.rule != "approvals") {
            return Ok(());
        }
        let message =
            format!("run {} may set {approved} rows aside, as was approved; {wanted} are asked for", run.run_id);
        let help = format!(
            "mend the rows and go on as approved: pgmend run {0} --execute; or pgmend cancel {0} --reason \"…\", and have a plan with the larger limit approved",
            run.run_id
        );
        Err(Refusal::new(Code::UnapprovedDeadLetters, message, help).into())
    }
}

impl Engine {
    /// Refuses to start anew under the name of a job whose run has not ended, when it is another change by now: a statement
    /// that was corrected half way would be made over the rows of the first one.
    ///
    /// A run of this very change may have been started a moment ago by somebody else: whoever starts another is told who
    /// drives it.
    pub(crate) async fn refuse_reworded(&self, job: &Job, signature: &str) -> Result<(), Error> {
        let runs = self.session.unfinished_runs_of_job(&job.name).await?;
        let same = self.session.runs_of_signature(signature).await?;
        let another = |run: &&StoredRun| same.iter().all(|other| other.run_id != run.run_id);
        let Some(run) = runs.iter().find(another) else { return Ok(()) };
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        let mut changed = rewordings(job, &plan);
        if changed.is_empty() && plan.settings != self.here.settings {
            changed.push("the session's settings or role are others".into());
        }
        if changed.is_empty() {
            changed.push("the table or the database is another one".into());
        }
        let message = format!(
            "run {} of {} has not ended, and the job has changed: {}",
            run.run_id,
            job.name,
            changed.join("; ")
        );
        let help = format!(
            "go on as planned: pgmend run {0} --execute; or give it up: pgmend cancel {0} --reason \"…\"; or, if this is \
             another change, give it a name of its own: --name NAME",
            run.run_id
        );
        Err(Refusal::new(Code::ChangedJob, message, help).into())
    }
}

/// Refuses to go on with a run whose job now says something else: a run goes on as it was planned.
pub fn refuse_changed(job: &Job, plan: &Plan, run: &StoredRun) -> Result<(), Error> {
    let differences = differences(job, plan);
    if differences.is_empty() {
        return Ok(());
    }
    let message = format!("run {} has not ended, and the job has changed: {}", run.run_id, differences.join("; "));
    let help = format!(
        "go on as planned: pgmend run {0} --execute; or give it up: pgmend cancel {0} --reason \"…\"",
        run.run_id
    );
    Err(Refusal::new(Code::ChangedJob, message, help).into())
}

/// Refuses a change that has been made, unless it is asked for again with a reason.
pub fn refuse_done(runs: &[StoredRun], options: &RunOptions) -> Result<(), Error> {
    let Some(done) = runs.iter().find(|r| r.state == RunState::Succeeded) else { return Ok(()) };
    if options.again.as_deref().is_some_and(|reason| !reason.trim().is_empty()) {
        return Ok(());
    }
    let undone = done.undone_by.map_or(String::new(), |run| format!(", and was undone by run {}", run.short()));
    let message = format!(
        "this change was made by run {} ({}) at {}{undone}",
        done.run_id,
        done.job,
        done.ended_at.as_deref().unwrap_or("an unknown time")
    );
    Err(Refusal::new(Code::AlreadyDone, message, "to make it once more, add --again --reason \"…\"").into())
}

/// Refuses a plan with a finding that forbids its run.
pub fn refuse_blocked(plan: &Plan) -> Result<(), Error> {
    let blockers = plan.findings.iter().filter(|finding| finding.severity == Severity::Blocker);
    let said: Vec<&str> = blockers.map(|finding| finding.message.as_str()).collect();
    if said.is_empty() {
        return Ok(());
    }
    let help = "mend what the plan's blockers name, then plan again";
    Err(Refusal::new(Code::Guardrail, format!("the plan is blocked: {}", said.join("; ")), help).into())
}

/// Refuses a plan whose rows are not as many as the job expects.
pub fn refuse_unexpected(plan: &Plan) -> Result<(), Error> {
    let Some(expected) = plan.expect_rows else { return Ok(()) };
    let found = plan.counts.changed_rows;
    if found.value == expected && found.certainty == Certainty::Exact {
        return Ok(());
    }
    let message = format!("{} rows would change, {expected} are expected", found.value);
    Err(Refusal::new(Code::Expectation, message, "look at the plan's samples; correct the statement or the number")
        .into())
}

/// What was reviewed is what is applied: the change set must still have the content that the plan was
/// stored with.
pub async fn refuse_altered(session: &Session, plan: &Plan) -> Result<(), Error> {
    let Some(change_set) = &plan.change_set else {
        if plan.mode == pgmend_core::job::Mode::Freeze {
            return Err(Refusal::new(Code::StalePlan, "the plan has no change set", "plan again").into());
        }
        return Ok(());
    };
    let (rows, hash) =
        session.change_set_content(&change_set.relation.name, freeze::hashable(&change_set.layout)).await?;
    // The hash of a plan of a version that had no key is as the server gave it.
    let keyed = if plan.digest_key.is_empty() { hash } else { plan.digest_key.digest(&hash).0 };
    if rows == change_set.rows && keyed == change_set.content_hash {
        return Ok(());
    }
    let message = format!("the change set {} is not as it was planned", change_set.relation);
    Err(Refusal::new(Code::StalePlan, message, "plan again").into())
}

/// Whether the plan says of its job what the job says now.
fn same_facts(job: &Job, plan: &Plan) -> bool {
    plan.about == about(job)
}
