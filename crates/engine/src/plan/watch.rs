//! The rows that the job names to be looked at: as they are, and as the statement would leave them.

use pgmend_core::mask::Mask;
use pgmend_core::plan::{Sample, Watched};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, quote_ident};
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{Join, Kind, Matched, Rewriter};

use super::bind::Bound;
use super::sample::{SAMPLE_BUDGET_MS, value_kind};
use crate::error::Error;

/// Looks at the rows of `expect.watch`, in their order.
pub async fn look(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    mask: &Mask,
    watch: &[pgmend_core::expect::Watch],
) -> Result<Vec<Watched>, Error> {
    if watch.is_empty() {
        return Ok(Vec::new());
    }
    let key: Vec<&Column> = bound.table.key_columns(bound.key()?).collect();
    let mut all = Vec::new();
    tx.limit_to(SAMPLE_BUDGET_MS).await?;
    for row in watch {
        let values = row.values();
        if values.len() != key.len() {
            let names: Vec<&str> = key.iter().map(|c| c.name.as_str()).collect();
            let message =
                format!("the key of expect.watch `{}` has {} values, not {}", row.name, values.len(), key.len());
            let help = format!("give one value for each column of the key, in this order: {}", names.join(", "));
            return Err(Refusal::new(Code::BadJob, message, help).into());
        }
        all.push(one(tx, bound, rewriter, mask, &key, &row.name, values).await?);
    }
    tx.limit_to(0).await?;
    Ok(all)
}

async fn one(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    mask: &Mask,
    key: &[&Column],
    name: &str,
    values: Vec<String>,
) -> Result<Watched, Error> {
    let columns: Vec<String> = match bound.statement.kind() {
        Kind::Update if rewriter.computable_after() => rewriter.after_columns(),
        Kind::Update => bound.statement.assigned(),
        Kind::Delete | Kind::Insert => bound.table.columns.iter().map(|c| c.name.clone()).collect(),
    };
    let is_key = |name: &str| key.iter().any(|k| k.name == name);
    let show = |name: &str, value: Option<&str>| {
        let column = bound.table.column(name);
        column.and_then(|c| mask.show(name, value_kind(c, is_key(name)), value))
    };
    let shown_key = key.iter().zip(&values).map(|(c, v)| (c.name.clone(), show(&c.name, Some(v)))).collect();
    let now = now(tx, bound, key, &columns, &values).await.map_err(|error| no_key(error, name))?;
    let (said, after) = match &now {
        None if bound.statement.kind() == Kind::Insert => ("is not there yet", None),
        None => ("is not there", None),
        Some(_) => fate(tx, bound, rewriter, key, &columns, &values).await?,
    };
    let changes = after.is_some();
    let cell = |(place, column): (usize, &String)| {
        let value = |row: &Option<Vec<Option<String>>>| row.as_ref().and_then(|r| r.get(place).cloned().flatten());
        (column.clone(), show(column, value(&now).as_deref()), show(column, value(&after).as_deref()))
    };
    let cells = if now.is_some() { columns.iter().enumerate().map(cell).collect() } else { Vec::new() };
    let sample = Sample { key: shown_key, columns: cells, already_right: false };
    Ok(Watched { name: name.to_owned(), said: said.to_owned(), changes, sample })
}

/// The row as it is.
async fn now(
    tx: &ReadTx<'_>,
    bound: &Bound,
    key: &[&Column],
    columns: &[String],
    values: &[String],
) -> Result<Option<Vec<Option<String>>>, Error> {
    let cells: Vec<String> = columns.iter().map(|c| format!("t.{}::text", quote_ident(c))).collect();
    let same = key.iter().enumerate();
    let same = same.map(|(i, c)| format!("t.{} = ${}::text::{}", quote_ident(&c.name), i + 1, c.base_type.sql));
    let same = same.collect::<Vec<_>>().join(" and ");
    let sql = format!("select {} from {} as t where {same}", cells.join(", "), bound.table.alone());
    let answer = tx.query("look at a watched row", &sql, values.to_vec()).await?;
    Ok(answer.rows.into_iter().next())
}

/// What the statement would do to a row that is there, and the values that it would have.
async fn fate(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    key: &[&Column],
    columns: &[String],
    values: &[String],
) -> Result<(&'static str, Option<Vec<Option<String>>>), Error> {
    let update = bound.statement.kind() == Kind::Update;
    if bound.statement.kind() == Kind::Insert {
        return Ok(("is there already", None));
    }
    let after = update && rewriter.computable_after();
    let join = if after { Join::All } else { Join::Exists };
    let matched = rewriter.matched(&Matched { before: columns, after, join, ..Matched::default() })?;
    let cells: Vec<String> = match after {
        true => (1..=columns.len()).map(|i| format!("m.pgmend_a{i}::text")).collect(),
        false => vec!["'1'".to_owned()],
    };
    let number = rewriter.first_param();
    let same = key.iter().enumerate();
    let same = same.map(|(i, c)| format!("m.pgmend_k{} = ${}::text::{}", i + 1, number + i, c.base_type.sql));
    let same = same.collect::<Vec<_>>().join(" and ");
    let sql = format!("select {} from ({matched}) as m where {same} limit 1", cells.join(", "));
    let answer = match tx.attempt("look ahead at a watched row", &sql, values.to_vec()).await {
        Ok(answer) => answer,
        Err(error) if error.is_connection() => return Err(error.into()),
        Err(_) => return Ok(("could not be looked ahead at in time", None)),
    };
    Ok(match (answer.rows.into_iter().next(), update, after) {
        (None, _, _) => ("does not match: stays as it is", None),
        (Some(row), _, true) => ("will be", Some(row)),
        (Some(_), true, false) => ("matches; its new values are decided by the change itself", None),
        (Some(_), false, _) => ("will be deleted", None),
    })
}

fn no_key(error: Error, name: &str) -> Error {
    match error {
        Error::Database { message, sqlstate, .. } if sqlstate.starts_with("22") => {
            let message = format!("the key of expect.watch `{name}` is no key of the table: {message}");
            Refusal::new(Code::BadJob, message, "write the values as psql prints them, in the order of the key").into()
        }
        other @ (Error::Refused(_) | Error::Database { .. } | Error::Corrupt(_)) => other,
    }
}
