//! `pgmend check JOB`: what can be said of a job without a database.

use pgmend::{Code, Refusal};
use pgmend_core::exit;
use pgmend_core::policy::Policy;

use crate::Done;
use crate::args::Check;
use crate::failure::Failure;
use crate::job_file;
use crate::shell::Shell;

/// Validates the job's file and statement, and what its environment's policy can ask of them here.
pub fn main(shell: &Shell, args: &Check) -> Done {
    let job = job_file::load(&args.source, &args.flags)?;
    let checked = pgmend::plan::check(&job).map_err(|refusal| Failure::about(&job)(refusal.into()))?;
    let named = shell.environment()?;
    let policy = named.as_ref().map(|n| n.environment.policy.clone()).unwrap_or_default();
    let open = missing(&job, &policy);
    if !open.is_empty() {
        let environment = named.map_or_else(String::new, |n| n.name);
        let message = format!("environment {environment} asks for what the job does not have: {}", open.join("; "));
        return Err(Refusal::new(Code::Guardrail, message, "change the job file as asked").into());
    }
    shell.show(&serde_json::json!({ "job": job.name, "kind": checked.kind, "target": checked.target }), |_| {
        format!("job {} is valid: {} {}\n", job.name, checked.kind, checked.target)
    })?;
    Ok(exit::DONE)
}

fn missing(job: &pgmend::Job, policy: &Policy) -> Vec<String> {
    let mut open = Vec::new();
    let given = |value: &Option<String>| value.as_deref().is_some_and(|v| !v.trim().is_empty());
    if policy.ticket.is_some() && !given(&job.file.ticket) {
        open.push("a ticket (`ticket`)".to_owned());
    }
    if policy.owner && !given(&job.file.owner) {
        open.push("an owner (`owner`)".to_owned());
    }
    if policy.goal && !given(&job.file.goal) {
        open.push("a goal in a sentence (`goal`)".to_owned());
    }
    if policy.undo && !job.file.images.keep {
        open.push("images, for undo (`images.keep`)".to_owned());
    }
    if let (Some(demanded), Some(own)) = (&policy.recipient, &job.file.images.recipient)
        && demanded != own.trim()
    {
        open.push(format!("images encrypted to {demanded} (leave `images.recipient` out)"));
    }
    if let Some(max) = policy.batch_rows_max
        && job.file.limits.batch_rows.unwrap_or(job.file.limits.rows_per_transaction_max) > max
    {
        open.push(format!("batches of at most {max} rows (`limits.rows_per_transaction_max`)"));
    }
    open
}
