//! What a plan touches beside its rows, what it costs, and whether it can be put back.

use pgmend::{Certainty, Figure, Mode, Plan};
use pgmend_core::nights::{Ends, Nights};
use pgmend_core::pace::Pace;
use pgmend_core::plan::Rehearsal;

use crate::render::figure;
use crate::render::page::Page;

/// Triggers, rules, foreign keys, row-level security, replication.
pub fn around(page: &mut Page, plan: &Plan) {
    let around = &plan.surroundings;
    page.heading("AROUND", "");
    let or_none = |lines: &[String]| if lines.is_empty() { "none".to_owned() } else { lines.join("\n") };
    page.pair("triggers", &or_none(&around.triggers));
    page.pairs("rules", &around.rules);
    page.pair("foreign keys", &or_none(&around.foreign_keys));
    for (name, value) in [("row security", &around.row_security), ("replication", &around.replication)] {
        if !value.is_empty() {
            page.pair(name, value);
        }
    }
}

/// Batches, time, WAL, disk.
pub fn cost(page: &mut Page, plan: &Plan) {
    let estimates = &plan.estimates;
    page.heading("COST", "");
    page.pair("batches", &batches(plan));
    page.pair("duration", &format!("{}, {}", duration(plan, &plan.pace), estimates.duration_basis));
    page.pairs("in company", &company(plan).into_iter().collect::<Vec<_>>());
    if let Some(nights) = &plan.nights {
        page.pair("speed", &speed(nights));
        page.pairs("nights", &nights.hours.iter().map(ends).collect::<Vec<_>>());
    }
    if !plan.pace.is_empty() {
        page.pair("pace", &plan.pace.to_string());
    }
    page.pair("WAL", &size(estimates.wal_bytes));
    let bytes = size(estimates.image_bytes);
    let (name, bytes) = match (&plan.change_set, &plan.images.recipient) {
        (None, None) => ("images", bytes),
        (None, Some(_)) => ("images", format!("{bytes} encrypted")),
        (Some(_), None) => ("change set", bytes),
        (Some(_), Some(_)) => {
            ("change set", format!("{bytes} while both the plain and the encrypted one are there, at the end"))
        }
    };
    page.pair(name, &bytes);
    page.pairs("dead rows", &dead_rows(plan).into_iter().collect::<Vec<_>>());
    let limits = &plan.limits;
    let size = limits.batch_rows.map_or_else(
        || format!("sized to take {} ms at most", limits.target_batch_ms),
        |rows| format!("fixed at {}", figure::counted(rows.into(), "row")),
    );
    page.pair("each batch", &format!("{size}; waits {} ms at most for a lock", limits.lock_timeout_ms));
}

/// `5 sessions of others were at work while this was planned: up to 16 min beside them, in short batches`.
fn company(plan: &Plan) -> Option<String> {
    let (seen, slowest_s) = (plan.estimates.company?, plan.estimates.slowest_beside_s()?);
    let who = match seen.sessions {
        Some(sessions) => format!("{} of others were at work", figure::counted(sessions, "session")),
        None => "others may have been at work, whom this role cannot see,".to_owned(),
    };
    let planned_s = plan.lasts_s(&plan.pace).1;
    let longer = match seen.pace_max < 1.0 && plan.pace.nice.is_none() {
        true if slowest_s > planned_s => {
            format!("up to {} beside them, resting (--nice 1: half of the time)", figure::duration(slowest_s))
        }
        true => format!("up to {} beside them", figure::duration(planned_s)),
        false if seen.pace_max < 1.0 => "it rests as the pace says".to_owned(),
        false => "there is room for both".to_owned(),
    };
    Some(format!("{who} while this was planned: {longer}, in short batches"))
}

/// `~1.2 GiB in the table, until a vacuum takes them away`.
fn dead_rows(plan: &Plan) -> Option<String> {
    let bytes = plan.estimates.dead_bytes.filter(|bytes| bytes.value > 0)?;
    let scanned = plan.counts.scanned_rows.value;
    let Some(every) = plan.limits.vacuum_every.filter(|_| !plan.one_transaction) else {
        let halves = match plan.in_halves() {
            true => "; batches go in halves, so that it grows by about half of that",
            false => "",
        };
        return Some(format!("{} in the table, until a vacuum takes them away{halves}", size(bytes)));
    };
    // No share of the table is more than all that changes.
    let share = (every.of(scanned) as f64 / plan.counts.changed_rows.value.max(1) as f64).min(1.0);
    let between = Figure { value: (bytes.value as f64 * share) as i64, ..bytes };
    Some(format!("{} in the table, vacuumed after every {every} of its rows: {} at a time", size(bytes), size(between)))
}

/// `1,200,000–2,000,000 rows an hour, measured by rehearsal`.
fn speed(nights: &Nights) -> String {
    let (slow, fast) = nights.rows_per_hour;
    let range =
        if slow == fast { figure::rows(slow) } else { format!("{}–{}", figure::rows(slow), figure::rows(fast)) };
    format!("{range} rows an hour, {}", nights.basis)
}

/// `2–3 of the allowed windows; if it starts now it ends Tue 2026-11-24 02:10 – Wed 2026-11-25 01:30 (Europe/Berlin)`.
fn ends(ends: &Ends) -> String {
    let (slow, fast) = ends.windows;
    let windows = if slow == fast { slow.to_string() } else { format!("{fast}–{slow}") };
    let Some((late, early)) = &ends.at else {
        return format!("it does not end within the {windows} allowed windows of the next 400 days");
    };
    let at = if late == early { late.clone() } else { format!("{early} – {late}") };
    format!("{windows} of the allowed windows; if it starts now it ends {at} ({})", ends.zone)
}

/// `24 batches`.
pub fn batches(plan: &Plan) -> String {
    let batches = plan.estimates.batches;
    let about = if batches.certainty == Certainty::Exact { "" } else { "~" };
    format!("{about}{}", figure::counted(batches.value, "batch"))
}

/// `3–5 min`, at that pace.
pub fn duration(plan: &Plan, pace: &Pace) -> String {
    let (low, high) = plan.lasts_s(pace);
    figure::duration_range(low, high)
}

fn size(figure: pgmend::Figure) -> String {
    let about = if figure.certainty == Certainty::Exact { "" } else { "~" };
    format!("{about}{} ({})", figure::bytes(figure.value), figure::certainty(figure.certainty))
}

/// What a rehearsal saw.
pub fn rehearsal(page: &mut Page, plan: &Plan) {
    let Some(rehearsal) = &plan.rehearsal else { return };
    page.heading("REHEARSAL", "run for real, each batch more than once to time it, and rolled back");
    for batch in &rehearsal.batches {
        let took = figure::duration(batch.took_ms / 1_000.0);
        let wal = figure::bytes(batch.wal_bytes);
        page.pair(&batch.place, &format!("{} in {took}, {wal} of WAL", figure::counted(batch.rows, "row")));
    }
    touched(page, rehearsal);
    page.pairs("locks", &rehearsal.locks);
    if !rehearsal.sequences.is_empty() {
        page.pair("sequences", &format!("{} moved, which no rollback takes back", rehearsal.sequences.join(", ")));
    }
}

fn touched(page: &mut Page, rehearsal: &Rehearsal) {
    for table in &rehearsal.touched {
        let kinds =
            [("inserted", table.inserted_rows), ("updated", table.updated_rows), ("deleted", table.deleted_rows)];
        let written: Vec<String> = kinds
            .iter()
            .filter(|(_, rows)| *rows > 0)
            .map(|(verb, rows)| format!("{} {verb}", figure::rows(*rows)))
            .collect();
        if written.is_empty() {
            continue;
        }
        let line = format!("{}: {}", table.table, written.join(", "));
        if table.named {
            page.pair("wrote", &line);
        } else {
            page.pair("also wrote", &page.paint.yellow(&format!("{line}, which the statement does not name")));
        }
    }
}

/// Whether it can be put back, and why (not).
pub fn undo(page: &mut Page, plan: &Plan) {
    let (reversible, why) = &plan.reversible;
    page.heading("UNDO", "");
    let verdict = if *reversible { format!("{}: {why}", page.paint.green("possible")) } else { page.paint.red(why) };
    page.line(&verdict);
    if let Some(reason) = plan.images.reason.as_deref().filter(|_| !plan.images.keep) {
        page.pair("images off", reason);
    }
    let kept = plan.images.layout.is_some() || plan.mode == Mode::Freeze;
    if let Some(recipient) = plan.images.recipient.as_ref().filter(|_| kept) {
        page.pair("encrypted to", &format!("{recipient}: undo and trace need its identity; keys stay plain"));
    }
}

/// How a batch finds its rows, and whether that is by the key's index.
pub fn explain(page: &mut Page, plan: &Plan) {
    if plan.explain.is_empty() {
        return;
    }
    let warned = plan.findings.iter().any(|f| f.check == "no_index_scan");
    let index = plan.key.as_ref().map_or("", |key| key.index.as_str());
    let partitioned = !plan.surroundings.partitions.is_empty();
    let by_index = plan.explain.iter().any(|line| line.contains(index) || (partitioned && line.contains("Index")));
    let verdict = match (warned, by_index) {
        (true, _) => page.paint.yellow("it does not use the key's index: see FINDINGS"),
        (false, true) => format!("it finds its rows by the key's index {index}"),
        (false, false) => "the table is small enough to be read whole".to_owned(),
    };
    page.heading("EXPLAIN of one batch", &verdict);
    for line in &plan.explain {
        page.line(line);
    }
}

#[cfg(test)]
mod tests {
    use pgmend_core::plan::CompanySeen;

    use super::*;
    use crate::render::example;
    use crate::render::paint::Paint;

    /// The lines of the cost that tell of company.
    fn in_company(company: Option<CompanySeen>) -> Vec<String> {
        let mut plan = example::planned().plan;
        plan.estimates.company = company;
        let mut page = Page::new(Paint::PLAIN);
        cost(&mut page, &plan);
        page.text().lines().filter(|line| line.contains("company")).map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn a_plan_says_who_was_at_work_and_how_long_the_run_takes_beside_them() {
        let beside = |sessions, pace_max| in_company(Some(CompanySeen { sessions, pace_max }));
        assert_eq!(in_company(None), Vec::<String>::new(), "who is alone has no company");
        assert_eq!(
            beside(Some(5), 0.25),
            [
                "in company      5 sessions of others were at work while this was planned: up to 20 min beside them, resting (--nice 1: half of the time), in short batches"
            ],
            "300 s at a quarter of the pace"
        );
        assert_eq!(
            beside(Some(2), 1.0),
            [
                "in company      2 sessions of others were at work while this was planned: there is room for both, in short batches"
            ]
        );
        assert_eq!(
            beside(None, 0.5),
            [
                "in company      others may have been at work, whom this role cannot see, while this was planned: up to 10 min beside them, resting (--nice 1: half of the time), in short batches"
            ]
        );
    }

    #[test]
    fn nights_say_how_many_windows_and_when_it_ends() {
        let at = Some(("Wed 2026-11-25 01:30".to_owned(), "Tue 2026-11-24 02:10".to_owned()));
        let hours = Ends { windows: (3, 2), at, zone: "Europe/Berlin".into() };
        assert_eq!(
            ends(&hours),
            "2–3 of the allowed windows; if it starts now it ends Tue 2026-11-24 02:10 – Wed 2026-11-25 01:30 (Europe/Berlin)"
        );
        let never = Ends { windows: (286, 286), at: None, ..hours.clone() };
        assert_eq!(ends(&never), "it does not end within the 286 allowed windows of the next 400 days");
        let nights =
            Nights { rows_per_hour: (1_200_000, 1_800_000), basis: "measured by rehearsal".into(), hours: None };
        assert_eq!(speed(&nights), "1,200,000–1,800,000 rows an hour, measured by rehearsal");
    }
}
