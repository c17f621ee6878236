//! Why a connection could not be made: each server that was tried, with its reason.

use std::error::Error;
use std::io;
use std::time::Duration;

use pgmend_core::refusal::{Code, Refusal};

use crate::conninfo::{Conninfo, Endpoint, Target};
use crate::error::{CONNECTION_FAILURE, PgError};

/// For failures that no server reported and that no retry mends, such as TLS or a missing password
/// (`invalid_authorization_specification`).
const NOT_ADMITTED: &str = "28000";

/// No server could be connected to.
#[derive(Debug)]
pub struct ConnectError {
    pub(crate) failures: Vec<Failure>,
    wanted: String,
    warnings: Vec<String>,
}

/// One server that was tried.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `None` where nothing was tried yet.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) reason: Reason,
}

/// Why one server was not connected to.
#[derive(Debug)]
pub(crate) enum Reason {
    /// TLS could not be set up from the given files.
    Setup(String),
    /// The host's name has no address.
    Name(io::Error),
    /// No answer in time.
    Timeout(Duration),
    /// The driver or the server says no.
    Driver(tokio_postgres::Error),
    /// A server, but not of the wanted kind.
    OtherKind(Target),
}

impl Reason {
    /// Whether another host, or the same one a little later, may do better.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Reason::Setup(_) => false,
            Reason::Name(_) | Reason::Timeout(_) | Reason::OtherKind(_) => true,
            Reason::Driver(error) => match error.code() {
                // Starting, stopping, recovering; out of connections or memory; lost on the way.
                Some(state) => ["57P", "53", "08"].iter().any(|class| state.code().starts_with(class)),
                None => error.is_closed() || io_cause(error).is_some(),
            },
        }
    }

    /// Whether the server might accept the same connection with TLS instead of without, or the other
    /// way round. A wrong password (28P01) is not worth sending twice.
    pub(crate) fn may_be_encryption(&self) -> bool {
        match self {
            Reason::Setup(_) | Reason::Name(_) | Reason::Timeout(_) | Reason::OtherKind(_) => false,
            Reason::Driver(error) => match error.code() {
                Some(state) => state.code() == "28000",
                None => is_handshake(error),
            },
        }
    }

    fn help(&self, warnings: &[String]) -> String {
        let text = match self {
            Reason::Setup(_) => "correct the `ssl…` settings of the connection".to_owned(),
            Reason::Name(_) => "check the host's name".to_owned(),
            Reason::Timeout(_) => "check host, port and firewall, or raise `connect_timeout`".to_owned(),
            Reason::OtherKind(_) => "list the other servers in the URL, or change `target_session_attrs`".to_owned(),
            Reason::Driver(error) => driver_help(error).to_owned(),
        };
        warnings.iter().fold(text, |text, warning| format!("{text}; {warning}"))
    }
}

/// The driver's error is about the TLS handshake. Its kinds are private, so this is told by its text,
/// which a test holds on to.
fn is_handshake(error: &tokio_postgres::Error) -> bool {
    error.to_string() == "error performing TLS handshake"
}

/// The network's error below the driver's, unless TLS made it.
fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let cause = error.source()?.downcast_ref::<io::Error>()?;
    let by_tls = cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    (!by_tls).then_some(cause)
}

fn driver_help(error: &tokio_postgres::Error) -> &'static str {
    if is_handshake(error) {
        return "check `sslmode` and `sslrootcert`, and the names in the server's certificate";
    }
    match error.code().map(|state| state.code()) {
        Some("28P01") => "check user and password (URL, PGPASSWORD or ~/.pgpass)",
        Some("28000") => "check the user's name and the server's pg_hba.conf",
        Some("3D000") => "check the database's name",
        Some("53300") => "the server has no free connection; end some, or wait",
        Some("57P03") => "the server is starting or stopping; try again in a moment",
        Some(_) => "check the connection's settings",
        None if text(error).contains("password missing") => "put the password into the URL, PGPASSWORD or ~/.pgpass",
        None => "is the server running, and does it listen there?",
    }
}

/// The error with its causes in one line.
fn text(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return server.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Setup(problem) => f.write_str(problem),
            Reason::Name(error) => write!(f, "cannot look up the host: {error}"),
            Reason::Timeout(timeout) => write!(f, "no answer within {} s", timeout.as_secs()),
            Reason::Driver(error) => f.write_str(&text(error)),
            Reason::OtherKind(target) => write!(f, "the server is not {}", target.word()),
        }
    }
}

impl ConnectError {
    pub(crate) fn new(info: &Conninfo) -> Self {
        Self { failures: Vec::new(), wanted: info.describe(), warnings: info.warnings().to_vec() }
    }

    /// The error with its last reason, after which nothing more is tried.
    pub(crate) fn ended_by(mut self, endpoint: Option<&Endpoint>, reason: Reason) -> Self {
        self.failures.push(Failure { endpoint: endpoint.cloned(), reason });
        self
    }

    /// What was tried, each with its reason.
    fn reasons(&self) -> String {
        let several = self.failures.len() > 1;
        let reasons = self.failures.iter().map(|failure| match &failure.endpoint {
            Some(endpoint) if several => format!("{endpoint}: {}", failure.reason),
            Some(_) | None => failure.reason.to_string(),
        });
        reasons.collect::<Vec<_>>().join("; ")
    }

    /// Whether trying again later may help: nothing answered, or not the wanted kind of server. False
    /// if a server said no, or TLS failed.
    pub fn is_transient(&self) -> bool {
        self.failures.last().is_none_or(|failure| failure.reason.is_transient())
    }

    /// The SQLSTATE of the last server's answer, if one answered.
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.failures.last()?.reason {
            Reason::Driver(error) => error.code().map(|state| state.code()),
            Reason::Setup(_) | Reason::Name(_) | Reason::Timeout(_) | Reason::OtherKind(_) => None,
        }
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        self.failures.last().map_or_else(String::new, |failure| failure.reason.help(&self.warnings))
    }

    /// The same as an error of the connection; its SQLSTATE tells what to do next, as for every other.
    pub fn into_pg_error(self) -> PgError {
        let without_answer = if self.is_transient() { CONNECTION_FAILURE } else { NOT_ADMITTED };
        let sqlstate = self.sqlstate().unwrap_or(without_answer);
        let hint = Some(self.help()).filter(|help| !help.is_empty());
        let mut error = PgError::new(&format!("connect to {}", self.wanted), sqlstate, self.reasons());
        error.named.hint = hint;
        error
    }

    /// The same as a refusal.
    pub fn refusal(&self) -> Refusal {
        Refusal::new(Code::Connection, self.to_string(), self.help())
    }
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot connect to {}: {}", self.wanted, self.reasons())
    }
}

impl Error for ConnectError {}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Self {
        error.refusal()
    }
}
