//! A plan as an on-call engineer reads it: what, where, how many rows, which rows, what it touches,
//! what it costs, whether it can be put back, and the line to type next.

mod effects;
mod expected;
mod rows;
mod signals;

pub use rows::value;

use pgmend::{ChangeKind, Finding, Plan, Severity};
use pgmend_core::mask::is_masked;
use pgmend_core::pace::Pace;
use pgmend_core::plan::Figure;

use super::figure;
use super::page::Page;
use super::paint::Paint;
use super::tenants;
use pgmend::Planned;

/// The whole plan. `next` holds the lines to type.
pub fn full(planned: &Planned, next: &[String], paint: Paint) -> String {
    let plan = &planned.plan;
    let mut page = Page::new(paint);
    header(&mut page, planned);
    statement(&mut page, plan);
    target(&mut page, plan);
    rows::counts(&mut page, plan);
    tenants::planned(&mut page, plan);
    nothing_banner(&mut page, plan);
    rows::samples(&mut page, plan);
    rows::watched(&mut page, plan);
    rows::transitions(&mut page, plan);
    rows::groups(&mut page, plan);
    effects::around(&mut page, plan);
    if !plan.changes_nothing() {
        effects::cost(&mut page, plan);
        effects::rehearsal(&mut page, plan);
        effects::undo(&mut page, plan);
        effects::explain(&mut page, plan);
        signals::table(&mut page, &planned.signals);
    }
    expected::expectations(&mut page, plan);
    guardrails(&mut page, planned);
    findings(&mut page, &plan.findings);
    validity(&mut page, planned);
    page.list("NEXT", next);
    page.text()
}

/// What the policy in force asks, with what there is.
fn guardrails(page: &mut Page, planned: &Planned) {
    if planned.guardrails.is_empty() {
        return;
    }
    page.heading("GUARDRAILS", "in force in this database");
    for guardrail in &planned.guardrails {
        let found = if guardrail.met { guardrail.found.clone() } else { page.paint.red(&guardrail.found) };
        let mark = if guardrail.met { "met" } else { "open" };
        page.pair(&guardrail.rule, &format!("{mark}: {} demanded, {found} found", guardrail.demanded));
    }
}

/// What someone must have seen before the run starts. `pace` is what was typed with it, which comes before the plan's.
pub fn short(planned: &Planned, pace: &Pace, paint: Paint) -> String {
    let plan = &planned.plan;
    let mut page = Page::new(paint);
    page.heading(&title(plan), &format!("{} · digest {}", plan.plan_id.short(), digest_short(&planned.digest)));
    page.pair("database", &database(plan));
    page.pair("target", &format!("{} {} ({})", plan.kind.name(), plan.target, plan.mode.name()));
    page.pair("will change", &will_change(plan));
    if let Some(tenants) = &plan.tenants {
        let count = figure::counted(tenants.tenants.len() as i64, "tenant");
        page.pair("tenants", &format!("{count} by {}, each with its own progress", tenants.mode.column));
    }
    page.pair("takes", &format!("{}, {}", effects::duration(plan, &pace.over(&plan.pace)), effects::batches(plan)));
    let undo = if plan.reversible.0 { "possible".to_owned() } else { page.paint.red(&plan.reversible.1) };
    page.pair("undo", &undo);
    if !plan.changes_nothing() {
        signals::over(&mut page, &planned.signals);
    }
    nothing_banner(&mut page, plan);
    let serious: Vec<Finding> = plan.findings.iter().filter(|f| f.severity > Severity::Note).cloned().collect();
    findings(&mut page, &serious);
    let mut text = page.text();
    text.push('\n');
    text
}

/// The rows of a small fix, to be looked at before the number is typed.
pub fn fix(plan: &Plan, paint: Paint) -> String {
    let mut page = Page::new(paint);
    page.heading(&format!("FIX {}", plan.target), &database(plan));
    page.line(&plan.canonical);
    page.pair("will change", &will_change(plan));
    nothing_banner(&mut page, plan);
    rows::samples(&mut page, plan);
    findings(&mut page, &plan.findings);
    let mut text = page.text();
    text.push('\n');
    text
}

/// Whether a finding forbids the run.
pub fn blocked(plan: &Plan) -> bool {
    plan.findings.iter().any(|finding| finding.severity == Severity::Blocker)
}

/// The findings as a section.
pub fn findings(page: &mut Page, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    page.heading("FINDINGS", "");
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for finding in sorted {
        let (word, painted) = match finding.severity {
            Severity::Blocker => ("blocker", page.paint.red("blocker")),
            Severity::Warning => ("warning", page.paint.yellow("warning")),
            Severity::Note => ("note", page.paint.dim("note")),
        };
        let gap = " ".repeat(9 - word.len());
        page.line(&format!("{painted}{gap}{}  {}", finding.message, page.paint.dim(&finding.check)));
        if !finding.help.is_empty() {
            page.line(&format!("         help: {}", finding.help));
        }
    }
}

fn header(page: &mut Page, planned: &Planned) {
    let plan = &planned.plan;
    let remark = format!("plan {} · digest {}", plan.plan_id.short(), digest_short(&planned.digest));
    page.heading(&title(plan), &remark);
    for (name, value) in &plan.about {
        page.pair(name, value);
    }
    page.pair("database", &database(plan));
    if let Some(run) = plan.undo_of {
        page.pair("undoes", &format!("run {run}"));
    }
}

/// `PLAN fix-roles`, `PLAN undo of fix-roles`.
fn title(plan: &Plan) -> String {
    let undo = if plan.kind == ChangeKind::Undo { "undo of " } else { "" };
    format!("PLAN {undo}{}", plan.job)
}

fn database(plan: &Plan) -> String {
    let identity = &plan.database;
    // Packagers add their own version in brackets, which says nothing about the server.
    let version = identity.server_version.split_whitespace().next().unwrap_or_default();
    format!("{} as {} (PostgreSQL {version})", identity.database, plan.settings.role)
}

fn statement(page: &mut Page, plan: &Plan) {
    let masked = (0..plan.params.len()).any(|place| is_masked(plan.shown_param(place)));
    let hint = if masked { "; masked parameters: --plain :NAME, or --show-values" } else { "" };
    page.heading("STATEMENT", &format!("as understood{hint}"));
    for line in plan.canonical.lines() {
        page.line(line);
    }
    for (place, param) in plan.params.iter().enumerate() {
        let value = rows::value(Some(plan.shown_param(place)));
        page.line(&format!("${} is :{} = {value} ({})", place + 1, param.name, param.type_sql));
    }
}

fn target(page: &mut Page, plan: &Plan) {
    page.heading("TARGET", "");
    page.pair("table", &plan.target.to_string());
    let key = plan.key.as_ref().map_or_else(
        || "none".to_owned(),
        |key| {
            let columns: Vec<String> = key.columns.iter().zip(&key.types).map(|(c, t)| format!("{c} {t}")).collect();
            format!("{} (index {})", columns.join(", "), key.index)
        },
    );
    page.pair("key", &key);
    page.pair("mode", &format!("{}: {}", plan.mode.name(), plan.mode_reason));
    if plan.one_transaction {
        page.pair("", "all rows in one transaction, because states in between would break a rule");
    }
    if !plan.dead_letters.is_default() && plan.may_set_rows_aside() {
        let allowed = plan.dead_letters.allowed(plan.counts.changed_rows.value);
        page.pair("dead letters", &format!("up to {} may be set aside", figure::counted(allowed, "row")));
    }
    if let Some(set) = &plan.change_set {
        let hash = set.content_hash.get(..12).unwrap_or(&set.content_hash);
        page.pair("change set", &format!("{}, {}, hash {hash}", set.relation, figure::counted(set.rows, "row")));
        if set.in_heap_order {
            page.pair("", "in the order of the table's pages, as the key's is not: each page is written by one batch");
        }
    }
    if !plan.surroundings.partitions.is_empty() {
        page.pair("partitions", &plan.surroundings.partitions.join(", "));
    }
}

fn will_change(plan: &Plan) -> String {
    let changed = plan.counts.changed_rows;
    let mut text = format!("{} ({})", figure::counted(changed.value, "row"), figure::certainty(changed.certainty));
    if let Some(expected) = plan.expect_rows {
        let verdict = if changed == Figure::exact(expected) { "as expected" } else { "EXPECTED" };
        text = match verdict {
            "as expected" => format!("{text}, as expected"),
            other => format!("{text}, {other} {}", figure::rows(expected)),
        };
    }
    if plan.counts.conflict_rows.value > 0 {
        text = format!("{text}, {}", figure::counted(plan.counts.conflict_rows.value, "conflict"));
    }
    text
}

fn nothing_banner(page: &mut Page, plan: &Plan) {
    if !plan.changes_nothing() {
        return;
    }
    let verb = match plan.kind {
        ChangeKind::Update => "CHANGE",
        ChangeKind::Delete => "BE DELETED",
        ChangeKind::Insert => "BE INSERTED",
        ChangeKind::Undo => "BE RESTORED",
    };
    page.banner(&format!("0 ROWS WOULD {verb}"));
    let why = match (plan.kind, plan.counts.matched_rows.value) {
        (ChangeKind::Undo, 0) => "the run changed no row that the condition asks for",
        (ChangeKind::Undo, _) => "every row was changed since, is gone, or is back already",
        (ChangeKind::Insert, _) => "the source gives no row, or every row is there already",
        (ChangeKind::Update | ChangeKind::Delete, 0) => {
            "the predicate selects no row: check its constants and the database above"
        }
        (ChangeKind::Update | ChangeKind::Delete, _) => {
            "every selected row already has the values that the statement writes"
        }
    };
    page.line(why);
}

fn validity(page: &mut Page, planned: &Planned) {
    let plan = &planned.plan;
    page.heading("VALID", "");
    page.pair("planned", &format!("{} by {}", figure::moment(&plan.planned_at), plan.planned_by));
    page.pair("may start until", &figure::moment(&plan.expires_at));
    page.pair("goes stale", "when the table's definition, the job or the database changes");
    if !planned.stored {
        page.pair("stored", "no, since there is no control schema or --print-only: it cannot be run by its id");
    }
}

fn digest_short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::example;

    #[test]
    fn a_full_plan_answers_every_question_of_a_reviewer() {
        let planned = example::planned();
        let next = [format!("pgmend run {} --execute", planned.plan.plan_id)];
        insta::assert_snapshot!(full(&planned, &next, Paint::PLAIN));
    }

    #[test]
    fn a_short_plan_says_what_is_about_to_happen() {
        insta::assert_snapshot!(short(&example::planned(), &Pace::default(), Paint::PLAIN));
    }

    #[test]
    fn a_rate_that_is_typed_tells_how_long_it_takes() {
        let slow = Pace { rate: Some(1_000), ..Pace::default() };
        let planned = example::planned();
        let text = short(&planned, &slow, Paint::PLAIN);
        let seconds = planned.plan.counts.changed_rows.value as f64 / 1_000.0;
        assert!(text.contains(&figure::duration_range(seconds, seconds)), "{text}");
    }

    #[test]
    fn a_plan_that_changes_nothing_says_so_loudly() {
        let mut planned = example::planned();
        planned.plan.counts.changed_rows = Figure::exact(0);
        planned.plan.counts.matched_rows = Figure::exact(0);
        insta::assert_snapshot!(short(&planned, &Pace::default(), Paint::PLAIN));
    }

    #[test]
    fn a_fix_shows_the_rows_and_the_expected_number() {
        let mut plan = example::planned().plan;
        plan.expect_rows = Some(3);
        insta::assert_snapshot!(fix(&plan, Paint::PLAIN));
    }

    #[test]
    fn colour_adds_no_words() {
        let coloured = full(&example::planned(), &[], Paint { on: true });
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').map_or("", |(_, after)| after);
        }
        plain.push_str(rest);
        assert_eq!(plain, full(&example::planned(), &[], Paint::PLAIN));
    }
}
