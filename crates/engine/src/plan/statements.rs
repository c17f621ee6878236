//! Builds the SQL of a run from a bound statement.

use pgmend_core::plan::{Apart, Apply, HalfBatch, Halves, ImageLayout, Ranged, Residual, RunSql};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::quote_ident;
use pgmend_sql::{
    Applied, Guard, Half, Join, Kind, Lock, Matched, Order, Range, Returning, Rewriter, ToldBy, Window, apply_delete,
    apply_update,
};

use super::bind::{Bound, image_columns, kept_columns};

/// A placeholder that the run replaces by the name of its own table of images, which is not known
/// before the run starts. No identifier in use can be mistaken for it, since it holds a line feed; it is spelt
/// as the deparser spells it.
pub const IMAGE_TABLE: &str = "pgmend.\"\nimage table\n\"";

/// A placeholder that the run replaces by its own open dead letters; its column `key` holds the keys as texts.
pub const DEAD_LETTERS: &str = "pgmend.\"\ndead letters\n\"";

/// How a streamed run changes its rows.
#[derive(Debug, Clone, Copy)]
pub struct Streamed<'a> {
    /// With images.
    pub keep: bool,
    /// The change returns the images itself, since a trigger may decide what is stored.
    pub exact: bool,
    /// Rows that are right already are left alone.
    pub skip_unchanged: bool,
    /// In two halves, where batches are whole stretches of keys, and what tells them.
    pub in_halves: Option<ToldBy>,
    /// The schema of pgcrypto, for encrypted images.
    pub pgcrypto: Option<&'a str>,
}

/// The SQL of a streamed run.
pub fn stream(bound: &Bound, rewriter: &Rewriter<'_>, streamed: Streamed<'_>) -> Result<RunSql, Refusal> {
    let Streamed { keep, exact, skip_unchanged, in_halves, pgcrypto } = streamed;
    let key = bound.key()?;
    let number = rewriter.first_param();
    let columns = kept_columns(&bound.image_layout(rewriter), pgcrypto);
    let of = |half: Option<(Half, ToldBy)>, f: &dyn Fn(Range) -> Result<String, Refusal>| -> Result<Ranged, Refusal> {
        let (upper, lower) = (number + 1, number + 1 + key.columns.len());
        Ok(Ranged {
            from_start: f(Range { upper: Some(upper), half, ..Range::default() })?,
            after: f(Range { lower: Some(lower), upper: Some(upper), half, ..Range::default() })?,
        })
    };
    let ranged = |f: &dyn Fn(Range) -> Result<String, Refusal>| of(None, f);
    let separate = keep && !exact;
    let image = |range: Range| rewriter.image_insert(IMAGE_TABLE, number, range, &columns, skip_unchanged, Lock::None);
    let change = |range: Range| {
        if keep && exact {
            rewriter.image_change(IMAGE_TABLE, number, range, &columns, skip_unchanged)
        } else {
            rewriter.change(range, skip_unchanged, Returning::None)
        }
    };
    let half = |half: (Half, ToldBy)| -> Result<HalfBatch, Refusal> {
        let image = if separate { Some(of(Some(half), &image)?) } else { None };
        Ok(HalfBatch { image, change: of(Some(half), &change)? })
    };
    let halves = |told_by: ToldBy| -> Result<Box<Halves>, Refusal> {
        let second = (Half::Second, told_by);
        Ok(Box::new(Halves {
            first: half((Half::First, told_by))?,
            second: half(second)?,
            second_bound: of(Some(second), &|range| rewriter.bound(range, number))?,
            second_keys: of(Some(second), &|range| rewriter.keys(range, number))?,
        }))
    };
    let asked_again = bound.class.row_local;
    let one = Range { exactly: Some(number + 1), ..Range::default() };
    let apart = Apart {
        keys: ranged(&|range| rewriter.keys(range, number))?,
        image: if separate { Some(image(one)?) } else { None },
        change: change(one)?,
    };
    Ok(RunSql::Stream {
        bound: ranged(&|range| rewriter.bound(range, number))?,
        window: Box::new(ranged(&|range| Ok(pgmend_sql::window(&bound.table, key, range, number)))?),
        image: if separate { Some(ranged(&image)?) } else { None },
        change: ranged(&change)?,
        residual: asked_again
            .then(|| residual(bound, rewriter, keep.then_some(IMAGE_TABLE), &columns.keys))
            .transpose()?,
        arrived_later: asked_again
            .then(|| rewriter.count(Range { lower: Some(number + 1), ..Range::default() }))
            .transpose()?,
        greatest_key: pgmend_sql::greatest_key(&bound.table, key),
        apart: Some(Box::new(apart)),
        quantiles: Some(pgmend_sql::quantiles(&bound.table, key)),
        halves: in_halves.map(halves).transpose()?,
    })
}

/// The layout of the change set of an UPDATE or DELETE.
pub fn change_set_layout(bound: &Bound, rewriter: &Rewriter<'_>) -> Result<ImageLayout, Refusal> {
    let key: Vec<_> = bound.table.key_columns(bound.key()?).collect();
    let after = rewriter.after_columns();
    let after: Vec<_> = after.iter().filter_map(|name| bound.table.column(name)).collect();
    let (before, after) = match bound.statement.kind() {
        Kind::Delete => (bound.table.columns.iter().filter(|c| !c.generated).collect(), Vec::new()),
        Kind::Update | Kind::Insert => (bound.guarded(rewriter), after),
    };
    Ok(pgmend_pg::images::layout(&bound.table, &key, &before, &after))
}

/// The layout of the change set of an INSERT: the proposed values, one column each.
pub fn proposal_layout(bound: &Bound, rewriter: &Rewriter<'_>) -> Result<ImageLayout, Refusal> {
    let names = rewriter.insert_columns()?;
    let columns: Vec<_> = names.iter().filter_map(|n| bound.table.column(n)).collect();
    Ok(pgmend_pg::images::layout(&bound.table, &[], &[], &columns))
}

/// The SQL of a frozen UPDATE or DELETE.
pub fn freeze(
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    change_set: &str,
    layout: &ImageLayout,
    own_images: bool,
    pgcrypto: Option<&str>,
) -> Result<RunSql, Refusal> {
    let key = bound.key()?;
    let op = match bound.statement.kind() {
        Kind::Update => 'U',
        Kind::Delete => 'D',
        Kind::Insert => {
            return Err(Refusal::new(Code::CannotFreeze, "an insert has no change set of keys", "report this"));
        }
    };
    let images = own_images.then(|| kept_columns(&bound.image_layout(rewriter), pgcrypto));
    let number = rewriter.first_param();
    let columns = image_columns(layout);
    let span = (bound.order() != Order::Heap).then_some(number + 4);
    let window = Window { lower: number + 1, upper: number + 2, span };
    let guard: Guard = columns.before.clone();
    let table = &bound.table;
    let applied =
        Applied { table, key, change_set, columns: &columns, guard: &guard, window, block: None, complete: None };
    let sql = match (op, &images) {
        ('U', None) => apply_update(table, key, change_set, &columns, &guard, window, false),
        ('U', Some(images)) => applied.update_imaged(IMAGE_TABLE, number, images),
        (_, _) => apply_delete(table, key, change_set, &columns, &guard, window, None, false),
    };
    let row_local = bound.class.row_local.then(|| residual(bound, rewriter, Some(change_set), &columns.keys));
    Ok(RunSql::Freeze {
        apply: vec![Apply { sql, op, every_row: true }],
        conflicts: Some(applied.record_conflicts(number + 3, number)),
        residual: row_local.transpose()?,
        span: match bound.order() {
            Order::Key => Some(pgmend_sql::ends(change_set, &columns, window)),
            // A window's ends are not its least and its greatest key.
            Order::FirstBy(_) => Some(pgmend_sql::span(table, key, change_set, &columns, window)),
            // Its keys are spread over all of the table: each is looked up.
            Order::Heap => None,
        },
    })
}

/// The SQL of a frozen INSERT.
pub fn insert(
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    change_set: &str,
    layout: &ImageLayout,
    own_images: bool,
    pgcrypto: Option<&str>,
) -> Result<RunSql, Refusal> {
    let number = rewriter.first_param();
    let values: Vec<String> = layout.after.iter().map(|c| c.image_column.clone()).collect();
    let window = Window { lower: number + 1, upper: number + 2, span: None };
    let conflict = bound.statement.on_conflict();
    let sql = match (&bound.key, own_images) {
        (Some(key), true) => {
            let images = kept_columns(&bound.image_layout(rewriter), pgcrypto);
            let after: Vec<String> = images.after.iter().map(|(column, _)| column.clone()).collect();
            let insert = rewriter.insert_apply(change_set, &values, window, Returning::Rows(&after))?;
            pgmend_sql::insert_imaged(&bound.table, key, &insert, IMAGE_TABLE, number, &images)
        }
        (Some(_), false) | (None, _) => rewriter.insert_apply(change_set, &values, window, Returning::None)?,
    };
    Ok(RunSql::Freeze {
        apply: vec![Apply { sql, op: 'I', every_row: conflict.is_none() && !bound.before_triggers() }],
        conflicts: None,
        residual: None,
        span: None,
    })
}

/// How rows that the run did not change are found at its end.
fn residual(
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    images: Option<&str>,
    image_keys: &[String],
) -> Result<Residual, Refusal> {
    let key = bound.key()?;
    let update = bound.statement.kind() == Kind::Update;
    let computable = update && rewriter.computable_after();
    let spec = Matched {
        skip_unchanged: computable,
        join: if computable { Join::All } else { Join::Exists },
        ..Matched::default()
    };
    let same: Vec<String> = (1..=key.columns.len())
        .zip(image_keys)
        .map(|(i, image)| format!("i.{} = m.pgmend_k{i}", quote_ident(image)))
        .collect();
    let dead: Vec<String> = key_texts(bound).map(|(i, text)| format!("{text} = m.pgmend_k{i}")).collect();
    let not_imaged = |images: &str| -> Result<String, Refusal> {
        Ok(format!(
            "select count(*)::text from ({}) as m where not exists (select from {images} as i where {}) \
             and not exists (select from {DEAD_LETTERS} as pgmend_d where {})",
            rewriter.matched(&spec)?,
            same.join(" and "),
            dead.join(" and ")
        ))
    };
    Ok(Residual { matching: rewriter.count(Range::default())?, not_imaged: images.map(not_imaged).transpose()? })
}

/// The place of each column of the key, from 1, and a dead letter's value of it in the column's own type.
fn key_texts(bound: &Bound) -> impl Iterator<Item = (usize, String)> + '_ {
    let columns = bound.key.iter().flat_map(|key| bound.table.key_columns(key));
    columns.enumerate().map(|(i, c)| (i + 1, format!("(pgmend_d.key)[{}]::{}", i + 1, c.base_type.sql)))
}

/// The SQL of the sweep: the same change, but never to a row that has an image or was set aside. `None` unless the
/// assignments provably falsify the predicate.
pub fn sweep(bound: &Bound, pgcrypto: Option<&str>) -> Result<Option<RunSql>, Refusal> {
    let statement = &bound.statement;
    if !bound.class.row_local
        || statement.kind() != Kind::Update
        || statement.joins_target()
        || !statement.falsifies_itself(&bound.table)
    {
        return Ok(None);
    }
    let key = bound.key()?;
    let called = statement.alias().unwrap_or(&bound.table.name.name);
    let image = if called == "pgmend_i" { "pgmend_j" } else { "pgmend_i" };
    let called = quote_ident(called);
    let images = pgmend_pg::images::layout(&bound.table, &bound.table.key_columns(key).collect::<Vec<_>>(), &[], &[]);
    let same: Vec<String> = images
        .key
        .iter()
        .map(|k| format!("{image}.{} = {called}.{}", quote_ident(&k.image_column), quote_ident(&k.column)))
        .collect();
    let columns = bound.table.key_columns(key).map(|c| quote_ident(&c.name));
    let dead: Vec<String> =
        key_texts(bound).zip(columns).map(|((_, text), column)| format!("{text} = {called}.{column}")).collect();
    let condition = format!(
        "not exists (select from {IMAGE_TABLE} as {image} where {}) and not exists (select from {DEAD_LETTERS} as pgmend_d where {})",
        same.join(" and "),
        dead.join(" and ")
    );
    let narrowed = statement.with_condition(&condition)?;
    let rewriter =
        Rewriter::new(&narrowed, pgmend_sql::Target { table: &bound.table, key }, pgmend_sql::Options::default())?;
    // In one statement: separate images would already be there when the change looks for them.
    let streamed = Streamed { keep: true, exact: true, skip_unchanged: false, in_halves: None, pgcrypto };
    stream(bound, &rewriter, streamed).map(Some)
}
