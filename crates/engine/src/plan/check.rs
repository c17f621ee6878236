//! What can be said of a job without a database.

use pgmend_core::job::Job;
use pgmend_core::refusal::Refusal;
use pgmend_sql::Kind;

use super::bind;

/// A job whose file and statement are valid as far as they tell by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// `update`, `delete` or `insert`.
    pub kind: &'static str,
    /// The target as the statement names it.
    pub target: String,
}

/// Parses the job's statement with its parameters.
pub fn check(job: &Job) -> Result<Checked, Refusal> {
    crate::encryption::recipient_of(job)?;
    let statement = bind::parse(job, false)?;
    let kind = match statement.kind() {
        Kind::Update => "update",
        Kind::Delete => "delete",
        Kind::Insert => "insert",
    };
    let (schema, name) = statement.target();
    let target = schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"));
    Ok(Checked { kind, target })
}
