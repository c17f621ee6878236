//! Opens connections: hosts in order, each address of a host, each kind of encryption that `sslmode`
//! allows, until a server of the wanted kind answers.

mod cancel;
mod error;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::conninfo::{ChannelBinding, Conninfo, Endpoint, Password, Place, Target};
use crate::tls::{self, Negotiation, SslMode};
pub use cancel::Canceller;
pub use error::ConnectError;
use error::{Failure, Reason};

/// What goes with an open connection. Dropping it leaves the connection open; that ends with its
/// `Client`.
#[derive(Debug)]
pub struct ConnectionDriver {
    /// Moves bytes between the client and the server, and ends when either of them goes.
    pub task: JoinHandle<Result<(), tokio_postgres::Error>>,
    /// Cancels the statement that the connection is executing.
    pub cancel: Canceller,
    /// The server that was reached.
    pub endpoint: Endpoint,
}

/// One way to reach one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Plain,
    /// TLS if the server can.
    IfOffered,
    Tls,
}

/// Connects to the first server that answers and is of the wanted kind. Must run inside tokio.
pub async fn connect(info: &Conninfo) -> Result<(Client, ConnectionDriver), ConnectError> {
    let mut error = ConnectError::new(info);
    let tls = match tls_connector(info) {
        Ok(tls) => tls,
        Err(problem) => return Err(error.ended_by(None, Reason::Setup(problem))),
    };
    let targets: &[Target] = match info.target() {
        Target::PreferStandby => &[Target::Standby, Target::Any],
        Target::Any => &[Target::Any],
        Target::ReadWrite => &[Target::ReadWrite],
        Target::ReadOnly => &[Target::ReadOnly],
        Target::Primary => &[Target::Primary],
        Target::Standby => &[Target::Standby],
    };
    for target in targets {
        for (endpoint, password) in in_order(info) {
            let addresses = match addresses(endpoint, info.connect_timeout).await {
                Ok(addresses) => addresses,
                Err(reason) => {
                    error.failures.push(Failure { endpoint: Some(endpoint.clone()), reason });
                    continue;
                }
            };
            for address in addresses {
                let attempt = Attempt { info, endpoint, password, address, target: *target, tls: tls.as_ref() };
                match Box::pin(attempt.run()).await {
                    Ok(connected) => return Ok(connected),
                    Err(reason) if reason.is_transient() => {
                        error.failures.push(Failure { endpoint: Some(endpoint.clone()), reason });
                    }
                    // As in libpq: a server that says no is an answer, and the next host is not tried.
                    Err(reason) => return Err(error.ended_by(Some(endpoint), reason)),
                }
            }
        }
    }
    Err(error)
}

/// The TLS connector, unless no endpoint can use it.
fn tls_connector(info: &Conninfo) -> Result<Option<MakeRustlsConnect>, tls::TlsProblem> {
    let by_tcp = info.endpoints().any(|endpoint| !matches!(endpoint.place, Place::Socket(_)));
    if !by_tcp || info.tls.mode == SslMode::Disable {
        return Ok(None);
    }
    tls::client_config(&info.tls).map(|config| Some(MakeRustlsConnect::new(config)))
}

fn in_order(info: &Conninfo) -> Vec<&(Endpoint, Option<Password>)> {
    let mut endpoints: Vec<_> = info.endpoints_with_passwords().iter().enumerate().collect();
    if info.shuffle {
        let random = RandomState::new();
        endpoints.sort_by_cached_key(|(i, _)| random.hash_one(i));
    }
    endpoints.into_iter().map(|(_, endpoint)| endpoint).collect()
}

/// The addresses of an endpoint; a socket has none.
async fn addresses(endpoint: &Endpoint, timeout: Option<Duration>) -> Result<Vec<Option<IpAddr>>, Reason> {
    match &endpoint.place {
        Place::Socket(_) => Ok(vec![None]),
        Place::Address { address, .. } => Ok(vec![Some(*address)]),
        Place::Host(name) => {
            let found = within(timeout, tokio::net::lookup_host((name.as_str(), endpoint.port))).await?;
            let mut addresses = Vec::new();
            for address in found.map_err(Reason::Name)? {
                if !addresses.contains(&Some(address.ip())) {
                    addresses.push(Some(address.ip()));
                }
            }
            Ok(addresses)
        }
    }
}

async fn within<T>(timeout: Option<Duration>, work: impl Future<Output = T>) -> Result<T, Reason> {
    match timeout {
        None => Ok(work.await),
        Some(timeout) => tokio::time::timeout(timeout, work).await.map_err(|_| Reason::Timeout(timeout)),
    }
}

/// One address of one endpoint.
struct Attempt<'a> {
    info: &'a Conninfo,
    endpoint: &'a Endpoint,
    password: &'a Option<Password>,
    address: Option<IpAddr>,
    target: Target,
    tls: Option<&'a MakeRustlsConnect>,
}

impl Attempt<'_> {
    /// Tries each encryption that the mode allows. The timeout is for all that one of them takes.
    async fn run(&self) -> Result<(Client, ConnectionDriver), Reason> {
        let mut first = None;
        for encryption in self.encryptions() {
            let opened = within(self.info.connect_timeout, Box::pin(self.open(*encryption))).await;
            match opened.and_then(|opened| opened) {
                Ok(connected) => return Ok(connected),
                Err(reason) if first.is_none() && reason.may_be_encryption() => first = Some(reason),
                // If encryption is what is wrong both times, the mode's first choice is what to mend.
                Err(reason) if reason.may_be_encryption() => return Err(first.unwrap_or(reason)),
                Err(reason) => return Err(reason),
            }
        }
        Err(first.expect("every mode has an encryption, and each failure is kept or returned"))
    }

    fn encryptions(&self) -> &'static [Encryption] {
        // libpq never encrypts a Unix socket, whatever the mode.
        if matches!(self.endpoint.place, Place::Socket(_)) {
            return &[Encryption::Plain];
        }
        match self.info.tls.mode {
            SslMode::Disable => &[Encryption::Plain],
            SslMode::Allow => &[Encryption::Plain, Encryption::Tls],
            SslMode::Prefer => &[Encryption::IfOffered, Encryption::Plain],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Tls],
        }
    }

    async fn open(&self, encryption: Encryption) -> Result<(Client, ConnectionDriver), Reason> {
        let config = self.config(encryption);
        let tls = self.tls.filter(|_| encryption != Encryption::Plain);
        let (client, task) = match tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(Reason::Driver)?;
                (client, tokio::spawn(connection))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(Reason::Driver)?;
                (client, tokio::spawn(connection))
            }
        };
        if !is_wanted(&client, self.target).await.map_err(Reason::Driver)? {
            return Err(Reason::OtherKind(self.target));
        }
        let endpoint = self.endpoint.clone();
        let (token, address) = (client.cancel_token(), self.address);
        let cancel = Canceller { token, tls: tls.cloned(), endpoint: endpoint.clone(), address };
        Ok((client, ConnectionDriver { task, cancel, endpoint }))
    }

    fn config(&self, encryption: Encryption) -> Config {
        use tokio_postgres::config;
        let info = self.info;
        let mut config = Config::new();
        config.user(info.user()).dbname(info.dbname()).application_name(info.application_name());
        config.port(self.endpoint.port).keepalives(info.liveness.keepalives).keepalives_idle(info.liveness.idle);
        config.ssl_mode(match encryption {
            Encryption::Plain => config::SslMode::Disable,
            Encryption::IfOffered => config::SslMode::Prefer,
            Encryption::Tls => config::SslMode::Require,
        });
        config.ssl_negotiation(match info.tls.negotiation {
            Negotiation::Postgres => config::SslNegotiation::Postgres,
            Negotiation::Direct => config::SslNegotiation::Direct,
        });
        config.channel_binding(match info.channel_binding {
            ChannelBinding::Disable => config::ChannelBinding::Disable,
            ChannelBinding::Prefer => config::ChannelBinding::Prefer,
            ChannelBinding::Require => config::ChannelBinding::Require,
        });
        // The name is given with every address, since the driver takes the name for TLS from it.
        match &self.endpoint.place {
            Place::Socket(folder) => config.host_path(folder),
            Place::Host(_) | Place::Address { .. } => config.host(self.endpoint.host()),
        };
        self.address.map(|address| config.hostaddr(address));
        self.password.as_ref().map(|password| config.password(password.reveal()));
        info.options().map(|options| config.options(options));
        info.connect_timeout.map(|timeout| config.connect_timeout(timeout));
        info.liveness.interval.map(|interval| config.keepalives_interval(interval));
        info.liveness.count.map(|count| config.keepalives_retries(count));
        info.liveness.user_timeout.map(|timeout| config.tcp_user_timeout(timeout));
        config
    }
}

/// Whether the server is of the wanted kind, asked in a way that poolers and all versions know.
async fn is_wanted(client: &Client, target: Target) -> Result<bool, tokio_postgres::Error> {
    let (question, wanted) = match target {
        Target::Any => return Ok(true),
        Target::ReadWrite => ("show transaction_read_only", "off"),
        Target::ReadOnly => ("show transaction_read_only", "on"),
        Target::Primary => ("select pg_catalog.pg_is_in_recovery()", "f"),
        Target::Standby | Target::PreferStandby => ("select pg_catalog.pg_is_in_recovery()", "t"),
    };
    let answer = client.simple_query(question).await?;
    Ok(answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some(wanted))))
}
