//! A report as Markdown.

mod tenants;
mod trail;

use pgmend_core::digits::thousands;
use pgmend_core::plan::{Certainty, Figure};

use super::{Paced, Report};
use crate::control::TenantsStatus;

impl Report {
    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        let mut page = String::new();
        let tenants = self.tenants.as_ref().map_or_else(String::new, TenantsStatus::markdown);
        let before = [
            self.head(),
            self.statement_part(),
            self.numbers(),
            self.batches_part(),
            tenants,
            self.holds_part(),
            self.vacuums_part(),
        ];
        let after = [
            self.verification_part(),
            self.conflicts_part(),
            self.dead_letters_part(),
            self.findings_part(),
            self.events_part(),
            self.undo_part(),
        ];
        for part in before
            .into_iter()
            .chain(self.trail.markdown())
            .chain([self.watched_part()])
            .chain(after)
            .filter(|part| !part.is_empty())
        {
            page.push_str(&part);
            page.push('\n');
        }
        page.truncate(page.trim_end().len());
        page.push('\n');
        page
    }

    fn head(&self) -> String {
        let mut text = format!("# {} of `{}` by job `{}`: {}\n\n", self.kind, self.target, self.job, self.state);
        let mut line = |name: &str, value: &str| text.push_str(&format!("- **{name}:** {value}\n"));
        for (name, value) in &self.about {
            line(name, value);
        }
        if let Some(reason) = &self.reason {
            line("stopped because", reason);
        }
        line("run", &format!("`{}`", self.run_id));
        line("plan", &format!("`{}`, digest `{}`", self.plan_id, self.digest));
        line("database", &self.database);
        line("planned", &format!("{} by {}", to_the_second(&self.planned_by.1), self.planned_by.0));
        line(
            "started",
            &format!("{} by {} as {} ({})", self.started_by.1, self.started_by.0, self.effective_role, self.client),
        );
        if let Some(ended) = &self.ended_at {
            line("ended", ended);
        }
        if let Some(reason) = &self.again_reason {
            line("made again because", reason);
        }
        if let Some(run) = self.undo_of {
            line("undoes", &format!("run `{run}`"));
        }
        if let Some(run) = self.undone_by {
            line("undone by", &format!("run `{run}`"));
        }
        text
    }

    fn statement_part(&self) -> String {
        let mut text = format!("## Statement\n\nAs typed:\n\n```sql\n{}\n```\n", self.statement.trim());
        if self.canonical.trim() != self.statement.trim().trim_end_matches(';') {
            text.push_str(&format!("\nAs understood:\n\n```sql\n{}\n```\n", self.canonical.trim()));
        }
        if !self.params.is_empty() {
            text.push_str("\n| parameter | type | value |\n|---|---|---|\n");
            for (name, type_sql, value) in &self.params {
                text.push_str(&format!("| {name} | {type_sql} | {} |\n", cell(value)));
            }
        }
        text.push_str(&format!("\nMode {}: {}.\n", self.mode.0, self.mode.1));
        text
    }

    fn numbers(&self) -> String {
        let (counts, estimates) = (&self.counts, &self.estimates);
        let batches = self.pace.as_ref().map_or(0, |p| p.batches);
        let image_bytes: Vec<i64> = self.images.iter().filter_map(|(_, bytes)| *bytes).collect();
        let disk = if image_bytes.is_empty() { "none or gone".to_owned() } else { bytes(image_bytes.iter().sum()) };
        let (low, high) = estimates.duration_s;
        let mut rows = vec![
            ("rows changed", figure(counts.changed_rows), thousands(self.changed_rows)),
            (
                "rows already right",
                figure(counts.already_right_rows),
                format!("{} seen and left alone", thousands(self.skipped_rows)),
            ),
            ("conflicts", figure(counts.conflict_rows), thousands(self.conflict_rows)),
            ("batches", figure(estimates.batches), thousands(batches)),
            ("duration", format!("{}–{}", seconds(low), seconds(high)), seconds(self.duration_s)),
            ("disk for images", about_bytes(estimates.image_bytes), disk),
            ("WAL", about_bytes(estimates.wal_bytes), "not measured".to_owned()),
        ];
        if !self.dead_letters.is_empty() {
            rows.push(("rows set aside", "0".into(), thousands(self.dead_rows)));
        }
        if let Some(residual) = self.residual_rows {
            let later = self.arrived_later_rows.filter(|n| *n > 0);
            let later = later.map_or(String::new(), |n| format!(", of which {} came after the start", thousands(n)));
            rows.push(("rows that still match", "0".into(), format!("{}{later}", thousands(residual))));
        }
        let lines: Vec<String> =
            rows.iter().map(|(name, planned, actual)| format!("| {name} | {planned} | {actual} |\n")).collect();
        format!(
            "## Planned and actual\n\n| | planned | actual |\n|---|---:|---:|\n{}\nThe planned duration was found {}.\n",
            lines.concat(),
            estimates.duration_basis
        )
    }

    fn batches_part(&self) -> String {
        let Some(Paced { batches, took_ms: (p50, p90, max), rows_max, rows_per_s }) = &self.pace else {
            return String::new();
        };
        let mut text = format!(
            "## Batches\n\n{} batch{}, the largest of {} rows: half of them took {p50:.0} ms at most, nine of ten {p90:.0} ms, the longest {max:.0} ms.",
            thousands(*batches),
            if *batches == 1 { "" } else { "es" },
            thousands(*rows_max)
        );
        if let (true, (Some(first), Some(last))) = (*batches > 1, rows_per_s) {
            let (first, last) = (thousands(*first as i64), thousands(*last as i64));
            text.push_str(&format!(" First tenth: {first} rows/s; last tenth: {last} rows/s."));
        }
        text.push('\n');
        text
    }

    fn holds_part(&self) -> String {
        if self.holds.is_empty() {
            return String::new();
        }
        let mut text = "## Holds\n\n| signal | holds | time | last reason |\n|---|---:|---:|---|\n".to_owned();
        for hold in &self.holds {
            let (signal, reason) = (cell(&hold.signal), cell(&hold.reason));
            text.push_str(&format!("| {signal} | {} | {} | {reason} |\n", thousands(hold.holds), seconds(hold.held_s)));
        }
        text
    }

    fn vacuums_part(&self) -> String {
        let vacuums = &self.vacuums;
        let missed = vacuums.skipped + vacuums.gave_way;
        if vacuums.done + missed == 0 {
            return String::new();
        }
        let mut text = format!("## Vacuums\n\n{} of the target on the way, {}.", vacuums.done, seconds(vacuums.took_s));
        if let (Some(before), Some(after)) = (vacuums.pages_before, vacuums.pages_after) {
            let (before, after) = (thousands(before), thousands(after));
            text.push_str(&format!(" {before} pages before the first, {after} after the last."));
        }
        if missed > 0 {
            let why = vacuums.last_why.as_ref().map_or(String::new(), |why| format!(", the last one since {why}"));
            text.push_str(&format!(" {} not made{why}.", thousands(missed)));
        }
        text.push('\n');
        text
    }

    fn verification_part(&self) -> String {
        let mut text = "## Verification\n\n".to_owned();
        for sentence in &self.verification {
            text.push_str(&format!("- {sentence}\n"));
        }
        match (self.verification.is_empty(), self.state.as_str()) {
            (false, _) => {}
            (true, "succeeded") => {
                text.push_str("- each row was compared with what it must hold before it was written\n")
            }
            (true, _) => text.push_str("- none: the run has not come to its end\n"),
        }
        text.push_str(&format!("- ledger: {}\n", self.ledger));
        text
    }

    fn watched_part(&self) -> String {
        if self.watched.is_empty() {
            return String::new();
        }
        let mut text =
            "## Watched rows\n\n| row | key | column | before | now | |\n|---|---|---|---|---|---|\n".to_owned();
        for row in &self.watched {
            let (name, key, said) = (cell(&row.name), cell(&row.key), cell(&row.said));
            if row.columns.is_empty() {
                text.push_str(&format!("| {name} | {key} | | | | {said} |\n"));
            }
            let value = |value: &Option<String>| cell(value.as_deref().unwrap_or("NULL"));
            for (column, before, now) in &row.columns {
                text.push_str(&format!(
                    "| {name} | {key} | {column} | {} | {} | {said} |\n",
                    value(before),
                    value(now)
                ));
            }
        }
        text
    }

    fn conflicts_part(&self) -> String {
        if self.conflicts.is_empty() {
            return String::new();
        }
        let mut text = "## Conflicts\n\nRows that were not as expected; they were left as they are.\n\n| row | reason |\n|---|---|\n".to_owned();
        for conflict in &self.conflicts {
            text.push_str(&format!("| {} | {} |\n", cell(&conflict.key), cell(&conflict.reason)));
        }
        let more = self.conflict_rows - self.conflicts.len() as i64;
        if more > 0 {
            text.push_str(&format!(
                "\nand {} more: `select * from pgmend.conflicts_of('{}')`\n",
                thousands(more),
                self.run_id
            ));
        }
        text
    }

    fn dead_letters_part(&self) -> String {
        if self.dead_letters.is_empty() {
            return String::new();
        }
        let mut text = "## Dead letters\n\nRows that the change could not take; they were set aside as they are.\n\n\
                        | row | error | tried | now |\n|---|---|---:|---|\n"
            .to_owned();
        for letter in &self.dead_letters {
            let error = format!("{} ({})", letter.message, letter.sqlstate);
            let now = letter.state.replace('_', " ");
            text.push_str(&format!("| {} | {} | {} | {now} |\n", cell(&letter.key), cell(&error), letter.attempts));
        }
        text.push_str(&format!("\nAll of them: `pgmend dead-letters {}`\n", self.run_id));
        text
    }

    fn findings_part(&self) -> String {
        if self.findings.is_empty() {
            return String::new();
        }
        let lines: Vec<String> = self.findings.iter().map(|f| format!("- {}\n", f.message)).collect();
        format!("## Findings of the plan\n\n{}", lines.concat())
    }

    fn events_part(&self) -> String {
        let mut text = "## What happened\n\n| when | what | who | |\n|---|---|---|---|\n".to_owned();
        for event in &self.events {
            text.push_str(&format!("| {} | {} | {} | {} |\n", event.at, event.fact, event.actor, cell(&event.detail)));
        }
        text
    }

    fn undo_part(&self) -> String {
        let mut text = "## Undo\n\n".to_owned();
        match &self.undo_line {
            Some(line) => text.push_str(&format!("```\n{line}\n```\n\n{}.\n", self.undo.1)),
            None => text.push_str(&format!("Not possible: {}.\n", self.undo.1)),
        }
        for (table, bytes) in &self.images {
            match bytes {
                Some(_) => text.push_str(&format!("\nImages: `select * from {table}`\n")),
                None => text
                    .push_str(&format!("\nImages: {table} is pruned; `pgmend trace` still tells which rows it held\n")),
            }
        }
        text
    }
}

/// `2026-11-21T15:10:45Z`, without the fraction that planning keeps.
fn to_the_second(at: &str) -> String {
    at.split_once('.').map_or_else(|| at.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

/// A value that may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn figure(figure: Figure) -> String {
    let about = if figure.certainty == Certainty::Exact { "" } else { "~" };
    format!("{about}{}", thousands(figure.value))
}

fn about_bytes(figure: Figure) -> String {
    format!("~{}", bytes(figure.value))
}

fn bytes(value: i64) -> String {
    let (mut size, mut unit) = (value as f64, "bytes");
    for next in ["kB", "MB", "GB", "TB"] {
        if size.abs() < 1_024.0 {
            break;
        }
        (size, unit) = (size / 1_024.0, next);
    }
    if unit == "bytes" { format!("{size:.0} {unit}") } else { format!("{size:.1} {unit}") }
}

fn seconds(value: f64) -> String {
    match value {
        s if s < 1.0 => format!("{:.0} ms", s * 1_000.0),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}
