//! What to type where a plan does not meet its environment's policy: per rule, in the order in which it is done.

use pgmend_core::id::PlanId;
use pgmend_pg::guardrails::Guardrail;

/// Whether a rule is met by what people say of a plan, not by the job.
pub(crate) fn is_by_people(guardrail: &Guardrail) -> bool {
    guardrail.rule == "approvals" || guardrail.rule == "veto"
}

/// What the approvers type, as many as are missing; or who took the plan's chance.
/// `environment` is the flag that names it, with its leading space.
pub(crate) fn approval(open: &[Guardrail], plan: PlanId, environment: &str) -> String {
    if let Some(veto) = open.iter().find(|guardrail| guardrail.rule == "veto") {
        return format!(
            "it counts until they take it back: pgmend approve {plan}{environment} --revoke --reason \"…\" (the plan was {})",
            veto.found
        );
    }
    let number = |text: &str| text.split(' ').next().and_then(|number| number.parse::<u32>().ok());
    let missing = open.iter().find(|guardrail| guardrail.rule == "approvals");
    let missing = missing.and_then(|guardrail| number(&guardrail.demanded)?.checked_sub(number(&guardrail.found)?));
    let who = match missing {
        Some(several @ 2..) => format!("{several} approvers type, each from a login of their own"),
        Some(0..=1) | None => "an approver types".to_owned(),
    };
    format!("{who}: pgmend approve {plan}{environment} --reason \"…\"")
}

/// What to change before planning again.
pub(crate) fn of_the_job(open: &[Guardrail]) -> String {
    let found = |rule: &str| open.iter().find(|guardrail| guardrail.rule == rule);
    let mut keys = Vec::new();
    keys.extend(found("goal").map(|_| "goal = \"…\"".to_owned()));
    keys.extend(found("owner").map(|_| "owner = \"…\"".to_owned()));
    keys.extend(found("ticket").map(|g| format!("ticket = \"…\" {}", g.demanded)));
    let most = |g: &Guardrail| g.demanded.split(' ').find_map(|word| word.parse::<u64>().ok());
    keys.extend(found("batch").and_then(most).map(|rows| format!("batch_rows = {rows} or less under [limits]")));
    keys.extend(found("undo").map(|_| "keep = true under [images], over a table with a usable key".to_owned()));
    let mut steps = Vec::new();
    if !keys.is_empty() {
        steps.push(format!("write into the job file: {}", keys.join(", ")));
    }
    steps.extend(found("commit").map(|_| "commit the job's folder in git".to_owned()));
    let elsewhere = found("requires").and_then(|g| g.demanded.strip_prefix("done in "));
    steps.extend(elsewhere.map(|first| format!("run the job there first: --env {first} --execute")));
    steps.push(if steps.is_empty() { "plan again" } else { "then plan again" }.to_owned());
    steps.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rule: &str, demanded: &str, found: &str) -> Guardrail {
        Guardrail { rule: rule.into(), demanded: demanded.into(), found: found.into(), met: false }
    }

    #[test]
    fn as_many_approvers_are_asked_as_are_missing() {
        let plan = PlanId::from_uuid("01a1fed6-0000-7000-8000-000000000000".parse().expect("a uuid"));
        let said = |demanded: &str, found: &str| approval(&[open("approvals", demanded, found)], plan, " --env bank");
        let line = format!("pgmend approve {plan} --env bank --reason \"…\"");
        assert_eq!(
            said("3 (1 for every run; 3 for table public.payment)", "1"),
            format!("2 approvers type, each from a login of their own: {line}")
        );
        assert_eq!(said("2 (2 for every run)", "1"), format!("an approver types: {line}"));
        let vetoed = approval(&[open("veto", "none", "vetoed by bob")], plan, "");
        assert!(vetoed.contains("--revoke") && vetoed.contains("vetoed by bob"), "{vetoed}");
    }

    #[test]
    fn every_rule_says_what_to_write_or_type() {
        let all = [
            open("ticket", "like ^OPS-[0-9]+$", "none"),
            open("batch", "at most 500 rows", "2000 rows"),
            open("commit", "clean", "none"),
            open("requires", "done in staging", "not done there"),
        ];
        assert_eq!(
            of_the_job(&all),
            "write into the job file: ticket = \"…\" like ^OPS-[0-9]+$, batch_rows = 500 or less under [limits]; \
             commit the job's folder in git; run the job there first: --env staging --execute; then plan again"
        );
        assert_eq!(of_the_job(&[open("recipient", "age1x", "none")]), "plan again");
    }
}
