//! A PostgreSQL server for tests: an own one, or one that many tests share.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::binaries::{Binaries, Version};
use crate::cluster::Cluster;
use crate::error::KitError;
use crate::sql::{PgErrorText, Sql};
use crate::url::ServerUrl;

/// Names a running test server for [`Server::shared`], as a URL of its superuser.
/// `./test` sets it for the length of a test run.
pub const SERVER_VARIABLE: &str = "PGMEND_TEST_SERVER";

/// How to start a server that differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    settings: Vec<(String, String)>,
    binaries: Option<Binaries>,
    keep: bool,
}

impl ServerOptions {
    /// The usual server.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line to `postgresql.conf`; it wins over the testkit's own.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses these server programs instead of those that [`Binaries::find`] finds.
    #[must_use]
    pub fn binaries(mut self, binaries: Binaries) -> Self {
        self.binaries = Some(binaries);
        self
    }

    /// Leaves the server running, and its folder in place, when the test is over.
    /// For looking at a failure; whoever asks for it also stops it.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Makes the cluster and starts the server.
    pub fn start(self) -> Result<Server, KitError> {
        let binaries = self.binaries.map_or_else(Binaries::find, Ok)?;
        let cluster = Cluster::create(binaries, &self.settings, self.keep)?;
        Ok(Server {
            host: "127.0.0.1".to_owned(),
            port: cluster.port(),
            version: cluster.binaries().version(),
            data_folder: cluster.data_folder(),
            cluster: Some(cluster),
        })
    }
}

/// A running PostgreSQL. An own one is stopped and removed when dropped.
#[derive(Debug)]
pub struct Server {
    cluster: Option<Cluster>,
    host: String,
    port: u16,
    version: Version,
    data_folder: PathBuf,
}

impl Server {
    /// Starts a server of one's own, for tests that stop it or change its settings.
    pub fn start() -> Result<Self, KitError> {
        ServerOptions::new().start()
    }

    /// The server that tests share, each with its own [`Database`](crate::Database).
    ///
    /// It is the one that [`SERVER_VARIABLE`] names, or else one that this process starts and
    /// that goes away with it. Panics when there is no server to be had: without one, no test
    /// that asks for it can say anything.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            let server = match env::var(SERVER_VARIABLE) {
                Ok(url) if !url.is_empty() => Self::attach(&url),
                Ok(_) | Err(_) => Self::start(),
            };
            server.expect("the tests need a PostgreSQL server")
        })
    }

    /// Uses a server that someone else started and will stop.
    pub fn attach(url: &str) -> Result<Self, KitError> {
        let doing = "use the shared test server";
        let address = ServerUrl::parse(url)?;
        let mut sql = Sql::connect(url).map_err(KitError::while_doing(doing))?;
        let mut setting = |name: &str| -> Result<String, KitError> {
            let value = sql.value(&format!("show {name}")).map_err(KitError::while_doing(doing))?;
            Ok(value.unwrap_or_default())
        };
        let version = setting("server_version")?;
        let version = Version::parse(&version).ok_or_else(|| KitError::new(doing, "it has no version"))?;
        let data_folder = PathBuf::from(setting("data_directory")?);
        let ServerUrl { host, port, .. } = address;
        Ok(Self { cluster: None, host, port, version, data_folder })
    }

    /// The URL of a database on this server, for this user. Every user is trusted.
    pub fn url(&self, database: &str, user: &str) -> String {
        let Self { host, port, .. } = self;
        format!("postgresql://{user}@{host}:{port}/{database}")
    }

    /// Opens a session of the superuser `postgres`.
    pub fn sql(&self, database: &str) -> Result<Sql, PgErrorText> {
        Sql::connect(&self.url(database, "postgres"))
    }

    /// Always 127.0.0.1 for a server that the testkit started.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port; it stays the same over a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The data folder, on the server's machine.
    pub fn data_folder(&self) -> &Path {
        &self.data_folder
    }

    /// The folder of the unix socket. Only an own server tells.
    pub fn socket_folder(&self) -> Result<PathBuf, KitError> {
        Ok(self.own("find the socket")?.socket_folder())
    }

    /// What the server wrote to its log since its last start. Only an own server tells.
    pub fn log(&self) -> Result<String, KitError> {
        let doing = "read the server's log";
        let file = self.own(doing)?.log_file();
        std::fs::read_to_string(file).map_err(KitError::while_doing(doing))
    }

    /// The process id of the postmaster; none while the server is stopped, or when it is not ours.
    pub fn pid(&self) -> Option<u32> {
        self.cluster.as_ref().and_then(Cluster::pid)
    }

    /// Stops like a crash: no checkpoint, sessions are cut. The data stays.
    pub fn stop_immediate(&self) -> Result<(), KitError> {
        self.own("stop the server")?.stop_immediate()
    }

    /// Starts a stopped server again, on the same port, and waits for its recovery.
    pub fn start_again(&self) -> Result<(), KitError> {
        self.own("start the server again")?.start()
    }

    /// Crashes the server and starts it again.
    pub fn restart(&self) -> Result<(), KitError> {
        self.stop_immediate()?;
        self.start_again()
    }

    fn own(&self, doing: &str) -> Result<&Cluster, KitError> {
        self.cluster
            .as_ref()
            .ok_or_else(|| KitError::new(doing, "other tests share this server; use Server::start() here"))
    }
}
