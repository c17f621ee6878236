//! What differs between a job and the plan that was made of it. The statement and its parameters are compared by the
//! signature; this is about everything else that a run would do otherwise.

use crate::job::Job;
use crate::plan::Plan;

/// Only planning uses these.
const OF_PLANNING: [&str; 1] = ["count_budget_ms"];

/// One sentence for each field in which the job is not what was planned, `limits.batch_rows was 50 and is 500`.
pub fn differences(job: &Job, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    let mut differs = |field: &str, planned: String, now: String| {
        if planned != now {
            all.push(format!("{field} was {planned} and is {now}"));
        }
    };
    let limits = |limits| serde_json::to_value(limits).ok().and_then(|value| value.as_object().cloned());
    let (then, now) = (limits(&plan.limits).unwrap_or_default(), limits(&job.file.limits).unwrap_or_default());
    for (name, planned) in then.iter().filter(|(name, _)| !OF_PLANNING.contains(&name.as_str())) {
        let text = |value: &serde_json::Value| if value.is_null() { "unset".to_owned() } else { value.to_string() };
        differs(&format!("limits.{name}"), text(planned), now.get(name).map_or("unset".to_owned(), text));
    }
    if let Some(mode) = job.file.mode {
        differs("mode", plan.mode.name().to_owned(), mode.name().to_owned());
    }
    if let Some(key) = &job.file.key {
        differs("key", plan.key.as_ref().map_or_else(String::new, |k| k.columns.join(", ")), key.join(", "));
    }
    differs("images.keep", plan.images.keep.to_string(), job.file.images.keep.to_string());
    let number = |rows: Option<i64>| rows.map_or_else(|| "unset".to_owned(), |n| n.to_string());
    differs("expect_rows", number(plan.expect_rows), number(job.file.expect_rows));
    // Their texts are long, and may hold values.
    if plan.expect != job.file.expect {
        all.push("expect has changed".to_owned());
    }
    if plan.canary != job.file.canary {
        all.push("canary has changed".to_owned());
    }
    all
}
