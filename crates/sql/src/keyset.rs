//! Conditions, orders and limits over the key. The server alone compares keys: with the column's own
//! operators and collation, against parameters of the column's exact type.

use pg_query::Node;
use pg_query::NodeEnum;
use pg_query::protobuf as p;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::Column;

use crate::fragment;

/// A range of keys `(lower, upper]`, or exactly one key. Each bound is the number of its first parameter, one for
/// each key column, or absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// The key to start after.
    pub lower: Option<usize>,
    /// The last key.
    pub upper: Option<usize>,
    /// The only key.
    pub exactly: Option<usize>,
    /// Of these, half of the rows.
    pub half: Option<(Half, ToldBy)>,
}

/// Which half of the rows: the key tells, so that a row stays in its half whatever happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Those whose hash is negative, or whose key is even.
    First,
    /// The others.
    Second,
}

/// What of a key tells its half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToldBy {
    /// Its hash, which shares any keys out as coins do.
    #[default]
    Hash,
    /// Whether it is even: of keys that follow each other, exactly every other one. Only of an integer.
    Parity,
}

/// Integers, by oid: `int8`, `int2`, `int4`.
const INTEGERS: [u32; 3] = [20, 21, 23];

/// The types whose hash is computed by a function that takes them as they are, by oid: `int8`, `int2`, `int4`, `text`, `varchar`,
/// `uuid`. Hash indexes rely on these, so that a server's upgrade does not change them.
const HASHES: [(u32, &str); 6] =
    [(20, "hashint8"), (21, "hashint2"), (23, "hashint4"), (25, "hashtext"), (1043, "hashtext"), (2950, "uuid_hash")];

/// Whether rows can be told apart in halves by this key.
pub fn can_be_halved(key: &[&Column]) -> bool {
    !key.is_empty() && key.iter().all(|column| hash_function(column).is_some())
}

/// The one column of a key that is even or odd.
pub fn integer<'c>(key: &[&'c Column]) -> Option<&'c Column> {
    match key {
        [column] if INTEGERS.contains(&column.base_type.oid) => Some(column),
        [..] => None,
    }
}

fn hash_function(column: &Column) -> Option<&'static str> {
    HASHES.iter().find(|(oid, _)| *oid == column.base_type.oid).map(|(_, function)| *function)
}

/// The key's last bit; or the hashes of all columns, mixed: a number whose sign half of the rows have. Never compared for
/// equality, since the server expects a third of the rows of an inequality, and of an equality next to none.
fn in_half((half, told_by): (Half, ToldBy), qualifier: &str, key: &[&Column]) -> Result<Node, Refusal> {
    if let (ToldBy::Parity, Some(column)) = (told_by, integer(key)) {
        let value = fragment::column_sql(qualifier, &column.name);
        let sign = match half {
            Half::First => "< 1",
            Half::Second => ">= 1",
        };
        let bit = format!("({value}::{0} & 1::{0})", column.base_type.sql);
        return fragment::expression(&format!("{bit} {sign}"));
    }
    let hashes: Option<Vec<String>> = key
        .iter()
        .map(|column| {
            let value = fragment::column_sql(qualifier, &column.name);
            Some(format!("pg_catalog.{}({value}::{})", hash_function(column)?, column.base_type.sql))
        })
        .collect();
    let hashes = hashes.filter(|hashes| !hashes.is_empty()).ok_or_else(|| {
        let help = "leave in_halves out";
        Refusal::new(Code::BadJob, "the key's type has no hash that tells halves apart", help)
    })?;
    let sign = match half {
        Half::First => "< 0",
        Half::Second => ">= 0",
    };
    fragment::expression(&format!("({}) {sign}", hashes.join(" # ")))
}

/// The conditions of a range over the columns of `qualifier`.
pub(crate) fn conditions(range: Range, qualifier: &str, key: &[&Column]) -> Result<Vec<Node>, Refusal> {
    let bounds = [(">", range.lower), ("<=", range.upper), ("=", range.exactly)];
    let bounds = bounds.into_iter().filter_map(|(operator, first)| first.map(|first| (operator, first)));
    let bounds = bounds.map(|(operator, first)| fragment::expression(&compare(operator, first, qualifier, key)));
    bounds.chain(range.half.map(|half| in_half(half, qualifier, key))).collect()
}

/// `a > x` for one column, `(a, b) > (x, y)` for several: never column by column.
pub(crate) fn compare(operator: &str, first: usize, qualifier: &str, key: &[&Column]) -> String {
    let columns: Vec<String> = key.iter().map(|c| fragment::column_sql(qualifier, &c.name)).collect();
    let values: Vec<String> =
        key.iter().enumerate().map(|(i, c)| format!("${}::text::{}", first + i, c.base_type.sql)).collect();
    match columns.as_slice() {
        [column] => format!("{column} {operator} {}", values.join("")),
        [..] => format!("({}) {operator} ({})", columns.join(", "), values.join(", ")),
    }
}

/// Adds order, limit and lock to a SELECT. The order names the table's columns, never an output:
/// an output cast to text would sort as text.
pub(crate) fn arrange(
    select: &mut p::SelectStmt,
    qualifier: &str,
    order: Option<&[&Column]>,
    limit: Option<usize>,
    lock: Option<&str>,
) -> Result<(), Refusal> {
    let mut sql = "select from x".to_owned();
    if let Some(key) = order {
        let columns: Vec<String> = key.iter().map(|c| fragment::column_sql(qualifier, &c.name)).collect();
        sql.push_str(&format!(" order by {}", columns.join(", ")));
    }
    if let Some(limit) = limit {
        sql.push_str(&format!(" limit ${limit}::text::bigint"));
    }
    if let Some(lock) = lock {
        sql.push_str(&format!(" {lock} of {}", pgmend_core::table::quote_ident(qualifier)));
    }
    if let NodeEnum::SelectStmt(model) = fragment::statement(&sql)? {
        select.sort_clause = model.sort_clause;
        select.limit_count = model.limit_count;
        select.limit_option = model.limit_option;
        select.locking_clause = model.locking_clause;
    }
    Ok(())
}
