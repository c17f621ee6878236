//! Statements over the target alone, without the user's statement: windows of keys, the greatest key,
//! the number of rows.

use pg_query::NodeEnum;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Key, Table, quote_ident};

use crate::deparse;
use crate::fragment;
use crate::keyset::{Range, compare};

fn keys(table: &Table, key: &Key) -> String {
    table.key_columns(key).map(|c| format!("t.{}", quote_ident(&c.name))).collect::<Vec<_>>().join(", ")
}

/// `only` for a plain table whose inheritance children are left out.
fn from(table: &Table) -> String {
    format!("{} as t", table.alone())
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
    let last = columns.iter().map(|c| format!("w.{} desc", quote_ident(&c.name))).collect::<Vec<_>>().join(", ");
    format!(
        "select {} from (select {order} from {}{filter} order by {order} limit ${rows}::text::bigint) as w \
         order by {last} limit 1",
        texts(&columns, "w"),
        from(table),
    )
}

/// Keys that cut the rows into parts of about the same size, in order, as text, from a sample of the table's pages. By
/// number of parameter: 1 the sample's percentage, 2 the parts, from 3 on the greatest key. The last part has no key.
/// Lock: none. Index: none; the sampled pages of the heap.
pub fn quantiles(table: &Table, key: &Key) -> String {
    let columns: Vec<&Column> = table.key_columns(key).collect();
    let order = keys(table, key);
    format!(
        "select {texts} from (select s.*, row_number() over (order by {sorted}) as pgmend_n, count(*) over () as pgmend_all \
         from (select {order} from {from} tablesample system ($1::text::real) repeatable (0) where {upper}) as s) as q \
         where exists (select from generate_series(1, $2::text::bigint - 1) as i (part) \
         where greatest(q.pgmend_all * i.part / $2::text::bigint, 1) = q.pgmend_n) order by q.pgmend_n",
        texts = texts(&columns, "q"),
        sorted = columns.iter().map(|c| format!("s.{}", quote_ident(&c.name))).collect::<Vec<_>>().join(", "),
        from = from(table),
        upper = compare("<", 3, "t", &columns),
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
    let refused =
        || Refusal::new(Code::Syntax, "the predicate does not parse as one condition", "write what would follow WHERE");
    let condition = fragment::expression(text).map_err(|_| refused())?;
    let mut select = fragment::statement("select from t")?;
    if let NodeEnum::SelectStmt(select) = &mut select {
        select.where_clause = Some(Box::new(condition));
    }
    deparse::text(&select)?.strip_prefix("SELECT FROM t WHERE ").map(str::to_owned).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_predicate_is_one_condition_and_nothing_more() {
        assert_eq!(super::predicate("a = 1 or b -- x").as_deref(), Ok("a = 1 OR b"));
        for text in ["a) group by (b", "a) limit (1", "a; drop table t", "a) union select (1", "", "a), (b"] {
            assert!(super::predicate(text).is_err(), "{text}");
        }
    }
}
