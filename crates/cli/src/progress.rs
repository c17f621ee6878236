//! Progress of a run on stderr: a bar for people, a line a second for a pipe, JSON for programs.

mod pace;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgmend::Event;
use pgmend_core::throttle::Reason;

use crate::log::Log;
use crate::render::figure;
use pace::Pace;

/// Lines of batches on a pipe are this far apart; logs of a long run stay readable.
const INTERVAL: Duration = Duration::from_secs(1);

/// Before the first batch there is nothing to fill a bar with.
const WAITING: &str = "{spinner} {wide_msg}";
/// The message is cut where the terminal ends: a wrapped line could not be drawn over.
const BAR: &str = "{spinner} {bar:28} {wide_msg}";

/// The spinner turns while a batch waits for a lock, so that a quiet run does not look dead.
const TICK: Duration = Duration::from_millis(200);

/// Where progress goes. Clones speak through the same place.
#[derive(Clone)]
pub struct Progress {
    state: Arc<Mutex<State>>,
    log: Log,
}

struct State {
    manner: Manner,
    pace: Pace,
    last_batch_at: Instant,
    printed_at: Option<Instant>,
    /// A batch that fell between two lines; printed at the end if no later one was.
    held_back: Option<Event>,
}

enum Manner {
    Bar(ProgressBar),
    Lines,
    Json,
    /// The structured log has stderr for itself.
    Silent,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

impl Progress {
    /// In the manner that fits stderr, `--output` and `--log-format`; events also go to the log.
    pub fn new(json: bool, log: Log) -> Self {
        let manner = match (json, std::io::stderr().is_terminal()) {
            _ if log.on_stderr() => Manner::Silent,
            (true, _) => Manner::Json,
            (false, true) => Manner::Bar(bar()),
            (false, false) => Manner::Lines,
        };
        let state =
            State { manner, pace: Pace::default(), last_batch_at: Instant::now(), printed_at: None, held_back: None };
        Self { state: Arc::new(Mutex::new(state)), log }
    }

    /// Hears an event.
    pub fn hear(&self, event: &Event) {
        self.log.hear(event);
        self.with(|state| state.hear(event, Instant::now()));
    }

    /// Says a sentence to the person, without spoiling the bar.
    pub fn say(&self, sentence: &str) {
        self.with(|state| match &state.manner {
            Manner::Bar(bar) if !bar.is_finished() => bar.suspend(|| write_line(sentence)),
            Manner::Bar(_) => write_line(sentence),
            Manner::Lines => write_line(&format!("event=said message={sentence:?}")),
            Manner::Json => write_line(&serde_json::json!({ "event": "said", "message": sentence }).to_string()),
            Manner::Silent => {}
        });
    }

    /// Keeps the bar off the screen while `act` talks with the person.
    pub fn aside<T>(&self, act: impl FnOnce() -> T) -> T {
        let bar = self.with(|state| match &state.manner {
            Manner::Bar(bar) => Some(bar.clone()),
            Manner::Lines | Manner::Json | Manner::Silent => None,
        });
        match bar {
            Some(bar) => bar.suspend(act),
            None => act(),
        }
    }

    /// The run has ended: the last batch is printed, the bar is gone.
    pub fn finish(&self) {
        self.with(|state| {
            if let Some(event) = state.held_back.take() {
                state.print(&event);
            }
            if let Manner::Bar(bar) = &state.manner {
                bar.finish_and_clear();
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A panic elsewhere does not make the numbers worse: go on with them.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn hear(&mut self, event: &Event, now: Instant) {
        if !matches!(event, Event::Batch { .. })
            && let Some(batch) = self.held_back.take()
        {
            self.print(&batch);
        }
        match event {
            Event::Batch { rows, .. } => {
                self.pace.record(*rows, (now - self.last_batch_at).as_secs_f64());
                self.last_batch_at = now;
                self.batch(event, now);
            }
            Event::Started { .. } | Event::Sweeping { .. } => {
                self.last_batch_at = now;
                if let Manner::Bar(bar) = &self.manner {
                    bar.enable_steady_tick(TICK);
                }
                self.print(event);
            }
            Event::Retrying { .. }
            | Event::WaitingForLease { .. }
            | Event::Pacing { .. }
            | Event::Waiting { .. }
            | Event::Holding { .. }
            | Event::Slowed { .. }
            | Event::Vacuuming { .. }
            | Event::Tenant { .. }
            | Event::Stopping => self.print(event),
            Event::Released { .. } | Event::Vacuumed { .. } => {
                // The time of a hold or a vacuum says nothing about how fast batches go.
                self.last_batch_at = now;
                self.print(event);
            }
            // People read the outcome on stdout.
            Event::Ended { .. } if matches!(self.manner, Manner::Json) => self.print(event),
            Event::Ended { .. } => {}
        }
    }

    fn batch(&mut self, event: &Event, now: Instant) {
        let due = self.printed_at.is_none_or(|printed_at| now - printed_at >= INTERVAL);
        if due || matches!(self.manner, Manner::Bar(_)) {
            self.printed_at = Some(now);
            self.held_back = None;
            self.print(event);
        } else {
            self.held_back = Some(event.clone());
        }
    }

    fn print(&self, event: &Event) {
        match &self.manner {
            Manner::Bar(bar) => self.draw(bar, event),
            Manner::Lines => write_line(&line(event, &self.pace)),
            // Every event serialises: its fields are numbers and strings.
            Manner::Json => write_line(&serde_json::to_string(event).unwrap_or_default()),
            Manner::Silent => {}
        }
    }

    fn draw(&self, bar: &ProgressBar, event: &Event) {
        match event {
            Event::Started { planned_rows, changed_rows, resumed, .. } => {
                bar.set_style(style(BAR));
                bar.set_length((*planned_rows).max(1).unsigned_abs());
                bar.set_position((*changed_rows).max(0).unsigned_abs());
                if *resumed {
                    bar.suspend(|| write_line(&sentence(event)));
                }
                bar.set_message("starting");
            }
            Event::Batch { changed_rows, planned_rows, .. } => {
                bar.set_length((*planned_rows).max(*changed_rows).max(1).unsigned_abs());
                bar.set_position((*changed_rows).max(0).unsigned_abs());
                bar.set_message(message(event, &self.pace));
            }
            // A first retry is everyday life beside an application: it is shown while it lasts.
            Event::Retrying { attempt, .. } if *attempt > 1 => bar.suspend(|| write_line(&sentence(event))),
            // It may last for hours: the line stays when the bar is gone.
            Event::Waiting { .. } | Event::Tenant { .. } => bar.suspend(|| write_line(&sentence(event))),
            Event::Vacuumed { outcome, .. } if outcome != "done" => bar.suspend(|| write_line(&sentence(event))),
            Event::Retrying { .. }
            | Event::WaitingForLease { .. }
            | Event::Pacing { .. }
            | Event::Vacuuming { .. }
            | Event::Holding { .. } => {
                bar.enable_steady_tick(TICK);
                bar.set_message(sentence(event));
            }
            Event::Slowed { .. } => {}
            Event::Sweeping { .. }
            | Event::Stopping
            | Event::Released { .. }
            | Event::Vacuumed { .. }
            | Event::Ended { .. } => {
                bar.set_message(sentence(event));
            }
        }
    }
}

fn bar() -> ProgressBar {
    ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr()).with_style(style(WAITING))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▌░")
}

/// `62 %  1,240,000 of 2,000,000 rows · 345 already right · 8,312 rows/s · ETA 3–5 min · batch 750`.
fn message(event: &Event, pace: &Pace) -> String {
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

fn sentence(event: &Event) -> String {
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
        Event::Slowed { pace } => format!("working {:.0} % of the time, beside the load", pace * 100.0),
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
fn line(event: &Event, pace: &Pace) -> String {
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

/// Progress that nobody can see must not stop a run: a closed stderr is not an error.
fn write_line(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(batch_no: i64) -> Event {
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

    fn quiet() -> State {
        let manner = Manner::Bar(ProgressBar::hidden());
        State { manner, pace: Pace::default(), last_batch_at: Instant::now(), printed_at: None, held_back: None }
    }

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

    #[test]
    fn batches_between_two_lines_are_held_back_and_the_last_is_kept() {
        let mut state = State { manner: Manner::Json, ..quiet() };
        let start = Instant::now();
        state.last_batch_at = start;
        state.hear(&batch(1), start);
        state.hear(&batch(2), start + Duration::from_millis(300));
        state.hear(&batch(3), start + Duration::from_millis(600));
        assert_eq!(state.held_back, Some(batch(3)));
        state.hear(&batch(4), start + Duration::from_millis(1_100));
        assert_eq!(state.held_back, None);
    }

    #[test]
    fn the_templates_are_valid() {
        for template in [WAITING, BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
