//! One PostgreSQL cluster in a temporary folder, and the process that serves it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::binaries::Binaries;
use crate::error::KitError;
use crate::watchdog::{POSTMASTER, Watchdog};

/// A server with `fsync = off` is up in 0.2 s; this allows for a loaded machine and a recovery.
const START_LIMIT: Duration = Duration::from_secs(60);
/// An immediate stop takes milliseconds.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// Socket paths end at 103 bytes on macOS and 107 on Linux; ours adds about 35.
const LONGEST_PARENT: usize = 60;
/// The port is free when chosen and may be taken when used, if tests start servers side by side.
const PORT_TRIES: u32 = 5;

/// What every test server has. Nothing is forced to disk: a test server's machine never loses
/// power, and a killed server process loses nothing of what it handed to the kernel.
const SETTINGS: [(&str, &str); 13] = [
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "off"),
    ("max_connections", "100"),
    ("max_prepared_transactions", "5"),
    ("wal_level", "logical"),
    ("shared_buffers", "64MB"),
    ("max_wal_size", "1GB"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %a %d "),
    ("unix_socket_permissions", "0777"),
];

/// A cluster that this process made.
#[derive(Debug)]
pub(crate) struct Cluster {
    // First, so that the server is stopped and its folder removed before anything else.
    process: Mutex<Option<Child>>,
    watchdog: Option<Watchdog>,
    folder: PathBuf,
    account: Account,
    binaries: Binaries,
    port: u16,
}

impl Cluster {
    /// Makes a cluster and serves it.
    pub(crate) fn create(binaries: Binaries, settings: &[(String, String)], keep: bool) -> Result<Self, KitError> {
        let (watchdog, folder) = if keep {
            (None, make_folder()?)
        } else {
            let (watchdog, folder) = watched_folder(POSTMASTER)?;
            (Some(watchdog), folder)
        };
        let account = Account::for_owner_of(&folder)?;
        fs::create_dir(folder.join("socket")).map_err(KitError::while_doing("make the socket's folder"))?;
        account.own(&folder)?;
        let process = Mutex::new(None);
        let mut cluster = Self { process, watchdog, folder, account, binaries, port: 0 };
        cluster.init()?;
        cluster.write_settings(settings)?;
        cluster.start_on_a_free_port()?;
        Ok(cluster)
    }

    pub(crate) fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn socket_folder(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::id)
    }

    /// Serves the cluster on the same port as before; does nothing while it is served.
    pub(crate) fn start(&self) -> Result<(), KitError> {
        let mut process = self.lock();
        if process.is_none() {
            *process = Some(self.boot()?);
        }
        Ok(())
    }

    /// Stops without a checkpoint, as a crash would: sessions are cut, recovery follows.
    pub(crate) fn stop_immediate(&self) -> Result<(), KitError> {
        let Some(mut child) = self.lock().take() else { return Ok(()) };
        let doing = "stop the server";
        if child.try_wait().map_err(KitError::while_doing(doing))?.is_some() {
            return Ok(());
        }
        signal("QUIT", child.id())?;
        let deadline = Instant::now() + STOP_LIMIT;
        while child.try_wait().map_err(KitError::while_doing(doing))?.is_none() {
            if Instant::now() > deadline {
                child.kill().map_err(KitError::while_doing(doing))?;
            }
            sleep(POLL);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn init(&self) -> Result<(), KitError> {
        let first = self.initdb("C.UTF-8")?;
        if first.is_ok() {
            return Ok(());
        }
        // macOS has no C.UTF-8; C with UTF-8 as the encoding sorts in the same way.
        let _leftovers = fs::remove_dir_all(self.data_folder());
        match self.initdb("C")? {
            Ok(()) => Ok(()),
            Err(detail) => Err(KitError::new("make a PostgreSQL cluster", detail)),
        }
    }

    fn initdb(&self, locale: &str) -> Result<Result<(), String>, KitError> {
        let mut command = self.command("initdb");
        command
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"])
            .arg(self.data_folder())
            .arg(format!("--locale={locale}"))
            .stdin(Stdio::null())
            .process_group(self.group());
        // As root, the server's account must be able to read the whole path of its programs.
        let doing = format!("run initdb in {}", self.binaries.folder().display());
        let output = command.output().map_err(KitError::while_doing(&doing))?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Err(format!("{}: {said}", self.binaries.folder().display())))
    }

    fn write_settings(&self, extra: &[(String, String)]) -> Result<(), KitError> {
        let socket = self.socket_folder().display().to_string();
        let fixed = SETTINGS.iter().copied().chain([("unix_socket_directories", socket.as_str())]);
        let extra = extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        // Of two lines for one setting the last one wins, so a test can override ours.
        let lines: String =
            fixed.chain(extra).map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect();
        OpenOptions::new()
            .append(true)
            .open(self.data_folder().join("postgresql.conf"))
            .and_then(|mut file| file.write_all(lines.as_bytes()))
            .map_err(KitError::while_doing("write the server's settings"))
    }

    fn start_on_a_free_port(&mut self) -> Result<(), KitError> {
        let mut tries = 1;
        loop {
            self.port = free_port()?;
            match self.start() {
                Ok(()) => return Ok(()),
                Err(error) if tries == PORT_TRIES || !error.to_string().contains("in use") => {
                    return Err(error);
                }
                Err(_) => tries += 1,
            }
        }
    }

    /// Starts the server and waits until it accepts connections.
    fn boot(&self) -> Result<Child, KitError> {
        let doing = "start the server";
        let log = File::create(self.log_file()).map_err(KitError::while_doing(doing))?;
        let errors = log.try_clone().map_err(KitError::while_doing(doing))?;
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data_folder())
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C in the terminal is for the tests; the watchdog stops the server.
            .process_group(self.group());
        let mut child = command.spawn().map_err(KitError::while_doing(doing))?;
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_ready(&child) {
            let ended = child.try_wait().map_err(KitError::while_doing(doing))?;
            if ended.is_some() || Instant::now() > deadline {
                let _gone = child.kill();
                let _status = child.wait();
                let log = fs::read_to_string(self.log_file()).unwrap_or_default();
                return Err(KitError::new(doing, format!("it did not come up; its log:\n{log}")));
            }
            sleep(POLL);
        }
        Ok(child)
    }

    /// Whether the pid file says so, rather than whether someone answers on the port: another
    /// test's server may have taken it.
    fn is_ready(&self, child: &Child) -> bool {
        let text = fs::read_to_string(self.data_folder().join("postmaster.pid"));
        let text = text.unwrap_or_default();
        let mut lines = text.lines();
        lines.next() == Some(child.id().to_string().as_str())
            && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }

    /// Its watchdog's, so that it finds what has no pid file yet; one of its own for a server that stays.
    fn group(&self) -> i32 {
        self.watchdog.as_ref().map_or(0, Watchdog::group)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        self.account.apply(&mut command);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("HOME", &self.folder);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A server that is kept keeps serving: that is what keeping it is for.
        if self.watchdog.is_some() {
            let _stopped = self.stop_immediate();
        }
    }
}

/// Where our folders go: the usual place, if its path leaves room for that of a socket.
fn parent() -> PathBuf {
    let usual = std::env::temp_dir();
    if usual.as_os_str().len() <= LONGEST_PARENT { usual } else { PathBuf::from("/tmp") }
}

/// A folder that stays.
fn make_folder() -> Result<PathBuf, KitError> {
    let folder = tempfile::Builder::new().prefix("pgmend-").tempdir_in(parent());
    Ok(folder.map_err(KitError::while_doing("make a folder for the server"))?.keep())
}

/// A folder that goes with this process, and with it the process that serves from it.
pub(crate) fn watched_folder(pid_file: &str) -> Result<(Watchdog, PathBuf), KitError> {
    Watchdog::over_a_folder_in(&parent(), pid_file).map_err(KitError::while_doing("make a folder and its watchdog"))
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> Result<u16, KitError> {
    let doing = "find a free port";
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(KitError::while_doing(doing))?;
    Ok(listener.local_addr().map_err(KitError::while_doing(doing))?.port())
}

fn signal(name: &str, pid: u32) -> Result<(), KitError> {
    let doing = "signal the server";
    let status = Command::new("sh")
        .args(["-c", "kill -\"$1\" \"$2\"", "kill", name, &pid.to_string()])
        .status()
        .map_err(KitError::while_doing(doing))?;
    if status.success() { Ok(()) } else { Err(KitError::new(doing, status)) }
}
