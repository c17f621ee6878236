//! How a run ended, for now or for good, and what to type next.

use pgmend::{Initialised, Outcome, RunState};
use pgmend_core::exit;
use pgmend_core::mask::TEXT_MASKED;

use super::figure::{counted, duration, rows};
use super::next::aligned;
use super::page::Page;
use super::paint::Paint;
use crate::shell::quoted;

/// The exit code of an outcome.
pub fn exit_code(outcome: &Outcome) -> u8 {
    match &outcome.state {
        RunState::Succeeded if outcome.conflict_rows + outcome.dead_rows > 0 => exit::FINISHED_WITH_EXCEPTIONS,
        RunState::Succeeded if outcome.changed_rows == 0 && !outcome.resumed => exit::NOTHING_TO_CHANGE,
        RunState::Succeeded => exit::DONE,
        RunState::Failed { .. } => exit::RUN_FAILED,
        RunState::Running | RunState::Paused { .. } | RunState::Cancelled => exit::PAUSED,
    }
}

/// The outcome for people; `line` appends the database to a line to type.
pub fn text(outcome: &Outcome, line: &dyn Fn(&str) -> String, paint: Paint) -> String {
    let mut page = Page::new(paint);
    let done = format!(
        "{} {} in {}, {}",
        counted(outcome.changed_rows, "row"),
        outcome.verb,
        counted(outcome.batches, "batch"),
        duration(outcome.duration_s)
    );
    let undo = if is_undo(outcome) { "undo of " } else { "" };
    page.push(&format!("{} {undo}{}: {done}", headline(outcome, paint), outcome.job));
    page.pair("run", &outcome.run_id.to_string());
    if let Some(why) = outcome.state.reason() {
        page.pair("because", why);
    }
    if outcome.resumed {
        page.pair("resumed", "went on from the last committed batch; the counts cover all sessions");
    }
    if outcome.skipped_rows > 0 {
        page.pair("already right", &rows(outcome.skipped_rows));
    }
    if outcome.conflict_rows > 0 {
        page.pair("conflicts", &format!("{}, left as they are", rows(outcome.conflict_rows)));
    }
    if outcome.dead_rows > 0 {
        page.pair("set aside", &format!("{}, as they were", counted(outcome.dead_rows, "dead letter")));
    }
    if let Some(residual) = outcome.residual_rows {
        page.pair("still matching", &still_matching(residual, outcome.arrived_later_rows));
    }
    page.pairs("verified", &outcome.verification);
    page.list("NEXT", &next(outcome, line));
    page.text()
}

/// Whether rows were put back: by `undo`, or by whatever went on with it.
fn is_undo(outcome: &Outcome) -> bool {
    outcome.kind == "undo"
}

fn headline(outcome: &Outcome, paint: Paint) -> String {
    match &outcome.state {
        RunState::Succeeded if outcome.dead_rows > 0 => paint.yellow("DONE, WITH DEAD LETTERS"),
        RunState::Succeeded if outcome.conflict_rows > 0 => paint.yellow("DONE, WITH CONFLICTS"),
        RunState::Succeeded => paint.green("DONE"),
        RunState::Running => paint.yellow("STOPPED"),
        RunState::Paused { .. } => paint.yellow("PAUSED"),
        RunState::Failed { .. } => paint.red("FAILED"),
        RunState::Cancelled => paint.yellow("CANCELLED"),
    }
}

fn still_matching(residual: i64, later: Option<i64>) -> String {
    match later {
        Some(later) if later > 0 => format!("{}, of which {} came after the start", rows(residual), rows(later)),
        Some(_) | None => rows(residual),
    }
}

/// The lines to type.
fn next(outcome: &Outcome, line: &dyn Fn(&str) -> String) -> Vec<String> {
    let run = outcome.run_id.to_string();
    // A job's name means its latest forward run, which this is; an undo has only its id.
    let name = if is_undo(outcome) { run.clone() } else { quoted(&outcome.job) };
    let anything = outcome.changed_rows > 0 && (outcome.reversible || outcome.partly_undoable);
    let put_back = match is_undo(outcome) {
        true => "take this undo back",
        false if outcome.partly_undoable => "put the table's rows back; what changed along with them stays",
        false => "put every row back that nobody changed since",
    };
    let mut lines = Vec::new();
    match &outcome.state {
        RunState::Paused { .. } | RunState::Failed { .. } | RunState::Running => {
            // `run` is refused for as long as a person's pause stands.
            let go_on = match &outcome.asked {
                Some(asked) if asked.wish == "pause" => format!("pgmend resume {run}"),
                Some(_) | None => format!("pgmend run {run} --execute"),
            };
            if let Some(plan) = outcome.asked.as_ref().and_then(|asked| asked.unapproved) {
                lines.push((
                    format!("pgmend approve {plan} --reason \"…\""),
                    "typed by an approver, from their own login",
                ));
            }
            if outcome.state.reason().is_some_and(|why| why.contains(TEXT_MASKED)) {
                let shown = match go_on.strip_suffix(" --execute") {
                    Some(line) => format!("{line} --show-values --execute"),
                    None => format!("{go_on} --show-values"),
                };
                lines.extend([
                    (go_on, "go on from the last committed batch"),
                    (shown, "the same, showing the masked text"),
                ]);
            } else {
                lines.push((go_on, "go on from the last committed batch"));
            }
            lines.push((format!("pgmend status {run}"), "where it is"));
        }
        RunState::Succeeded | RunState::Cancelled => {
            if outcome.dead_rows > 0 && outcome.state == RunState::Succeeded {
                let retry = format!("pgmend dead-letters {name} --retry{} --execute", outcome.retry_flag);
                lines.push((retry, "once the rows are mended"));
            }
            lines
                .extend(anything.then(|| (format!("pgmend undo {name}{} --execute", outcome.identity_flag), put_back)));
            lines.push((format!("pgmend report {name}"), "the paper trail, as Markdown"));
        }
    }
    aligned(lines.into_iter().map(|(command, remark)| (line(&command), Some(remark))).collect())
}

/// What `init` did.
pub fn initialised(done: &Initialised, paint: Paint) -> String {
    let mut page = Page::new(paint);
    page.push(&match done.from_version {
        None => format!("installed the control schema pgmend, version {}", done.to_version),
        Some(from) if from == done.to_version => format!("the control schema pgmend is at version {from} already"),
        Some(from) => format!("upgraded the control schema pgmend from version {from} to {}", done.to_version),
    });
    if !done.roles.is_empty() {
        page.pair("roles", &done.roles.join(", "));
    }
    page.list("LEFT TO DO", &done.notes);
    page.text()
}

#[cfg(test)]
mod tests {
    use pgmend::Wish;

    use super::*;
    use crate::render::example;

    fn outcome(state: RunState) -> Outcome {
        Outcome {
            run_id: example::run_id(),
            plan_id: example::planned().plan.plan_id,
            job: "fix-roles".into(),
            kind: "update".into(),
            verb: "changed",
            identity_flag: "",
            retry_flag: "",
            state,
            changed_rows: 2_000_000,
            skipped_rows: 345,
            conflict_rows: 0,
            dead_rows: 0,
            batches: 412,
            residual_rows: Some(7),
            arrived_later_rows: Some(7),
            duration_s: 241.3,
            resumed: false,
            verification: vec!["2,000,000 images are as many as rows changed".into()],
            reversible: true,
            partly_undoable: false,
            asked: None,
        }
    }

    fn show(outcome: &Outcome) -> String {
        text(outcome, &|command: &str| command.to_owned(), Paint::PLAIN)
    }

    #[test]
    fn a_finished_run_offers_its_undo() {
        insta::assert_snapshot!(show(&outcome(RunState::Succeeded)));
    }

    #[test]
    fn a_paused_run_says_why_and_how_to_go_on() {
        let paused = Outcome { resumed: true, ..outcome(RunState::Paused { reason: "stopped by a signal".into() }) };
        insta::assert_snapshot!(show(&paused));
    }

    #[test]
    fn a_run_that_a_person_paused_is_gone_on_with_by_lifting_the_pause() {
        let asked = Wish {
            wish: "pause".into(),
            reason: "checkout is slow".into(),
            asked_by: "alice".into(),
            unapproved: None,
        };
        let state = RunState::Paused { reason: asked.reason.clone() };
        let text = show(&Outcome { asked: Some(asked), ..outcome(state) });
        let run = example::run_id();
        assert!(text.contains(&format!("pgmend resume {run}")), "{text}");
        assert!(!text.contains("pgmend run "), "it would be refused: {text}");
    }

    #[test]
    fn an_undo_with_conflicts_does_not_look_like_a_clean_one() {
        let undo = Outcome {
            kind: "undo".into(),
            verb: "restored",
            conflict_rows: 3,
            residual_rows: None,
            ..outcome(RunState::Succeeded)
        };
        insta::assert_snapshot!(show(&undo));
    }

    #[test]
    fn what_cannot_be_put_back_as_a_whole_is_not_offered_as_a_whole() {
        let text = show(&Outcome { reversible: false, ..outcome(RunState::Succeeded) });
        assert!(!text.contains("pgmend undo") && text.contains("pgmend report fix-roles"), "{text}");
        let text = show(&Outcome { reversible: false, partly_undoable: true, ..outcome(RunState::Succeeded) });
        let offered = "pgmend undo fix-roles --execute  # put the table's rows back; what changed along";
        assert!(text.contains(offered) && !text.contains("every row back"), "{text}");
    }

    #[test]
    fn an_undo_that_needs_an_identity_is_offered_with_it() {
        let text = show(&Outcome { identity_flag: " --identity FILE", ..outcome(RunState::Succeeded) });
        assert!(text.contains("pgmend undo fix-roles --identity FILE --execute"), "{text}");
    }

    #[test]
    fn exit_codes_tell_the_ends_apart() {
        let code = |state| exit_code(&outcome(state));
        assert_eq!(code(RunState::Succeeded), exit::DONE);
        assert_eq!(code(RunState::Paused { reason: String::new() }), exit::PAUSED);
        assert_eq!(code(RunState::Cancelled), exit::PAUSED);
        assert_eq!(code(RunState::Failed { failure: String::new() }), exit::RUN_FAILED);
        let conflicts = Outcome { conflict_rows: 1, changed_rows: 0, ..outcome(RunState::Succeeded) };
        assert_eq!(exit_code(&conflicts), exit::FINISHED_WITH_EXCEPTIONS);
        let dead = Outcome { dead_rows: 1, ..outcome(RunState::Succeeded) };
        assert_eq!(exit_code(&dead), exit::FINISHED_WITH_EXCEPTIONS);
        let nothing = Outcome { changed_rows: 0, ..outcome(RunState::Succeeded) };
        assert_eq!(exit_code(&nothing), exit::NOTHING_TO_CHANGE);
    }

    #[test]
    fn init_says_what_is_left_to_do() {
        let done = Initialised {
            from_version: None,
            to_version: 1,
            roles: vec!["pgmend_runner".into()],
            notes: vec!["an administrator types: create role pgmend_approver".into()],
        };
        insta::assert_snapshot!(initialised(&done, Paint::PLAIN), @r"
        installed the control schema pgmend, version 1
          roles           pgmend_runner

        LEFT TO DO
          an administrator types: create role pgmend_approver
        ");
    }
}
