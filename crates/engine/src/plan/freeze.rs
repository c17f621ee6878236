//! Computes the change set of a frozen plan, in one snapshot whose only write it is.

use std::time::Instant;

use pgmend_core::digest::DigestKey;
use pgmend_core::limits::{FREEZE_MS_MAX, FREEZE_ROWS_MAX};
use pgmend_core::mask::Mask;
use pgmend_core::plan::{ChangeSet, Counts, Figure, ImageLayout, Plan};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{RelationName, quote_ident};
use pgmend_pg::images::ImageTable;
use pgmend_pg::readtx::FreezeTx;
use pgmend_pg::scene::Scene;
use pgmend_sql::{Kind, Rewriter};

use super::bind::{Bound, image_columns};
use super::sample::shown_key;
use crate::error::Error;

/// Types that every supported server can hash within a record, and whose equal values read alike (but for the
/// scale of a numeric, which weighs less than the time that the text of millions of rows would take).
const HASHABLE: [&str; 19] = [
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "oid",
    "boolean",
    "text",
    "character varying",
    "name",
    "\"char\"",
    "uuid",
    "date",
    "timestamp without time zone",
    "timestamp with time zone",
    "time without time zone",
    "bytea",
    "macaddr",
    "pg_lsn",
    "jsonb",
];

/// Whether the rows of a layout can be hashed as records: faster than through their text, which is there for
/// every other type.
pub fn hashable(layout: &ImageLayout) -> bool {
    let mut columns = layout.key.iter().chain(&layout.before).chain(&layout.after);
    columns.all(|c| {
        let bare = c.type_sql.split('(').next().unwrap_or_default();
        let scale = c.type_sql.rsplit_once(')').map_or("", |(_, rest)| rest);
        HASHABLE.contains(&format!("{bare}{scale}").trim_end_matches("[]")) && c.collation.is_none()
    })
}

/// The change set's table for a plan.
pub fn relation(plan_id: pgmend_core::id::PlanId, job: &str, date: &str) -> RelationName {
    RelationName::new("pgmend", ImageTable::ChangeSet.name(date, job, &plan_id.short()))
}

/// How a change set is filled.
pub struct Filling {
    /// Where.
    pub relation: RelationName,
    /// Its columns.
    pub layout: ImageLayout,
    /// Rows of a half, where its order has halves.
    pub half_rows: Option<i64>,
    /// The statement that fills it.
    pub sql: String,
    /// The same in one order, for a rehearsal.
    pub in_one_order: String,
}

impl Filling {
    /// The change set of a statement.
    pub fn of(
        bound: &Bound,
        rewriter: &Rewriter<'_>,
        relation: RelationName,
        layout: ImageLayout,
        half_rows: Option<i64>,
        (distinct, skip): (bool, bool),
    ) -> Result<Self, Refusal> {
        let (columns, name) = (image_columns(&layout), relation.sql());
        let filled = |half_rows| match bound.statement.kind() {
            Kind::Insert => {
                let values: Vec<String> = columns.after.iter().map(|(_, image)| image.clone()).collect();
                rewriter.freeze_source(&name, &values)
            }
            Kind::Update | Kind::Delete => {
                rewriter.freeze_insert(&name, &columns, distinct, skip, bound.order(), half_rows)
            }
        };
        let (sql, in_one_order) = (filled(half_rows)?, filled(None)?);
        Ok(Self { relation, layout, half_rows, sql, in_one_order })
    }
}

/// Fills and seals the change set. Bounds: rows and time, by statement_timeout.
pub async fn fill(
    tx: &FreezeTx<'_>,
    scene: &Scene,
    filling: &Filling,
    (comment, key): (&str, &DigestKey),
) -> Result<ChangeSet, Error> {
    let Filling { relation, layout, half_rows, sql, in_one_order: _ } = filling;
    let began = Instant::now();
    tx.as_self().await?;
    tx.create_change_set(&relation.name, layout, &scene.settings.role, comment).await?;
    tx.as_job(scene).await?;
    tx.read.limit_to(FREEZE_MS_MAX).await?;
    let filled = tx.read.query_job("compute the change set", sql, vec![]).await;
    let filled = match filled {
        Err(error) if error.sqlstate == "57014" => {
            let message = format!("computing the change set took longer than {} minutes", FREEZE_MS_MAX / 60_000);
            return Err(Refusal::new(
                Code::FreezeBounds,
                message,
                "narrow the statement, for example by a range of keys",
            )
            .into());
        }
        other => other?,
    };
    if filled.affected > FREEZE_ROWS_MAX as u64 {
        let message = format!("the change set would hold {} rows, more than {FREEZE_ROWS_MAX}", filled.affected);
        return Err(
            Refusal::new(Code::FreezeBounds, message, "narrow the statement, for example by a range of keys").into()
        );
    }
    tx.as_self().await?;
    if let Some(half_rows) = half_rows {
        tx.close_last_stretch(&relation.name, *half_rows, filled.affected as i64).await?;
    }
    let (rows, hash) = tx.seal(&relation.name, hashable(layout)).await?;
    tx.as_job(scene).await?;
    let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
    Ok(ChangeSet {
        relation: relation.clone(),
        layout: layout.clone(),
        rows,
        content_hash: key.digest(&hash).0,
        in_heap_order: false,
        half_rows: *half_rows,
        took_ms,
    })
}

/// A change set counts exactly, whatever the counting said before. Rows already right are left out of it,
/// unless a trigger must see them.
pub fn recount(counts: &mut Counts, change_set: &ChangeSet) {
    counts.changed_rows = Figure::exact(change_set.rows);
    if counts.matched_rows.value < change_set.rows {
        counts.matched_rows = Figure::exact(change_set.rows);
    }
    counts.already_right_rows.value = counts.matched_rows.value - change_set.rows;
}

/// The rows of the change set that an upsert will find in the table already.
pub async fn refuse_duplicates(tx: &FreezeTx<'_>, bound: &Bound, plan: &Plan) -> Result<(), Error> {
    let (Some(conflict), Some(change_set)) = (bound.statement.on_conflict(), &plan.change_set) else { return Ok(()) };
    if !conflict.update {
        return Ok(());
    }
    let arbiter = arbiter_columns(&bound.table, &conflict);
    let images: Option<Vec<String>> = arbiter
        .iter()
        .map(|c| change_set.layout.after.iter().find(|a| a.column == *c).map(|a| quote_ident(&a.image_column)))
        .collect();
    let Some(images) = images.filter(|i| !i.is_empty()) else { return Ok(()) };
    let list = images.join(", ");
    let not_null = images.iter().map(|i| format!("{i} is not null")).collect::<Vec<_>>().join(" and ");
    let sql = format!(
        "select count(*)::text from (select 1 from {} where {not_null} group by {list} having count(*) > 1) as d",
        change_set.relation.sql()
    );
    let found = tx.read.query("look for duplicates in the source", &sql, vec![]).await?.number()?;
    if found == 0 {
        return Ok(());
    }
    let message = format!(
        "the source proposes {found} value{} of ({}) more than once: as one statement ON CONFLICT DO UPDATE fails, in batches the last one would win",
        if found == 1 { "" } else { "s" },
        arbiter.join(", ")
    );
    Err(Refusal::new(
        Code::DuplicateSource,
        message,
        "make the source unique, for example with select distinct on (…) … order by …",
    )
    .into())
}

/// The columns of the unique index that ON CONFLICT infers or names.
pub fn arbiter_columns(table: &pgmend_core::table::Table, conflict: &pgmend_sql::OnConflict) -> Vec<String> {
    let Some(name) = &conflict.constraint else { return conflict.columns.clone() };
    let index = table.unique_indexes.iter().find(|u| u.constraint.as_ref() == Some(name) || u.name == *name);
    let attnums = index.map(|u| u.attnums.clone()).unwrap_or_default();
    attnums.iter().filter_map(|n| table.columns.iter().find(|c| c.attnum == *n)).map(|c| c.name.clone()).collect()
}

/// Rows that ON CONFLICT DO NOTHING will leave alone: already there, or proposed twice. Gives the condition over the
/// change set `s` that tells them.
pub async fn count_present(tx: &FreezeTx<'_>, bound: &Bound, plan: &mut Plan) -> Result<Option<String>, Error> {
    let (Some(conflict), Some(change_set)) = (bound.statement.on_conflict(), &plan.change_set) else { return Ok(None) };
    if conflict.update {
        plan.counts.changed_rows = Figure::estimated(change_set.rows);
        return Ok(None);
    }
    let named = arbiter_columns(&bound.table, &conflict);
    let askable = |u: &&pgmend_core::table::UniqueIndex| !u.partial && !u.exclusion && !u.attnums.contains(&0);
    // What an expression, a predicate or an exclusion constraint rejects is not asked for.
    let all_asked = !conflict.complex && (!named.is_empty() || bound.table.unique_indexes.iter().all(|u| askable(&u)));
    let figure = if all_asked { Figure::exact } else { Figure::estimated };
    let indexes: Vec<Vec<String>> = if named.is_empty() {
        let plain = bound.table.unique_indexes.iter().filter(askable);
        let names = |u: &pgmend_core::table::UniqueIndex| {
            u.attnums
                .iter()
                .filter_map(|n| bound.table.columns.iter().find(|c| c.attnum == *n))
                .map(|c| c.name.clone())
                .collect()
        };
        plain.map(names).collect()
    } else {
        vec![named]
    };
    let mut present = Vec::new();
    for columns in &indexes {
        let pair = |c: &String| {
            let image = change_set.layout.after.iter().find(|a| a.column == *c)?;
            Some((quote_ident(c), quote_ident(&image.image_column)))
        };
        let Some(pairs) = columns.iter().map(pair).collect::<Option<Vec<_>>>() else { continue };
        let in_table: Vec<String> = pairs.iter().map(|(c, i)| format!("t.{c} = s.{i}")).collect();
        let earlier: Vec<String> = pairs.iter().map(|(_, i)| format!("e.{i} = s.{i}")).collect();
        present.push(format!("exists (select from {} as t where {})", bound.table.alone(), in_table.join(" and ")));
        present.push(format!(
            "exists (select from {} as e where e.n < s.n and {})",
            change_set.relation.sql(),
            earlier.join(" and ")
        ));
    }
    if present.is_empty() {
        plan.counts.changed_rows = figure(change_set.rows);
        return Ok(None);
    }
    let there = present.join(" or ");
    let sql = format!("select count(*)::text from {} as s where {there}", change_set.relation.sql());
    let present = tx.read.query("count rows that are already there", &sql, vec![]).await?.number()?;
    plan.counts.matched_rows = Figure::exact(change_set.rows);
    plan.counts.already_right_rows = figure(present);
    plan.counts.changed_rows = figure(change_set.rows - present);
    Ok(Some(there))
}

/// A statement that writes its key must not move a row onto a key that another row holds: whether the plain
/// statement succeeds then depends on the order of rows on disk.
pub async fn refuse_moved_keys(tx: &FreezeTx<'_>, bound: &Bound, plan: &Plan, mask: &Mask) -> Result<(), Error> {
    let (true, Some(change_set)) = (bound.class.key_written, &plan.change_set) else { return Ok(()) };
    let layout = &change_set.layout;
    let new = |column: &str, old: &str| {
        let after = layout.after.iter().find(|a| a.column == column);
        quote_ident(after.map_or(old, |a| &a.image_column))
    };
    let onto: Vec<String> = layout
        .key
        .iter()
        .map(|k| format!("t.{} = s.{}", quote_ident(&k.column), new(&k.column, &k.image_column)))
        .collect();
    let stays: Vec<String> = layout
        .key
        .iter()
        .map(|k| format!("s.{} = s.{}", quote_ident(&k.image_column), new(&k.column, &k.image_column)))
        .collect();
    let texts: Vec<String> = layout.key.iter().map(|k| format!("s.{}::text", quote_ident(&k.image_column))).collect();
    let sql = format!(
        "select {} from {} as s join {} as t on {} where not ({}) limit 3",
        texts.join(", "),
        change_set.relation.sql(),
        bound.table.alone(),
        onto.join(" and "),
        stays.join(" and ")
    );
    let found = tx.read.query("look for keys that are taken", &sql, vec![]).await?;
    let keys = found.rows.iter().map(|row| shown_key(bound, mask, row)).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Ok(());
    }
    let message = format!(
        "rows would move onto keys that other rows hold, for example from {}: the result would depend on the order of the rows on disk",
        keys.join("; ")
    );
    Err(Refusal::new(Code::KeyMoves, message, "move them in two steps over a range of keys that is free").into())
}
