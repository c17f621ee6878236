//! The engine's error: refused, failed, or someone else's turn.

use pgmend_core::exit;
use pgmend_core::mask::TEXT_MASKED;
use pgmend_core::refusal::{Code, Refusal};

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Refused before anything was written; says the way out.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database reported an error that pgmend has no better word for.
    #[error("{doing}: {message}")]
    Database {
        /// What was being done, to what.
        doing: String,
        /// The server's message, without its DETAIL, which may hold row values.
        message: String,
        /// SQLSTATE, empty for a lost connection.
        sqlstate: String,
    },
    /// A stored row or chain does not make sense: stop, call a person.
    #[error("the control schema holds a value that pgmend did not write: {0}")]
    Corrupt(String),
}

impl Error {
    /// The process's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Refused(refusal) => {
                let usage = [Code::BadJob, Code::Parameter, Code::NotFound, Code::PaceBounds].contains(&refusal.code);
                if refusal.code == Code::ApprovalMissing {
                    return exit::APPROVAL_MISSING;
                }
                if [Code::AccessLost, Code::WaitEnded, Code::OutOfRoom].contains(&refusal.code) {
                    return exit::PAUSED;
                }
                if usage { exit::USAGE } else { exit::STOPPED }
            }
            Error::Database { .. } | Error::Corrupt(_) => exit::INTERNAL,
        }
    }

    /// What to type next, if known.
    pub fn help(&self) -> Option<&str> {
        match self {
            Error::Refused(refusal) => Some(&refusal.help),
            Error::Database { message, .. } if message.contains(TEXT_MASKED) => {
                Some("type the same with --show-values to see its text; the server's log has it, too")
            }
            Error::Database { .. } => None,
            Error::Corrupt(_) => Some("stop, keep the database as it is, and read docs/errors/corrupt.md"),
        }
    }
}

/// `insufficient_privilege`.
const DENIED: &str = "42501";

impl From<pgmend_pg::PgError> for Error {
    fn from(error: pgmend_pg::PgError) -> Self {
        if error.sqlstate == "XX001" && error.doing == "read the control schema" {
            return Error::Corrupt(error.message);
        }
        if let Some(code) = Code::find(&error.sqlstate) {
            return Refusal::new(code, error.message, way_out(code)).into();
        }
        if error.sqlstate == DENIED {
            let message = format!("could not {}: {}", error.doing, error.message);
            return Refusal::new(Code::Privilege, message, way_out(Code::Privilege)).into();
        }
        Error::Database {
            doing: format!("could not {}", error.doing),
            message: error.message,
            sqlstate: error.sqlstate,
        }
    }
}

/// What to do about a refusal of the server's own guards, which know codes but not what was typed.
const WAYS_OUT: [(Code, &str); 13] = [
    (Code::NotFound, "type: pgmend list"),
    (Code::StalePlan, "plan again"),
    (Code::ConsumedPlan, "plan again"),
    (Code::AlreadyDone, "to make it once more, add --again --reason \"…\""),
    (Code::LeaseHeld, "pgmend status says who drives it: wait for its end, or let them pause it"),
    (Code::SameColumns, "pgmend status says who drives it: wait for its end, or let them pause it"),
    (Code::WrongState, "pgmend status says where it is"),
    (Code::WrongServer, "connect to the primary that the plan was made on, or plan again"),
    (Code::SameRole, "let another login type the same"),
    (Code::BreakGlass, "an approver gives leave to another login than their own, for 1 to 240 minutes"),
    (Code::ApprovalMissing, "an approver types: pgmend approve PLAN --reason \"…\""),
    (Code::OutsideHours, "type the same command within the hours"),
    (
        Code::Privilege,
        "connect as a role that may: members of pgmend_runner plan, run and undo, those of pgmend_approver approve, the \
         owner of schema pgmend does the rest; rights on your own tables are granted as usual",
    ),
];

fn way_out(code: Code) -> String {
    let known = WAYS_OUT.iter().find(|(of, _)| *of == code);
    known.map_or_else(|| format!("type: pgmend explain {code}"), |(_, way)| (*way).to_owned())
}
