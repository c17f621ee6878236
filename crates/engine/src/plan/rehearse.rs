//! Rehearsals: small batches run for real and rolled back. They show what the dry run cannot: what triggers
//! and cascades write, which locks are taken, which rows a constraint rejects, and how long a row takes.

mod finish;
mod frozen;
mod notes;
mod outside;
mod places;
mod stream;
mod watch;

use pgmend_core::finding::Finding;
use pgmend_core::plan::{ImageLayout, Plan, RunSql};
use pgmend_core::table::quote_ident;
use pgmend_pg::readtx::ReadTx;
use pgmend_pg::scene::Scene;
use pgmend_pg::{PgError, Session};

use super::bind::Bound;
use super::cost::{self, Pace};
use super::freeze::Filling;
use super::image_size::Beside;
use super::{Draft, statements};
use crate::engine::Engine;
use crate::error::Error;
use notes::Notes;

/// Rows of a rehearsed batch of an adaptive run: enough for a steady time per row, few enough to be locked for
/// a moment only.
const ROWS: i64 = 3_000;
/// Rows of a rehearsed batch at most, whatever size the job asks for.
const ROWS_MAX: i64 = 5_000;
/// The small batch before each, as a part of it: two sizes tell what a batch costs from what a row costs.
const SMALL_PART: i64 = 10;
/// Nobody waits longer for a rehearsal than for a batch.
const LOCK_TIMEOUT_MS: u64 = 500;
/// The temporary table that stands for the run's images.
const IMAGES: &str = "pg_temp.pgmend_rehearsed_images";

/// One rehearsal: what every batch of it needs.
struct Rehearsing<'a> {
    session: &'a Session,
    plan: &'a Plan,
    bound: &'a Bound,
    filling: Option<&'a Filling>,
    scene: Scene,
    params: Vec<Option<String>>,
    batches: u32,
    rows: i64,
}

impl Engine {
    /// Runs small batches and rolls them back; adds what they showed to the plan.
    pub(crate) async fn rehearse(
        &mut self,
        draft: &mut Draft,
        bound: &Bound,
        scene: &Scene,
        params: &[Option<String>],
        batches: u32,
    ) -> Result<(), Error> {
        if draft.plan.changes_nothing() {
            return Ok(());
        }
        let tx = self.session.read(scene, params.to_vec()).await?;
        let outside = outside::effects(&tx, bound).await;
        let before = watch::positions(&tx).await;
        tx.end().await?;
        let (outside, before) = (outside?, before?);
        draft.plan.findings.extend(outside.findings);
        if let Some(why) = outside.forbids {
            let message = format!("not rehearsed: {why}, and a rollback would not take that back");
            draft.plan.findings.push(Finding::warning("not_rehearsed", message, "rehearse on a copy of the database"));
            return Ok(());
        }
        let rehearsing = Rehearsing::new(&self.session, draft, bound, params, batches);
        let rehearsed = match &draft.plan.sql {
            RunSql::Stream { .. } => rehearsing.stream().await,
            RunSql::Freeze { .. } => rehearsing.frozen().await,
        };
        let mut notes = match rehearsed {
            Ok(notes) => notes,
            Err(error) if error.is_connection() => return Err(error.into()),
            Err(error) => Notes::of_failure("start", &error),
        };
        let pace = rehearsing.pace(&notes).await?;
        let tx = self.session.read(scene, params.to_vec()).await?;
        let conclusion = conclude(&tx, draft, bound, &mut notes, &before, pace.as_ref()).await;
        tx.end().await?;
        conclusion
    }
}

/// Puts what was seen into the plan.
async fn conclude(
    tx: &ReadTx<'_>,
    draft: &mut Draft,
    bound: &Bound,
    notes: &mut Notes,
    before: &watch::Positions,
    pace: Option<&Pace>,
) -> Result<(), Error> {
    notes.keep_moved_sequences(before, &watch::positions(tx).await?);
    let plan = &mut draft.plan;
    let rehearsal = notes.rehearsal(&bound.table);
    plan.findings.extend(notes.findings(&rehearsal, &plan.target));
    let unnamed: Vec<&str> = rehearsal.touched.iter().filter(|t| !t.named).map(|t| t.table.as_str()).collect();
    if !unnamed.is_empty() && plan.reversible.0 {
        let names = unnamed.join(", ");
        plan.reversible =
            (false, format!("not fully undoable: the rehearsal also wrote {names}, whose rows have no images"));
        plan.partly_undoable = true;
    }
    if let Some(pace) = pace {
        let beside = Beside::of(plan, draft.filling.as_ref().map(|filling| &filling.layout));
        plan.estimates = cost::estimate(tx, bound, &plan.counts, &plan.limits, beside, Some(pace)).await?;
    }
    plan.rehearsal = Some(rehearsal);
    Ok(())
}

impl<'a> Rehearsing<'a> {
    fn new(session: &'a Session, draft: &'a Draft, bound: &'a Bound, params: &[Option<String>], batches: u32) -> Self {
        let plan = &draft.plan;
        let wanted = plan.limits.batch_rows.map_or(ROWS, i64::from);
        let ceiling = i64::from(plan.limits.rows_per_transaction_max).min(ROWS_MAX);
        let mut scene = Scene::of_batch(&plan.settings, &plan.limits);
        scene.lock_timeout_ms = scene.lock_timeout_ms.min(LOCK_TIMEOUT_MS);
        Self {
            session,
            plan,
            bound,
            filling: draft.filling.as_ref(),
            scene,
            params: params.to_vec(),
            batches,
            rows: wanted.min(ceiling).max(1),
        }
    }

    /// Rows of the small batch before each.
    fn few(&self) -> i64 {
        (self.rows / SMALL_PART).max(1)
    }

    /// Makes the table that stands for the run's own images, if it has one.
    async fn create_images(&self, tx: &ReadTx<'_>) -> Result<(), PgError> {
        let Some(layout) = &self.plan.images.layout else { return Ok(()) };
        let columns = match &self.plan.images.recipient {
            None => columns(layout),
            Some(_) => {
                // What it encrypts is rolled back: no key is made, and none is kept.
                let sql = "select set_config('pgmend.image_key', pg_catalog.gen_random_uuid()::text, true), \
                           set_config('pgmend.image_key_no', '0', true)";
                tx.query("set the image key of a rehearsal", sql, vec![]).await?;
                let keys = ImageLayout { key: layout.key.clone(), ..ImageLayout::default() };
                format!("{}, encrypted_with bigint, encrypted bytea", columns(&keys))
            }
        };
        let sql = format!(
            "create temporary table pgmend_rehearsed_images (batch_no bigint not null, op \"char\" not null{columns}) on commit drop"
        );
        tx.query("make a table for a rehearsal's images", &sql, vec![]).await?;
        Ok(())
    }

    /// A statement of the run over the tables of the rehearsal.
    fn over_temporary(&self, sql: &str) -> String {
        let sql = sql.replace(statements::IMAGE_TABLE, IMAGES);
        match &self.filling {
            // A statement that was deparsed has its names without quotes where they need none.
            Some(Filling { relation, .. }) => {
                let bare = format!("{}.{}", relation.schema, relation.name);
                sql.replace(&relation.sql(), frozen::CHANGE_SET).replace(&bare, frozen::CHANGE_SET)
            }
            None => sql,
        }
    }
}

/// `, key_id bigint, …`: the columns of a layout as they are declared.
fn columns(layout: &ImageLayout) -> String {
    let all = layout.key.iter().chain(&layout.before).chain(&layout.after);
    all.map(|c| {
        let collation = c.collation.as_ref().map_or_else(String::new, |name| format!(" collate {name}"));
        format!(", {} {}{collation}", quote_ident(&c.image_column), c.type_sql)
    })
    .collect()
}
