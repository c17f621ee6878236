//! Statements over the target alone, without the user's statement: windows of keys, the greatest key,
//! the number of rows.

use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Key, Table, quote_ident};

use crate::keyset::{Range, compare};

fn keys(table: &Table, key: &Key) -> String {
    table.key_columns(key).map(|c| format!("t.{}", quote_ident(&c.name))).collect::<Vec<_>>().join(", ")
}

/// `only` for a plain table whose inheritance children are left out.
fn from(table: &Table) -> String {
    let only = if table.inheritance_children.is_empty() { "" } else { "only " };
    format!("{only}{} as t", table.name.sql())
}

fn texts(columns: &[&Column], alias: &str) -> String {
    let column = |c: &&Column| format!("{alias}.{}::text", quote_ident(&c.name));
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// The last key of the next n rows of any kind in the range, as text. No row: the range is empty.
/// `rows` is the number of the parameter n.
/// Lock: none. Index: the key's, index-only where it is all-visible.
pub fn window(table: &Table, key: &Key, range: Range, rows: usize) -> String {
    let columns: Vec<&Column> = table.key_columns(key).collect();
    let lower = range.lower.map(|first| compare(">", first, "t", &columns));
    let upper = range.upper.map(|first| compare("<=", first, "t", &columns));
    let conditions: Vec<String> = lower.into_iter().chain(upper).collect();
    let filter = if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
    let order = keys(table, key);
    format!(
        "select {} from (select {order}, row_number() over (order by {order}) as pgmend_n from {}{filter} order by {order} \
         limit ${rows}::text::bigint) as w order by w.pgmend_n desc limit 1",
        texts(&columns, "w"),
        from(table),
    )
}

/// The greatest key, as text. Lock: none. Index: the key's, backwards.
pub fn greatest_key(table: &Table, key: &Key) -> String {
    let columns: Vec<&Column> = table.key_columns(key).collect();
    let order = columns.iter().map(|c| format!("t.{} desc", quote_ident(&c.name))).collect::<Vec<_>>().join(", ");
    format!("select {} from {} order by {order} limit 1", texts(&columns, "t"), from(table))
}

/// The number of rows. Lock: none. Index: any, or the heap.
pub fn row_count(table: &Table) -> String {
    format!("select count(*)::text from {}", from(table))
}

/// A predicate as PostgreSQL's grammar reads it, deparsed: one expression, nothing after it.
pub fn predicate(text: &str) -> Result<String, Refusal> {
    let wrapped = format!("select from t where ({text}\n)");
    let parsed = pg_query::parse(&wrapped, 0).map_err(|error| {
        Refusal::new(Code::Syntax, format!("the predicate does not parse: {error}"), "write what would follow WHERE")
    })?;
    let alone = parsed.protobuf.stmts.len() == 1;
    let deparsed = parsed.deparse(pg_query::DeparseOptions::default()).unwrap_or_default();
    match deparsed.split_once(" WHERE ") {
        Some(("SELECT FROM t", predicate)) if alone => Ok(predicate.to_owned()),
        Some(_) | None => {
            Err(Refusal::new(Code::Syntax, "the predicate is more than one condition", "write what would follow WHERE"))
        }
    }
}
