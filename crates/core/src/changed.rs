//! What differs between a job and the plan that was made of it. The statement and its parameters are compared by the
//! signature; this is about everything else that a run would do otherwise. What is left at its default says nothing: a
//! run that was started with a flag goes on without it.

use crate::job::Job;
use crate::limits::Limits;
use crate::plan::Plan;

/// Only planning uses the first; a run that was stopped may go on with another number of workers, and with other vacuums.
const FREE: [&str; 3] = ["count_budget_ms", "workers", "vacuum_every"];

/// One sentence for each field in which the job says something else than was planned, `limits.batch_rows was 50 and is 500`.
pub fn differences(job: &Job, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    let mut differs = |field: &str, planned: String, now: String| {
        if planned != now {
            all.push(format!("{field} was {planned} and is {now}"));
        }
    };
    let limits = |limits| serde_json::to_value(limits).ok().and_then(|value| value.as_object().cloned());
    let (then, now) = (limits(&plan.limits).unwrap_or_default(), limits(&job.file.limits).unwrap_or_default());
    let usual = limits(&Limits::default()).unwrap_or_default();
    let said = |name: &String| !FREE.contains(&name.as_str()) && now.get(name) != usual.get(name);
    for (name, planned) in then.iter().filter(|(name, _)| said(name)) {
        let text = |value: &serde_json::Value| if value.is_null() { "unset".to_owned() } else { value.to_string() };
        differs(&format!("limits.{name}"), text(planned), now.get(name).map_or("unset".to_owned(), text));
    }
    if let Some(mode) = job.file.mode {
        differs("mode", plan.mode.name().to_owned(), mode.name().to_owned());
    }
    if let Some(key) = &job.file.key {
        differs("key", plan.key.as_ref().map_or_else(String::new, |k| k.columns.join(", ")), key.join(", "));
    }
    if !job.file.images.keep {
        differs("images.keep", plan.images.keep.to_string(), false.to_string());
    }
    if let Some(recipient) = &job.file.images.recipient {
        let planned = plan.images.recipient.as_ref().map_or("unset", |planned| planned.as_str());
        differs("images.recipient", planned.to_owned(), recipient.trim().to_owned());
    }
    if let Some(rows) = job.file.expect_rows {
        let planned = plan.expect_rows.map_or_else(|| "unset".to_owned(), |n| n.to_string());
        differs("expect_rows", planned, rows.to_string());
    }
    // Their texts are long, and may hold values.
    if !job.file.expect.is_empty() && plan.expect != job.file.expect {
        all.push("expect has changed".to_owned());
    }
    if job.file.tenants.is_some() && plan.tenants.as_ref().map(|t| &t.mode) != job.file.tenants.as_ref() {
        all.push("tenants has changed".to_owned());
    }
    if job.file.canary.is_some() && plan.canary != job.file.canary {
        all.push("canary has changed".to_owned());
    }
    all
}

/// Characters of a statement that are shown.
const STATEMENT_SHOWN: usize = 300;

/// One sentence for each thing that makes a job another change than was planned: its statement, and its parameters, whose
/// values may be personal and are not told.
pub fn rewordings(job: &Job, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    let (planned, now) = (plan.statement.trim(), job.statement.trim());
    if planned != now {
        all.push(format!("the statement was `{}` and is `{}`", shown(planned), shown(now)));
    }
    for then in &plan.params {
        match job.params.iter().find(|param| param.name == then.name) {
            Some(now) if now.type_sql != then.type_sql => {
                all.push(format!("parameter {} was of type {} and is {}", then.name, then.type_sql, now.type_sql));
            }
            Some(now) if now.value != then.value => all.push(format!("parameter {} has another value", then.name)),
            Some(_) => {}
            None => all.push(format!("parameter {} is gone", then.name)),
        }
    }
    let known = |name: &str| plan.params.iter().any(|param| param.name == name);
    all.extend(job.params.iter().filter(|p| !known(&p.name)).map(|p| format!("parameter {} is new", p.name)));
    all
}

fn shown(statement: &str) -> String {
    match statement.char_indices().nth(STATEMENT_SHOWN) {
        Some((end, _)) => format!("{}…", &statement[..end]),
        None => statement.to_owned(),
    }
}
