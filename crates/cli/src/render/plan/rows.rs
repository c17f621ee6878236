//! The rows of a plan: how many, which ones, from what to what.

use pgmend::{ChangeKind, Figure, Plan};
use pgmend_core::mask::is_masked;
use pgmend_core::plan::Sample;

use crate::render::figure;
use crate::render::page::Page;

/// Widest value shown in a sample; the rest is cut.
const VALUE_WIDTH_MAX: usize = 48;

/// The table of counts.
pub fn counts(page: &mut Page, plan: &Plan) {
    let counts = &plan.counts;
    page.heading("ROWS", "");
    let verb = match plan.kind {
        ChangeKind::Update => "will change".to_owned(),
        ChangeKind::Delete | ChangeKind::Insert | ChangeKind::Undo => format!("will be {}", plan.verb()),
    };
    let verb = verb.as_str();
    let mut lines = vec![
        ("scanned", counts.scanned_rows),
        ("matched", counts.matched_rows),
        (verb, counts.changed_rows),
        ("already right", counts.already_right_rows),
    ];
    if plan.kind == ChangeKind::Undo || counts.conflict_rows.value > 0 {
        lines.push(("conflicts", counts.conflict_rows));
    }
    let width = lines.iter().map(|(_, f)| shown(*f).chars().count()).max().unwrap_or(0);
    for (name, value) in lines {
        let line = format!("{name:<16} {:>width$}  {}", shown(value), figure::certainty(value.certainty));
        let line = if name == verb { page.paint.bold(&line) } else { line };
        page.line(&line);
    }
    if let Some(expected) = plan.expect_rows {
        page.line(&format!(
            "{:<16} {:>width$}  any other number is refused before it is committed",
            "expected",
            figure::rows(expected)
        ));
    }
}

fn shown(value: Figure) -> String {
    figure::figure(value)
}

/// Before → after, column by column.
pub fn samples(page: &mut Page, plan: &Plan) {
    if plan.samples.is_empty() {
        return;
    }
    let values = plan.samples.iter().flat_map(|s| &s.columns).flat_map(|(_, before, after)| [before, after]);
    page.heading("SAMPLES", &hint(values));
    let columns = plan.samples.iter().flat_map(|s| &s.columns);
    let width = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let widths = Widths {
        key: width(&mut plan.samples.iter().map(|s| key_of(s).chars().count())),
        name: width(&mut columns.clone().map(|(name, _, _)| name.chars().count())),
        before: width(&mut columns.map(|(_, before, _)| value(before.as_deref()).chars().count())),
    };
    for sample in &plan.samples {
        sample_rows(page, plan.kind, sample, &widths);
    }
}

/// The rows that the job watches: now → then.
pub fn watched(page: &mut Page, plan: &Plan) {
    if plan.watched.is_empty() {
        return;
    }
    page.heading("WATCHED", &hint(plan.watched.iter().flat_map(|w| &w.sample.columns).flat_map(|(_, b, a)| [b, a])));
    for row in &plan.watched {
        page.line(&format!("{}  {}  {}", row.name, key_of(&row.sample), page.paint.dim(&row.said)));
        let width = row.sample.columns.iter().map(|(name, _, _)| name.chars().count()).max().unwrap_or(0);
        for (name, before, after) in &row.sample.columns {
            let shown = match row.changes {
                true => change(page, before.as_deref(), after.as_deref(), 0),
                false => value(before.as_deref()),
            };
            page.line(&format!("  {name:<width$}  {shown}"));
        }
    }
}

/// What to type where values are masked, or nothing.
fn hint<'a>(values: impl IntoIterator<Item = &'a Option<String>>) -> String {
    let masked = values.into_iter().flatten().any(|value| is_masked(value));
    if masked { "masked values: name columns with --plain, or --show-values".to_owned() } else { String::new() }
}

/// The widest of each part of a sample.
struct Widths {
    key: usize,
    name: usize,
    before: usize,
}

fn key_of(sample: &Sample) -> String {
    let key: Vec<String> = sample.key.iter().map(|(name, v)| format!("{name} = {}", value(v.as_deref()))).collect();
    if key.is_empty() { "new row".to_owned() } else { key.join(", ") }
}

fn sample_rows(page: &mut Page, kind: ChangeKind, sample: &Sample, widths: &Widths) {
    let key = key_of(sample);
    let update = matches!(kind, ChangeKind::Update | ChangeKind::Undo);
    if let ([(name, before, after)], true, false) = (sample.columns.as_slice(), update, sample.already_right) {
        let change = change(page, before.as_deref(), after.as_deref(), widths.before);
        page.line(&format!("{key:<0$}  {name}  {change}", widths.key));
        return;
    }
    let remark = if sample.already_right { page.paint.dim("  already right") } else { String::new() };
    page.line(&format!("{key}{remark}"));
    // Where whole rows come or go, a masked value says only that there is one.
    let columns = || sample.columns.iter();
    let whole = match kind {
        ChangeKind::Insert | ChangeKind::Delete => true,
        ChangeKind::Undo => columns().all(|(_, b, _)| b.is_none()) || columns().all(|(_, _, a)| a.is_none()),
        ChangeKind::Update => false,
    };
    let hidden = |column: &&(String, Option<String>, Option<String>)| {
        whole && column.1.as_deref().or(column.2.as_deref()).is_some_and(is_masked)
    };
    let told = |column: &&(String, Option<String>, Option<String>)| {
        let in_key = whole && sample.key.iter().any(|(key, _)| *key == column.0);
        !in_key && !hidden(column)
    };
    for (name, before, after) in sample.columns.iter().filter(told) {
        let shown = match (whole, after) {
            (true, Some(_)) => page.paint.green(&value(after.as_deref())),
            (true, None) => value(before.as_deref()),
            (false, _) => change(page, before.as_deref(), after.as_deref(), widths.before),
        };
        page.line(&format!("  {name:<0$}  {shown}", widths.name));
    }
    let masked: Vec<&str> = sample.columns.iter().filter(hidden).map(|(name, _, _)| name.as_str()).collect();
    if !masked.is_empty() {
        let line = page.paint.dim(&format!("masked: {}", masked.join(", ")));
        page.line(&format!("  {line}"));
    }
}

/// `memeber → member`, the arrows below each other.
fn change(page: &Page, before: Option<&str>, after: Option<&str>, width: usize) -> String {
    let before = value(before);
    let gap = " ".repeat(width.saturating_sub(before.chars().count()));
    format!("{before}{gap} → {}", page.paint.green(&value(after)))
}

/// A value on one line: control characters are shown, not obeyed; the tail of a long one is cut.
pub fn value(value: Option<&str>) -> String {
    let Some(value) = value else { return "NULL".to_owned() };
    if value.is_empty() {
        return "''".to_owned();
    }
    let shown: String = value
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    if shown.chars().count() <= VALUE_WIDTH_MAX {
        return shown;
    }
    let head: String = shown.chars().take(VALUE_WIDTH_MAX - 1).collect();
    format!("{head}…")
}

/// From → to, with counts.
pub fn transitions(page: &mut Page, plan: &Plan) {
    if plan.transitions.is_empty() {
        return;
    }
    page.heading("FROM → TO", &hint(plan.transitions.iter().flat_map(|t| [&t.from, &t.to])));
    let lines: Vec<(String, String, String)> = plan
        .transitions
        .iter()
        .map(|t| {
            (
                t.column.clone(),
                format!("{} → {}", value(t.from.as_deref()), value(t.to.as_deref())),
                figure::rows(t.rows),
            )
        })
        .collect();
    let widths =
        |of: fn(&(String, String, String)) -> &String| lines.iter().map(|l| of(l).chars().count()).max().unwrap_or(0);
    let (columns, moves, counts) = (widths(|l| &l.0), widths(|l| &l.1), widths(|l| &l.2));
    for (column, change, rows) in &lines {
        page.line(&format!("{column:<columns$}  {change:<moves$}  {rows:>counts$}"));
    }
}

/// The groups of `--by`.
pub fn groups(page: &mut Page, plan: &Plan) {
    let Some((column, groups)) = &plan.groups else { return };
    let masked = groups.iter().any(|g| g.value.as_deref().is_some_and(is_masked));
    let remark = if masked { format!("; masked values: --plain {column}") } else { String::new() };
    page.heading(&format!("BY {column}"), &format!("will change, of matched{remark}"));
    let width = groups.iter().map(|g| value(g.value.as_deref()).chars().count()).max().unwrap_or(0);
    let digits = groups.iter().map(|g| figure::rows(g.matched_rows).len()).max().unwrap_or(0);
    for group in groups {
        let (name, changed, matched) =
            (value(group.value.as_deref()), figure::rows(group.changed_rows), figure::rows(group.matched_rows));
        page.line(&format!("{name:<width$}  {changed:>digits$} of {matched:>digits$}"));
    }
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_value_stays_on_its_line_and_cannot_steer_the_terminal() {
        assert_eq!(value(Some("a\nb\u{1b}[31m")), "a\\nb\\u{1b}[31m");
        assert_eq!(value(None), "NULL");
        assert_eq!(value(Some("")), "''");
        assert_eq!(value(Some(&"x".repeat(60))).chars().count(), 48);
    }
}
