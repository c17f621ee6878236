//! `postgresql://user:password@host1:1,host2:2/dbname?keyword=value`, read the way libpq reads it.

use pgmend_core::refusal::{Code, Refusal};

/// The part after the scheme, if the text is a PostgreSQL URL.
pub(super) fn after_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
}

/// Splits the part after the scheme into keywords and values, in order. No error shows the text,
/// since it may hold the password.
pub(super) fn parse(rest: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut pairs = Vec::new();
    let mut rest = rest;
    // As in libpq, user and password end at the first `@`, and that comes before any `/`.
    if let Some(at) = rest.find(['@', '/']).filter(|at| rest.as_bytes()[*at] == b'@') {
        let (user, password) = split_once_or_empty(&rest[..at], ':');
        push(&mut pairs, "user", user)?;
        push(&mut pairs, "password", password)?;
        rest = &rest[at + 1..];
    }
    let (address, query) = split_once_or_empty(rest, '?');
    // libpq would take the end of such a password for a host or a database, and show it in errors.
    if address.contains('@') {
        return Err(bad(
            "the connection URL has an `@` after its user and password".to_owned(),
            "write `@` as `%40`, `/` as `%2F` and `:` as `%3A` in user, password and database name",
        ));
    }
    let (hosts, dbname) = split_once_or_empty(address, '/');
    let (hosts, ports) = hosts_and_ports(hosts)?;
    push(&mut pairs, "host", &hosts)?;
    push(&mut pairs, "port", &ports)?;
    push(&mut pairs, "dbname", dbname)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=').filter(|(_, value)| !value.contains('=')) else {
            let key = pair.split('=').next().unwrap_or_default();
            return Err(bad(
                format!("the parameter `{key}` of the connection URL is not `{key}=value`"),
                "write `=` inside a value as `%3D`, for example `options=-c%20role%3Dapp`",
            ));
        };
        match (decode(key)?.as_str(), value) {
            ("ssl", "true") => pairs.push(("sslmode".to_owned(), "require".to_owned())),
            (key, value) => pairs.push((key.to_owned(), decode(value)?)),
        }
    }
    Ok(pairs)
}

/// `[::1]:5433,b` → (`::1,b`, `5433,`): two lists of the same length.
fn hosts_and_ports(text: &str) -> Result<(String, String), Refusal> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        let (host, port) = match part.strip_prefix('[').map(|inner| inner.split_once(']')) {
            Some(Some((host, ""))) => (host, ""),
            Some(Some((host, after))) if after.starts_with(':') => (host, &after[1..]),
            Some(_) => {
                return Err(bad(
                    "an IPv6 address in the connection URL lacks its `]`".to_owned(),
                    "write it as `postgresql://[::1]:5432/dbname`",
                ));
            }
            None => split_once_or_empty(part, ':'),
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad(
                "a port in the connection URL is not a number".to_owned(),
                "write `postgresql://user:password@host:5432/dbname`, and `/` in a password as `%2F`",
            ));
        }
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    Ok((hosts.join(","), ports))
}

fn split_once_or_empty(text: &str, separator: char) -> (&str, &str) {
    text.split_once(separator).unwrap_or((text, ""))
}

fn push(pairs: &mut Vec<(String, String)>, key: &str, value: &str) -> Result<(), Refusal> {
    if !value.is_empty() {
        pairs.push((key.to_owned(), decode(value)?));
    }
    Ok(())
}

/// Undoes percent-encoding. A `+` stays a plus, as in libpq.
fn decode(text: &str) -> Result<String, Refusal> {
    let wrong = || {
        bad(
            "the connection URL has a `%` that is not followed by two hexadecimal digits of UTF-8 text".to_owned(),
            "write a literal `%` as `%25`, in the password too",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) if high + low > 0 => {
                bytes.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits fit a byte"));
            }
            _ => return Err(wrong()),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn bad(message: String, help: &str) -> Refusal {
    Refusal::new(Code::Connection, message, help)
}

#[cfg(test)]
mod tests {
    use super::{after_scheme, parse};

    fn pairs(url: &str) -> Vec<(String, String)> {
        parse(after_scheme(url).expect("a PostgreSQL URL")).expect("a valid URL")
    }

    fn text(url: &str) -> String {
        pairs(url).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_full_url_is_split_and_decoded() {
        assert_eq!(
            text("postgresql://u%40x:p%2Fw:d@h1:1,h2:2/my%20db?sslmode=require&options=-c%20role%3Dapp"),
            "user=u@x password=p/w:d host=h1,h2 port=1,2 dbname=my db sslmode=require options=-c role=app"
        );
    }

    #[test]
    fn every_part_may_be_missing() {
        assert_eq!(text("postgresql://"), "");
        assert_eq!(text("postgres:///db"), "dbname=db");
        assert_eq!(text("postgres://u@"), "user=u");
        assert_eq!(text("postgres://h1,h2:2"), "host=h1,h2 port=,2");
        assert_eq!(text("postgres:///?ssl=true"), "sslmode=require");
        assert_eq!(text("postgres:///db?user=a@b"), "dbname=db user=a@b");
    }

    #[test]
    fn socket_directories_and_ipv6_addresses_are_hosts() {
        assert_eq!(text("postgresql://%2Ftmp%2Fpg:5433/db"), "host=/tmp/pg port=5433 dbname=db");
        assert_eq!(text("postgresql:///db?host=/tmp"), "dbname=db host=/tmp");
        assert_eq!(text("postgresql://[::1]:5433,[fe80::2]/db"), "host=::1,fe80::2 port=5433, dbname=db");
        assert!(parse("[::1/db").is_err());
    }

    #[test]
    fn broken_encoding_is_refused_without_showing_the_text() {
        for url in [
            "u:hunter2%@h/db",
            "u:hunter2%zz@h",
            "u:%00hunter2@h",
            "h/db?options=-c role=x",
            "u:p@hunter2@h/d",
            "u:hunter2/x",
            "u:1/hunter2@h/d",
        ] {
            let refusal = parse(url).expect_err("must be refused");
            assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
        }
    }
}
