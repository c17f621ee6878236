//! What an event of a run says: a sentence for people, and a line of keys and values for a pipe.

use pgmend::Event;
use pgmend_core::throttle::Reason;

use super::pace::Pace;
use crate::render::figure;

/// `62 %  1,240,000 of 2,000,000 rows · 345 already right · 8,312 rows/s · ETA 3–5 min · batch 750`.
pub(super) fn message(event: &Event, pace: &Pace) -> String {
    let Event::Batch { changed_rows, skipped_rows, conflict_rows, dead_rows, next_batch_rows, planned_rows, .. } =
        event
    else {
        return String::new();
    };
    let share = figure::percent(*changed_rows, *planned_rows);
    let mut parts =
        vec![format!("{share:>5}  {} of {} rows", figure::rows(*changed_rows), figure::rows(*planned_rows))];
    if *skipped_rows > 0 {
        parts.push(format!("{} already right", figure::rows(*skipped_rows)));
    }
    if *conflict_rows > 0 {
        parts.push(figure::counted(*conflict_rows, "conflict"));
    }
    if *dead_rows > 0 {
        parts.push(format!("{} set aside", figure::rows(*dead_rows)));
    }
    if let Some(rate) = pace.rows_per_s() {
        parts.push(format!("{} rows/s", figure::rows(rate.round() as i64)));
    }
    if let Some((low, high)) = pace.eta(planned_rows - changed_rows) {
        parts.push(format!("ETA {}", figure::duration_range(low, high)));
    }
    parts.push(format!("batch {}", figure::rows((*next_batch_rows).into())));
    parts.join(" · ")
}

/// What happens, in a sentence.
pub(super) fn sentence(event: &Event) -> String {
    match event {
        Event::Retrying { attempt, wait_s, error, sqlstate, blocked_by } => {
            let reason = match blocked_by {
                Some(who) => format!("{who} is in the way"),
                None => reason(sqlstate, error),
            };
            format!("{reason}; again in {wait_s:.1} s (retry {attempt})")
        }
        Event::WaitingForLease { holder, left_s } => {
            format!("driven by {holder}; waiting for its lease to run out, {} left", figure::duration(left_s.ceil()))
        }
        Event::Pacing { why, wait_s } => format!("waits {wait_s:.1} s for the pace: {why}"),
        Event::Waiting { what, wait_s } => format!("waits {} for {what}", figure::duration(*wait_s)),
        Event::Sweeping { pass } => format!("counting what is left, pass {pass}"),
        Event::Stopping => "finishing the batch, then stopping".to_owned(),
        Event::Tenant { tenant, state, why } => {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            let is = if state == "failed" { "" } else { "is " };
            format!("tenant {tenant} {is}{state}{why}; the others go on")
        }
        Event::Holding { held_s, reasons } => {
            format!("holding for {}: {}", figure::duration(held_s.round()), texts(reasons))
        }
        Event::Released { held_s } => format!("going on after a hold of {}", figure::duration(held_s.round())),
        Event::Vacuuming { table, .. } => format!("vacuuming {table}"),
        Event::Vacuumed { table, outcome, why, took_s } => {
            let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            let outcome = outcome.replace('_', " ");
            format!("vacuum of {table} {outcome} after {}{why}", figure::duration(*took_s))
        }
        Event::Slowed { pace } => format!("working {} % of the time, beside the load", (pace * 1_000.0).round() / 10.0),
        Event::Started { job, resumed: true, changed_rows, planned_rows, .. } => format!(
            "going on with {job} after its last committed batch: {} of {} rows are changed",
            figure::rows(*changed_rows),
            figure::rows(*planned_rows)
        ),
        Event::Started { job, .. } => format!("starting {job}"),
        Event::Batch { batch_no, .. } => format!("batch {batch_no}"),
        Event::Ended { state, .. } => state.clone(),
    }
}

fn texts(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| reason.text.as_str()).collect::<Vec<_>>().join("; ")
}

/// Why a batch is tried again, for a person: what the server calls it means little at night.
fn reason(sqlstate: &str, error: &str) -> String {
    let told = match sqlstate {
        "40001" => "the application changed a row of this batch meanwhile",
        "40P01" => "a deadlock with another session; the batch gave way",
        "55P03" => "another session holds a row of this batch; `pgmend status` names it",
        "57014" => "the batch took too long; smaller now",
        code if code.starts_with("08") || code.starts_with("57P") => return format!("connection lost ({error})"),
        _ => error,
    };
    told.to_owned()
}

/// `event=batch batch_no=12 …`: one line, `key=value`, text values quoted.
pub(super) fn line(event: &Event, pace: &Pace) -> String {
    match event {
        Event::Started { run_id, job, planned_rows, changed_rows, resumed, environment: _ } => format!(
            "event=started run_id={run_id} job={job:?} planned_rows={planned_rows} changed_rows={changed_rows} resumed={resumed}"
        ),
        Event::Batch {
            batch_no,
            changed_rows,
            skipped_rows,
            conflict_rows,
            dead_rows,
            took_ms,
            next_batch_rows,
            planned_rows,
            rows,
            cursor: _,
        } => {
            let mut line = format!(
                "event=batch batch_no={batch_no} rows={rows} changed_rows={changed_rows} planned_rows={planned_rows} \
                 skipped_rows={skipped_rows} conflict_rows={conflict_rows} dead_rows={dead_rows} took_ms={took_ms:.1} next_batch_rows={next_batch_rows}"
            );
            if let Some(rate) = pace.rows_per_s() {
                line.push_str(&format!(" rows_per_s={rate:.0}"));
            }
            if let Some((low, high)) = pace.eta(planned_rows - changed_rows) {
                line.push_str(&format!(" eta_s={low:.0}-{high:.0}"));
            }
            line
        }
        Event::Retrying { attempt, wait_s, error, sqlstate, blocked_by } => {
            let blocker = blocked_by.as_ref().map_or(String::new(), |who| format!(" blocked_by={who:?}"));
            format!("event=retrying attempt={attempt} wait_s={wait_s:.1} sqlstate={sqlstate} error={error:?}{blocker}")
        }
        Event::WaitingForLease { holder, left_s } => {
            format!("event=waiting_for_lease holder={holder:?} left_s={left_s:.0}")
        }
        Event::Pacing { why, wait_s } => format!("event=pacing wait_s={wait_s:.1} why={why:?}"),
        Event::Waiting { what, wait_s } => format!("event=waiting wait_s={wait_s:.0} what={what:?}"),
        Event::Sweeping { pass } => format!("event=sweeping pass={pass}"),
        Event::Stopping => "event=stopping".to_owned(),
        Event::Tenant { tenant, state, why } => format!("event=tenant tenant={tenant:?} state={state:?} why={why:?}"),
        Event::Holding { held_s, reasons } => {
            let signals: Vec<&str> = reasons.iter().map(|reason| reason.signal.as_str()).collect();
            format!("event=holding held_s={held_s:.0} signals={} why={:?}", signals.join(","), texts(reasons))
        }
        Event::Released { held_s } => format!("event=released held_s={held_s:.0}"),
        Event::Vacuuming { table, .. } => format!("event=vacuuming table={table:?}"),
        Event::Vacuumed { table, outcome, why, took_s } => {
            let why = why.as_ref().map_or(String::new(), |why| format!(" why={why:?}"));
            format!("event=vacuumed table={table:?} outcome={outcome} took_s={took_s:.1}{why}")
        }
        Event::Slowed { pace } => format!("event=slowed pace={pace:.2}"),
        Event::Ended { state, .. } => format!("event=ended state={state}"),
    }
}

/// A batch of half a thousand rows, for tests.
#[cfg(test)]
pub(super) fn batch(batch_no: i64) -> Event {
    Event::Batch {
        batch_no,
        rows: 500,
        changed_rows: 500 * batch_no,
        skipped_rows: 7,
        conflict_rows: 0,
        dead_rows: 0,
        took_ms: 61.25,
        next_batch_rows: 750,
        planned_rows: 300_000,
        cursor: "id=7".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_pipe_is_made_of_keys_and_values() {
        let mut pace = Pace::default();
        pace.record(500, 0.5);
        let expected = "event=batch batch_no=12 rows=500 changed_rows=6000 planned_rows=300000 skipped_rows=7 \
                        conflict_rows=0 dead_rows=0 took_ms=61.2 next_batch_rows=750 rows_per_s=1000 eta_s=294-294";
        assert_eq!(line(&batch(12), &pace), expected);
        let retry = Event::Retrying {
            attempt: 2,
            wait_s: 0.5,
            error: "deadlock \"x\"".into(),
            sqlstate: "40P01".into(),
            blocked_by: None,
        };
        assert_eq!(line(&retry, &pace), r#"event=retrying attempt=2 wait_s=0.5 sqlstate=40P01 error="deadlock \"x\"""#);
        assert_eq!(sentence(&retry), "a deadlock with another session; the batch gave way; again in 0.5 s (retry 2)");
    }

    #[test]
    fn the_bar_tells_rate_and_remaining_time() {
        let mut pace = Pace::default();
        for seconds in [0.5, 0.5, 0.8] {
            pace.record(500, seconds);
        }
        let text = message(&batch(12), &pace);
        assert_eq!(text, "  2 %  6,000 of 300,000 rows · 7 already right · 833 rows/s · ETA 4.9–7.8 min · batch 750");
    }
}
