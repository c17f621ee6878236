//! Why a command stopped, with what is needed to say so well.

use pgmend::{Error, Job, Refusal};
use pgmend_core::exit;

/// Why a command stopped.
#[derive(Debug)]
pub enum Failure {
    /// The engine's answer, and the statement that its position points into.
    Engine {
        /// The answer.
        error: Error,
        /// The statement as typed.
        statement: Option<String>,
    },
    /// Wrong use of the command itself.
    Usage {
        /// What is wrong.
        message: String,
        /// What to type.
        help: String,
    },
    /// The machine, not the database.
    Io {
        /// What was being done, and the reason.
        message: String,
    },
}

impl Failure {
    /// An engine error about `job`'s statement.
    pub fn about(job: &Job) -> impl Fn(Error) -> Failure {
        let statement = job.statement.clone();
        move |error| Failure::Engine { error, statement: Some(statement.clone()) }
    }

    /// Wrong use.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Failure::Usage { message: message.into(), help: help.into() }
    }

    /// A failure of a file or a stream.
    pub fn io(doing: &str, source: &std::io::Error) -> Self {
        Failure::Io { message: format!("cannot {doing}: {source}") }
    }

    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Failure::Engine { error: Error::Refused(refusal), .. } => Some(refusal),
            Failure::Engine { error: Error::Database { .. } | Error::Corrupt(_), .. } => None,
            Failure::Usage { .. } | Failure::Io { .. } => None,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Engine { error, .. } => error.exit_code(),
            Failure::Usage { .. } => exit::USAGE,
            Failure::Io { .. } => exit::INTERNAL,
        }
    }

    /// Lower case, no full stop, without the code.
    pub fn message(&self) -> String {
        match self {
            Failure::Engine { error: Error::Refused(refusal), .. } => refusal.message.clone(),
            Failure::Engine { error: error @ (Error::Database { .. } | Error::Corrupt(_)), .. } => error.to_string(),
            Failure::Usage { message, .. } | Failure::Io { message } => message.clone(),
        }
    }

    /// What to type instead.
    pub fn help(&self) -> Option<&str> {
        let help = match self {
            Failure::Engine { error, .. } => error.help(),
            Failure::Usage { help, .. } => Some(help.as_str()),
            Failure::Io { .. } => None,
        };
        help.filter(|help| !help.is_empty())
    }

    /// A word for programs: a `PM…` code, a SQLSTATE, or the kind of failure.
    pub fn code(&self) -> &str {
        match self {
            Failure::Engine { error: Error::Refused(refusal), .. } => refusal.code.as_str(),
            Failure::Engine { error: Error::Database { sqlstate, .. }, .. } if sqlstate.is_empty() => "connection_lost",
            Failure::Engine { error: Error::Database { sqlstate, .. }, .. } => sqlstate,
            Failure::Engine { error: Error::Corrupt(_), .. } => "corrupt",
            Failure::Usage { .. } => "usage",
            Failure::Io { .. } => "io",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Engine { error, statement: None }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::from(Error::from(refusal))
    }
}
