//! What can go wrong between pgmend and the server.

use pgmend_core::mask::MASKED;
use pgmend_core::retry::{Disposition, disposition};

/// An error of the server or the connection. Never holds a row's values: DETAIL is dropped, and so is
/// the quoted input of data exceptions.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct PgError {
    /// What was being done, to what.
    pub doing: String,
    /// The server's message.
    pub message: String,
    /// SQLSTATE; `08006` for a connection that broke without one.
    pub sqlstate: String,
    /// What the server named; boxed, since errors travel far and these fields seldom matter.
    pub named: Box<Named>,
}

/// What the server named in an error.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// The schema, if any.
    pub schema: Option<String>,
    /// The constraint, if any.
    pub constraint: Option<String>,
    /// The column, if any.
    pub column: Option<String>,
    /// Character position in the statement, from 1.
    pub position: Option<u32>,
    /// The server's hint.
    pub hint: Option<String>,
}

/// SQLSTATE for a connection that broke (`connection_failure`).
pub const CONNECTION_FAILURE: &str = "08006";
/// A guard of ours: the lease has been taken over.
pub const LEASE_LOST: &str = "PM505";
/// A guard of ours: this is a standby, or another server.
pub const OTHER_SERVER: &str = "PM507";
/// A guard of ours: the checkpoint that the batch builds on is not there.
pub const CHECKPOINT_MISSING: &str = "PM520";

impl PgError {
    /// An error from the driver.
    pub fn from_driver(doing: &str, error: &tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            let message =
                std::error::Error::source(error).map_or_else(|| error.to_string(), |s| format!("{error}: {s}"));
            return Self::new(doing, CONNECTION_FAILURE, message);
        };
        let sqlstate = server.code().code().to_owned();
        let position = match server.position() {
            Some(tokio_postgres::error::ErrorPosition::Original(at)) => Some(*at),
            Some(tokio_postgres::error::ErrorPosition::Internal { .. }) | None => None,
        };
        Self {
            message: without_values(&sqlstate, server.message()),
            named: Box::new(Named {
                schema: server.schema().map(str::to_owned),
                constraint: server.constraint().map(str::to_owned),
                column: server.column().map(str::to_owned),
                hint: server.hint().map(str::to_owned),
                position,
            }),
            ..Self::new(doing, &sqlstate, String::new())
        }
    }

    /// An error with a SQLSTATE and a message of our own.
    pub fn new(doing: &str, sqlstate: &str, message: impl Into<String>) -> Self {
        Self { doing: doing.to_owned(), message: message.into(), sqlstate: sqlstate.to_owned(), named: Box::default() }
    }

    /// A stored value that pgmend did not write.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::new("read the control schema", "XX001", what)
    }

    /// Whether the connection is gone.
    pub fn is_connection(&self) -> bool {
        self.sqlstate.starts_with("08") || self.sqlstate.starts_with("57P")
    }

    /// Whether the same may well succeed a moment later: the connection, a lock or another transaction was in the way.
    pub fn is_transient(&self) -> bool {
        self.is_connection() || disposition(&self.sqlstate) == Disposition::RetryBatch
    }

    /// Whether another session or the server's state was in the way, and nothing is wrong with the change.
    pub fn is_contention(&self) -> bool {
        self.is_connection()
            || matches!(self.sqlstate.as_str(), "40001" | "40P01" | "55P03" | "25006" | "25P03" | "25P04")
    }

    /// Whether it was raised by pgmend's own tables rather than by the user's change.
    pub fn is_ours(&self) -> bool {
        self.named.schema.as_deref() == Some("pgmend") || self.sqlstate.starts_with("PM")
    }
}

/// Data exceptions quote the offending input: after a colon to the end, or somewhere in the sentence.
fn without_values(sqlstate: &str, message: &str) -> String {
    if !sqlstate.starts_with("22") {
        return message.to_owned();
    }
    let sentence = message.find(": \"").map_or(message, |at| &message[..at]);
    let parts: Vec<&str> = sentence.split('"').collect();
    // Quotes that do not pair may be part of a value.
    if parts.len().is_multiple_of(2) {
        return parts.first().map_or_else(String::new, |said| said.trim_end().to_owned());
    }
    let shown = parts.iter().enumerate().map(|(place, part)| if place % 2 == 1 { MASKED } else { part });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::{MASKED, without_values};

    #[test]
    fn a_data_exception_loses_its_quoted_value() {
        let message = "invalid input syntax for type integer: \"4000 0000 0000 0002\"";
        assert_eq!(without_values("22P02", message), "invalid input syntax for type integer");
        let message = "value \"99999999999\" is out of range for type integer";
        assert_eq!(without_values("22003", message), format!("value {MASKED} is out of range for type integer"));
        let message = "invalid value \"a\"b\" for \"YYYY\"";
        assert_eq!(without_values("22007", message), "invalid value");
        let message = "duplicate key value violates unique constraint \"users_pkey\"";
        assert_eq!(without_values("23505", message), message);
    }
}
