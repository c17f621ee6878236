//! The password file (`~/.pgpass`): lines of `host:port:dbname:user:password`.

use std::io::ErrorKind;
use std::path::Path;

/// What a connection is looked up by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The names the host may have in the file: itself, and `localhost` for the default socket.
    pub(crate) hosts: &'a [&'a str],
    pub(crate) port: u16,
    pub(crate) dbname: &'a str,
    pub(crate) user: &'a str,
}

/// The password file's text, `None` if there is none, or a warning if it must not be used. A file
/// that others may read is not trusted, as in libpq.
pub(crate) fn read(path: &Path) -> Result<Option<String>, String> {
    let unusable = |error: std::io::Error| format!("cannot read the password file {}: {error}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error)),
        Ok(metadata) if !metadata.is_file() => {
            return Err(format!("the password file {} is not a plain file", path.display()));
        }
        Ok(metadata) if open_to_others(&metadata) => {
            return Err(format!(
                "the password file {0} is readable by others and was not used; run `chmod 0600 {0}`",
                path.display()
            ));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(unusable)
}

#[cfg(unix)]
fn open_to_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn open_to_others(_: &std::fs::Metadata) -> bool {
    false
}

/// The password of the first line that matches. `*` matches anything; `\:` and `\\` are literal.
pub(crate) fn password(text: &str, wanted: Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (host, rest) = field(line)?;
        let (line_port, rest) = field(rest)?;
        let (dbname, rest) = field(rest)?;
        let (user, password) = field(rest)?;
        let matches = |field: &Field, value: &str| field.wildcard || field.text == value;
        let found = wanted.hosts.iter().any(|name| matches(&host, name))
            && matches(&line_port, &port)
            && matches(&dbname, wanted.dbname)
            && matches(&user, wanted.user);
        found.then(|| unescaped(password.trim_end_matches('\r'))).filter(|password| !password.is_empty())
    })
}

struct Field {
    text: String,
    /// A bare `*`; an escaped one is a literal star.
    wildcard: bool,
}

/// The text up to the next colon that no backslash escapes, and the rest after it.
fn field(line: &str) -> Option<(Field, &str)> {
    let mut escaped = false;
    let end = line.bytes().position(|byte| {
        let ends = byte == b':' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    let raw = &line[..end];
    Some((Field { text: unescaped(raw), wildcard: raw == "*" }, &line[end + 1..]))
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            character => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Wanted, password};

    fn find(text: &str, host: &str, dbname: &str) -> Option<String> {
        password(text, Wanted { hosts: &[host], port: 5432, dbname, user: "app" })
    }

    #[test]
    fn the_first_matching_line_wins() {
        let text = "# comment\n\nh:5433:*:app:other port\nh:5432:db:app:exact\n*:*:*:*:anything\n";
        assert_eq!(find(text, "h", "db").as_deref(), Some("exact"));
        assert_eq!(find(text, "h", "db2").as_deref(), Some("anything"));
        assert_eq!(find("h:5432:db:root:no\nshort:line\n", "h", "db"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let text = "\\:\\:1:5432:a\\\\b:app:p\\:w\\\\d:tail\r\n";
        assert_eq!(find(text, "::1", "a\\b").as_deref(), Some("p:w\\d:tail"));
        assert_eq!(find("\\*:*:*:*:star\n", "h", "db"), None);
    }

    #[test]
    fn a_default_socket_is_also_called_localhost() {
        let wanted = Wanted { hosts: &["/tmp", "localhost"], port: 1, dbname: "d", user: "u" };
        assert_eq!(password("localhost:1:d:u:pw", wanted).as_deref(), Some("pw"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pgpass");
        assert_eq!(super::read(&path), Ok(None));
        std::fs::write(&path, "*:*:*:*:x").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("changed");
        assert!(super::read(&path).expect_err("too open").contains("chmod 0600"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("changed");
        assert_eq!(super::read(&path), Ok(Some("*:*:*:*:x".to_owned())));
    }
}
