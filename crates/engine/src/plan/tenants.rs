//! The tenants of a plan: which there are, how many rows each has, in what order they go, and by which SQL
//! (docs/design/parallel-workers.md).

use pgmend_core::finding::Finding;
use pgmend_core::job::{Job, Mode, Scalar};
use pgmend_core::mask::Mask;
use pgmend_core::plan::{Certainty, ChangeSet, Figure, Plan, RunSql};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Table, quote_ident};
use pgmend_core::tenants::{TENANTS_MAX, Tenant, TenantMode, Tenants, in_order};
use pgmend_pg::readtx::ReadTx;
use pgmend_pg::session::array_literal;
use pgmend_pg::{Answer, PgError};
use pgmend_sql::{Join, Kind, Matched, Options, Rewriter, Statement, Target};

use super::bind::Bound;
use super::count::within_budget;
use super::sample::value_kind;
use super::statements::{self, Streamed};
use crate::error::Error;

/// No operator or function of that name for these types.
const UNDEFINED_FUNCTION: &str = "42883";
/// Names listed in one finding.
const NAMED_MAX: usize = 5;

/// The statement as the job's list of tenants narrows it; `None` where it names none.
pub fn narrowed(job: &Job, table: &Table, statement: &Statement) -> Result<Option<Statement>, Refusal> {
    let Some(mode) = &job.file.tenants else { return Ok(None) };
    let column = column(mode, table, statement)?;
    mode.list.as_ref().map(|list| statement.among(column, &texts(list))).transpose()
}

/// The tenant column, if it can tell the rows of this change apart.
fn column<'t>(mode: &TenantMode, table: &'t Table, statement: &Statement) -> Result<&'t Column, Refusal> {
    let refuse = |message: String, help: String| Err(Refusal::new(Code::TenantColumn, message, help));
    if statement.kind() == Kind::Insert {
        let help = "leave [tenants] out: new rows are made in one order";
        return Err(Refusal::new(Code::TenantsTogether, "an INSERT has no tenants of its own", help));
    }
    let Some(column) = table.column(&mode.column) else {
        let names: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
        let message = format!("`{}` has no column `{}`", table.name, mode.column);
        return refuse(message, format!("tenants.column is one of: {}", names.join(", ")));
    };
    if statement.kind() == Kind::Update && statement.assigned().contains(&column.name) {
        let message = format!("the statement writes `{}`, so that rows would move from tenant to tenant", column.name);
        return refuse(message, "leave [tenants] out, or name a column that the statement leaves as it is".into());
    }
    if column.generated {
        let message = format!("`{}` is generated, and may change with what the statement writes", column.name);
        return refuse(message, "name a column that the statement leaves as it is".into());
    }
    Ok(column)
}

fn texts(values: &[Scalar]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// A row may be moved to another tenant by its application while the run goes: then no batch may change it twice. A row
/// of a change set has one place; a changed row that does not match any more, or is gone, is not found again. Anything
/// else is frozen. `computable`: whether a change set of it can be computed.
pub fn settle_mode(bound: &mut Bound, job: &Job, computable: bool) -> Result<(), Refusal> {
    let once = bound.statement.kind() == Kind::Delete || bound.statement.falsifies_itself(&bound.table);
    if job.file.tenants.is_none() || bound.class.mode == Mode::Freeze || once {
        return Ok(());
    }
    let reason = "a row that its application moves to another tenant meanwhile must not be changed twice";
    if job.file.mode == Some(Mode::Stream) || !computable {
        let help = if computable {
            "leave `mode` out, or add a condition that a changed row does not meet"
        } else {
            "add a condition that a changed row does not meet, or leave [tenants] out"
        };
        return Err(Refusal::new(Code::TenantsTogether, reason, help));
    }
    bound.class.mode = Mode::Freeze;
    bound.class.reason = reason.to_owned();
    Ok(())
}

/// The tenants of a plan before they are counted: how the job wants them, and the SQL of one.
pub fn uncounted(job: &Job, bound: &Bound, streamed: Streamed<'_>) -> Result<Option<Tenants>, Refusal> {
    let Some(mode) = &job.file.tenants else { return Ok(None) };
    let column = column(mode, &bound.table, &bound.statement)?;
    let one = |null: bool| -> Result<Option<Box<RunSql>>, Refusal> {
        if bound.class.mode == Mode::Freeze {
            return Ok(None);
        }
        let narrowed = bound.statement.of_tenant(column, null)?;
        let target = Target { table: &bound.table, key: bound.key()? };
        let rewriter = Rewriter::new(&narrowed, target, Options::default())?;
        let sql = statements::stream(bound, &rewriter, Streamed { in_halves: None, ..streamed })?;
        Ok(Some(Box::new(without_end(sql))))
    };
    Ok(Some(Tenants {
        mode: mode.clone(),
        tenants: Vec::new(),
        left_out_rows: None,
        sql: one(false)?,
        null_sql: one(true)?,
    }))
}

/// What is asked at the end is asked of the whole run.
fn without_end(sql: RunSql) -> RunSql {
    match sql {
        RunSql::Stream { bound, window, image, change, greatest_key, apart, .. } => RunSql::Stream {
            bound,
            window,
            image,
            change,
            residual: None,
            arrived_later: None,
            greatest_key,
            apart,
            quantiles: None,
            halves: None,
        },
        freeze @ RunSql::Freeze { .. } => freeze,
    }
}

/// Refuses a plan whose batches depend on each other's order. Encrypted images do not: who comes next is told by
/// `pgmend.partition`, and a change set is plain until the run ends.
pub fn refuse_together(plan: &Plan) -> Result<(), Refusal> {
    let (Some(_), Some(reason)) = (&plan.tenants, &plan.one_worker) else { return Ok(()) };
    let message = format!("the change cannot go tenant by tenant: {reason}");
    let help = "leave [tenants] out; for a first look at some rows, name canary tenants instead of a canary batch";
    Err(Refusal::new(Code::TenantsTogether, message, help))
}

/// Counts the tenants, whatever it takes: the run is made of them.
pub async fn count(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    plan: &mut Plan,
    mask: &Mask,
    computable: bool,
) -> Result<(), Error> {
    let Some(mut tenants) = plan.tenants.take() else { return Ok(()) };
    let column = column(&tenants.mode, &bound.table, &bound.statement)?;
    let before: Vec<String> = std::iter::once(column.name.clone()).chain(rewriter.after_columns()).collect();
    let after = computable && bound.statement.kind() == Kind::Update && rewriter.computable_after();
    let join = if after { Join::All } else { Join::Exists };
    let side = |kind: char, from: usize| -> String {
        let places = 0..rewriter.after_columns().len();
        places.map(|i| format!("m.pgmend_{kind}{}", i + from)).collect::<Vec<_>>().join(", ")
    };
    let changed = match after {
        true => {
            format!("count(*) filter (where row({})::text is distinct from row({})::text)", side('b', 2), side('a', 1))
        }
        false => "count(*)".to_owned(),
    };
    let number = rewriter.first_param();
    let sql = format!(
        "select m.pgmend_b1::text, {changed}::text, {0}, {1} from ({2}) as m group by m.pgmend_b1 limit {3}",
        position(number, "m.pgmend_b1", column),
        position(number + 1, "m.pgmend_b1", column),
        rewriter.matched(&Matched { before: &before, after, join, ..Matched::default() })?,
        TENANTS_MAX + 1,
    );
    let canary = texts(&tenants.mode.canary);
    let listed = texts(tenants.mode.list.as_deref().unwrap_or_default());
    let own = vec![array_literal(&canary), array_literal(&listed)];
    let answer = tx.query_job("count the tenants", &sql, own).await.map_err(|error| about_column(error, column))?;
    tenants.tenants = in_order(found(&answer, column, mask)?);
    if !tenants.tenants.iter().any(|tenant| tenant.value.is_none()) {
        tenants.null_sql = None;
    }
    plan.findings.extend(absent("canary tenant", &canary, &places(&answer, 2)));
    plan.findings.extend(absent("listed tenant", &listed, &places(&answer, 3)));
    plan.findings.extend(without_index(tx, bound, plan.mode, column).await?);
    tenants.left_out_rows = left_out(tx, bound, plan).await?;
    plan.tenants = Some(tenants);
    Ok(())
}

/// A value's place in an array of texts, by the column's own equality.
fn position(parameter: usize, value: &str, column: &Column) -> String {
    format!("array_position(${parameter}::text::{}[], {value})::text", column.base_type.sql)
}

/// The tenants of an answer: value, rows, place among the canaries.
fn found(answer: &Answer, column: &Column, mask: &Mask) -> Result<Vec<(Tenant, Option<i64>)>, Error> {
    if answer.rows.len() > TENANTS_MAX {
        let message = format!("the change has more than {TENANTS_MAX} tenants by `{}`", column.name);
        let help = "run it for some of them at a time (tenants.list, --tenants A,B), or leave [tenants] out";
        return Err(Refusal::new(Code::TooManyTenants, message, help).into());
    }
    let number = |cell: Option<&Option<String>>| cell.and_then(|n| n.as_deref()).and_then(|n| n.parse::<i64>().ok());
    let tenant = |row: &Vec<Option<String>>| {
        let value = row.first().cloned().flatten();
        let shown = mask.show(&column.name, value_kind(column, true), value.as_deref());
        let tenant = Tenant { value, shown, rows: number(row.get(1)).unwrap_or(0), canary: false, ordinals: None };
        (tenant, number(row.get(2)))
    };
    Ok(answer.rows.iter().map(tenant).collect())
}

fn places(answer: &Answer, column: usize) -> Vec<usize> {
    let place = |row: &Vec<Option<String>>| row.get(column)?.as_deref()?.parse().ok();
    answer.rows.iter().filter_map(place).collect()
}

/// A warning, where tenants were named that have no row to change: a misspelt name, most likely.
fn absent(what: &str, named: &[String], places: &[usize]) -> Option<Finding> {
    let missing: Vec<&str> =
        (1..).zip(named).filter(|(place, _)| !places.contains(place)).map(|(_, name)| name.as_str()).collect();
    let shown = missing.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = missing.len().checked_sub(NAMED_MAX).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!(" and {more} more"));
    let s = if missing.len() == 1 { " has" } else { "s have" };
    let message = format!("{} {what}{s} no row that matches: {shown}{more}", missing.len());
    (!missing.is_empty()).then(|| Finding::warning("absent_tenant", message, "is it spelt as the column holds it?"))
}

/// A warning, where each tenant's batches would walk the rows of all of them.
async fn without_index(
    tx: &ReadTx<'_>,
    bound: &Bound,
    mode: Mode,
    column: &Column,
) -> Result<Option<Finding>, PgError> {
    if mode == Mode::Freeze {
        return Ok(None);
    }
    // Lock: none beyond catalogs. Index: pg_index_indrelid_index.
    let sql = "select count(*)::text from pg_catalog.pg_index where indrelid = $1::oid and indisvalid \
               and indpred is null and indkey[0] = $2::int2";
    let own = vec![bound.table.oid.to_string(), column.attnum.to_string()];
    if tx.query("look for an index of tenants", sql, own).await?.number()? > 0 {
        return Ok(None);
    }
    let key: Vec<String> =
        bound.key.iter().flat_map(|k| bound.table.key_columns(k)).map(|c| quote_ident(&c.name)).collect();
    let message = format!("no index begins with `{}`: each tenant's batches walk the rows of all tenants", column.name);
    let help = format!(
        "create index concurrently on {} ({}, {}), or leave [tenants] out",
        bound.table.name.sql(),
        quote_ident(&column.name),
        key.join(", ")
    );
    Ok(Some(Finding::warning("tenant_index", message, help)))
}

/// Rows of tenants that the job's list leaves out.
async fn left_out(tx: &ReadTx<'_>, bound: &Bound, plan: &Plan) -> Result<Option<Figure>, Error> {
    let Some(whole) = &bound.whole else { return Ok(None) };
    let target = Target { table: &bound.table, key: bound.key()? };
    let sql = Rewriter::new(whole, target, Options::default())?.count_matched()?;
    let counted = within_budget(tx, "count the rows left out", &sql, plan.limits.count_budget_ms).await?;
    let Some(all) = counted.map(|answer| answer.number()).transpose()? else { return Ok(None) };
    let matched = plan.counts.matched_rows;
    let rows = (all - matched.value).max(0);
    Ok(Some(if matched.certainty == Certainty::Exact { Figure::exact(rows) } else { Figure::estimated(rows) }))
}

/// The tenants of a change set: exactly those that have a row in it, each with its range of ordinals.
pub async fn of_change_set(
    tx: &ReadTx<'_>,
    bound: &Bound,
    plan: &Plan,
    change_set: &ChangeSet,
    mask: &Mask,
) -> Result<Vec<Tenant>, Error> {
    let Some(tenants) = &plan.tenants else { return Ok(Vec::new()) };
    let column = column(&tenants.mode, &bound.table, &bound.statement)?;
    let image = change_set.layout.before.iter().find(|c| c.column == column.name);
    let image = image.ok_or_else(|| Error::Corrupt("the change set lacks the tenants".into()))?;
    let value = format!("s.{}", quote_ident(&image.image_column));
    let sql = format!(
        "select {value}::text, count(*)::text, {}, min(s.n)::text, max(s.n)::text from {} as s group by {value} limit {}",
        position(1, &value, column),
        change_set.relation.sql(),
        TENANTS_MAX + 1,
    );
    let own = vec![array_literal(&texts(&tenants.mode.canary))];
    let answer = tx.query("count the tenants of the change set", &sql, own).await?;
    let ordinals = |row: &Vec<Option<String>>| -> Option<(i64, i64)> {
        let number = |i: usize| row.get(i)?.as_deref()?.parse().ok();
        Some((number(3)?, number(4)?))
    };
    let mut counted = found(&answer, column, mask)?;
    for ((tenant, _), row) in counted.iter_mut().zip(&answer.rows) {
        tenant.ordinals = ordinals(row).filter(|(first, last)| last - first + 1 == tenant.rows);
        if tenant.ordinals.is_none() {
            return Err(Error::Corrupt("the rows of a tenant do not follow each other in the change set".into()));
        }
    }
    Ok(in_order(counted))
}

/// What the server says of the tenants' values is about the column, or about those that the job names.
fn about_column(error: PgError, column: &Column) -> Error {
    let type_sql = &column.base_type.sql;
    let (message, help) = match error.sqlstate.as_str() {
        UNDEFINED_FUNCTION => (
            format!("values of `{}` ({type_sql}) cannot be compared", column.name),
            "name a column of a type that has an equality".to_owned(),
        ),
        code if code.starts_with("22") => (
            format!("a tenant that the job names is no value of `{}` ({type_sql}): {}", column.name, error.message),
            "write it as the column holds it".to_owned(),
        ),
        _ => return error.into(),
    };
    Refusal::new(Code::TenantColumn, message, help).into()
}
