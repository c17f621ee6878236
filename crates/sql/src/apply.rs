//! Applies a change set, or restores from images, without the user's statement. A row that is not as
//! the change set found it is left alone; the caller finds it by what was not returned.

use pgmend_core::table::{Column, Key, Table, quote_ident};

use crate::assign;
use crate::keyset::compare;
use crate::rewriter::ImageColumns;

/// A window of a change set's ordinals, `n > $lower and n <= $upper`, by parameter number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The number of the parameter to start after.
    pub lower: usize,
    /// The number of the last ordinal's parameter.
    pub upper: usize,
    /// The number of the first parameter of the window's least key, which its greatest follows, if the
    /// statement is given them: see [`span`].
    pub span: Option<usize>,
}

impl Window {
    /// The condition over the rows called `alias`.
    pub fn condition(self, alias: &str) -> String {
        format!("{alias}.n > ${}::text::bigint and {alias}.n <= ${}::text::bigint", self.lower, self.upper)
    }

    /// ` and t.k >= least and t.k <= greatest`: true of every row that the window's keys can match. With it the
    /// server may read the target's range once, where it would otherwise look every key up by itself, which
    /// costs twice as much while the same statement changes the rows around.
    pub(crate) fn within_span(self, table: &Table, key: &Key) -> String {
        let Some(first) = self.span else { return String::new() };
        let columns: Vec<&Column> = table.key_columns(key).collect();
        let least = compare(">=", first, "t", &columns);
        let greatest = compare("<=", first + columns.len(), "t", &columns);
        format!(" and {least} and {greatest}")
    }
}

/// Types of keys with `min` and `max`, by `pg_type.oid`: smallint, integer, bigint, numeric, text, date, timestamp,
/// timestamptz. They read a window once, where two orders read it twice.
const HAVE_MIN: [u32; 8] = [21, 23, 20, 1700, 25, 1082, 1114, 1184];

/// The least and the greatest key of a window, as text in one row: what [`Window::span`] stands for. Ordered as
/// the key's own type and collation order it, whatever order the change set is in.
/// Lock: none. Index: the change set's primary key.
pub fn span(table: &Table, key: &Key, change_set: &str, columns: &ImageColumns, window: Window) -> String {
    debug_assert_eq!(columns.keys.len(), table.key_columns(key).count());
    let column = table.key_columns(key).next().filter(|c| c.domain.is_none() && HAVE_MIN.contains(&c.base_type.oid));
    if let ([image], Some(_)) = (columns.keys.as_slice(), column) {
        let (image, condition) = (quote_ident(image), window.condition("s"));
        return format!("select min(s.{image})::text, max(s.{image})::text from {change_set} as s where {condition}");
    }
    let keys: Vec<String> = columns.keys.iter().map(|k| format!("s.{}", quote_ident(k))).collect();
    let end = |direction: &str, alias: &str| {
        let order: Vec<String> = keys.iter().map(|k| format!("{k}{direction}")).collect();
        let list = keys.join(", ");
        let condition = window.condition("s");
        format!(
            "(select {list} from {change_set} as s where {condition} order by {} limit 1) as {alias}",
            order.join(", ")
        )
    };
    let texts = |alias: &str| {
        let text = |k: &String| format!("{alias}.{}::text", quote_ident(k));
        columns.keys.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    format!("select {}, {} from {} cross join {}", texts("l"), texts("g"), end("", "l"), end(" desc", "g"))
}

/// The same for a change set in key order: the keys of the window's first and last rows.
/// Lock: none. Index: the change set's primary key, twice.
pub fn ends(change_set: &str, columns: &ImageColumns, window: Window) -> String {
    let texts = |alias: &str| {
        let text = |k: &String| format!("{alias}.{}::text", quote_ident(k));
        columns.keys.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    format!(
        "select {}, {} from {change_set} as l cross join {change_set} as g \
         where l.n = ${}::text::bigint + 1 and g.n = ${}::text::bigint",
        texts("l"),
        texts("g"),
        window.lower,
        window.upper
    )
}

/// Pairs of a table column and a column of the change set or image.
pub type Guard = Vec<(String, String)>;

/// `update target as t set c = s.after_c … from change_set as s`. Rows match by key and only if every
/// guard column still equals, byte for byte, what the change set says. Returning yields `s.n`.
pub fn apply_update(
    table: &Table,
    key: &Key,
    change_set: &str,
    columns: &ImageColumns,
    guard: &Guard,
    window: Window,
    returning: bool,
) -> String {
    let set: Vec<String> = columns
        .after
        .iter()
        .map(|(column, image)| format!("{} = s.{}", quote_ident(column), quote_ident(image)))
        .collect();
    format!(
        "update {} as t set {} from {change_set} as s where {} and s.op = 'U' and {}{}{}{}",
        table.alone(),
        set.join(", "),
        window.condition("s"),
        same_key(table, key, &columns.keys),
        window.within_span(table, key),
        unchanged(table, guard),
        returned(returning)
    )
}

/// `delete from target as t using change_set as s`, guarded as [`apply_update`]. `block` is one more
/// condition over `t` and `s`.
#[expect(clippy::too_many_arguments, reason = "each is one part of the statement's text")]
pub fn apply_delete(
    table: &Table,
    key: &Key,
    change_set: &str,
    columns: &ImageColumns,
    guard: &Guard,
    window: Window,
    block: Option<&str>,
    returning: bool,
) -> String {
    let block = block.map_or_else(String::new, |block| format!(" and ({block})"));
    format!(
        "delete from {} as t using {change_set} as s where {} and s.op = 'D' and {}{}{}{block}{}",
        table.alone(),
        window.condition("s"),
        same_key(table, key, &columns.keys),
        window.within_span(table, key),
        unchanged(table, guard),
        returned(returning)
    )
}

/// `insert into target … select from change_set … on conflict do nothing`, in order. `values` pairs
/// table columns with the columns that hold their values; generated columns are not among them.
/// `complete` is one more condition over `s`. Returning yields the key as `pgmend_k1..`.
pub fn apply_insert(
    table: &Table,
    key: &Key,
    change_set: &str,
    values: &Guard,
    window: Window,
    complete: Option<&str>,
    returning: bool,
) -> String {
    let columns: Vec<String> = values.iter().map(|(column, _)| quote_ident(column)).collect();
    let sources: Vec<String> = values.iter().map(|(_, image)| format!("s.{}", quote_ident(image))).collect();
    let keys: Vec<String> = table
        .key_columns(key)
        .enumerate()
        .map(|(i, column)| format!("t.{} as pgmend_k{}", quote_ident(&column.name), i + 1))
        .collect();
    let returned = if returning { format!(" returning {}", keys.join(", ")) } else { String::new() };
    let complete = complete.map_or_else(String::new, |complete| format!(" and ({complete})"));
    format!(
        "insert into {} as t ({}) overriding system value select {} from {change_set} as s where {} and s.op = 'I'{complete} \
         order by s.n on conflict do nothing{returned}",
        table.name.sql(),
        columns.join(", "),
        sources.join(", "),
        window.condition("s")
    )
}

/// `t.k = s.key_k and …`: the column's own operator and collation.
pub(crate) fn same_key(table: &Table, key: &Key, images: &[String]) -> String {
    let pairs: Vec<String> = table
        .key_columns(key)
        .zip(images)
        .map(|(column, image)| format!("t.{} = s.{}", quote_ident(&column.name), quote_ident(image)))
        .collect();
    pairs.join(" and ")
}

/// Types of which two values are equal only if they are the same bytes, by `pg_type.oid`, which is fixed for built-in
/// types: smallint, integer, bigint, oid, boolean, "char", text, varchar, bytea, date, time, timestamp, timestamptz, uuid.
const PLAINLY_EQUAL: [u32; 14] = [21, 23, 20, 26, 16, 18, 25, 1043, 17, 1082, 1083, 1114, 1184, 2950];

/// Whether `=` tells two values of a column apart wherever their bytes differ: not for a collation of its own, which may
/// be nondeterministic.
pub(crate) fn plainly_equal(table: &Table, name: &str) -> bool {
    table.column(name).is_some_and(|c| {
        c.domain.is_none() && c.base_type.collation.is_none() && PLAINLY_EQUAL.contains(&c.base_type.oid)
    })
}

/// ` and row(t.c)::record *= row(s.before_c)::record`, which works for every type and for NULL; where `=` is as exact
/// it is asked instead, which is cheaper than two records a row.
pub(crate) fn unchanged(table: &Table, guard: &Guard) -> String {
    let (plain, others): (Vec<_>, Vec<_>) = guard.iter().partition(|(c, _)| plainly_equal(table, c));
    let plain = plain
        .iter()
        .map(|(c, image)| format!(" and t.{} is not distinct from s.{}", quote_ident(c), quote_ident(image)));
    plain.chain((!others.is_empty()).then(|| same_records(table, &others))).collect()
}

fn same_records(table: &Table, guard: &[&(String, String)]) -> String {
    let cast = |name: &str| {
        let column: Option<&Column> = table.column(name).filter(|column| column.domain.is_some());
        // Records compare only if their types are the same; images have the base type.
        column.map_or_else(String::new, |column| format!("::{}", assign::lossless(&column.base_type)))
    };
    let current: Vec<String> = guard.iter().map(|(c, _)| format!("t.{}{}", quote_ident(c), cast(c))).collect();
    let expected: Vec<String> = guard.iter().map(|(c, image)| format!("s.{}{}", quote_ident(image), cast(c))).collect();
    format!(" and row({})::record *= row({})::record", current.join(", "), expected.join(", "))
}

fn returned(returning: bool) -> &'static str {
    if returning { " returning s.n" } else { "" }
}
