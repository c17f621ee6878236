//! Where the PostgreSQL server programs are on this machine.

use std::cmp::Reverse;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::KitError;

/// Names the folder of the server programs to test against, for example
/// `/usr/lib/postgresql/15/bin`. When it is set, no other place is searched.
pub const BINARIES_VARIABLE: &str = "PGMEND_PG_BIN";

/// Folders that hold one folder per installed version, and what lies between that and `bin`.
const VERSIONED_PLACES: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql"),
    ("/usr/local/opt", "postgresql"),
    ("/Applications/Postgres.app/Contents/Versions", ""),
];

/// Folders that packagers use for the only version they install.
const PLAIN_PLACES: [&str; 4] = ["/usr/local/pgsql/bin", "/usr/libexec/postgresql", "/usr/local/bin", "/usr/bin"];

/// The version of a PostgreSQL server, such as 15.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 15 in 15.18.
    pub major: u32,
    /// 18 in 15.18; 0 for a beta.
    pub minor: u32,
}

impl Version {
    /// Reads the answer of `postgres --version`, and the `server_version` setting.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = text.split_whitespace().find(|word| word.starts_with(char::is_numeric))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A folder with working `initdb` and `postgres` programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    version: Version,
}

impl Binaries {
    /// The server programs to use: those that [`BINARIES_VARIABLE`] names, else those on PATH,
    /// else the newest of the places where packages put them.
    pub fn find() -> Result<Self, KitError> {
        if let Some(folder) = env::var_os(BINARIES_VARIABLE).filter(|value| !value.is_empty()) {
            return Self::at(Path::new(&folder));
        }
        let on_path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&on_path).find_map(|folder| Self::at(&folder).ok());
        found.or_else(|| Self::all().into_iter().next()).ok_or_else(|| {
            KitError::new(
                "find PostgreSQL's server programs",
                format!(
                    "no `initdb` and `postgres` on PATH or in the usual places; install your system's PostgreSQL \
                     server (Debian: apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew \
                     install postgresql), or set {BINARIES_VARIABLE} to their folder"
                ),
            )
        })
    }

    /// The server programs in this folder.
    pub fn at(folder: &Path) -> Result<Self, KitError> {
        let doing = || format!("use the PostgreSQL programs in {}", folder.display());
        // Debian's wrapper folders hold psql alone, and initdb is what a server needs first.
        if !folder.join("initdb").is_file() {
            return Err(KitError::new(doing(), "there is no `initdb`"));
        }
        let output = Command::new(folder.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|source| KitError::new(doing(), format!("`postgres`: {source}")))?;
        let answer = String::from_utf8_lossy(&output.stdout);
        let version = Version::parse(&answer)
            .ok_or_else(|| KitError::new(doing(), format!("`postgres --version` answered {answer:?}")))?;
        // A folder of links to some of the programs: the others are where the links lead.
        let home = folder.join("initdb").canonicalize().ok();
        let home = home.as_deref().and_then(Path::parent).filter(|home| home.join("postgres").is_file());
        Ok(Self { folder: home.unwrap_or(folder).to_path_buf(), version })
    }

    /// Every installed version outside PATH, newest first.
    pub fn all() -> Vec<Self> {
        let mut found: Vec<Self> = places().iter().filter_map(|at| Self::at(at).ok()).collect();
        found.sort_by_key(|binaries| Reverse(binaries.version));
        found
    }

    /// The folder that holds the programs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The version of the programs.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The path of one program, whether or not it exists.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn places() -> Vec<PathBuf> {
    let versioned = VERSIONED_PLACES.iter().flat_map(|(parent, prefix)| {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        entries
            .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join("bin"))
    });
    versioned.chain(PLAIN_PLACES.iter().map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_postgres_says() {
        let read = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(read("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)").as_deref(), Some("15.18"));
        assert_eq!(read("postgres (PostgreSQL) 18beta2").as_deref(), Some("18.0"));
        assert_eq!(read("postgres"), None);
    }

    #[test]
    fn a_folder_without_initdb_is_refused_by_name() {
        let error = Binaries::at(Path::new("/proc")).expect_err("there is no initdb in /proc");
        assert!(error.to_string().contains("/proc"), "{error}");
    }

    #[test]
    fn the_server_programs_of_this_machine_are_found() {
        let binaries = Binaries::find().expect("the tests need a PostgreSQL server");
        assert!(binaries.program("postgres").is_file());
        assert!(binaries.version().major >= 14, "{}", binaries.version());
    }
}
