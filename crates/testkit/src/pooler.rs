//! A PgBouncer in transaction mode between a client and a server, which can be killed and started again.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::cluster::{free_port, watched_folder};
use crate::error::KitError;
use crate::server::Server;
use crate::watchdog::Watchdog;

/// Names the program to use, where it is not in one of the usual places.
pub const POOLER_VARIABLE: &str = "PGMEND_PGBOUNCER";
/// Where packages put it; none of these is in everybody's PATH.
const USUAL: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/opt/homebrew/bin"];
/// It is there in milliseconds; this allows for a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(10);
const PID_FILE: &str = "pid";

/// A running PgBouncer, gone when it is dropped and also when the test process is killed.
#[derive(Debug)]
pub struct Pooler {
    // First, so that it is stopped before its folder goes.
    process: Mutex<Option<Child>>,
    watchdog: Watchdog,
    program: PathBuf,
    folder: PathBuf,
    account: Account,
    port: u16,
}

impl Pooler {
    /// Starts one before `server` that gives every pair of user and database so many of the server's sessions, each to
    /// one client for one transaction. `settings` are lines for its `[pgbouncer]` section. `None` where no PgBouncer is
    /// installed.
    pub fn start(server: &Server, sessions: u32, settings: &[(&str, &str)]) -> Result<Option<Self>, KitError> {
        let Some(program) = program() else { return Ok(None) };
        let (watchdog, folder) = watched_folder(PID_FILE)?;
        let account = Account::for_owner_of(&folder)?;
        let port = free_port()?;
        let pooler = Self { process: Mutex::new(None), watchdog, program, folder, account, port };
        pooler.configure(server, sessions, settings)?;
        pooler.start_again()?;
        Ok(Some(pooler))
    }

    /// The URL of a database behind it, for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// SIGKILL: every connection that goes through it is cut, on both sides.
    pub fn kill(&self) -> Result<(), KitError> {
        let Some(mut child) = self.lock().take() else { return Ok(()) };
        let doing = "kill the pooler";
        child.kill().map_err(KitError::while_doing(doing))?;
        child.wait().map_err(KitError::while_doing(doing))?;
        fs::remove_file(self.folder.join(PID_FILE)).map_err(KitError::while_doing(doing))
    }

    /// Starts it on the same port as before; does nothing while it runs.
    pub fn start_again(&self) -> Result<(), KitError> {
        let mut process = self.lock();
        if process.is_none() {
            *process = Some(self.boot()?);
        }
        Ok(())
    }

    /// What it wrote to its log since its last start.
    pub fn log(&self) -> Result<String, KitError> {
        fs::read_to_string(self.folder.join("log")).map_err(KitError::while_doing("read the pooler's log"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configure(&self, server: &Server, sessions: u32, settings: &[(&str, &str)]) -> Result<(), KitError> {
        let Self { folder, port, .. } = self;
        let more: String = settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        let text = format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {folder}/users\npidfile = {folder}/{PID_FILE}\n\
             pool_mode = transaction\ndefault_pool_size = {sessions}\nserver_reset_query =\nserver_login_retry = 1\n{more}",
            host = server.host(),
            server_port = server.port(),
            folder = folder.display(),
        );
        let doing = "write the pooler's settings";
        fs::write(folder.join("ini"), text).map_err(KitError::while_doing(doing))?;
        fs::write(folder.join("users"), "\"postgres\" \"\"\n").map_err(KitError::while_doing(doing))?;
        self.account.own(folder)
    }

    fn boot(&self) -> Result<Child, KitError> {
        let doing = "start the pooler";
        let log = File::create(self.folder.join("log")).map_err(KitError::while_doing(doing))?;
        let errors = log.try_clone().map_err(KitError::while_doing(doing))?;
        let mut command = Command::new(&self.program);
        self.account.apply(&mut command);
        let mut child = command
            .arg(self.folder.join("ini"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C in the terminal is for the tests; the watchdog stops it.
            .process_group(self.watchdog.group())
            .spawn()
            .map_err(KitError::while_doing(doing))?;
        let deadline = Instant::now() + START_LIMIT;
        while !(self.folder.join(PID_FILE).exists() && TcpStream::connect(("127.0.0.1", self.port)).is_ok()) {
            let ended = child.try_wait().map_err(KitError::while_doing(doing))?;
            if ended.is_some() || Instant::now() > deadline {
                let _gone = child.kill();
                let _status = child.wait();
                let log = self.log().unwrap_or_default();
                return Err(KitError::new(doing, format!("it did not come up; its log:\n{log}")));
            }
            sleep(POLL);
        }
        Ok(child)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _stopped = self.kill();
    }
}

/// PgBouncer's program, if there is one.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(POOLER_VARIABLE).filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(USUAL.map(PathBuf::from));
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}
