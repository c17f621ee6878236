//! What runs do now, and the list of all of them.

use comfy_table::{CellAlignment, Table, presets};
use pgmend::{Conflict, RunSummary, Severity, Status, Tuned, TunedLimit, Vacuums};
use pgmend_core::limits::CONFLICTS_LISTED_MAX;

use super::figure;
use super::next::remarked;
use super::page::Page;
use super::paint::Paint;
use super::plan::findings;
use super::tenants;

/// Width of the bar.
const BAR_WIDTH: i64 = 30;

/// One run after the other.
pub fn status(runs: &[Status], paint: Paint) -> String {
    let mut page = Page::new(paint);
    if runs.is_empty() {
        page.push("no run is under way");
    }
    for run in runs {
        one(&mut page, run);
    }
    page.text()
}

fn one(page: &mut Page, run: &Status) {
    let summary = &run.summary;
    let remark = format!("{} {}, run {}", summary.kind, summary.target, summary.run_id);
    let state = state(&summary.state, page.paint);
    page.heading(&format!("RUN {}", summary.job), &remark);
    page.pair("state", &state);
    page.pair("doing", &run.doing);
    if let Some(reason) = &run.reason {
        page.pair("reason", reason);
    }
    for hold in &run.holds {
        let since = figure::duration(hold.since_s.unwrap_or_default().round());
        page.pair("holds", &format!("for {since}: {}", hold.reason));
    }
    page.pair("rows", &progress(summary));
    let rate = run.rows_per_s.map(|rate| format!(", {} rows/s", figure::rows(rate.round() as i64)));
    page.pair("batches", &format!("{}{}", figure::rows(run.batches), rate.unwrap_or_default()));
    if let Some(pace) = &run.pace {
        page.pair("pace", pace);
    }
    if let Some(vacuums) = &run.vacuums {
        page.pair("vacuums", &made(vacuums));
    }
    page.pairs("tuned", &run.tuned.iter().map(tuned).collect::<Vec<_>>());
    page.pairs("limits", &run.limits.iter().map(limited).collect::<Vec<_>>());
    if run.conflict_rows > 0 {
        page.pair("conflicts", &figure::rows(run.conflict_rows));
    }
    if run.dead_rows > 0 {
        page.pair("set aside", &figure::rows(run.dead_rows));
    }
    if let Some(tenants) = &run.tenants {
        tenants::standing(page, tenants);
    }
    match (&run.holder, run.lease_left_s) {
        (Some(holder), Some(left)) if left <= 0.0 => {
            page.pair("driven by", &format!("{holder}; its lease ran out {} ago", figure::duration(-left)));
        }
        (Some(holder), Some(_) | None) => page.pair("driven by", holder),
        (None, Some(_) | None) if summary.ended_at.is_none() => page.pair("driven by", "nobody"),
        (None, Some(_) | None) => {}
    }
    page.pair("started", &format!("{} by {}", summary.started_at, summary.started_by));
    if let Some(ended) = &summary.ended_at {
        page.pair("ended", ended);
    }
    if let Some(undo) = summary.undone_by {
        page.pair("undone by", &format!("run {undo}"));
    }
    if summary.ended_at.is_none() {
        let serious: Vec<_> = run.findings.iter().filter(|f| f.severity > Severity::Note).cloned().collect();
        findings(page, &serious);
    }
    page.list("NEXT", &remarked(&run.next));
}

/// `replay_lag 20 (on at 10) until 2026-11-22 01:00:00+00, by alice: sale begins`.
pub fn limited(change: &TunedLimit) -> String {
    let until = change.expires_at.as_ref().map_or_else(|| "to the end".to_owned(), |at| format!("until {at}"));
    let limit = &change.limit;
    format!(
        "{} {} (on at {}) {until}, by {}: {}",
        limit.signal, limit.enter, limit.leave, change.tuned_by, change.reason
    )
}

/// `9 in 41 s, 1 not made: …`.
fn made(vacuums: &Vacuums) -> String {
    let missed = vacuums.skipped + vacuums.gave_way;
    let why = vacuums.last_why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    let missed = if missed > 0 { format!(", {missed} not made{why}") } else { String::new() };
    format!("{} in {}{missed}", vacuums.done, figure::duration(vacuums.took_s.round()))
}

/// `rate 200 until 2026-11-22 01:00:00+00, by alice: checkout is slow`.
pub fn tuned(change: &Tuned) -> String {
    let until = change.expires_at.as_ref().map_or_else(|| "to the end".to_owned(), |at| format!("until {at}"));
    format!("{} {} {until}, by {}: {}", change.setting.name(), change.value, change.tuned_by, change.reason)
}

fn state(state: &str, paint: Paint) -> String {
    match state {
        "succeeded" => paint.green(state),
        "failed" => paint.red(state),
        "paused" | "cancelled" => paint.yellow(state),
        _ => state.to_owned(),
    }
}

fn progress(summary: &RunSummary) -> String {
    let (done, all) = (summary.changed_rows, summary.planned_rows);
    if all <= 0 {
        return format!("{} changed", figure::rows(done));
    }
    let filled = (i128::from(done.clamp(0, all)) * i128::from(BAR_WIDTH) / i128::from(all)) as usize;
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(BAR_WIDTH as usize - filled));
    let share = if summary.ended_at.is_some() { String::new() } else { format!("  {}", figure::percent(done, all)) };
    format!("{bar}{share}  {} of {} planned", figure::rows(done), figure::rows(all))
}

/// All runs as a table.
pub fn list(runs: &[RunSummary]) -> String {
    if runs.is_empty() {
        return "no run yet\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["job", "kind", "target", "state", "changed", "planned", "started", "by", "run"]);
    for run in runs {
        let state = if run.undone_by.is_some() { format!("{}, undone", run.state) } else { run.state.clone() };
        let (changed, planned) = (figure::rows(run.changed_rows), figure::rows(run.planned_rows));
        let (job, kind, target) = (run.job.clone(), run.kind.clone(), run.target.clone());
        let (started, by) = (run.started_at.clone(), run.started_by.clone());
        table.add_row([job, kind, target, state, changed, planned, started, by, run.run_id.to_string()]);
    }
    for column in [4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.to_string().lines().map(|line| line.trim().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}

/// The conflicts of a run, the first ones of many.
pub fn conflicts(all: &[Conflict], paint: Paint) -> String {
    let mut page = Page::new(paint);
    if all.is_empty() {
        return page.text();
    }
    page.push("");
    page.push(&paint.bold("CONFLICTS"));
    let listed = all.iter().take(CONFLICTS_LISTED_MAX as usize);
    let width = listed.clone().map(|conflict| conflict.key.chars().count()).max().unwrap_or(0);
    for conflict in listed {
        page.line(&format!("{:<width$}  {}", conflict.key, conflict.reason));
    }
    let more = all.len() as i64 - CONFLICTS_LISTED_MAX;
    if more > 0 {
        page.line(&format!("and {} more, all in pgmend.conflicts_of(run)", figure::rows(more)));
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use pgmend::StoredHold;

    use super::*;
    use crate::render::example::{run_id, summary};

    fn paused() -> Status {
        Status {
            summary: summary("paused"),
            doing: "waits for someone to go on with it".into(),
            next: vec!["pgmend run fix-roles --execute".into()],
            holder: None,
            lease_left_s: None,
            batches: 254,
            conflict_rows: 2,
            dead_rows: 0,
            rows_per_s: None,
            vacuums: None,
            holds: Vec::new(),
            pace: None,
            tuned: Vec::new(),
            limits: Vec::new(),
            reason: Some("no space left on device (53100)".into()),
            tenants: None,
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_paused_run_says_why_and_what_to_type() {
        insta::assert_snapshot!(status(&[paused()], Paint::PLAIN));
    }

    #[test]
    fn a_dead_holder_is_named_with_the_age_of_its_lease() {
        let run = Status {
            summary: summary("running"),
            holder: Some("pid 4711 on host db1".into()),
            lease_left_s: Some(-12.4),
            rows_per_s: Some(8_312.6),
            pace: Some("at most 9000 rows/s".into()),
            tuned: vec![Tuned {
                setting: pgmend::Setting::Nice,
                value: 0.5,
                reason: "checkout is slow".into(),
                tuned_by: "alice".into(),
                expires_at: Some("2026-11-22 01:00:00+00".into()),
            }],
            reason: None,
            ..paused()
        };
        insta::assert_snapshot!(status(&[run], Paint::PLAIN));
    }

    #[test]
    fn a_run_that_holds_shows_every_reason() {
        let hold = |signal: &str, since_s: f64, reason: &str| StoredHold {
            partition_no: 0,
            signal: signal.into(),
            active: true,
            since_s: Some(since_s),
            value: Some(14.0),
            enter: 10.0,
            leave: 5.0,
            reason: reason.into(),
            look: None,
            held_s: 0.0,
            holds: 1,
        };
        let run = Status {
            summary: summary("running"),
            holder: Some("process 4711 of alice@db1".into()),
            lease_left_s: Some(28.0),
            holds: vec![
                hold("replay_lag", 72.0, "replay lag 14 s ≥ 10 s on standby1"),
                hold("archive_failing", 3.0, "the archiver fails on 00000001000000000000002A"),
            ],
            reason: None,
            ..paused()
        };
        insta::assert_snapshot!(status(&[run], Paint::PLAIN));
    }

    #[test]
    fn the_list_has_a_line_for_each_run() {
        let undone = RunSummary { undone_by: Some(run_id()), ..summary("succeeded") };
        insta::assert_snapshot!(list(&[summary("running"), undone]));
    }

    #[test]
    fn only_the_first_conflicts_of_many_are_listed() {
        let conflict = |n: i64| Conflict { key: format!("id={n}"), reason: "changed since".into() };
        let text = conflicts(&(0..25).map(conflict).collect::<Vec<_>>(), Paint::PLAIN);
        assert!(text.contains("id=19") && !text.contains("id=20"));
        assert!(text.contains("and 5 more"));
    }
}
