//! The policy of an environment: what a run there needs before it may start, and when it may run. Written in
//! `pgmend.toml`, installed in the database by `pgmend init --env NAME`, and insisted on there by
//! `pgmend.start_run` and `pgmend.begin_batch` (`002_guardrails.sql`), whatever the binary thinks.

use serde::{Deserialize, Serialize};

use crate::recipient::Recipient;
use crate::refusal::{Code, Refusal};

/// What a run needs. Everything absent asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Approvals by distinct roles for every run; 0 to 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u32>,
    /// Hours for which an approval may start a run; 1 to 720, 24 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_hours: Option<u32>,
    /// More approvals for plans that meet a condition; the greatest number counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
    /// The environment in which the same change must have succeeded first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// The job must come from a git commit without changes beside it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub clean_commit: bool,
    /// The hours in which batches may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// POSIX regular expression that the ticket must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// The job must name an owner.
    #[serde(default, skip_serializing_if = "is_false")]
    pub owner: bool,
    /// The job must say its goal in a sentence.
    #[serde(default, skip_serializing_if = "is_false")]
    pub goal: bool,
    /// Rows that no batch may exceed; 1 to 50,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_rows_max: Option<u32>,
    /// The run must be reversible.
    #[serde(default, skip_serializing_if = "is_false")]
    pub undo: bool,
    /// Whom images must be encrypted to; a plan takes it from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
}

/// A condition on a plan, all parts of which must hold, and the approvals that it then needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct More {
    /// Approvals by distinct roles; 1 to 20.
    pub approvals: u32,
    /// Rows that would change, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_min: Option<u64>,
    /// Share of the table that would change, at least; 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_min: Option<f64>,
    /// The target is one of these, `schema.table`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<String>>,
    /// One of these is written, `schema.table.column`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// The kind of the change: `update`, `delete`, `insert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<String>>,
    /// Whether it cannot be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irreversible: Option<bool>,
}

/// Hours in which batches may begin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// Time zone, as PostgreSQL knows it, such as `Europe/Berlin`.
    pub zone: String,
    /// Windows; every hour when empty.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// Days, `2026-12-24`, or ranges of them, `2026-12-20..2027-01-02`, on which nothing runs.
    #[serde(default)]
    pub blackout: Vec<String>,
}

/// A window of local time. One that ends at or before its beginning lasts into the next day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it begins: `mon` … `sun`.
    #[serde(default = "every_day")]
    pub days: Vec<String>,
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`, up to `24:00`.
    pub to: String,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// More approvers than this is a mistake.
const APPROVALS_MAX: u32 = 20;

fn every_day() -> Vec<String> {
    DAYS.iter().map(|&day| day.to_owned()).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Policy {
    /// The policy, if it makes sense.
    pub fn checked(self) -> Result<Self, Refusal> {
        let all = self.approvals.iter().chain(self.more.iter().map(|m| &m.approvals));
        if let Some(many) = all.into_iter().find(|n| **n > APPROVALS_MAX) {
            return Err(bad(format!("{many} approvals are asked for"), format!("ask for 0 to {APPROVALS_MAX}")));
        }
        if let Some(rows) = self.batch_rows_max.filter(|rows| !(1..=50_000).contains(rows)) {
            return Err(bad(format!("batch_rows_max = {rows} is out of range"), "choose 1 to 50000"));
        }
        if let Some(hours) = self.approval_hours.filter(|hours| !(1..=720).contains(hours)) {
            return Err(bad(format!("approval_hours = {hours} is out of range"), "choose 1 to 720"));
        }
        if let Some(share) = self.more.iter().filter_map(|m| m.share_min).find(|s| !(0.0..=1.0).contains(s)) {
            return Err(bad(format!("share_min = {share} is no share"), "choose 0 to 1; 0.5 is half of the table"));
        }
        for kind in self.more.iter().filter_map(|m| m.kinds.as_ref()).flatten() {
            if !["update", "delete", "insert"].contains(&kind.as_str()) {
                return Err(bad(format!("`{kind}` is no kind of change"), "write update, delete or insert"));
            }
        }
        let names = self.more.iter().flat_map(|m| {
            let tables = m.tables.iter().flatten().map(|name| (name, 1));
            tables.chain(m.columns.iter().flatten().map(|name| (name, 2)))
        });
        for (name, dots) in names {
            if name.matches('.').count() < dots {
                let whole = if dots == 1 { "schema.table" } else { "schema.table.column" };
                return Err(bad(format!("`{name}` is not {whole}"), format!("write {whole}")));
            }
        }
        if let Some(recipient) = &self.recipient {
            // The database compares it with the plan's, letter by letter.
            if Recipient::parse(recipient)?.as_str() != recipient {
                return Err(bad("the recipient has spaces around it", "write it without"));
            }
        }
        if let Some(hours) = &self.hours {
            hours.check()?;
        }
        Ok(self)
    }
}

impl Hours {
    fn check(&self) -> Result<(), Refusal> {
        if self.zone.trim().is_empty() {
            return Err(bad("the hours have no zone", "write zone = \"Europe/Berlin\" or zone = \"UTC\""));
        }
        for window in &self.windows {
            if let Some(day) = window.days.iter().find(|day| !DAYS.contains(&day.as_str())) {
                return Err(bad(format!("`{day}` is no day"), format!("write one of {}", DAYS.join(", "))));
            }
            for time in [&window.from, &window.to] {
                if minutes(time).is_none() {
                    return Err(bad(format!("`{time}` is no time of day"), "write HH:MM, 00:00 to 24:00"));
                }
            }
        }
        for days in &self.blackout {
            let (first, last) = days.split_once("..").unwrap_or((days, days));
            if !is_date(first) || !is_date(last) || last < first {
                let help = "write a day, 2026-12-24, or a range, 2026-12-20..2027-01-02";
                return Err(bad(format!("`{days}` is no day and no range of days"), help));
            }
        }
        Ok(())
    }
}

fn minutes(time: &str) -> Option<u32> {
    let (hours, minutes) = time.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= 24 * 60).then_some(hours * 60 + minutes)
}

/// The form only; the server knows the calendar.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str, length: usize, most: u32| {
        part.len() == length && part.parse::<u32>().is_ok_and(|n| (1..=most).contains(&n))
    };
    matches!(parts.as_slice(), [y, m, d] if number(y, 4, 9999) && number(m, 2, 12) && number(d, 2, 31))
}

fn bad(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadJob, message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Policy, String> {
        toml::from_str::<Policy>(text).map_err(|e| e.to_string())?.checked().map_err(|r| r.message)
    }

    #[test]
    fn what_is_absent_asks_for_nothing_and_is_not_stored() {
        assert_eq!(serde_json::to_string(&policy("").unwrap()).unwrap(), "{}");
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        for (text, said) in [
            ("approvals = 21", "21 approvals are asked for"),
            ("batch_rows_max = 0", "batch_rows_max = 0 is out of range"),
            ("more = [{ approvals = 2, share_min = 50 }]", "share_min = 50 is no share"),
            ("more = [{ approvals = 2, tables = [\"payment\"] }]", "`payment` is not schema.table"),
            (
                "hours = { zone = \"UTC\", windows = [{ from = \"25:00\", to = \"03:00\" }] }",
                "`25:00` is no time of day",
            ),
            ("hours = { zone = \"UTC\", blackout = [\"24.12.2026\"] }", "`24.12.2026` is no day and no range of days"),
        ] {
            assert_eq!(policy(text).unwrap_err(), said);
        }
        assert!(policy("aprovals = 1").unwrap_err().contains("unknown field"));
    }

    #[test]
    fn a_window_may_last_into_the_next_day() {
        let text = "hours = { zone = \"UTC\", windows = [{ days = [\"fri\"], from = \"22:00\", to = \"05:00\" }] }";
        assert!(policy(text).is_ok());
    }
}
