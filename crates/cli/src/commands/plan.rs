//! `pgmend plan JOB`, also what `run` does without `--execute`.

use std::path::Path;

use pgmend::{Job, PlanOptions, Planned, RunState};
use pgmend_core::exit;
use serde::Serialize;

use crate::Done;
use crate::args::{JobFlags, JobSource, Plan, Planning};
use crate::environment;
use crate::failure::Failure;
use crate::job_file;
use crate::render::plan;
use crate::shell::{Shell, quoted};

/// Plans a job and shows the whole plan.
pub async fn main(shell: &Shell, args: &Plan) -> Done {
    if let Some(id) = stored_id(args.source.job.as_deref()) {
        refuse_changing(id, &args.flags, &args.planning)?;
        let mut engine = shell.engine().await?;
        let planned = engine.load_plan(id).await?;
        return show(shell, &planned, &next_of_stored(shell, &planned));
    }
    let job = job_file::load(&args.source, &args.flags)?;
    let options = PlanOptions { print_only: args.print_only, ..options(&args.planning) };
    let mut engine = shell.engine().await?;
    shell.show_errors(&mut engine, args.planning.show_values);
    let job = with_facts(shell, &args.source, job).await?;
    let planned = engine.plan(&job, &options).await.map_err(Failure::about(&job))?;
    let plain = args.flags == JobFlags::default();
    show(shell, &planned, &next(shell, &planned, &args.source, plain && !args.print_only))
}

/// Refuses flags beside a stored plan.
pub fn refuse_changing(id: &str, flags: &JobFlags, planning: &Planning) -> Result<(), Failure> {
    let unplanned = Planning { show_values: planning.show_values, ..Planning::default() };
    if *flags == JobFlags::default() && *planning == unplanned {
        return Ok(());
    }
    let letters = JobFlags { dead_letters: flags.dead_letters, ..JobFlags::default() };
    let help = match flags.dead_letters.is_some() && *flags == letters {
        true => "a run that has stopped may set more rows aside: pgmend resume RUN --dead-letters N",
        false => "run it as it was reviewed, or change the job and plan it again",
    };
    Err(Failure::usage(format!("`{id}` is a stored plan or run, which no flag can change"), help))
}

/// An id rather than a path: hexadecimal digits and hyphens, eight or more, and no file of that name.
pub fn stored_id(job: Option<&str>) -> Option<&str> {
    let job = job?;
    let like_an_id = job.len() >= 8 && job.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    (like_an_id && !Path::new(job).exists()).then_some(job)
}

/// The job with what is known of where it comes from: its git commit, and its run in the environment that the
/// policy requires first.
pub async fn with_facts(shell: &Shell, source: &JobSource, mut job: Job) -> Result<Job, Failure> {
    if let Some(commit) =
        source.job.as_deref().map(Path::new).filter(|path| path.exists()).and_then(environment::commit)
    {
        job.facts.insert("commit".to_owned(), commit);
    }
    let named = shell.environment()?;
    if let Some(required) = named.as_ref().and_then(|n| n.environment.policy.requires.as_deref())
        && let Some(run) = shell.elsewhere(required).await?.succeeded_run_of(&job).await?
    {
        job.facts.insert(format!("done in {required}"), run.to_string());
    }
    Ok(job)
}

/// The engine's options from the flags.
pub fn options(planning: &Planning) -> PlanOptions {
    PlanOptions {
        show_values: planning.show_values,
        by: planning.by.clone(),
        rehearse: planning.rehearse,
        print_only: false,
    }
}

/// A plan for programs: with the lines to type next, as people get them.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    planned: Planned,
    next: &'a [String],
}

/// Shows a whole plan; the exit code tells a script whether it is worth running.
pub fn show(shell: &Shell, planned: &Planned, next: &[String]) -> Done {
    let shown = Planned { plan: planned.plan.for_output(), ..planned.clone() };
    shell.show(&Shown { planned: shown, next }, |paint| plan::full(planned, next, paint))?;
    Ok(exit_code(planned))
}

/// Done, stopped by a blocker, or nothing to change.
pub fn exit_code(planned: &Planned) -> u8 {
    if plan::blocked(&planned.plan) {
        exit::STOPPED
    } else if planned.plan.changes_nothing() {
        exit::NOTHING_TO_CHANGE
    } else {
        exit::DONE
    }
}

/// The lines to type after the plan of a job. `plain` says that the job alone leads to this plan,
/// without flags. `run --execute` installs the control schema where the role may.
pub fn next(shell: &Shell, planned: &Planned, source: &JobSource, plain: bool) -> Vec<String> {
    if plan::blocked(&planned.plan) || planned.plan.changes_nothing() || planned.stored {
        return next_of_stored(shell, planned);
    }
    let typed = match (&source.job, &source.command) {
        (Some(job), _) => quoted(job),
        (None, command) => format!("-c {}", quoted(command.as_deref().unwrap_or_default())),
    };
    if plain {
        return vec![shell.line(&format!("pgmend run {typed} --execute"))];
    }
    vec![
        "this plan is not stored: type the same flags with `pgmend run … --execute`, or `pgmend init` and plan again"
            .to_owned(),
    ]
}

/// The lines to type after a plan that the control schema holds.
pub fn next_of_stored(shell: &Shell, planned: &Planned) -> Vec<String> {
    let plan = &planned.plan;
    if plan::blocked(plan) {
        return vec!["mend what the blockers name, then plan again".to_owned()];
    }
    if plan.changes_nothing() || !planned.stored {
        return Vec::new();
    }
    if let Some(lines) = over(shell, planned) {
        return lines;
    }
    if let Some(line) = before_it_can_start(planned) {
        return vec![line];
    }
    let run = shell.line(&format!("pgmend run {} --execute", plan.plan_id));
    if planned.guardrails.iter().any(|g| g.rule == "approvals" && !g.met) {
        let approve = shell.line(&format!("pgmend approve {} --reason \"…\"", plan.plan_id));
        return vec![format!("{approve}  # typed by an approver, from their own login"), run];
    }
    vec![run]
}

/// What to do with a plan that starts no run any more: it has been used, or has expired.
fn over(shell: &Shell, planned: &Planned) -> Option<Vec<String>> {
    let anew = "plan the job again to make the change again: a plan starts one run";
    let Some(run) = &planned.used_by else {
        return planned.expired.then(|| vec!["plan the job again: this plan has expired".to_owned()]);
    };
    let (id, state) = (run.run_id, run.state.name());
    Some(match run.state {
        RunState::Succeeded | RunState::Cancelled => {
            let report = shell.line(&format!("pgmend report {id}"));
            vec![format!("{report}  # the run of this plan, which has {state}"), anew.to_owned()]
        }
        RunState::Running | RunState::Paused { .. } | RunState::Failed { .. } => {
            let status = shell.line(&format!("pgmend status {id}"));
            vec![format!(
                "{status}  # the run of this plan, which has not ended ({state}): what it does, and what to type"
            )]
        }
    })
}

/// What must happen before this plan, or rather the next one, can start: what the policy asks of a job no approval
/// mends, nor does time.
fn before_it_can_start(planned: &Planned) -> Option<String> {
    let open =
        planned.guardrails.iter().filter(|g| !g.met && !["approvals", "veto", "hours"].contains(&g.rule.as_str()));
    let (elsewhere, own): (Vec<_>, Vec<_>) = open.partition(|g| g.rule == "requires");
    if !own.is_empty() {
        let rules: Vec<&str> = own.iter().map(|g| g.rule.as_str()).collect();
        return Some(format!("change the job ({}), then plan again: this plan cannot start", rules.join(", ")));
    }
    let first = elsewhere.first()?.demanded.strip_prefix("done in ")?;
    Some(format!("run the same job with --env {first}, then plan here again: this plan cannot start before"))
}

#[cfg(test)]
mod tests {
    use super::{before_it_can_start, stored_id};
    use crate::render::example;

    #[test]
    fn a_plan_that_no_approval_can_start_says_what_can() {
        let mut planned = example::planned();
        let mut open = |rules: &[(&str, &str)]| {
            let rule = |(rule, demanded): &(&str, &str)| serde_json::json!({ "rule": rule, "demanded": demanded, "found": "none", "met": false });
            let rules: serde_json::Value = rules.iter().map(rule).collect();
            planned.guardrails = serde_json::from_value(rules).unwrap();
            before_it_can_start(&planned)
        };
        assert_eq!(open(&[("approvals", "2"), ("hours", "an open window")]), None);
        let first = open(&[("approvals", "2"), ("requires", "done in staging")]).unwrap();
        assert!(first.starts_with("run the same job with --env staging, then plan here again"), "{first}");
        let own = open(&[("ticket", "like ^OPS"), ("requires", "done in staging"), ("goal", "a sentence")]).unwrap();
        assert!(own.starts_with("change the job (ticket, goal), then plan again"), "{own}");
    }

    #[test]
    fn an_id_or_a_prefix_of_one_is_told_from_a_path() {
        assert!(stored_id(Some("0199c2e1-6f3a-7c11-9d40-5be2a1c00f17")).is_some());
        assert!(stored_id(Some("0199c2e1")).is_some());
        for path in ["0199c2e", "fix.sql", "jobs/fix", "decade"] {
            assert!(stored_id(Some(path)).is_none(), "{path}");
        }
        assert!(stored_id(None).is_none());
    }
}
