//! `pgmend approve PLAN` and `pgmend break-glass PLAN`: shows the plan, then says what this login says to it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use pgmend::{Code, Refusal};
use pgmend_core::exit;

use crate::Done;
use crate::args::{Approve, BreakGlass};
use crate::failure::Failure;
use crate::render;
use crate::shell::Shell;

/// Says yes or no to a plan, or takes it back.
pub async fn main(shell: &Shell, args: &Approve) -> Done {
    let mut engine = shell.engine().await?;
    let planned = engine.load_plan(&args.plan).await?;
    if args.revoke {
        let stopped = engine.revoke(&planned, &args.reason).await?;
        let said =
            if stopped { "taken back; the run that is under way stops before its next batch" } else { "taken back" };
        return told(shell, &planned.plan.plan_id.to_string(), said);
    }
    // What is approved is what was on the screen.
    shell.tell(|paint| render::plan::full(&planned, &[], paint))?;
    if args.veto {
        engine.veto(&planned, &args.reason).await?;
        return told(shell, &planned.plan.plan_id.to_string(), "vetoed");
    }
    engine.approve(&planned, &args.reason).await?;
    let open: Vec<_> = engine.guardrails(&planned).await?.into_iter().filter(|g| !g.met).collect();
    let missing = open.iter().map(|g| format!("{}: {} demanded, {} found", g.rule, g.demanded, g.found));
    let missing = missing.collect::<Vec<_>>().join("; ");
    let said = if missing.is_empty() {
        let environment = shell.environment()?.map_or_else(String::new, |n| format!(" --env {}", n.name));
        format!(
            "approved; {} types: pgmend run {}{environment} --execute",
            planned.plan.planned_by, planned.plan.plan_id
        )
    } else {
        format!("approved; still open: {missing}")
    };
    told(shell, &planned.plan.plan_id.to_string(), &said)
}

/// Lets another login run a plan without its approvals, once its people are told.
pub async fn break_glass(shell: &Shell, args: &BreakGlass) -> Done {
    let named = shell.environment()?;
    let notify = named.as_ref().map(|n| n.environment.notify.clone()).unwrap_or_default();
    let Some((program, arguments)) = notify.split_first() else {
        let message = "nobody would be told that the glass is broken: the environment has no `notify` command";
        return Err(
            Refusal::new(Code::BreakGlass, message, "add notify = [\"program\", …] to it in pgmend.toml").into()
        );
    };
    let mut engine = shell.engine().await?;
    let planned = engine.load_plan(&args.plan).await?;
    shell.tell(|paint| render::plan::full(&planned, &[], paint))?;
    engine.let_break_glass(&planned, &args.to, &args.reason, &args.ticket, args.minutes).await?;
    let news = serde_json::json!({
        "event": "break_glass", "environment": named.map(|n| n.name), "plan": planned.plan.plan_id, "job": planned.plan.job,
        "target": planned.plan.target.to_string(), "rows": planned.plan.counts.changed_rows.value,
        "to": args.to, "reason": args.reason, "ticket": args.ticket, "minutes": args.minutes,
    });
    notified(program, arguments, &news)?;
    let id = planned.plan.plan_id.to_string();
    told(shell, &id, &format!("{} may run it within {} minutes, once; a review stays open", args.to, args.minutes))
}

fn notified(program: &str, arguments: &[String], news: &serde_json::Value) -> Result<(), Failure> {
    let failed = |e: &std::io::Error| Failure::io(&format!("run the notify command `{program}`"), e);
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(format!("{news}\n").as_bytes()).map_err(|e| failed(&e))?;
    }
    let status = child.wait().map_err(|e| failed(&e))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Io { message: format!("the notify command `{program}` ended with {status}: tell people yourself") })
}

fn told(shell: &Shell, plan: &str, said: &str) -> Done {
    shell.show(&serde_json::json!({ "plan": plan, "said": said }), |_| format!("plan {plan}: {said}\n"))?;
    Ok(exit::DONE)
}
