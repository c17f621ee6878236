//! What can go wrong between pgmend and the server.

use pgmend_core::retry::{Disposition, disposition};

use crate::said::Said;

/// An error of the server or the connection. Never holds a row's values: DETAIL is dropped, and so is all else that
/// may hold them (module `said`).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct PgError {
    /// What was being done, to what.
    pub doing: String,
    /// The server's message, without values.
    pub message: String,
    /// SQLSTATE; `08006` for a connection that broke without one, `P0001` for a function of the database that borrows a
    /// code of pgmend's.
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
        let position = match server.position() {
            Some(tokio_postgres::error::ErrorPosition::Original(at)) => Some(*at),
            Some(tokio_postgres::error::ErrorPosition::Internal { .. }) | None => None,
        };
        let said = Said::from(server);
        // A function may have set them to what it likes.
        let name = |name: Option<&str>| name.filter(|_| said.names_are_the_schemas()).map(str::to_owned);
        Self {
            message: said.shown(),
            named: Box::new(Named {
                schema: name(server.schema()),
                constraint: name(server.constraint()),
                column: name(server.column()),
                hint: said.shown_hint(),
                position,
            }),
            ..Self::new(doing, said.meant_sqlstate(), String::new())
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
