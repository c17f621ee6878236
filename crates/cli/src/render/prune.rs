//! Old images and change sets.

use pgmend::Prunable;

use super::figure;
use super::page::Page;
use super::paint::Paint;

/// What was found or dropped; `next` holds the line to type.
pub fn text(found: &[Prunable], executed: bool, next: &[String], paint: Paint) -> String {
    let mut page = Page::new(paint);
    if found.is_empty() {
        page.push("nothing is past its retention");
        return page.text();
    }
    let bytes: i64 = found.iter().map(|table| table.size_bytes).sum();
    let tables = figure::counted(found.len() as i64, "table");
    let verb = if executed { "DROPPED" } else { "WOULD DROP" };
    page.heading(verb, &format!("{tables}, {}", figure::bytes(bytes)));
    let width = found.iter().map(|table| table.table.chars().count()).max().unwrap_or(0);
    for table in found {
        let kept = if executed && !table.dropped { paint.yellow("  kept") } else { String::new() };
        let (size, since) = (figure::bytes(table.size_bytes), &table.since);
        page.line(&format!(
            "{:<width$}  {size:>10}  {} ({}), due since {since}{kept}",
            table.table, table.job, table.belongs_to
        ));
    }
    if !executed {
        page.push("");
        page.line(&paint.yellow("without its images a run cannot be undone"));
        page.list("NEXT", next);
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_dropped_is_listed_with_its_size() {
        let table = |name: &str, size_bytes| Prunable {
            table: format!("pgmend.{name}"),
            job: "fix-roles".into(),
            belongs_to: "run 77aa10c4".into(),
            size_bytes,
            since: "2026-03-08".into(),
            dropped: false,
        };
        let found = [table("image_20260301_fix_roles", 163_577_856), table("set_20260228_x", 8_192)];
        let next = ["pgmend prune --execute".to_owned()];
        insta::assert_snapshot!(text(&found, false, &next, Paint::PLAIN));
    }
}
