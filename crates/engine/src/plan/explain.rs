//! The EXPLAIN guard: a batch must find its rows by the key's index, or each would read the whole table.

use pgmend_core::finding::Finding;
use pgmend_core::plan::RunSql;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::Rewriter;

use super::bind::Bound;
use super::privileges::DENIED;
use crate::error::Error;

/// Below this many rows PostgreSQL rightly reads the whole table, and it does no harm.
const GUARDED_ROWS: f64 = 20_000.0;
/// Rows of the batch that is explained.
const EXPLAINED_ROWS: &str = "500";

/// EXPLAIN of the second batch, and a finding if it does not use the key's index.
pub async fn guard(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    sql: &RunSql,
) -> Result<(Vec<String>, Option<Finding>), Error> {
    let RunSql::Stream { bound: next, greatest_key, .. } = sql else { return Ok((Vec::new(), None)) };
    let greatest = tx.query("read the greatest key", greatest_key, vec![]).await?;
    let Some(upper) = greatest.rows.first().map(|r| r.iter().flatten().cloned().collect::<Vec<_>>()) else {
        return Ok((Vec::new(), None));
    };
    let own: Vec<String> = std::iter::once(EXPLAINED_ROWS.to_owned()).chain(upper.iter().cloned()).collect();
    let first = tx.query_job("find the first bound", &next.from_start, own.clone()).await?;
    let Some(lower) = first.rows.first().map(|r| r.iter().take(upper.len()).flatten().cloned().collect::<Vec<_>>())
    else {
        return Ok((Vec::new(), None));
    };
    let own: Vec<String> = own.into_iter().chain(lower.iter().cloned()).collect();
    let second = tx.query_job("find the second bound", &next.after, own).await?;
    let batch_upper = second.rows.first().map(|r| r.iter().take(upper.len()).flatten().cloned().collect::<Vec<_>>());
    let own: Vec<String> = std::iter::once("2".to_owned()).chain(batch_upper.unwrap_or(upper)).chain(lower).collect();
    let number = rewriter.first_param();
    let key_len = bound.key()?.columns.len();
    let range = pgmend_sql::Range { lower: Some(number + 1 + key_len), upper: Some(number + 1) };
    let change = rewriter.change(range, false, pgmend_sql::Returning::None)?;
    let explained = match tx.attempt("explain a batch", &format!("explain {change}"), own).await {
        // A role that may only read gets a plan without it.
        Err(error) if error.sqlstate == DENIED => return Ok((Vec::new(), None)),
        explained => explained?,
    };
    let lines: Vec<String> = explained.rows.into_iter().filter_map(|r| r.into_iter().next().flatten()).collect();
    let index = bound.key()?.index.clone();
    let by_index = lines.iter().any(|l| l.contains("Index Cond") && l.contains('>'))
        && lines.iter().any(|l| l.contains(&index) || (!bound.table.partitions.is_empty() && l.contains("Index")));
    let large = bound.table.estimated_rows.is_none_or(|rows| rows > GUARDED_ROWS);
    let finding = (!by_index && large).then(|| {
        let message = format!(
            "a batch would not use index {}: each would read much of the table",
            bound.key.as_ref().map_or("", |k| &k.index)
        );
        let help = format!("type: analyze {}; and plan again", bound.table.name.sql());
        Finding::warning("no_index_scan", message, help)
    });
    Ok((lines, finding))
}
