//! The structured log: every event of a run as a line of JSON, on stderr or at the end of a file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pgmend::Event;
use pgmend::log::JsonLog;

use crate::args::{Global, LogFormat};
use crate::failure::Failure;

/// Whoever may read the file may read keys that are plain, reasons and names: its owner only, unless changed.
const FILE_MODE: u32 = 0o600;

/// The log. Clones write to the same place.
#[derive(Debug, Clone, Default)]
pub struct Log {
    open: Option<Arc<Mutex<Open>>>,
}

#[derive(Debug)]
struct Open {
    lines: JsonLog,
    place: Place,
    /// The file could not be written: said once, and the run goes on, as the ledger has what happened.
    broken: bool,
}

#[derive(Debug)]
enum Place {
    Stderr,
    File(PathBuf, File),
}

impl Log {
    /// The log as asked for; a file that cannot be written is refused before anything is done.
    pub fn open(global: &Global) -> Result<Self, Failure> {
        let place = match (&global.log_file, global.log_format) {
            (Some(path), LogFormat::Human | LogFormat::Json) => Place::File(path.clone(), appending(path)?),
            (None, LogFormat::Json) => Place::Stderr,
            (None, LogFormat::Human) => return Ok(Self::default()),
        };
        let open = Open { lines: JsonLog::new(global.env.clone()), place, broken: false };
        Ok(Self { open: Some(Arc::new(Mutex::new(open))) })
    }

    /// Whether it has stderr for itself.
    pub fn on_stderr(&self) -> bool {
        self.with(|open| matches!(open.place, Place::Stderr)).unwrap_or(false)
    }

    /// Writes an event.
    pub fn hear(&self, event: &Event) {
        self.with(|open| {
            let line = open.lines.line(SystemTime::now(), event);
            open.write(&line);
        });
    }

    /// Writes why the command stopped.
    pub fn fail(&self, failure: &Failure) {
        self.with(|open| {
            let line = open.lines.failure(SystemTime::now(), failure.code(), &failure.message(), failure.help());
            open.write(&line);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Open) -> T) -> Option<T> {
        let open = self.open.as_ref()?;
        // A panic elsewhere does not make a line worse: go on.
        Some(act(&mut open.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Open {
    /// One write a line, so that two processes may append to one file.
    fn write(&mut self, line: &str) {
        let line = format!("{line}\n");
        let written = match &mut self.place {
            Place::Stderr => std::io::stderr().lock().write_all(line.as_bytes()),
            Place::File(_, file) => file.write_all(line.as_bytes()),
        };
        let (Err(error), Place::File(path, _), false) = (written, &self.place, self.broken) else { return };
        self.broken = true;
        let said = format!("the log `{}` cannot be written any more: {error}; the run goes on", path.display());
        // A closed stderr is no error either.
        drop(writeln!(std::io::stderr().lock(), "{said}"));
    }
}

fn appending(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path);
    opened.map_err(|error| {
        let message = format!("cannot write the log `{}`: {error}", path.display());
        Failure::usage(message, "check the path and its rights, or leave --log-file out")
    })
}
