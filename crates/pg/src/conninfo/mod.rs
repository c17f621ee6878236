//! Where and how to connect, by the rules that psql's users know: libpq's connection strings,
//! `PG*` variables, service file and password file.
//!
//! Everything that can be judged without a network is judged here, once; a wrong setting is a
//! refusal that names it. Connecting is in [`crate::connect`].

mod account;
mod encryption;
mod endpoint;
mod keyword;
mod pairs;
mod settings;
mod url;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use pgmend_core::refusal::{Code, Refusal};

pub use endpoint::{Endpoint, Place};
use settings::{Environment, Settings};

use crate::passfile;
use crate::tls::TlsSettings;

/// Long enough for a slow TLS handshake across the world, short enough to try the next host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A worker must notice a dead server well before its lease (30 s) runs out.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// The kernel's own default, for `keepalives_idle=0`.
const KEEPALIVE_IDLE_SYSTEM: Duration = Duration::from_secs(7200);

/// A password. It prints as a placeholder.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The text, for the driver only.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// Which kind of server is wanted (`target_session_attrs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any.
    Any,
    /// One whose sessions can write.
    ReadWrite,
    /// One whose sessions cannot write.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery, or any if none is.
    PreferStandby,
}

impl Target {
    const WORDS: [(&'static str, Target); 6] = [
        ("any", Target::Any),
        ("read-write", Target::ReadWrite),
        ("read-only", Target::ReadOnly),
        ("primary", Target::Primary),
        ("standby", Target::Standby),
        ("prefer-standby", Target::PreferStandby),
    ];

    /// The word in a connection string.
    pub fn word(self) -> &'static str {
        Target::WORDS.iter().find(|(_, target)| *target == self).map_or("any", |(word, _)| word)
    }
}

/// Whether authentication must be tied to the TLS channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// How TCP notices that the server is gone. `None` leaves a value to the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Liveness {
    pub(crate) keepalives: bool,
    pub(crate) idle: Duration,
    pub(crate) interval: Option<Duration>,
    pub(crate) count: Option<u32>,
    pub(crate) user_timeout: Option<Duration>,
}

/// A resolved connection: every layer read, every value judged. Its `Debug` hides passwords.
#[derive(Debug, Clone)]
pub struct Conninfo {
    /// What it was resolved from; it may hold a password.
    given: Option<Password>,
    endpoints: Vec<(Endpoint, Option<Password>)>,
    user: String,
    dbname: String,
    application_name: String,
    options: Option<String>,
    target: Target,
    warnings: Vec<String>,
    pub(crate) shuffle: bool,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) liveness: Liveness,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) tls: TlsSettings,
}

impl Conninfo {
    /// The hosts, in the order in which they are tried.
    pub fn hosts(&self) -> Vec<String> {
        self.endpoints.iter().map(|(endpoint, _)| endpoint.host()).collect()
    }

    /// Resolves `explicit` (`--database-url`), else `DATABASE_URL`, completed by the service, the
    /// `PG*` variables and the password file.
    pub fn resolve(explicit: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Conninfo, Refusal> {
        let env: Environment<'_> = env;
        let settings = Settings::collect(explicit, env)?;
        let endpoints = endpoint::endpoints(&settings)?;
        let user = settings.owned("user").or_else(|| account::user_name(&settings)).ok_or_else(|| {
            Refusal::new(Code::Connection, "there is no user to connect as", "set `user` in the URL, or PGUSER")
        })?;
        let dbname = settings.owned("dbname").unwrap_or_else(|| user.clone());
        let mut warnings = Vec::new();
        let endpoints = with_passwords(endpoints, &settings, &user, &dbname, &mut warnings);
        let tls = encryption::tls_settings(&settings, &endpoints)?;
        let application_name =
            settings.owned("application_name").or_else(|| settings.owned("fallback_application_name"));
        let binding = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        Ok(Conninfo {
            given: explicit.map(|text| Password(text.to_owned())),
            user,
            dbname,
            application_name: application_name.unwrap_or_else(|| "pgmend".to_owned()),
            options: options(&settings),
            target: settings.choice("target_session_attrs", &Target::WORDS)?.unwrap_or(Target::Any),
            warnings,
            shuffle: settings.choice("load_balance_hosts", &[("disable", false), ("random", true)])?.unwrap_or(false),
            connect_timeout: match settings.number::<i64>("connect_timeout")? {
                None => Some(CONNECT_TIMEOUT),
                Some(seconds) => u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs),
            },
            liveness: liveness(&settings)?,
            channel_binding: settings.choice("channel_binding", &binding)?.unwrap_or(ChannelBinding::Prefer),
            tls,
            endpoints,
        })
    }

    /// The same connection with its service, its password file and the process's variables read again: a password
    /// may have been changed since. What no longer reads stays as it was.
    pub fn again(&self) -> Conninfo {
        let given = self.given.as_ref().map(Password::reveal);
        Conninfo::resolve(given, &|name| std::env::var(name).ok()).unwrap_or_else(|_| self.clone())
    }

    /// `host:port/dbname as user`, for people; never the password.
    pub fn describe(&self) -> String {
        let endpoints: Vec<String> = self.endpoints.iter().map(|(endpoint, _)| endpoint.to_string()).collect();
        format!("{}/{} as {}", endpoints.join(","), self.dbname, self.user)
    }

    /// The servers to try, in order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().map(|(endpoint, _)| endpoint)
    }

    /// The servers to try, each with the password for it.
    pub(crate) fn endpoints_with_passwords(&self) -> &[(Endpoint, Option<Password>)] {
        &self.endpoints
    }

    /// The role to log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// What the server shows in `pg_stat_activity`.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// The server options, for example `-c role=app`.
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// The same connection with further settings for its session, which go before its own.
    pub fn with_options(&self, settings: &[(&str, String)]) -> Conninfo {
        // As in libpq: a space ends a setting unless a backslash precedes it.
        let quoted = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
        let added = settings.iter().map(|(name, value)| format!("-c {name}={}", quoted(value)));
        let options: Vec<String> = self.options.iter().cloned().chain(added).collect();
        Conninfo { options: Some(options.join(" ")), ..self.clone() }
    }

    /// Which kind of server is wanted.
    pub fn target(&self) -> Target {
        self.target
    }

    /// What was passed over and why, for example a password file that others can read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl std::fmt::Display for Conninfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Pairs each endpoint with the given password, else with the password file's.
fn with_passwords(
    endpoints: Vec<Endpoint>,
    settings: &Settings<'_>,
    user: &str,
    dbname: &str,
    warnings: &mut Vec<String>,
) -> Vec<(Endpoint, Option<Password>)> {
    let given = settings.owned("password").map(Password);
    let path =
        settings.text("passfile").map(PathBuf::from).or_else(|| settings.home().map(|home| home.join(".pgpass")));
    let text = match path.filter(|_| given.is_none()).map(|path| passfile::read(&path)) {
        None | Some(Ok(None)) => String::new(),
        Some(Ok(Some(text))) => text,
        Some(Err(warning)) => {
            warnings.push(warning);
            String::new()
        }
    };
    let found = |endpoint: &Endpoint| {
        let names = endpoint.names_in_passfile();
        let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
        passfile::password(&text, passfile::Wanted { hosts: &hosts, port: endpoint.port, dbname, user }).map(Password)
    };
    endpoints
        .into_iter()
        .map(|endpoint| {
            let password = given.clone().or_else(|| found(&endpoint));
            (endpoint, password)
        })
        .collect()
}

/// The `options` text. libpq sends `PGTZ` and `PGDATESTYLE` as settings of their own; here they travel
/// in front, so that `options` wins.
fn options(settings: &Settings<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for (variable, parameter) in [("PGTZ", "TimeZone"), ("PGDATESTYLE", "DateStyle")] {
        if let Some(value) = settings.variable(variable).filter(|value| !value.eq_ignore_ascii_case("default")) {
            parts.push(format!("-c {parameter}={}", value.replace('\\', "\\\\").replace(' ', "\\ ")));
        }
    }
    parts.extend(settings.owned("options"));
    Some(parts.join(" ")).filter(|options| !options.is_empty())
}

fn liveness(settings: &Settings<'_>) -> Result<Liveness, Refusal> {
    // In libpq a value of 0 (or less) leaves the choice to the system.
    let amount = |name: &str| -> Result<Option<Option<u64>>, Refusal> {
        Ok(settings.number::<i64>(name)?.map(|value| u64::try_from(value).ok().filter(|value| *value > 0)))
    };
    let seconds = |name, default: Duration| -> Result<Option<Duration>, Refusal> {
        Ok(amount(name)?.map_or(Some(default), |value| value.map(Duration::from_secs)))
    };
    Ok(Liveness {
        keepalives: settings.number::<i64>("keepalives")?.unwrap_or(1) != 0,
        idle: seconds("keepalives_idle", KEEPALIVE_IDLE)?.unwrap_or(KEEPALIVE_IDLE_SYSTEM),
        interval: seconds("keepalives_interval", KEEPALIVE_INTERVAL)?,
        count: match amount("keepalives_count")? {
            None => Some(KEEPALIVE_COUNT),
            Some(count) => count.and_then(|count| u32::try_from(count).ok()),
        },
        user_timeout: amount("tcp_user_timeout")?
            .map_or(Some(TCP_USER_TIMEOUT), |value| value.map(Duration::from_millis)),
    })
}
