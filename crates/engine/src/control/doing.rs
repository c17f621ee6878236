//! One sentence on what a run does or why it waits, and the lines to type next.

use pgmend_core::digits::thousands;
use pgmend_core::id::PlanId;
use pgmend_core::mask::TEXT_MASKED;
use pgmend_core::pace::RATE_MAX;
use pgmend_core::plan::Plan;
use pgmend_core::run::RunState;
use pgmend_pg::archive::{Blocker, Tenure};
use pgmend_pg::guardrails::Wish;
use pgmend_pg::health::StoredHold;
use pgmend_pg::store::{LastCheckpoint, StoredRun};

use super::blocker::who;
use super::silent;
use crate::run::BESIDE;

/// What an undo does where triggers and cascades wrote into other rows, too.
const PARTLY: &str = "  # put the table's rows back; what changed along with them stays";

/// All that is known of a run at one moment.
pub(super) struct Glance<'a> {
    /// What a person asked of it.
    pub wish: Option<&'a Wish>,
    /// What its driver waits for between two batches, and for how many seconds yet.
    pub waits: Option<(&'a str, f64)>,
    pub run: &'a StoredRun,
    pub at: &'a LastCheckpoint,
    pub plan: &'a Plan,
    /// Who drives it.
    pub tenure: Option<&'a Tenure>,
    /// Whether several processes drive it.
    pub several: bool,
    pub rows_per_s: Option<f64>,
    /// Who keeps its backend waiting.
    pub blockers: &'a [Blocker],
    /// Why it holds.
    pub holds: &'a [StoredHold],
    /// For how many seconds it has been vacuuming its target.
    pub vacuuming_s: Option<f64>,
}

impl Glance<'_> {
    /// What it does, or why it waits.
    pub fn doing(&self) -> String {
        match self.wish {
            Some(Wish { wish, reason, asked_by, .. }) => {
                format!("{}; {asked_by} asked for a {wish}: {reason}", self.doing_by_itself())
            }
            None => self.doing_by_itself(),
        }
    }

    fn doing_by_itself(&self) -> String {
        let at = self.at;
        let so_far = format!("{} changed in {} so far", counted(at.changed_rows, "row"), counted(at.batch_no, "batch"));
        match &self.run.state {
            RunState::Running => self.running(&so_far),
            RunState::Paused { .. } => {
                format!(
                    "is paused after batch {}; {so_far}; nobody drives it, it can be resumed",
                    thousands(at.batch_no)
                )
            }
            RunState::Failed { .. } => {
                format!(
                    "was stopped by an error after batch {}; {so_far}; what is committed stays, and it can be resumed once the cause is gone",
                    at.batch_no
                )
            }
            RunState::Cancelled => {
                format!("was given up after batch {}; {so_far}, they stay changed{}", at.batch_no, self.undone())
            }
            RunState::Succeeded => {
                let conflicts = match at.conflict_rows {
                    0 => String::new(),
                    1 => ", 1 conflict left as it is".to_owned(),
                    n => format!(", {n} conflicts left as they are"),
                };
                let dead = match at.dead_rows {
                    0 => String::new(),
                    n => format!(", {} set aside", counted(n, "row")),
                };
                let verb = self.plan.verb();
                format!(
                    "is done: {} {verb} in {}{conflicts}{dead}{}",
                    counted(at.changed_rows, "row"),
                    counted(at.batch_no, "batch"),
                    self.undone()
                )
            }
        }
    }

    fn running(&self, so_far: &str) -> String {
        let Some(tenure) = self.tenure else {
            return format!("was started, and nobody drives it; {so_far}; it can be resumed");
        };
        let holder = &tenure.holder;
        if tenure.left_s <= 0.0 {
            return format!(
                "{holder} is gone: its lease ran out {:.0} s ago; {so_far}; it can be resumed",
                -tenure.left_s
            );
        }
        if silent(tenure) {
            return format!(
                "{holder} has not been heard from for {:.0} s: its process is gone or cut off; its lease runs out in {:.0} s, then it can be resumed; {so_far}",
                tenure.silent_s, tenure.left_s
            );
        }
        if let Some(longest) = self.holds.first() {
            let mut reasons: Vec<&str> = self.holds.iter().map(|hold| hold.reason.as_str()).collect();
            // Two signals of one name, in seconds and in bytes, that cannot be read.
            reasons.dedup();
            let since = longest.since_s.unwrap_or(0.0);
            return format!(
                "has been holding for {since:.0} s: {}; it goes on by itself; {so_far}",
                reasons.join("; ")
            );
        }
        if let Some(since_s) = self.vacuuming_s {
            let table = &self.run.target;
            return format!("has been vacuuming {table} for {since_s:.0} s; it goes on by itself; {so_far}");
        }
        if let Some((what, left_s)) = self.waits {
            return format!("waits {:.0} s for {what}; {so_far}", left_s.ceil());
        }
        if let Some(blocker) = self.blockers.first() {
            return format!("waits for a lock that {} holds; {so_far}", who(blocker));
        }
        let pace = self.rows_per_s.map_or(String::new(), |rate| format!(", {} rows/s", thousands(rate.round() as i64)));
        let drive = if self.several { "drive" } else { "drives" };
        let share = match self.run.planned_rows {
            planned if planned > 0 => format!(" of {} planned", thousands(planned)),
            _ => String::new(),
        };
        format!(
            "{holder} {drive} it: {} rows{share} changed in {}{pace}",
            thousands(self.at.changed_rows),
            counted(self.at.batch_no, "batch")
        )
    }

    fn undone(&self) -> String {
        match self.run.undone_by {
            Some(undo) => format!("; undone by run {undo}"),
            None => String::new(),
        }
    }

    /// The lines to type. `latest` says that the job's name means this run.
    pub fn next(&self, latest: bool) -> Vec<String> {
        let id = self.run.run_id.to_string();
        let name = if latest { word(&self.run.job) } else { id.clone() };
        let partly = if self.plan.partly_undoable { PARTLY } else { "" };
        let undo = format!("pgmend undo {name}{} --execute{partly}", self.plan.identity_flag());
        let report = format!("pgmend report {name}");
        // Whoever drives it has to stop first.
        let driven = !self.run.state.ended() && self.tenure.is_some_and(|tenure| tenure.left_s > 0.0);
        let promised = self.plan.reversible.0 || self.plan.partly_undoable;
        let kept = promised && !self.run.pruned && self.run.undone_by.is_none();
        let undoable = kept && !driven && self.at.changed_rows > 0;
        match &self.run.state {
            _ if self.wish.is_some_and(|w| w.wish == "pause") => {
                let approve = self.wish.and_then(|w| w.unapproved).map(approve_again);
                let resume = format!("pgmend resume {id}");
                [approve, Some(resume), undoable.then_some(undo), Some(report)].into_iter().flatten().collect()
            }
            _ if self.wish.is_some() && !self.tenure.is_some_and(|t| t.left_s > 0.0) => {
                vec![format!("pgmend cancel {id} --reason …"), report]
            }
            RunState::Running if self.tenure.is_some_and(|t| t.left_s > 0.0 && !silent(t)) => {
                let blocker = self.blockers.first().and_then(ending);
                let looks = self.holds.iter().filter_map(|hold| hold.look.clone());
                let mut lines: Vec<String> = blocker.into_iter().chain(looks).collect();
                lines.dedup();
                lines.push(format!("pgmend pause {id} --reason …"));
                lines.push(self.next_of_pace(&id));
                lines
            }
            RunState::Running | RunState::Paused { .. } | RunState::Failed { .. } => {
                let resume = format!("pgmend run {id} --execute");
                let masked = self.run.state.reason().is_some_and(|why| why.contains(TEXT_MASKED));
                let shown = format!("pgmend run {id} --show-values --execute  # the same, showing the masked text");
                let lines = [Some(resume), masked.then_some(shown), undoable.then_some(undo), Some(report)];
                lines.into_iter().flatten().collect()
            }
            RunState::Succeeded | RunState::Cancelled => {
                let dead =
                    self.at.dead_rows > 0 && self.run.state == RunState::Succeeded && self.run.undone_by.is_none();
                let flag = self.plan.retry_flag();
                let retry =
                    dead.then(|| format!("pgmend dead-letters {name} --retry{flag} --execute  # once they are mended"));
                retry.into_iter().chain(undoable.then_some(undo)).chain([report]).collect()
            }
        }
    }

    /// What to type for another pace. Where it waits, time will tell; where it goes on, its pace is all that there is to
    /// change.
    fn next_of_pace(&self, id: &str) -> String {
        if self.waits.is_some_and(|(what, _)| what.starts_with(BESIDE)) {
            return format!(
                "pgmend tune {id} --nice 1 --reason …  # works half of the time beside the application, for an hour"
            );
        }
        match self.rows_per_s.filter(|_| self.holds.is_empty() && self.blockers.is_empty()) {
            Some(rows_per_s) => {
                format!("pgmend tune {id} --rate {} --reason …  # half as fast, for an hour", half(rows_per_s))
            }
            None => format!("pgmend status {id}"),
        }
    }
}

/// Half of a speed as a person would type it: two digits that count, and never 0, which is no limit.
fn half(rows_per_s: f64) -> u64 {
    let half = (rows_per_s / 2.0).clamp(1.0, f64::from(RATE_MAX));
    let unit = 10_f64.powf((half.log10().floor() - 1.0).max(0.0));
    ((half / unit).round() * unit) as u64
}

/// What ends a session that holds a lock, and no other: typed late or at another server, the same pid may be somebody else's.
fn ending(blocker: &Blocker) -> Option<String> {
    let (pid, started) = (blocker.pid, blocker.backend_start.as_ref()?);
    Some(format!(
        "psql -c \"select pg_terminate_backend(pid) from pg_stat_activity where pid = {pid} and backend_start = '{started}'\"  \
         # ends the session that holds the lock"
    ))
}

/// What an approver types before a run goes on whose approval was taken back.
fn approve_again(plan: PlanId) -> String {
    format!("pgmend approve {plan} --reason \"…\"  # typed by an approver, from their own login: one was taken back")
}

/// `1 batch`, `2,000 batches`.
fn counted(value: i64, noun: &str) -> String {
    let plural = if noun.ends_with("ch") { "es" } else { "s" };
    format!("{} {noun}{}", thousands(value), if value == 1 { "" } else { plural })
}

/// A word as a POSIX shell reads it back.
pub(crate) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::half;

    #[test]
    fn half_a_speed_has_two_digits_that_count_and_is_never_without_limit() {
        let halves = [18_894.0, 212_000.0, 999.0, 37.0, 3.0, 1.0, 0.2, 0.0].map(half);
        assert_eq!(halves, [9_400, 110_000, 500, 19, 2, 1, 1, 1]);
    }
}
