//! The rows of a plan: how many, which ones, from what to what.

use pgmend::{ChangeKind, Figure, Plan};
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
        ChangeKind::Update => "will change",
        ChangeKind::Delete => "will be deleted",
        ChangeKind::Insert => "will be inserted",
        ChangeKind::Undo => "will be restored",
    };
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
    let masked = plan.samples.iter().flat_map(|s| &s.columns).any(|(_, before, after)| {
        [before, after].into_iter().flatten().any(|value| value == pgmend_core::mask::MASKED)
    });
    page.heading("SAMPLES", if masked { "masked values: name columns with --plain, or --show-values" } else { "" });
    let columns = plan.samples.iter().flat_map(|s| &s.columns);
    let name_width = columns.clone().map(|(name, _, _)| name.chars().count()).max().unwrap_or(0);
    let before_width = columns.map(|(_, before, _)| value(before.as_deref()).chars().count()).max().unwrap_or(0);
    for sample in &plan.samples {
        sample_rows(page, plan.kind, sample, name_width, before_width);
    }
}

fn sample_rows(page: &mut Page, kind: ChangeKind, sample: &Sample, name_width: usize, before_width: usize) {
    let key: Vec<String> = sample.key.iter().map(|(name, v)| format!("{name} = {}", value(v.as_deref()))).collect();
    let remark = if sample.already_right { page.paint.dim("  already right") } else { String::new() };
    let key = if key.is_empty() { "new row".to_owned() } else { key.join(", ") };
    page.line(&format!("{key}{remark}"));
    for (name, before, after) in &sample.columns {
        let (before, after) = (value(before.as_deref()), value(after.as_deref()));
        let gap = " ".repeat(before_width.saturating_sub(before.chars().count()));
        let line = match kind {
            ChangeKind::Insert => format!("  {name:<name_width$}  {}", page.paint.green(&after)),
            ChangeKind::Delete => format!("  {name:<name_width$}  {before}"),
            ChangeKind::Update | ChangeKind::Undo => {
                format!("  {name:<name_width$}  {before}{gap} → {}", page.paint.green(&after))
            }
        };
        page.line(&line);
    }
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
    page.heading("FROM → TO", "");
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
    page.heading(&format!("BY {column}"), "will change, of matched");
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
