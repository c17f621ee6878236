//! The connection service file: named sets of connection settings, shared with psql.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use pgmend_core::refusal::{Code, Refusal};

/// Where packaged libpq builds look for `pg_service.conf` (Debian, Red Hat, built from source), since
/// there is no libpq here to ask.
const SYSTEM_FOLDERS: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// The settings of service `name`, from the first file that defines it. `chosen` is a file that the
/// user named, which must exist.
pub(crate) fn settings(
    name: &str,
    chosen: Option<&Path>,
    home: Option<&Path>,
    system: Option<&Path>,
) -> Result<Vec<(String, String)>, Refusal> {
    let mut files: Vec<PathBuf> = Vec::new();
    match (chosen, home) {
        (Some(chosen), _) if !chosen.is_file() => {
            return Err(Refusal::new(
                Code::Connection,
                format!("the service file {} does not exist", chosen.display()),
                "correct PGSERVICEFILE, or unset it to use ~/.pg_service.conf",
            ));
        }
        (Some(chosen), _) => files.push(chosen.to_path_buf()),
        (None, Some(home)) => files.push(home.join(".pg_service.conf")),
        (None, None) => {}
    }
    match system {
        Some(system) => files.push(system.join("pg_service.conf")),
        None => files.extend(SYSTEM_FOLDERS.iter().map(|folder| Path::new(folder).join("pg_service.conf"))),
    }
    for file in &files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(Refusal::new(
                    Code::Connection,
                    format!("cannot read the service file {}: {error}", file.display()),
                    "make it readable for you, and UTF-8 text",
                ));
            }
        };
        if let Some(settings) = section(&text, name, file)? {
            return Ok(settings);
        }
    }
    let looked: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    Err(Refusal::new(
        Code::Connection,
        format!("no service file defines the service `{name}`"),
        format!("add a section `[{name}]` to one of {}", looked.join(", ")),
    ))
}

/// The lines of one section, or `None` if the file has no such section. Values are taken as they
/// stand: service files know no quotes.
fn section(text: &str, name: &str, file: &Path) -> Result<Option<Vec<(String, String)>>, Refusal> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            if found.is_some() {
                break;
            }
            if line == format!("[{name}]") {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(settings) = &mut found else { continue };
        let Some((keyword, value)) = line.split_once('=').filter(|(keyword, _)| *keyword != "service") else {
            return Err(Refusal::new(
                Code::Connection,
                format!("line {} of the service file {} is not `keyword=value`", number + 1, file.display()),
                "write one libpq keyword and its value per line; a service cannot name another one, nor LDAP",
            ));
        };
        settings.push((keyword.to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{section, settings};

    const FILE: &str = "# shared\n[other]\nhost=wrong\n\n[prod]\n  host=db1,db2\nport=5433  \noptions=-c role=app\n[prod]\nhost=late\n";

    #[test]
    fn a_section_ends_at_the_next_one() {
        let settings = section(FILE, "prod", Path::new("f")).expect("valid").expect("defined");
        let text: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(text, ["host=db1,db2", "port=5433", "options=-c role=app"]);
        assert_eq!(section(FILE, "nowhere", Path::new("f")), Ok(None));
    }

    #[test]
    fn a_line_without_equals_is_refused_by_number() {
        let refusal = section("[a]\nhost=x\nldap://server", "a", Path::new("f")).expect_err("refused");
        assert!(refusal.message.starts_with("line 3 of the service file f"), "{refusal}");
        assert!(section("[a]\nservice=b", "a", Path::new("f")).is_err());
    }

    #[test]
    fn the_users_file_comes_before_the_system_file() {
        let home = tempfile::tempdir().expect("a folder");
        let system = tempfile::tempdir().expect("a folder");
        std::fs::write(home.path().join(".pg_service.conf"), "[a]\nhost=mine\n").expect("written");
        std::fs::write(system.path().join("pg_service.conf"), "[a]\nhost=theirs\n[b]\nhost=b\n").expect("written");
        let host =
            |name: &str| settings(name, None, Some(home.path()), Some(system.path())).map(|found| found[0].1.clone());
        assert_eq!(host("a").as_deref(), Ok("mine"));
        assert_eq!(host("b").as_deref(), Ok("b"));
        assert!(host("c").expect_err("undefined").help.contains("[c]"));
        assert!(settings("a", Some(Path::new("/nonexistent/f")), None, None).is_err());
    }
}
