//! The structured log, as a log collector reads it.

use std::process::{Command, Output};

use pgmend_testkit::{Database, Server};
use serde_json::Value;

/// A table whose key is personal data.
struct Stage {
    db: Database,
    folder: tempfile::TempDir,
}

const CHANGE: &str = "update person set role = 'member' where role = 'memeber'";

impl Stage {
    fn new() -> Self {
        let db = Database::create(Server::shared(), "logs").expect("a database");
        db.sql()
            .expect("a session")
            .run(
                "create table person (email text primary key, role text not null);
                 insert into person select 'user' || i || '@example.org', 'memeber' from generate_series(1, 100) i",
            )
            .expect("a table");
        Self { db, folder: tempfile::tempdir().expect("a folder") }
    }

    fn pgmend(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pgmend"))
            .args(words)
            .current_dir(self.folder.path())
            .env("DATABASE_URL", self.db.url())
            .output()
            .expect("pgmend runs")
    }

    fn run(&self, more: &[&str]) -> Output {
        let words = ["run", "-c", CHANGE, "--name", "fix-roles", "--batch-rows", "10", "--execute"];
        self.pgmend(&words.iter().chain(more).copied().collect::<Vec<_>>())
    }
}

fn read(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic_at(line, &e))).collect()
}

#[expect(clippy::panic, reason = "a line that is no JSON fails the test")]
fn panic_at(line: &str, error: &serde_json::Error) -> Value {
    panic!("{error}: {line}")
}

#[test]
fn a_log_file_tells_a_run_of_two_sessions_line_by_line() {
    let stage = Stage::new();
    assert_eq!(stage.run(&["--log-file", "run.jsonl", "--stop-after-batches", "3"]).status.code(), Some(6));
    assert_eq!(stage.run(&["--log-file", "run.jsonl"]).status.code(), Some(0));
    let text = std::fs::read_to_string(stage.folder.path().join("run.jsonl")).expect("a log");
    assert!(!text.contains("@example.org"), "{text}");
    let lines = read(&text);
    let run = stage.db.sql().expect("a session").value("select run_id from pgmend.run").expect("a run");
    for line in &lines {
        for name in ["at", "level", "event", "run_id", "job", "batch", "cursor", "rows", "changed_rows", "duration_ms"]
        {
            assert!(line.get(name).is_some(), "{name} is missing: {line}");
        }
        assert_eq!((line["run_id"].as_str(), &line["job"]), (run.as_deref(), &"fix-roles".into()));
    }
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events.iter().filter(|event| **event == "batch").count(), 10);
    assert_eq!(events.iter().filter(|event| **event == "started").count(), 2);
    let ended: Vec<&Value> = lines.iter().filter(|line| line["event"] == "ended").collect();
    assert_eq!((ended.len(), &ended[0]["state"], &ended[1]["state"]), (2, &"paused".into(), &"succeeded".into()));
    assert_eq!(ended[0]["reason"], "stopped after 3 batches, as asked");
    let batch = lines.iter().find(|line| line["event"] == "batch").expect("a batch");
    let cursor = batch["cursor"].as_str().unwrap_or_default();
    assert!(cursor.starts_with("email=‹") && cursor.ends_with('›'), "{cursor}");
    assert_eq!((&batch["rows"], &batch["changed_rows"]), (&10.into(), &10.into()));
}

#[test]
fn stderr_holds_json_only_also_when_the_command_is_refused() {
    let stage = Stage::new();
    let done = stage.run(&["--log-format", "json"]);
    assert_eq!(done.status.code(), Some(0));
    let lines = read(&String::from_utf8_lossy(&done.stderr));
    assert_eq!(lines.last().map(|line| &line["state"]), Some(&"succeeded".into()));
    let again = stage.run(&["--log-format", "json", "--env", "nowhere"]);
    assert_eq!(again.status.code(), Some(2));
    let again = stage.run(&["--log-format", "json"]);
    assert_eq!(again.status.code(), Some(3));
    let lines = read(&String::from_utf8_lossy(&again.stderr));
    assert_eq!((lines.len(), &lines[0]["event"], &lines[0]["level"]), (1, &"stopped".into(), &"error".into()));
    assert_eq!(lines[0]["code"], "PM504");
}

#[test]
fn a_log_that_cannot_be_written_is_refused_before_anything_is_done() {
    let stage = Stage::new();
    let refused = stage.run(&["--log-file", "no/such/folder/run.jsonl"]);
    assert_eq!(refused.status.code(), Some(2));
    let changed = stage.db.sql().expect("a session").value("select count(*) from person where role = 'member'");
    assert_eq!(changed.expect("a count").as_deref(), Some("0"));
}
