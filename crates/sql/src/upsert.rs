//! Saves images of what an INSERT did, its ON CONFLICT included.

use pgmend_core::table::{Key, Table, quote_ident};

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
    let mut into = vec!["batch_no".to_owned(), "op".to_owned()];
    let mut select = vec![
        format!("${batch}::text::bigint"),
        format!("(case when t.{first} is null then 'I' else 'U' end)::\"char\""),
    ];
    for (i, image) in images.keys.iter().enumerate() {
        into.push(quote_ident(image));
        select.push(format!("d.pgmend_k{}", i + 1));
    }
    for (column, image) in &images.before {
        into.push(quote_ident(image));
        select.push(format!("t.{}", quote_ident(column)));
    }
    for (i, (_, image)) in images.after.iter().enumerate() {
        into.push(quote_ident(image));
        select.push(format!("d.pgmend_a{}", i + 1));
    }
    let same: Vec<String> = keys.iter().enumerate().map(|(i, k)| format!("t.{k} = d.pgmend_k{}", i + 1)).collect();
    format!(
        "with pgmend_done as ({insert}) insert into {image_table} ({}) select {} from pgmend_done as d left join {} as t on {}",
        into.join(", "),
        select.join(", "),
        table.alone(),
        same.join(" and "),
    )
}
