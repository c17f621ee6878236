//! One row of the table: a statement, the tables it meets, and what is to come of it.

use std::collections::BTreeMap;

use pgmend::{Code, Job, JobFile, Mode};
use pgmend_core::job::{Param, Scalar};

use super::copies::HALVED;

/// What is to come of the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The same contents as the plain statement's.
    Equal,
    /// A refusal with this code, nothing written.
    Refused(Code),
    /// The plain statement fails, so the run must too (or refuse), with nothing written by it.
    Fails,
}

/// Which tables an undo must bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// All.
    Everything,
    /// These only: what triggers and cascades write elsewhere stays, and the plan says so.
    Only(&'static [&'static str]),
    /// The plan says that not all can be put back, and so many rows are conflicts.
    Partly(i64),
    /// The plan says that it is irreversible.
    Irreversible,
}

/// A case of the suite.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub setup: &'static str,
    pub statement: &'static str,
    pub expect: Expect,
    pub undo: Undo,
    pub mode: Option<Mode>,
    /// Queries to compare instead of whole tables, for values that differ from run to run.
    pub compare: &'static [&'static str],
    /// `name=value` settings of the session, plain and pgmend's.
    pub settings: &'static [(&'static str, &'static str)],
    /// Whether the plan's count of changed rows may differ from the run's.
    pub vague_counts: bool,
    /// The server's first version that knows the statement.
    pub since: u32,
    params: Vec<(&'static str, &'static str, &'static str)>,
    key: &'static [&'static str],
    wanted_mode: Option<Mode>,
    trusted: &'static [&'static str],
}

/// A case that is to end with equal contents, unless told otherwise.
pub fn case(name: &'static str, setup: &'static str, statement: &'static str) -> Case {
    Case {
        name,
        setup,
        statement,
        expect: Expect::Equal,
        undo: Undo::Everything,
        mode: None,
        compare: &[],
        settings: &[],
        vague_counts: false,
        since: 0,
        params: Vec::new(),
        key: &[],
        wanted_mode: None,
        trusted: &[],
    }
}

impl Case {
    /// Must be refused with this code.
    pub fn refused(self, code: Code) -> Self {
        Self { expect: Expect::Refused(code), ..self }
    }

    /// The plain statement raises an error.
    pub fn fails(self) -> Self {
        Self { expect: Expect::Fails, ..self }
    }

    /// The planner must choose to stream.
    pub fn streamed(self) -> Self {
        Self { mode: Some(Mode::Stream), ..self }
    }

    /// The planner must choose to freeze.
    pub fn frozen(self) -> Self {
        Self { mode: Some(Mode::Freeze), ..self }
    }

    /// The job asks for this mode.
    pub fn asking_for(self, mode: Mode) -> Self {
        Self { wanted_mode: Some(mode), mode: Some(mode), ..self }
    }

    /// A parameter: `:name`, its type, its value.
    pub fn param(mut self, name: &'static str, type_sql: &'static str, value: &'static str) -> Self {
        self.params.push((name, type_sql, value));
        self
    }

    /// The columns of the key to use.
    pub fn key(self, key: &'static [&'static str]) -> Self {
        Self { key, ..self }
    }

    /// Functions that the job trusts.
    pub fn trusting(self, trusted: &'static [&'static str]) -> Self {
        Self { trusted, ..self }
    }

    /// Compares what these queries give instead of whole tables.
    pub fn comparing(self, compare: &'static [&'static str]) -> Self {
        Self { compare, ..self }
    }

    /// Settings of the session.
    pub fn with(self, settings: &'static [(&'static str, &'static str)]) -> Self {
        Self { settings, ..self }
    }

    /// Undo brings back these tables only.
    pub fn undoing_only(self, tables: &'static [&'static str]) -> Self {
        Self { undo: Undo::Only(tables), ..self }
    }

    /// Undo brings back what it can, passes over so many rows, and the plan says so.
    pub fn undone_in_part(self, conflicts: i64) -> Self {
        Self { undo: Undo::Partly(conflicts), ..self }
    }

    /// Needs a server of at least this version.
    pub fn since(self, version: u32) -> Self {
        Self { since: version, ..self }
    }

    /// No undo, and the plan says so.
    pub fn irreversible(self) -> Self {
        Self { undo: Undo::Irreversible, ..self }
    }

    /// Triggers or conflicts make the plan's count an estimate.
    pub fn counting_vaguely(self) -> Self {
        Self { vague_counts: true, ..self }
    }

    /// The job, with batches of so many rows.
    pub fn job(&self, batch_rows: u32) -> Job {
        let mut file = JobFile::default();
        file.limits.batch_rows = Some(batch_rows);
        file.limits.in_halves = Some(batch_rows == HALVED);
        file.mode = self.wanted_mode;
        file.key = (!self.key.is_empty()).then(|| self.key.iter().map(|c| (*c).to_owned()).collect());
        file.trust_functions = self.trusted.iter().map(|f| (*f).to_owned()).collect();
        for (name, type_sql, value) in &self.params {
            let value = Some(Scalar::Text((*value).to_owned()));
            let param = Param { type_sql: (*type_sql).to_owned(), value, min: None, max: None };
            file.params.insert((*name).to_owned(), param);
        }
        let name = format!("equality {}", self.name);
        Job::new(name, self.statement.to_owned(), file, &BTreeMap::new()).expect("the case is a valid job")
    }

    /// The statement as one would type it, the parameters' values in their places.
    pub fn plain_statement(&self) -> String {
        let mut sql = self.statement.to_owned();
        // The longest name first, so that `:year` does not eat the beginning of `:year_end`.
        let mut params = self.params.clone();
        params.sort_by_key(|(name, _, _)| std::cmp::Reverse(name.len()));
        for (name, type_sql, value) in params {
            let literal = format!("('{}'\u{1}{type_sql})", value.replace('\'', "''"));
            sql = sql.replace("::", "\u{1}").replace(&format!(":{name}"), &literal).replace('\u{1}', "::");
        }
        sql
    }

    /// The settings as a connection's `options`.
    pub fn options(&self) -> String {
        let quoted = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
        self.settings.iter().map(|(name, value)| format!("-c {name}={}", quoted(value))).collect::<Vec<_>>().join(" ")
    }
}
