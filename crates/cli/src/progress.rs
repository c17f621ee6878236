//! Progress of a run on stderr: a bar for people, a line a second for a pipe, JSON for programs.

mod pace;
mod words;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgmend::Event;

use crate::log::Log;
use pace::Pace;
use words::{line, message, sentence};

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

/// Progress that nobody can see must not stop a run: a closed stderr is not an error.
fn write_line(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::words::batch;
    use super::*;

    fn quiet() -> State {
        let manner = Manner::Bar(ProgressBar::hidden());
        State { manner, pace: Pace::default(), last_batch_at: Instant::now(), printed_at: None, held_back: None }
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
