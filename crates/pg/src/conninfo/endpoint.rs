//! Where a server may be: the hosts, addresses and ports of a connection, in the order to try them.

use std::net::IpAddr;
use std::path::PathBuf;

use pgmend_core::refusal::{Code, Refusal};

use super::settings::Settings;

/// The socket folders of packaged servers (Debian, Red Hat), then of PostgreSQL as built from source.
pub(super) const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// How to reach a server's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A Unix socket in this folder.
    Socket(PathBuf),
    /// TCP to a host name (or an address written as text).
    Host(String),
    /// TCP to `address`; `name`, if any, is what the server's certificate is checked against.
    Address {
        /// The name to check and to show.
        name: Option<String>,
        /// Where to connect to.
        address: IpAddr,
    },
}

/// One server that a connection may be made to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The machine or the socket.
    pub place: Place,
    /// The port, also part of a socket's name.
    pub port: u16,
}

impl Endpoint {
    /// The name for people, for the password file and for TLS: never empty.
    pub fn host(&self) -> String {
        match &self.place {
            Place::Socket(folder) => folder.display().to_string(),
            Place::Host(name) | Place::Address { name: Some(name), .. } => name.clone(),
            Place::Address { name: None, address } => address.to_string(),
        }
    }

    /// The names under which a password file may list it.
    pub(super) fn names_in_passfile(&self) -> Vec<String> {
        let mut names = vec![self.host()];
        if let Place::Socket(folder) = &self.place
            && SOCKET_FOLDERS.iter().any(|default| folder.as_os_str() == *default)
        {
            names.push("localhost".to_owned());
        }
        names
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.host();
        if host.contains(':') { write!(f, "[{host}]:{}", self.port) } else { write!(f, "{host}:{}", self.port) }
    }
}

/// The endpoints that `host`, `hostaddr` and `port` name, item by item.
pub(super) fn endpoints(settings: &Settings<'_>) -> Result<Vec<Endpoint>, Refusal> {
    let list = |name: &str| settings.text(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let (hosts, addresses) = (list("host"), list("hostaddr"));
    let ports = list("port").unwrap_or_else(|| vec![""]);
    let count = addresses.as_ref().or(hosts.as_ref()).map_or(1, Vec::len);
    if let (Some(hosts), Some(addresses)) = (&hosts, &addresses)
        && hosts.len() != addresses.len()
    {
        return Err(Refusal::new(
            Code::Connection,
            format!("there are {} hosts but {} host addresses", hosts.len(), addresses.len()),
            "give `host` and `hostaddr` lists of the same length",
        ));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Refusal::new(
            Code::Connection,
            format!("there are {} ports for {count} hosts", ports.len()),
            "give one port for all hosts, or one for each",
        ));
    }
    let at = |list: &Option<Vec<&str>>, i: usize| list.as_ref().map_or(String::new(), |list| list[i].to_owned());
    (0..count)
        .map(|i| {
            let port = port(settings, ports.get(i).or(ports.first()).copied().unwrap_or_default())?;
            Ok(Endpoint { place: place(settings, at(&hosts, i), &at(&addresses, i), port)?, port })
        })
        .collect()
}

fn port(settings: &Settings<'_>, text: &str) -> Result<u16, Refusal> {
    if text.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| settings.invalid("port", "write a number from 1 to 65535"))
}

fn place(settings: &Settings<'_>, host: String, address: &str, port: u16) -> Result<Place, Refusal> {
    if !address.is_empty() {
        let address =
            address.parse().map_err(|_| settings.invalid("hostaddr", "write an IP address; names go into `host`"))?;
        return Ok(Place::Address { name: Some(host).filter(|host| !host.is_empty()), address });
    }
    if host.starts_with('@') {
        return Err(settings.invalid("host", "abstract sockets are not supported; use a socket folder or a host name"));
    }
    if host.starts_with('/') {
        return Ok(Place::Socket(PathBuf::from(host)));
    }
    Ok(if host.is_empty() { default_place(port) } else { Place::Host(host) })
}

/// The first default socket folder that has this port's socket now, else this machine by TCP.
fn default_place(port: u16) -> Place {
    let folder =
        SOCKET_FOLDERS.iter().map(PathBuf::from).find(|folder| folder.join(format!(".s.PGSQL.{port}")).exists());
    folder.map_or_else(|| Place::Host("localhost".to_owned()), Place::Socket)
}
