//! The stage of the tests: a database with planted values, the lines that are typed there, and the search.

use std::process::{Command, Output};

use pgmend_testkit::{Database, Server, Sql};

use crate::reader;

/// In every planted text value.
pub const TEXT: &str = "wyvern";
/// In every planted number.
pub const NUMBER: &str = "918273";
/// The bytes of `wyvern`.
pub const BYTES: &str = "77797665726e";
/// A constant that a person typed into a statement: shown where the statement is, and nowhere else.
const LITERAL: &str = "griffin";

const TABLES: &str = r#"
    create table person (
        email  text primary key,
        name   text not null,
        code   text not null unique,
        digits text not null,
        amount numeric not null constraint small check (amount < 918273999),
        doc    jsonb not null,
        raw    bytea not null,
        boss   text references person,
        tier   text not null default 'none',
        rank   int,
        born   date,
        extra  json
    );
    insert into person (email, name, code, digits, amount, doc, raw)
    select 'wyvern' || lpad(i::text, 3, '0') || '@example.org', 'Ms wyvern ' || i, 'WYVERN-' || i, '918273645' || i || '99',
           918273.5 + i, jsonb_build_object('who', 'wyvern' || i), convert_to('wyvern' || i, 'UTF8')
      from generate_series(1, 40) i;
    insert into person (email, name, code, digits, amount, doc, raw)
    values ('wyvernlow@example.org', 'Ms wyvern low', 'wyvern-7', '9182730', 918273, '{"who": "wyvern"}', '\x77797665726e');
    create table news (email text not null, name text not null);
    insert into news select email, name || ' wyvern ' || n from person, generate_series(1, 2) n;
    create table fresh (email text primary key, name text not null);
    analyze;
"#;

pub struct Stage {
    pub db: Database,
    pub folder: tempfile::TempDir,
    /// A login that may only read.
    pub observer: String,
    /// Everything that was printed, with the line that was typed.
    pub said: Vec<(String, String)>,
}

impl Stage {
    pub fn new() -> Self {
        let db = Database::create(Server::shared(), "leaks").expect("a database");
        db.sql().expect("a session").run(TABLES).expect("the tables");
        let observer = db.create_role("observer", "").expect("a role");
        let folder = tempfile::tempdir().expect("a folder");
        let mut stage = Self { db, folder, observer: observer.clone(), said: Vec::new() };
        stage.typed(&["init"]);
        stage.sql().run(&format!("grant pgmend_observer to {observer}")).expect("a grant");
        stage
    }

    pub fn sql(&self) -> Sql {
        self.db.sql().expect("a session")
    }

    pub fn typed(&mut self, words: &[&str]) -> Output {
        self.typed_at(&self.db.url(), words)
    }

    /// The same as another login.
    pub fn typed_at(&mut self, url: &str, words: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_pgmend"))
            .args(words)
            .args(["--log-file", "log.jsonl"])
            .current_dir(self.folder.path())
            .env("DATABASE_URL", url)
            .output()
            .expect("pgmend runs");
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
        self.said.push((words.join(" "), text));
        output
    }

    /// The same for people and for programs, with the exit code that both must have.
    pub fn both(&mut self, words: &[&str], code: i32) {
        for more in [&[][..], &["--output", "json"]] {
            let all: Vec<&str> = words.iter().chain(more).copied().collect();
            let output = self.typed(&all);
            let said = self.said.last().map(|(_, text)| text.clone()).unwrap_or_default();
            assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        }
    }

    /// A statement that plans and fails, or does not even plan, for the reason of its SQLSTATE.
    pub fn fails(&mut self, name: &str, statement: &str, more: &[&str]) {
        let job = ["-c", statement, "--name", name, "--batch-rows", "20"];
        let plan: Vec<&str> = ["plan"].iter().chain(&job).chain(more).copied().collect();
        self.typed(&plan);
        let run: Vec<&str> = ["run"].iter().chain(&job).chain(more).chain(&["--execute"]).copied().collect();
        let output = self.typed(&run);
        let (_, said) = self.said.last().expect("it was typed");
        assert!(![Some(0), Some(8), Some(2)].contains(&output.status.code()), "{name} did not fail: {said}");
        self.typed(&["status", name]);
        self.typed(&["report", name]);
        self.typed(&["report", name, "--output", "json"]);
        if output.status.code() == Some(5) {
            self.typed(&["cancel", name, "--reason", "it cannot be done"]);
        }
    }

    pub fn newest_plan(&self) -> String {
        let newest = "select plan_id from pgmend.plan order by planned_at desc limit 1";
        self.sql().value(newest).expect("a plan").expect("an id")
    }

    /// Nothing of what was printed, logged or kept may hold a planted value, nor anything that an observer reads.
    pub fn assert_nothing_leaked(&self) {
        reader::assert_blind(self);
        for (line, text) in &self.said {
            for planted in [TEXT, NUMBER, BYTES] {
                let at = text.lines().find(|l| l.to_lowercase().contains(planted));
                assert!(at.is_none(), "`pgmend {line}` shows {planted}: {}", at.unwrap_or_default());
            }
        }
        let log = std::fs::read_to_string(self.folder.path().join("log.jsonl")).expect("a log");
        let kept = "select string_agg(body, ' ') from pgmend.ledger
              union all select string_agg(concat_ws(' ', reason, array_to_string(verification, ' ')), ' ') from pgmend.run
              union all select string_agg(reason, ' ') from pgmend.conflict
              union all select string_agg(obj_description(oid), ' ') from pg_class where relnamespace = 'pgmend'::regnamespace
              union all select string_agg((body::jsonb - array['statement','canonical','params','tenants','sql','sweep','expect','undo_where'])::text, ' ')
                          from pgmend.plan";
        let kept: String = self.sql().run(kept).expect("what is kept").into_iter().flatten().flatten().collect();
        for (place, text) in [("the log", &log), ("the control schema", &kept)] {
            for planted in [TEXT, NUMBER, BYTES] {
                let low = text.to_lowercase();
                let at = low.find(planted);
                let around = at.and_then(|at| low.get(at.saturating_sub(150)..(at + 60).min(low.len())));
                assert!(at.is_none(), "{place} holds {planted}: {around:?}");
            }
        }
        let ledger = self.sql().value("select string_agg(body, ' ') from pgmend.ledger").expect("the ledger");
        assert!(!ledger.unwrap_or_default().contains(LITERAL), "a literal is in the ledger");
        assert!(!log.contains(LITERAL), "a literal is in the log");
        let told = ["status", "list", "ledger", "pause", "cancel"];
        for (line, text) in self.said.iter().filter(|(line, _)| told.iter().any(|word| line.starts_with(word))) {
            assert!(!text.contains(LITERAL), "`pgmend {line}` shows a literal");
        }
    }
}
