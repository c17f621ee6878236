//! The keywords of a connection string, as libpq knows them, and what pgmend does with each.
//!
//! A keyword that asks for protection which pgmend cannot give is refused, never ignored.

use pgmend_core::job::distance;
use pgmend_core::refusal::{Code, Refusal};

/// What pgmend does with a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    /// It has its libpq meaning.
    Honoured,
    /// It cannot matter here (for example the transport's character set).
    Ignored,
    /// Only these values mean what pgmend does anyway.
    Only(&'static [&'static str]),
}

struct Keyword {
    name: &'static str,
    env: Option<&'static str>,
    support: Support,
}

const fn honoured(name: &'static str, env: &'static str) -> Keyword {
    Keyword { name, env: Some(env), support: Support::Honoured }
}

const fn plain(name: &'static str) -> Keyword {
    Keyword { name, env: None, support: Support::Honoured }
}

const fn only(name: &'static str, env: Option<&'static str>, values: &'static [&'static str]) -> Keyword {
    Keyword { name, env, support: Support::Only(values) }
}

const fn ignored(name: &'static str, env: Option<&'static str>) -> Keyword {
    Keyword { name, env, support: Support::Ignored }
}

/// In libpq's order. `service` has an environment variable too, but that is read before the others.
static KEYWORDS: &[Keyword] = &[
    plain("service"),
    plain("servicefile"),
    honoured("user", "PGUSER"),
    honoured("password", "PGPASSWORD"),
    honoured("passfile", "PGPASSFILE"),
    honoured("channel_binding", "PGCHANNELBINDING"),
    honoured("connect_timeout", "PGCONNECT_TIMEOUT"),
    honoured("dbname", "PGDATABASE"),
    honoured("host", "PGHOST"),
    honoured("hostaddr", "PGHOSTADDR"),
    honoured("port", "PGPORT"),
    // The driver always speaks UTF-8; the server converts.
    ignored("client_encoding", Some("PGCLIENTENCODING")),
    honoured("options", "PGOPTIONS"),
    honoured("application_name", "PGAPPNAME"),
    plain("fallback_application_name"),
    plain("keepalives"),
    plain("keepalives_idle"),
    plain("keepalives_interval"),
    plain("keepalives_count"),
    plain("tcp_user_timeout"),
    honoured("sslmode", "PGSSLMODE"),
    honoured("sslnegotiation", "PGSSLNEGOTIATION"),
    ignored("sslcompression", Some("PGSSLCOMPRESSION")),
    honoured("sslcert", "PGSSLCERT"),
    honoured("sslkey", "PGSSLKEY"),
    honoured("sslcertmode", "PGSSLCERTMODE"),
    only("sslpassword", None, &[]),
    honoured("sslrootcert", "PGSSLROOTCERT"),
    honoured("sslcrl", "PGSSLCRL"),
    only("sslcrldir", Some("PGSSLCRLDIR"), &[]),
    honoured("sslsni", "PGSSLSNI"),
    honoured("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    honoured("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    only("requirepeer", Some("PGREQUIREPEER"), &[]),
    only("require_auth", Some("PGREQUIREAUTH"), &[]),
    only("min_protocol_version", Some("PGMINPROTOCOLVERSION"), &["3.0"]),
    only("max_protocol_version", Some("PGMAXPROTOCOLVERSION"), &["3.0", "3.2", "latest"]),
    only("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"]),
    ignored("krbsrvname", Some("PGKRBSRVNAME")),
    ignored("gsslib", Some("PGGSSLIB")),
    ignored("gssdelegation", Some("PGGSSDELEGATION")),
    only("replication", None, &["false", "off", "no", "0"]),
    honoured("target_session_attrs", "PGTARGETSESSIONATTRS"),
    honoured("load_balance_hosts", "PGLOADBALANCEHOSTS"),
];

/// The keywords that have an environment variable, with it.
pub(super) fn from_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYWORDS.iter().filter_map(|keyword| keyword.env.map(|env| (keyword.name, env)))
}

/// The keyword's own spelling if pgmend accepts it with that value, else why not. `origin` says
/// where it was read, for example "the connection URL".
pub(crate) fn accept(name: &str, value: &str, origin: &str) -> Result<&'static str, Refusal> {
    let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.name == name) else {
        return Err(unknown(name, origin));
    };
    match keyword.support {
        Support::Honoured | Support::Ignored => Ok(keyword.name),
        Support::Only(values) if values.contains(&value) || value.is_empty() => Ok(keyword.name),
        Support::Only(values) => Err(Refusal::new(
            Code::Connection,
            format!("pgmend cannot honour `{name}` from {origin}, and ignoring it could be unsafe"),
            if values.is_empty() {
                format!("leave `{name}` out")
            } else {
                format!("use `{name}={}` or leave it out", values[0])
            },
        )),
    }
}

fn unknown(name: &str, origin: &str) -> Refusal {
    let nearest = KEYWORDS.iter().map(|keyword| keyword.name).min_by_key(|known| distance(name, known));
    // The keys of other tools (`schema`, `pool_timeout`) are near to nothing; a guess would mislead.
    let help = match nearest.filter(|known| distance(name, known) <= known.len().div_ceil(3)) {
        Some(known) => format!("did you mean `{known}`?"),
        None => "pgmend takes libpq's keywords only; remove it".to_owned(),
    };
    Refusal::new(Code::Connection, format!("unknown keyword `{name}` in {origin}"), help)
}

#[cfg(test)]
mod tests {
    use super::accept;

    #[test]
    fn an_unknown_keyword_is_refused_with_the_nearest_one() {
        let refusal = accept("sslmod", "require", "the connection URL").expect_err("unknown");
        assert_eq!(refusal.message, "unknown keyword `sslmod` in the connection URL");
        assert_eq!(refusal.help, "did you mean `sslmode`?");
        let refusal = accept("pgbouncer", "true", "the connection URL").expect_err("unknown");
        assert!(refusal.help.starts_with("pgmend takes libpq's keywords only"), "{}", refusal.help);
    }

    #[test]
    fn a_keyword_that_asks_for_protection_pgmend_lacks_is_refused() {
        assert!(accept("gssencmode", "prefer", "x").is_ok());
        assert!(accept("gssencmode", "require", "x").is_err());
        assert!(accept("requirepeer", "postgres", "x").is_err());
    }
}
