//! Whether the batches of an update or of its undo go in two halves (docs/design/halves.md): where no index needs to know of the
//! change, a row whose new version fits on its own page costs no index entry, and the table grows the less.

use pgmend_core::job::{Job, Mode};
use pgmend_core::limits::Limits;
use pgmend_core::plan::Counts;
use pgmend_core::table::{Key, Table, TableKind};
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{Kind, Statement, ToldBy};

use super::bind::Bound;
use super::class::Class;
use super::one_worker::unique_index_written;
use crate::error::Error;

/// Below this many rows a table that grows is no burden, and an index entry more for each costs nothing to speak of.
const ROWS_MIN: i64 = 50_000;
/// Rows to change on a page, on average: with fewer, the first half leaves the second little room.
const ROWS_A_PAGE_MIN: i64 = 4;
/// Bytes of a page, unless the server was built otherwise.
const PAGE_BYTES: i64 = 8_192;
/// A key that follows the pages of the table less than this, by the statistics' correlation of its first column, does not find
/// the rows of a page in one stretch.
const FOLLOWS: f64 = 0.9;

/// The share of the statistics' sample of keys that must be even, and odd: a hundred of them seldom have fewer where every other
/// one is.
const EVEN_OR_ODD: f64 = 0.35;

/// What the catalog says about halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halvable {
    /// Rows cannot be told apart so that each belongs to one half, whatever happens to it.
    Never,
    /// It could be done, and would gain nothing: an index has to know of each change, or the rows of a page are far apart.
    InVain,
    /// It gains where many rows change.
    Yes,
}

/// A change of some columns of a table's rows, none of which is its key's.
pub struct Change<'a> {
    pub table: &'a Table,
    pub key: &'a Key,
    pub assigned: &'a [String],
    /// The halves are told by the hash of the key, not by the order of a change set.
    pub by_hash: bool,
    /// The change set goes in the order of the pages.
    pub in_heap_order: bool,
}

/// Reads what decides for a statement.
pub async fn of_statement(
    tx: &ReadTx<'_>,
    statement: &Statement,
    (table, key): (&Table, Option<&Key>),
    class: &Class,
    in_heap_order: bool,
) -> Result<Halvable, Error> {
    let Some(key) = key.filter(|_| statement.kind() == Kind::Update && !class.key_written) else {
        return Ok(Halvable::Never);
    };
    let assigned = statement.assigned();
    let by_hash = class.mode == Mode::Stream;
    Change { table, key, assigned: &assigned, by_hash, in_heap_order }.halvable(tx).await
}

/// What tells the halves: whether the key is even, where the statistics show as many even keys as odd ones. Ids that follow
/// each other are then told apart exactly, and a page has as many rows of either half.
/// Lock: none. Index: pg_statistic's own.
pub async fn told_by(tx: &ReadTx<'_>, halvable: Halvable, table: &Table, key: Option<&Key>) -> Result<ToldBy, Error> {
    let columns: Vec<_> = key.iter().flat_map(|key| table.key_columns(key)).collect();
    let Some(column) = pgmend_sql::integer(&columns).filter(|_| halvable != Halvable::Never) else {
        return Ok(ToldBy::Hash);
    };
    let sql = "select (avg(k & 1) between $4::text::numeric and 1 - $4::text::numeric)::text \
               from pg_catalog.pg_stats s cross join lateral pg_catalog.unnest(s.histogram_bounds::text::bigint[]) as k \
               where s.schemaname = $1 and s.tablename = $2 and s.attname = $3 and not s.inherited";
    let name = &table.name;
    let params = vec![name.schema.clone(), name.name.clone(), column.name.clone(), EVEN_OR_ODD.to_string()];
    let answer = tx.query("ask whether every other key is even", sql, params).await?;
    Ok(if answer.scalar() == Some("true") { ToldBy::Parity } else { ToldBy::Hash })
}

impl Change<'_> {
    /// Reads what decides. Lock: none. Index: `pg_index_indrelid_index`, `pg_depend_depender_index`, pg_statistic's own.
    pub async fn halvable(&self, tx: &ReadTx<'_>) -> Result<Halvable, Error> {
        let Self { table, key, assigned, by_hash, in_heap_order } = *self;
        let columns: Vec<_> = table.key_columns(key).collect();
        // Where a row has to wait until another is out of its way, key order may be the one that works.
        let plain = table.kind == TableKind::Plain && unique_index_written(table, assigned).is_none();
        let told_apart = !by_hash || pgmend_sql::can_be_halved(&columns);
        let Some(first) = columns.first().filter(|_| plain && told_apart) else { return Ok(Halvable::Never) };
        let written: Vec<String> =
            table.columns.iter().filter(|c| assigned.contains(&c.name)).map(|c| c.attnum.to_string()).collect();
        // What an expression or a predicate of an index reads is a dependency of it, and no column in `indkey`.
        let sql = "select ($7::text::boolean or coalesce((select min(abs(s.correlation)) >= $5::text::float8 from pg_catalog.pg_stats s \
                   where s.schemaname = $2 and s.tablename = $3 and s.attname = $4 and not s.inherited), false) \
                   and not exists (select from pg_catalog.pg_index i where i.indrelid = $1::text::oid \
                   and (i.indkey::smallint[] && $6::text::smallint[] or exists (select from pg_catalog.pg_depend d \
                   where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = i.indexrelid \
                   and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = i.indrelid \
                   and d.refobjsubid = any ($6::text::int[])))))::text";
        let params = vec![
            table.oid.to_string(),
            table.name.schema.clone(),
            table.name.name.clone(),
            first.name.clone(),
            FOLLOWS.to_string(),
            format!("{{{}}}", written.join(",")),
            in_heap_order.to_string(),
        ];
        let answer = tx.query("ask whether halves of a batch would find room", sql, params).await?;
        Ok(if answer.scalar() == Some("true") { Halvable::Yes } else { Halvable::InVain })
    }
}

/// Whether the run goes in halves: as the job says, if that can be; else where it is worth it.
pub fn worthwhile(job: &Job, bound: &Bound, counts: &Counts) -> bool {
    if bound.class.one_transaction.is_some() || bound.tenant.is_some() || job.file.canary.is_some() {
        return false;
    }
    gains(bound.halves, &job.file.limits, &bound.table, counts.matched_rows.value)
}

/// Whether halves of so many rows to change are worth it, as far as the limits leave it open.
pub fn gains(halvable: Halvable, limits: &Limits, table: &Table, rows: i64) -> bool {
    match (limits.in_halves, halvable) {
        (Some(false), _) | (_, Halvable::Never) | (None, Halvable::InVain) => false,
        (Some(true), Halvable::InVain | Halvable::Yes) => true,
        // Whoever fixes the rows of a batch wants so many in each.
        (None, Halvable::Yes) => {
            let dense = rows >= ROWS_A_PAGE_MIN * (table.heap_bytes / PAGE_BYTES);
            limits.batch_rows.is_none() && rows >= ROWS_MIN && dense
        }
    }
}
