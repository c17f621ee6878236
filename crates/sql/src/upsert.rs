//! Saves images of what an INSERT did, its ON CONFLICT included.

use pgmend_core::table::{Key, Table, quote_ident};

use crate::matched::names;
use crate::rewriter::ImageColumns;

/// Wraps an insert that returns `pgmend_k1..` and `pgmend_a1..` (the image's after columns, in order).
/// The outer SELECT has the statement's own snapshot, so the target joined by key shows the row as it was
/// before: found for a row that ON CONFLICT updated, absent for a new one.
/// Lock: as the insert. Index: the target's key.
pub fn insert_imaged(
    table: &Table,
    key: &Key,
    insert: &str,
    image_table: &str,
    batch: usize,
    images: &ImageColumns,
) -> String {
    let keys: Vec<String> = table.key_columns(key).map(|c| quote_ident(&c.name)).collect();
    let first = keys.first().map_or("true", String::as_str);
    let returned = |kind: char, count: usize| -> Vec<String> {
        names(kind, count).iter().map(|name| format!("d.{name}")).collect()
    };
    let before: Vec<String> = images.before.iter().map(|(column, _)| format!("t.{}", quote_ident(column))).collect();
    let (list, values) = images.written(&returned('k', images.keys.len()), &before, &returned('a', images.after.len()));
    let same: Vec<String> = keys.iter().enumerate().map(|(i, k)| format!("t.{k} = d.pgmend_k{}", i + 1)).collect();
    format!(
        "with pgmend_done as ({insert}) insert into {image_table} (batch_no, op, {list}) select ${batch}::text::bigint, \
         (case when t.{first} is null then 'I' else 'U' end)::\"char\", {values} from pgmend_done as d left join {} as t on {}",
        table.alone(),
        same.join(" and "),
    )
}
