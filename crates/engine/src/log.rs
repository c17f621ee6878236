//! A run's events as lines of JSON, for a log collector. Every line says of itself which run, job and environment it
//! is about and how far that is; no line holds a row's value, as events hold none.

use std::time::{Duration, SystemTime};

use pgmend_core::moment;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::progress::Event;

/// How much a line matters to whoever is woken by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The run goes its way.
    Info,
    /// Something was in the way, and is dealt with.
    Warn,
    /// Somebody has to look.
    Error,
}

/// What every line says. `batch`, `cursor`, `rows` and `duration_ms` are those of the last batch that was committed.
#[derive(Debug, Clone, Default, Serialize)]
struct About {
    run_id: Option<String>,
    job: Option<String>,
    environment: Option<String>,
    batch: i64,
    cursor: Option<String>,
    rows: i64,
    changed_rows: i64,
    duration_ms: f64,
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    level: Level,
    event: &'a str,
    #[serde(flatten)]
    about: &'a About,
    #[serde(flatten)]
    detail: &'a Map<String, Value>,
}

/// Turns events into lines.
#[derive(Debug, Clone, Default)]
pub struct JsonLog {
    about: About,
}

impl JsonLog {
    /// A log of what is done in `environment`, if one was named.
    pub fn new(environment: Option<String>) -> Self {
        Self { about: About { environment, ..About::default() } }
    }

    /// The line of an event, without a line feed. `at` is the client's clock.
    pub fn line(&mut self, at: SystemTime, event: &Event) -> String {
        self.remember(event);
        let mut detail = match serde_json::to_value(event) {
            Ok(Value::Object(detail)) => detail,
            Ok(_) | Err(_) => Map::new(),
        };
        let name = detail.remove("event");
        let name = name.as_ref().and_then(Value::as_str).unwrap_or("unknown");
        self.written(at, event.level(), name, detail)
    }

    /// The line of a command that stopped before its run could end, such as one that was refused.
    pub fn failure(&self, at: SystemTime, code: &str, message: &str, help: Option<&str>) -> String {
        let detail = [("code", Some(code)), ("message", Some(message)), ("help", help)];
        let detail = detail.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        self.written(at, Level::Error, "stopped", detail)
    }

    fn remember(&mut self, event: &Event) {
        let about = &mut self.about;
        if let Event::Started { run_id, job, environment, changed_rows, .. } = event {
            about.run_id = Some(run_id.clone());
            about.job = Some(job.clone());
            about.environment = environment.clone().or_else(|| about.environment.take());
            about.changed_rows = *changed_rows;
        }
        if let Event::Batch { batch_no, rows, changed_rows, took_ms, cursor, .. } = event {
            (about.batch, about.rows, about.changed_rows) = (*batch_no, *rows, *changed_rows);
            about.duration_ms = *took_ms;
            about.cursor = Some(cursor.clone());
        }
    }

    fn written(&self, at: SystemTime, level: Level, event: &str, mut detail: Map<String, Value>) -> String {
        for said in ["run_id", "job", "environment", "batch_no", "cursor", "rows", "changed_rows", "took_ms"] {
            detail.remove(said);
        }
        let at = moment::utc(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO));
        let line = Line { at, level, event, about: &self.about, detail: &detail };
        serde_json::to_string(&line).expect("names are texts and values are texts, numbers and booleans")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Value {
        assert!(!line.contains('\n'), "{line}");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn every_line_says_which_run_it_is_about_and_how_far_that_is() {
        let mut log = JsonLog::new(None);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let started = Event::Started {
            run_id: "r".into(),
            job: "fix".into(),
            environment: Some("production".into()),
            planned_rows: 10,
            changed_rows: 4,
            resumed: true,
        };
        let line = read(&log.line(at, &started));
        assert_eq!(line["at"], "1970-01-01T00:00:01.000Z");
        assert_eq!(
            (&line["event"], &line["changed_rows"], &line["resumed"]),
            (&"started".into(), &4.into(), &true.into())
        );
        log.line(
            at,
            &Event::Batch {
                batch_no: 3,
                rows: 2,
                changed_rows: 6,
                skipped_rows: 0,
                conflict_rows: 0,
                dead_rows: 0,
                took_ms: 1.5,
                next_batch_rows: 2,
                planned_rows: 10,
                cursor: "id=7".into(),
            },
        );
        let retrying = Event::Retrying {
            attempt: 1,
            wait_s: 0.5,
            error: "a lock\nwas in the way".into(),
            sqlstate: "55P03".into(),
            blocked_by: None,
        };
        let line = read(&log.line(at, &retrying));
        for (name, value) in [("run_id", "r"), ("job", "fix"), ("environment", "production"), ("cursor", "id=7")] {
            assert_eq!(line[name], value);
        }
        assert_eq!((&line["batch"], &line["rows"], &line["changed_rows"]), (&3.into(), &2.into(), &6.into()));
        assert_eq!((&line["level"], &line["duration_ms"]), (&"warn".into(), &1.5.into()));
        let refused = read(&log.failure(at, "PM505", "another process drives this run", None));
        assert_eq!(
            (&refused["level"], &refused["run_id"], &refused["help"]),
            (&"error".into(), &"r".into(), &Value::Null)
        );
    }
}
