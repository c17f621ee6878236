//! Plans: the dry run of a job. Reads the user's tables in one read-only snapshot; a frozen plan then
//! computes its change set in one more, whose only write it is.

pub(crate) mod around;
pub(crate) mod bind;
mod check;
mod class;
pub(crate) mod cost;
pub(crate) mod count;
mod expectations;
mod explain;
mod facts;
pub(crate) mod freeze;
pub(crate) mod halves;
mod image_size;
mod mode;
mod nights;
mod one_worker;
pub(crate) mod privileges;
mod rehearse;
pub(crate) mod sample;
pub(crate) mod statements;
mod tenants;
mod triggers;
mod unseen;
mod vacuum;
mod watch;

use std::collections::BTreeMap;

use pgmend_core::digest::Digest;
use pgmend_core::halving::CHANGE_SET_HALF_ROWS;
use pgmend_core::id::PlanId;
use pgmend_core::job::{BoundParam, Job, Mode};
use pgmend_core::limits::PLAN_EXPIRY_HOURS;
use pgmend_core::mask::{Mask, TokenKey};
use pgmend_core::plan::{ChangeKind, ChangeSet, Counts, Plan, PlanImages, PlanKey, RunSql};
use pgmend_core::recipient::Recipient;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::Key;
use pgmend_core::tenants::Tenants;
use pgmend_core::throttle::Throttle;
use pgmend_pg::catalog::Surroundings as Here;
use pgmend_pg::readtx::ReadTx;
use pgmend_pg::scene::Scene;
use pgmend_pg::store::StoredPlan;
use pgmend_sql::{Kind, Order, Rewriter, Statement};

use crate::encryption;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{PlanOptions, PlanUse, Planned};
use crate::throttle::signals_of;
use crate::tokens::{digest_key, keyed_signature};
use bind::Bound;
pub use check::{Checked, check};
use freeze::Filling;
use image_size::Beside;
use statements::Streamed;

/// A plan with what is needed to compute its change set.
pub(crate) struct Draft {
    pub plan: Plan,
    /// How the change set is filled.
    pub filling: Option<Filling>,
}

impl Engine {
    /// Plans a job: a dry run. Stores the plan if there is a control schema; writes nothing else.
    pub async fn plan(&mut self, job: &Job, options: &PlanOptions) -> Result<Planned, Error> {
        self.refuse_standby()?;
        refuse_replication_role(&self.here)?;
        let statement = bind::parse(job, self.here.escapes_in_strings)?;
        let throttle = self.throttle_within(job.file.throttle.clone())?;
        let store = !options.print_only && self.has_control_schema().await?;
        let recipient = self.recipient_for(job).await?;
        self.plan_key = Some(self.plan_tokens().await?);
        let scene = planning_scene_of(&self.here, job);
        let params = self.params(job);
        let company = self.company_beside(&throttle).await?;
        let tx = self.session.read(&scene, params.clone()).await?;
        if company.is_some_and(|company| company.pace_max < 1.0) {
            tx.on_one_core().await?;
        }
        let drafted = self.draft(&tx, job, statement, options, recipient).await;
        // Of a connection that was lost the first error tells more than the second.
        let ended = tx.end().await;
        let (mut draft, bound) = drafted?;
        ended?;
        draft.plan.throttle = throttle;
        if options.rehearse > 0 {
            self.rehearse(&mut draft, &bound, &scene, &params, options.rehearse).await?;
        }
        // A run that reads no signals does not look for company either.
        draft.plan.estimates.company = company.filter(|_| !signals_of(&draft.plan).is_empty());
        draft.plan.nights = self.nights(&draft.plan, store).await?;
        if store {
            let mask = self.mask(&bound, job, options.show_values);
            self.store(&mut draft, &bound, &scene, params, &mask).await?;
        }
        let digest = draft.plan.digest().0;
        let guardrails = if store { self.session.guardrails(draft.plan.plan_id).await? } else { Vec::new() };
        let signals = self.survey(&draft.plan).await?;
        Ok(Planned { guardrails, signals, plan: draft.plan, digest, stored: store, used_by: None, expired: false })
    }

    /// A stored plan by its id or the beginning of it.
    pub async fn load_plan(&mut self, id: &str) -> Result<Planned, Error> {
        let stored = self.stored_plan(id).await?;
        let guardrails = self.session.guardrails(stored.plan.plan_id).await?;
        let signals = self.survey(&stored.plan).await?;
        let used_by = match stored.run {
            Some(run) => {
                let run = self.one_run(&run.to_string()).await?;
                Some(PlanUse { run_id: run.run_id, state: run.state })
            }
            None => None,
        };
        let (digest, expired) = (stored.digest, !stored.fresh);
        Ok(Planned { guardrails, signals, plan: stored.plan, digest, stored: true, used_by, expired })
    }

    /// The only plan whose id begins or ends like this.
    pub(crate) async fn stored_plan(&self, id: &str) -> Result<StoredPlan, Error> {
        self.need_control_schema().await?;
        let mut found = self.session.find_plans(id).await?;
        let refuse = |message: String, help: &str| Err(Refusal::new(Code::NotFound, message, help).into());
        match (found.pop(), found.pop()) {
            (Some(stored), None) => Ok(stored),
            (Some(_), Some(_)) => refuse(format!("several plans begin with {id}"), "give more digits of the id"),
            (None, _) => refuse(format!("there is no plan {id}"), "type: pgmend list"),
        }
    }

    /// What this plan may show.
    fn mask(&self, bound: &Bound, job: &Job, show_values: bool) -> Mask {
        let tenants = job.file.tenants.iter().flat_map(|t| t.canary.iter().chain(t.list.iter().flatten()));
        // What the job names may be shown, like the constants of its statement.
        let named = tenants.map(ToString::to_string);
        let constants = pgmend_sql::constants(&job.statement).into_iter().chain(named).collect();
        sample::mask(bound, &job.file.plain, constants, show_values, self.plan_key.clone())
    }

    /// The job's parameters and the instant of this plan.
    pub(crate) fn params(&self, job: &Job) -> Vec<Option<String>> {
        job.params.iter().map(|p| Some(p.value.clone())).chain([Some(self.here.now.clone())]).collect()
    }

    async fn draft(
        &self,
        tx: &ReadTx<'_>,
        job: &Job,
        statement: Statement,
        options: &PlanOptions,
        recipient: Option<Recipient>,
    ) -> Result<(Draft, Bound), Error> {
        let empty = Key { index: String::new(), primary: false, columns: Vec::new() };
        let mut bound = bind::bind(tx, job, statement, &self.here.settings).await?;
        let rewriter = bound.rewriter(&empty)?;
        let unwritable = privileges::accepted_by_server(tx, &bound, &rewriter, job).await?;
        let mask = self.mask(&bound, job, options.show_values);
        bind::refuse_wide(&bound.table, &bound.image_layout(&rewriter))?;
        let several_matches = count::refuse_ambiguity(tx, &bound, &rewriter, &mask).await?;
        let insert = bound.statement.kind() == Kind::Insert;
        let budget = job.file.limits.count_budget_ms;
        let (counts, failing) = if insert {
            (count::count_proposed(tx, &bound, &rewriter, budget).await?, None)
        } else {
            let set_aside = !job.file.dead_letters.is_default() && !several_matches;
            count::count_with_failing(tx, &bound, &rewriter, budget, set_aside).await?
        };
        drop(rewriter);
        // A change set is computed as a whole: one row that fails would fail them all.
        if failing.is_none() {
            mode::choose(&mut bound, &counts, job, several_matches, &empty)?;
        }
        let computable = failing.is_none() && bound.rewriter(&empty)?.computable_after();
        tenants::settle_mode(&mut bound, job, computable)?;
        let rewriter = bound.rewriter(&empty)?;
        // A stream without images keeps no values at all.
        let kept = job.file.images.keep || bound.class.mode == Mode::Freeze;
        let (pgcrypto, logged) = match recipient.as_ref().filter(|_| kept) {
            Some(_) => (Some(encryption::pgcrypto(tx).await?), encryption::parameters_logged(tx).await?),
            None => (None, None),
        };
        let mut draft = self.assemble(job, &bound, &rewriter, counts, several_matches, pgcrypto.as_deref())?;
        draft.plan.images.recipient = recipient;
        tenants::refuse_together(&draft.plan)?;
        tenants::count(tx, &bound, &rewriter, &mut draft.plan, &mask, failing.is_none()).await?;
        draft.plan.findings.extend(unwritable.into_iter().chain(failing).chain(logged));
        self.describe(tx, options, &bound, &rewriter, &mask, &mut draft).await?;
        drop(rewriter);
        Ok((draft, bound))
    }

    /// Everything that the run needs.
    fn assemble(
        &self,
        job: &Job,
        bound: &Bound,
        rewriter: &Rewriter<'_>,
        counts: Counts,
        several_matches: bool,
        pgcrypto: Option<&str>,
    ) -> Result<Draft, Error> {
        let plan_id = PlanId::from_uuid(uuid::Uuid::now_v7());
        let (counts, written_again) = count::written_again(bound, counts);
        let keep = job.file.images.keep;
        let insert = bound.statement.kind() == Kind::Insert;
        let update = bound.statement.kind() == Kind::Update;
        let exact = bound.before_triggers() || (update && !rewriter.computable_after());
        let volatile = bound.class.findings.iter().any(|f| f.check == "volatile_value");
        let skip =
            update && !bound.row_triggers() && !volatile && rewriter.computable_after() && !bound.class.key_written;
        let freeze = bound.class.mode == Mode::Freeze;
        let own_images = keep && (!freeze || (exact && update) || insert) && (bound.key.is_some() || !insert);
        let mut filling = None;
        let in_halves = halves::worthwhile(job, bound, &counts);
        let skip_unchanged = skip && counts.already_right_rows.value > 0;
        let told_by = in_halves.then_some(bound.halves_told_by);
        let streamed = Streamed { keep, exact, skip_unchanged, in_halves: told_by, pgcrypto };
        let sql = if freeze {
            let relation = freeze::relation(plan_id, &job.name, &self.here.now);
            let layout = if insert {
                statements::proposal_layout(bound, rewriter)?
            } else {
                statements::change_set_layout(bound, rewriter)?
            };
            bind::refuse_wide(&bound.table, &layout)?;
            let sql = if insert {
                statements::insert(bound, rewriter, &relation.sql(), &layout, own_images, pgcrypto)?
            } else {
                statements::freeze(bound, rewriter, &relation.sql(), &layout, own_images, pgcrypto)?
            };
            let half_rows = in_halves.then_some(CHANGE_SET_HALF_ROWS);
            filling = Some(Filling::of(bound, rewriter, relation, layout, half_rows, (several_matches, skip))?);
            sql
        } else {
            statements::stream(bound, rewriter, streamed)?
        };
        let tenants = tenants::uncounted(job, bound, streamed)?;
        let images = PlanImages {
            keep,
            reason: job.file.images.reason.clone(),
            layout: own_images.then(|| bound.image_layout(rewriter)),
            exact,
            recipient: None,
        };
        let sweep = if freeze || !keep { None } else { statements::sweep(bound, pgcrypto)? };
        let mut plan = Plan { tenants, ..self.blank(job, bound, plan_id, (sql, sweep), images, counts) };
        plan.findings.extend(written_again);
        Ok(Draft { plan, filling })
    }

    fn blank(
        &self,
        job: &Job,
        bound: &Bound,
        plan_id: PlanId,
        sql: (RunSql, Option<RunSql>),
        images: PlanImages,
        counts: Counts,
    ) -> Plan {
        let (sql, sweep) = sql;
        let kind = match bound.statement.kind() {
            Kind::Update => ChangeKind::Update,
            Kind::Delete => ChangeKind::Delete,
            Kind::Insert => ChangeKind::Insert,
        };
        let key = bound.key.as_ref().map(|key| PlanKey {
            index: key.index.clone(),
            columns: bound.table.key_columns(key).map(|c| c.name.clone()).collect(),
            types: bound.table.key_columns(key).map(|c| c.base_type.sql.clone()).collect(),
        });
        let canonical = bound.statement.canonical();
        let signature = signature(&canonical, job, bound, &self.here, &self.key_of_plan());
        let one_worker = one_worker::reason(job, bound, &images);
        let mut findings = around::findings(bound);
        findings.extend(one_worker::finding(job, one_worker.as_ref()));
        let counted = unseen::counted(bound);
        findings.extend(unseen::finding(counted.as_ref()));
        Plan {
            format: pgmend_core::plan::FORMAT,
            plan_id,
            job: job.name.clone(),
            about: about(job),
            plain: job.file.plain.clone(),
            constants: pgmend_sql::constants(&job.statement),
            kind,
            statement: job.statement.trim().to_owned(),
            canonical,
            params: job.params.clone(),
            shown_params: Vec::new(),
            shows_values: false,
            undo_of: None,
            undo_where: None,
            mode: bound.class.mode,
            mode_reason: bound.class.reason.clone(),
            one_transaction: bound.class.one_transaction.is_some(),
            target: bound.table.name.clone(),
            target_oid: bound.table.oid,
            writes: bound.statement.assigned(),
            fingerprint: bound.table.fingerprint.clone(),
            key,
            database: self.here.database.clone(),
            settings: self.here.settings.clone(),
            limits: job.file.limits.clone(),
            pace: job.file.pace.clone(),
            partly_undoable: around::partly_undoable(bound, images.keep),
            reversible: around::reversible(bound, images.keep),
            images,
            change_set: None,
            sql,
            sweep,
            counts,
            samples: Vec::new(),
            watched: Vec::new(),
            transitions: Vec::new(),
            groups: None,
            surroundings: around::surroundings(bound),
            explain: Vec::new(),
            estimates: cost::unknown(),
            nights: None,
            rehearsal: None,
            findings,
            expect_rows: job.file.expect_rows,
            expect: job.file.expect.clone(),
            canary: job.file.canary.clone(),
            dead_letters: job.file.dead_letters,
            throttle: Throttle::default(),
            one_worker,
            tenants: None,
            counted,
            signature,
            digest_key: digest_key(),
            planned_at: self.here.now.clone(),
            expires_at: String::new(),
            planned_by: self.here.session_user.clone(),
        }
    }

    /// Everything that people read.
    async fn describe(
        &self,
        tx: &ReadTx<'_>,
        options: &PlanOptions,
        bound: &Bound,
        rewriter: &Rewriter<'_>,
        mask: &Mask,
        draft: &mut Draft,
    ) -> Result<(), Error> {
        let plan = &mut draft.plan;
        let shown = |p: &BoundParam| mask.show_param(&p.name, &p.type_sql, &p.value);
        plan.shown_params = plan.params.iter().map(shown).collect();
        plan.shows_values = options.show_values;
        if bound.statement.kind() != Kind::Insert {
            plan.samples = sample::samples(tx, bound, rewriter, &plan.counts, mask).await?;
            plan.transitions = sample::transitions(tx, bound, rewriter, mask).await?;
            if let Some(by) = &options.by {
                plan.groups = Some((by.clone(), count::groups(tx, bound, rewriter, by, mask).await?));
            }
        }
        expectations::check(tx, bound, plan).await?;
        plan.watched = watch::look(tx, bound, rewriter, mask, &plan.expect.watch).await?;
        let (explained, finding) = explain::guard(tx, bound, rewriter, &plan.sql, mask).await?;
        plan.explain = explained;
        plan.findings.extend(finding);
        let beside = Beside::of(plan, draft.filling.as_ref().map(|filling| &filling.layout));
        plan.estimates = cost::estimate(tx, bound, &plan.counts, &plan.limits, beside, None).await?;
        if let Some(tenants) = &plan.tenants {
            // Each has a batch of its own at least.
            let batches = &mut plan.estimates.batches;
            batches.value = batches.value.max(i64::try_from(tenants.tenants.len()).unwrap_or(i64::MAX));
        }
        plan.findings.extend(vacuum::finding(tx, plan).await?);
        let age = tx.query(
            "read the age of the database",
            "select age(datfrozenxid)::text from pg_database where datname = current_database()",
            vec![],
        );
        plan.findings.extend(around::wraparound(age.await?.number()?, plan.estimates.batches.value));
        let all = tx.query("look for publications", pgmend_pg::schema::PUBLICATIONS_OF_ALL, vec![]).await?;
        plan.findings.extend(around::publications_of_all(all.scalar()));
        let expiry = format!(
            "select to_char(clock_timestamp() at time zone 'UTC' + interval '{PLAN_EXPIRY_HOURS} hours', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        );
        plan.expires_at = tx.query("read the clock", &expiry, vec![]).await?.scalar().unwrap_or_default().to_owned();
        Ok(())
    }

    /// Stores the plan; a frozen one together with its change set, in one transaction.
    async fn store(
        &mut self,
        draft: &mut Draft,
        bound: &Bound,
        scene: &Scene,
        params: Vec<Option<String>>,
        mask: &Mask,
    ) -> Result<(), Error> {
        let Some(filling) = &draft.filling else {
            return Ok(self.session.store_plan(&draft.plan).await?);
        };
        let tx = self.session.freeze(scene, params).await?;
        let comment = format!("change set of plan {}, job {}", draft.plan.plan_id, draft.plan.job);
        let change_set = match freeze::fill(&tx, scene, filling, (&comment, &draft.plan.digest_key)).await {
            Ok(change_set) => change_set,
            Err(error) => {
                tx.rollback().await?;
                return Err(error);
            }
        };
        freeze::recount(&mut draft.plan.counts, &change_set);
        let in_heap_order = bound.order() == Order::Heap;
        draft.plan.change_set = Some(ChangeSet { in_heap_order, ..change_set });
        let checked = self.check_frozen(&tx, draft, bound, mask).await;
        if let Err(error) = checked {
            tx.rollback().await?;
            return Err(error);
        }
        tx.as_self().await?;
        tx.store_plan(&draft.plan).await?;
        tx.commit().await?;
        Ok(())
    }

    /// What only the rows of a change set can tell.
    async fn check_frozen(
        &self,
        tx: &pgmend_pg::readtx::FreezeTx<'_>,
        draft: &mut Draft,
        bound: &Bound,
        mask: &Mask,
    ) -> Result<(), Error> {
        freeze::refuse_duplicates(tx, bound, &draft.plan).await?;
        let present = freeze::count_present(tx, bound, &mut draft.plan).await?;
        if let (Kind::Insert, Some(change_set)) = (bound.statement.kind(), &draft.plan.change_set) {
            draft.plan.samples = sample::proposals(&tx.read, bound, mask, change_set, present.as_deref()).await?;
        }
        freeze::refuse_moved_keys(tx, bound, &draft.plan, mask).await?;
        if let (Some(tenants), Some(change_set)) = (&draft.plan.tenants, &draft.plan.change_set) {
            let counted = tenants::of_change_set(&tx.read, bound, &draft.plan, change_set, mask).await?;
            draft.plan.tenants = Some(Tenants { tenants: counted, ..tenants.clone() });
        }
        // The change set may have counted what was an estimate, or others wrote between the two snapshots.
        draft.plan.findings.retain(|finding| finding.check != expectations::ANOTHER_NUMBER);
        draft.plan.findings.extend(expectations::another_number(&draft.plan));
        let rows = draft.plan.change_set.as_ref().map_or(0, |c| c.rows);
        mode::refuse_large_transaction(bound, rows, draft.plan.limits.rows_per_transaction_max)
    }
}

fn refuse_replication_role(here: &Here) -> Result<(), Error> {
    if here.replication_role == "origin" {
        return Ok(());
    }
    let message =
        format!("session_replication_role is {}: triggers and foreign keys would not fire", here.replication_role);
    Err(Refusal::new(Code::ReplicationRole, message, "alter role … reset session_replication_role").into())
}

/// Plans wait for locks no longer than batches do; their queries are bounded one by one.
pub(crate) fn planning_scene(here: &Here) -> Scene {
    Scene {
        settings: here.settings.clone(),
        lock_timeout_ms: pgmend_core::limits::LOCK_TIMEOUT_MS * 10,
        statement_timeout_ms: 0,
        idle_timeout_ms: 60_000,
        image_key: None,
        written: None,
    }
}

/// Milliseconds that a transaction may be idle while pgmend builds its queries from a statement, for each MiB of it. A list
/// of 120,000 constants, 0.7 MiB, took half a minute for one of them on a busy machine of two cores.
const BUILDING_MS_PER_MIB: u64 = 120_000;

/// The same for a job, whose statement may be a spreadsheet.
pub(crate) fn planning_scene_of(here: &Here, job: &Job) -> Scene {
    let scene = planning_scene(here);
    let started_mib = (job.statement.len() as u64).div_ceil(1 << 20);
    Scene { idle_timeout_ms: scene.idle_timeout_ms + BUILDING_MS_PER_MIB * started_mib, ..scene }
}

/// What makes the same change the same: not the limits, not the name.
pub(crate) fn signature(canonical: &str, job: &Job, bound: &Bound, here: &Here, key: &TokenKey) -> Digest {
    let params: Vec<(&str, &str, &str)> =
        job.params.iter().map(|p| (p.name.as_str(), p.type_sql.as_str(), p.value.as_str())).collect();
    let database = (&here.database.system_identifier, here.database.database_oid);
    keyed_signature(key, &(canonical, params, bound.table.oid, &here.settings, database.0, database.1))
}

/// What a plan says of its job: goal, owner, ticket, and where it comes from.
pub(crate) fn about(job: &Job) -> BTreeMap<String, String> {
    let said = [("goal", &job.file.goal), ("owner", &job.file.owner), ("ticket", &job.file.ticket)];
    // What is left blank is not said: an environment that demands it is not content with an empty line.
    let given = |value: &Option<String>| value.clone().filter(|text| !text.trim().is_empty());
    let said = said.into_iter().filter_map(|(name, value)| given(value).map(|value| (name.to_owned(), value)));
    job.facts.clone().into_iter().chain(said).collect()
}
