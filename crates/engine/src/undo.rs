//! Undo: a plan whose change set is the before-images of a run, applied with compare-and-set like any
//! frozen plan. Restores a row only where its values are still the after-image; the rest are conflicts.

mod columns;
mod fit;
mod source;

use pgmend_core::digits::thousands;
use pgmend_core::expect::Expect;
use pgmend_core::finding::Finding;
use pgmend_core::halving::CHANGE_SET_HALF_ROWS;
use pgmend_core::id::{PlanId, RunId};
use pgmend_core::job::Mode;
use pgmend_core::limits::{BATCH_ROWS_CEILING, PLAN_EXPIRY_HOURS};
use pgmend_core::pace::Pace;
use pgmend_core::plan::{ChangeKind, Counts, Figure, Plan, PlanImages, PlanKey, RunSql};
use pgmend_core::recipient::Recipient;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_core::table::Table;
use pgmend_pg::readtx::{FreezeTx, ReadTx};
use pgmend_pg::store::StoredRun;

use crate::encryption;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Outcome, Planned, RunOptions, UndoOptions};
use crate::plan::halves::{self, Change};
use crate::plan::statements::IMAGE_TABLE;
use crate::plan::{around, cost, freeze, planning_scene};
use crate::progress::Observer;
use crate::tokens::{digest_key, keyed_signature};
use columns::UndoColumns;
use source::Source;

impl Engine {
    /// Plans the undo of a run; a job's name means its latest forward run. Computes and stores the change
    /// set of what would be restored.
    pub async fn plan_undo(&mut self, name: &str, options: &UndoOptions) -> Result<Planned, Error> {
        self.refuse_standby()?;
        self.need_control_schema().await?;
        let run = self.meant_run(name).await?;
        self.refuse_undone(&run, options)?;
        self.refuse_driven(&run).await?;
        let forward = self.session.plan_of(run.plan_id).await?.plan;
        self.refuse_other_server(&forward)?;
        let predicate = options.predicate.as_deref().map(pgmend_sql::predicate).transpose()?;
        self.plan_key = Some(self.plan_tokens().await?);
        let plan = self.compute(&run, &forward, predicate, false, options).await?;
        let digest = plan.digest().0;
        let guardrails = self.session.guardrails(plan.plan_id).await?;
        let signals = self.survey(&plan).await?;
        Ok(Planned { guardrails, signals, plan, digest, stored: true, used_by: None, expired: false })
    }

    /// Undoes a run: resumes an unfinished undo of it, else plans and runs.
    pub async fn undo(&mut self, name: &str, options: &UndoOptions, observer: &mut Observer) -> Result<Outcome, Error> {
        self.refuse_standby()?;
        self.need_control_schema().await?;
        if let Some(unfinished) = self.unfinished_undo(name, options).await? {
            return self.resume_with(&unfinished.to_string(), &options.run, observer).await;
        }
        let planned = self.plan_undo(name, options).await?;
        Box::pin(self.start_undo(planned.plan, &options.run, observer)).await
    }

    /// The undo of a run that has begun and not ended, of the same rows as now asked for.
    pub async fn unfinished_undo(&mut self, name: &str, options: &UndoOptions) -> Result<Option<RunId>, Error> {
        self.need_control_schema().await?;
        let run = self.meant_run(name).await?;
        let predicate = options.predicate.as_deref().map(pgmend_sql::predicate).transpose()?;
        for undo in self.session.runs_undoing(run.run_id).await?.iter().filter(|undo| !undo.state.ended()) {
            if self.session.plan_of(undo.plan_id).await?.plan.undo_where == predicate {
                return Ok(Some(undo.run_id));
            }
        }
        Ok(None)
    }

    /// Starts the run of an undo's plan; a run that was paused or failed is given up first.
    pub(crate) async fn start_undo(
        &mut self,
        plan: Plan,
        options: &RunOptions,
        observer: &mut Observer,
    ) -> Result<Outcome, Error> {
        if let Some(undone) = plan.undo_of {
            let undone = self.one_run(&undone.to_string()).await?;
            if !undone.state.ended() {
                self.give_up(&undone, "undo", observer).await?;
            }
        }
        self.start(plan, options, observer).await
    }

    fn refuse_undone(&self, run: &StoredRun, options: &UndoOptions) -> Result<(), Error> {
        let Some(by) = run.undone_by.filter(|_| options.predicate.is_none()) else { return Ok(()) };
        let message = format!("run {} is already undone, by run {by}", run.run_id);
        let help = format!("to make the change again, undo the undo: pgmend undo {by}");
        Err(Refusal::new(Code::AlreadyUndone, message, help).into())
    }

    /// A run that somebody drives must stop first.
    async fn refuse_driven(&self, run: &StoredRun) -> Result<(), Error> {
        if run.state.ended() {
            return Ok(());
        }
        match self.session.tenure(run.run_id).await? {
            Some(tenure) if tenure.left_s > 0.0 => {
                let message = format!("run {} has not ended: {} drives it", run.run_id, tenure.holder);
                let help = "stop that process with Ctrl-C (or wait until its lease runs out), then undo";
                Err(Refusal::new(Code::NotFinished, message, help).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Computes the undo's change set and plan in one transaction. Rows that are already as before are
    /// left out; the common case has none, so only a second pass filters them.
    async fn compute(
        &mut self,
        run: &StoredRun,
        forward: &Plan,
        predicate: Option<String>,
        filter: bool,
        options: &UndoOptions,
    ) -> Result<Plan, Error> {
        let shown = self.shown_of(forward).await?;
        let source = Source::of(run, forward, &self.session, shown).await?;
        let source = source.opened(run, forward, self, options.identity.as_ref()).await?;
        // What was encrypted stays so when it is put back; an environment may demand more by now.
        let recipient = match self.demanded_recipient().await? {
            Some(demanded) => Some(demanded),
            None => forward.images.recipient.clone(),
        };
        let show = options.plan.show_values;
        // Undone, redone, undone again: each is another change.
        let prior =
            self.session.runs_undoing(run.run_id).await?.iter().filter(|u| u.state == RunState::Succeeded).count();
        let scene = planning_scene(&self.here);
        let tx = self.session.freeze(&scene, vec![Some(self.here.now.clone())]).await?;
        let computed = match source.decrypt(&tx, &scene).await {
            Ok(()) => {
                let predicate = predicate.as_deref();
                self.compute_within(&tx, &scene, run, forward, &source, predicate, filter, show, prior, recipient).await
            }
            Err(error) => Err(error),
        };
        match computed {
            Ok(Some(plan)) => {
                tx.as_self().await?;
                tx.store_plan(&plan).await?;
                tx.commit().await?;
                Ok(plan)
            }
            Ok(None) => {
                tx.rollback().await?;
                Box::pin(self.compute(run, forward, predicate, true, options)).await
            }
            Err(error) => {
                tx.rollback().await?;
                Err(error)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the pieces of one computation, all of different types")]
    async fn compute_within(
        &self,
        tx: &FreezeTx<'_>,
        scene: &pgmend_pg::scene::Scene,
        run: &StoredRun,
        forward: &Plan,
        source: &Source,
        predicate: Option<&str>,
        filter: bool,
        show: bool,
        prior: usize,
        recipient: Option<Recipient>,
    ) -> Result<Option<Plan>, Error> {
        let table = current_table(&tx.read, forward, &self.here.settings.search_path).await?;
        let columns = UndoColumns::of(&tx.read, &table, forward, source).await?;
        let plan_id = PlanId::from_uuid(uuid::Uuid::now_v7());
        let relation = freeze::relation(plan_id, &format!("undo {}", run.job), &self.here.now);
        let imaged = self.session_count(&tx.read, &source.count()).await?;
        let half_rows = half_rows(&tx.read, forward, &table, &columns, source, imaged).await?;
        let filling = source.filling(relation, &table, &columns, predicate, filter, half_rows);
        let comment = format!("change set of plan {plan_id}, undo of run {}", run.run_id);
        let digest_key = digest_key();
        let change_set = freeze::fill(tx, scene, &filling, (&comment, &digest_key))
            .await
            .map_err(|error| about_predicate(error, predicate, &table))?;
        let relation = filling.relation;
        let number = 2;
        let one_transaction = forward.one_transaction && change_set.rows <= i64::from(BATCH_ROWS_CEILING);
        let pgcrypto = match &recipient {
            Some(_) => Some(encryption::pgcrypto(&tx.read).await?),
            None => None,
        };
        let pgcrypto = pgcrypto.as_deref();
        let ops = source.ops_needed(&tx.read, columns.any_assignable(&table)).await?;
        let built = columns.statements(&table, &relation.sql(), &ops, number, one_transaction, pgcrypto)?;
        self.refuse_forbidden(tx, &built).await?;
        let classes = tx.read.query("look for conflicts", &built.classify, vec![]).await?;
        let classes: Vec<(String, i64)> = classes
            .rows
            .iter()
            .map(|r| {
                (
                    r.get(1).cloned().flatten().unwrap_or_default(),
                    r.get(2).cloned().flatten().and_then(|n| n.parse().ok()).unwrap_or(0),
                )
            })
            .collect();
        let of = |reason: &str| classes.iter().filter(|(r, _)| r == reason).map(|(_, n)| n).sum::<i64>();
        if of("already") > 0 && !filter {
            return Ok(None);
        }
        // Of the images, those that the predicate asks for; the change set has them all unless it leaves rows out.
        let matched = match predicate {
            None => imaged,
            Some(_) if !filter => change_set.rows,
            Some(_) => self.session_count(&tx.read, &source.matching(&table, &columns, predicate)).await?,
        };
        let conflicts: Vec<&(String, i64)> = classes.iter().filter(|(r, _)| !r.is_empty()).collect();
        let restorable = of("");
        let counts = Counts {
            scanned_rows: Figure::exact(imaged),
            matched_rows: Figure::exact(matched),
            changed_rows: Figure::exact(restorable),
            already_right_rows: Figure::exact(matched - change_set.rows),
            conflict_rows: Figure::exact(conflicts.iter().map(|(_, n)| n).sum()),
        };
        let mut findings: Vec<Finding> = conflicts
            .iter()
            .map(|(reason, n)| {
                Finding::warning(
                    "conflict",
                    format!(
                        "{} will not be restored: {reason}",
                        if *n == 1 { "1 row".into() } else { format!("{} rows", thousands(*n)) }
                    ),
                    "they are left as they are and listed",
                )
            })
            .collect();
        if recipient.is_some() {
            findings.extend(encryption::parameters_logged(&tx.read).await?);
        }
        let triggers: Vec<&str> =
            table.triggers.iter().filter(|t| t.enabled && t.row).map(|t| t.name.as_str()).collect();
        if !triggers.is_empty() {
            findings.push(Finding::note(
                "triggers",
                format!("triggers fire for the restored rows too: {}", triggers.join(", ")),
                "",
            ));
        }
        if !forward.reversible.0 {
            findings.push(Finding::warning("not_fully_undoable", forward.reversible.1.clone(), ""));
        }
        let expiry = format!(
            "select to_char(clock_timestamp() at time zone 'UTC' + interval '{PLAN_EXPIRY_HOURS} hours', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        );
        let expires_at =
            tx.read.query("read the clock", &expiry, vec![]).await?.scalar().unwrap_or_default().to_owned();
        let samples = source.samples(&tx.read, &table, &columns, &built.restorable, show).await?;
        let signed = ("undo", run.run_id, predicate, prior, &self.here.settings);
        let signature = keyed_signature(&self.key_of_plan(), &signed);
        let statement = match predicate {
            Some(predicate) => format!("undo of run {} where {predicate}", run.run_id),
            None => format!("undo of run {}", run.run_id),
        };
        let estimates = cost::of_rows(
            counts.changed_rows.value,
            &forward.limits,
            table.index_count,
            one_transaction,
            (&forward.estimates, forward.counts.changed_rows.value),
        );
        Ok(Some(Plan {
            format: pgmend_core::plan::FORMAT,
            plan_id,
            job: run.job.clone(),
            about: forward.about.clone(),
            plain: forward.plain.clone(),
            constants: forward.constants.clone(),
            kind: ChangeKind::Undo,
            statement: statement.clone(),
            canonical: statement,
            params: Vec::new(),
            shown_params: Vec::new(),
            shows_values: show,
            undo_of: Some(run.run_id),
            undo_where: predicate.map(str::to_owned),
            mode: Mode::Freeze,
            mode_reason: "the images of the run are the change set".into(),
            one_transaction,
            target: table.name.clone(),
            target_oid: table.oid,
            writes: forward.writes.clone(),
            fingerprint: table.fingerprint.clone(),
            key: Some(PlanKey {
                index: columns.key.index.clone(),
                columns: table.key_columns(&columns.key).map(|c| c.name.clone()).collect(),
                types: table.key_columns(&columns.key).map(|c| c.base_type.sql.clone()).collect(),
            }),
            database: self.here.database.clone(),
            settings: self.here.settings.clone(),
            limits: forward.limits.clone(),
            // As gentle as the run was; the whole of it, though.
            pace: Pace { rows_max: None, stop_after: None, ..forward.pace.clone() },
            images: PlanImages {
                keep: true,
                reason: None,
                exact: built.images.is_some(),
                layout: built.images,
                recipient,
            },
            change_set: Some(change_set),
            sql: built.sql,
            sweep: None,
            counts,
            samples,
            watched: Vec::new(),
            transitions: Vec::new(),
            groups: None,
            surroundings: around::around(&table, &source.kinds(), &columns.restored()),
            explain: Vec::new(),
            estimates,
            nights: None,
            rehearsal: None,
            reversible: (true, "the undo's change set holds every row before and after".into()),
            partly_undoable: false,
            findings,
            expect_rows: None,
            expect: Expect::default(),
            canary: None,
            dead_letters: forward.dead_letters,
            throttle: forward.throttle.clone(),
            one_worker: Some("rows are put back in order".into()),
            tenants: None,
            counted: None,
            signature,
            digest_key,
            planned_at: self.here.now.clone(),
            expires_at,
            planned_by: self.here.session_user.clone(),
        }))
    }

    /// The role must be allowed to do what the undo does: rows come back by other rights than they went.
    async fn refuse_forbidden(&self, tx: &FreezeTx<'_>, built: &Built) -> Result<(), Error> {
        let RunSql::Freeze { apply, span, .. } = &built.sql else { return Ok(()) };
        let mut own = ["1", "0", "1"].map(str::to_owned).to_vec();
        if let Some(span) = span {
            let answer = tx.read.query_job("find the keys of a batch", span, own.clone()).await?;
            let keys: Option<Vec<String>> = answer.rows.into_iter().next().and_then(|row| row.into_iter().collect());
            let Some(keys) = keys else { return Ok(()) };
            // In the place of the run's id, which only conflicts need.
            own.push(String::new());
            own.extend(keys);
        }
        for apply in apply.iter().filter(|a| !a.sql.contains(IMAGE_TABLE)) {
            let sql = format!("explain {}", apply.sql);
            match tx.read.query_job("check the undo", &sql, own.clone()).await {
                Err(error) if error.sqlstate == "42501" => {
                    let help = "grant it for the time of the undo, or undo as a role that has it";
                    return Err(Refusal::new(Code::Privilege, error.message, help).into());
                }
                other => other?,
            };
        }
        Ok(())
    }

    async fn session_count(&self, tx: &ReadTx<'_>, sql: &str) -> Result<i64, Error> {
        Ok(tx.query("count the images", sql, vec![]).await?.number()?)
    }
}

/// What the server says of names and types in an undo is about the predicate: the rest is not the user's text.
fn about_predicate(error: Error, predicate: Option<&str>, table: &Table) -> Error {
    match error {
        Error::Database { message, sqlstate, .. } if predicate.is_some() && sqlstate.starts_with("42") => {
            let columns: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
            let help = format!("the predicate is about rows of {}, which has: {}", table.name, columns.join(", "));
            Refusal::new(Code::ServerRejects, message, help).into()
        }
        other @ (Error::Refused(_) | Error::Database { .. } | Error::Corrupt(_)) => other,
    }
}

/// The rows of a half, where rows that are put back find room on their own pages if they go in halves.
async fn half_rows(
    tx: &ReadTx<'_>,
    forward: &Plan,
    table: &Table,
    columns: &UndoColumns,
    source: &Source,
    imaged_rows: i64,
) -> Result<Option<i64>, Error> {
    if source.ops() != ['U'] || columns.reversed || columns.key_written || forward.one_transaction {
        return Ok(None);
    }
    let change =
        Change { table, key: &columns.key, assigned: &columns.restored(), by_hash: false, in_heap_order: false };
    let gains = halves::gains(change.halvable(tx).await?, &forward.limits, table, imaged_rows);
    Ok(gains.then_some(CHANGE_SET_HALF_ROWS))
}

/// The target as it is now, found by its oid.
async fn current_table(tx: &ReadTx<'_>, forward: &Plan, search_path: &str) -> Result<Table, Error> {
    let sql = "select count(*)::text from pg_catalog.pg_class where oid = $1::oid";
    if tx.query("look for the target", sql, vec![forward.target_oid.to_string()]).await?.number()? == 0 {
        let message = format!("table {} is gone", forward.target);
        return Err(Refusal::new(Code::TableChanged, message, "its images remain in the run's image table").into());
    }
    Ok(tx.table(forward.target_oid, search_path).await?)
}

/// What the columns build.
pub(crate) struct Built {
    pub sql: RunSql,
    pub classify: String,
    /// The first rows that can be restored, for the samples.
    pub restorable: String,
    /// The layout of the undo's own images, where a trigger decides what is stored.
    pub images: Option<pgmend_core::plan::ImageLayout>,
}
