//! Findings: answers of the checks made while planning.

use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Read this before you say yes.
    Warning,
    /// The plan cannot be run.
    Blocker,
}

/// A check's answer: a sentence, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable, short name of the check, such as `ignored_version_column`.
    pub check: String,
    /// One sentence.
    pub message: String,
    /// What to do, or empty.
    pub help: String,
}

impl Finding {
    /// Good to know.
    pub fn note(check: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Note, check: check.into(), message: message.into(), help: help.into() }
    }

    /// Read this before you say yes.
    pub fn warning(check: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::note(check, message, help) }
    }
}
