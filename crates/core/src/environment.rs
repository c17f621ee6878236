//! Environments: named databases with their identity checks and their policy, from `pgmend.toml`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::refusal::{Code, Refusal};
use crate::throttle::Throttle;

/// A `pgmend.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environments {
    /// The environment meant when none is named; must not be a protected one.
    #[serde(default)]
    pub default: Option<String>,
    /// Environments by name.
    #[serde(default)]
    pub environments: BTreeMap<String, Environment>,
}

/// A named database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The connection: a URL or key=value, without a password.
    #[serde(default)]
    pub database_url: Option<String>,
    /// The environment variable that holds the connection.
    #[serde(default)]
    pub database_url_variable: Option<String>,
    /// The server's name or address as it was connected to.
    #[serde(default)]
    pub host: Option<String>,
    /// The database's name.
    #[serde(default)]
    pub database: Option<String>,
    /// The cluster's system identifier: `select system_identifier from pg_control_system()`.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// A value that only this environment has.
    #[serde(default)]
    pub canary: Option<Canary>,
    /// Whether it must be named, `--env NAME`, by whoever writes to it.
    #[serde(default)]
    pub protected: bool,
    /// The program and arguments that are told, on standard input as JSON, when the glass is broken.
    #[serde(default)]
    pub notify: Vec<String>,
    /// What a run there needs.
    #[serde(default)]
    pub policy: Policy,
    /// When a run there holds; a job may be stricter, never laxer.
    #[serde(default)]
    pub throttle: Throttle,
}

/// A query and the answer that only one environment gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// One SELECT of one value.
    pub query: String,
    /// Its answer, as text.
    pub equals: String,
}

/// What a connection was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The host that was connected to.
    pub host: String,
    /// The database.
    pub database: String,
    /// The cluster.
    pub system_identifier: String,
    /// The canary's answer.
    pub canary: Option<String>,
}

impl Environments {
    /// Reads a `pgmend.toml`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut all: Environments = toml::from_str(text).map_err(|error| {
            let help = crate::job::suggestion(error.message())
                .unwrap_or_else(|| "see docs/environments.md for a commented pgmend.toml".to_owned());
            Refusal::new(Code::BadJob, error.to_string().trim_end().to_owned(), help)
        })?;
        for (name, environment) in &mut all.environments {
            let named =
                |refusal: Refusal| Refusal { message: format!("environment {name}: {}", refusal.message), ..refusal };
            environment.policy = std::mem::take(&mut environment.policy).checked().map_err(named)?;
            environment.throttle.check().map_err(named)?;
            if environment.database_url.is_some() && environment.database_url_variable.is_some() {
                let message = format!("environment {name} has both `database_url` and `database_url_variable`");
                return Err(Refusal::new(Code::BadJob, message, "keep one of them"));
            }
        }
        if let Some(default) = &all.default
            && all.environments.get(default).is_none_or(|e| e.protected)
        {
            let message = format!("the default environment `{default}` is protected or not there");
            return Err(Refusal::new(Code::BadJob, message, "a default names an environment that is not protected"));
        }
        Ok(all)
    }

    /// The environment of that name.
    pub fn named(&self, name: &str) -> Result<&Environment, Refusal> {
        self.environments.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.environments.keys().map(String::as_str).collect();
            let help = format!("pgmend.toml has {}", if known.is_empty() { "none".into() } else { known.join(", ") });
            Refusal::new(Code::BadJob, format!("there is no environment `{name}`"), help)
        })
    }
}

impl Environment {
    /// What is not as this environment says: each with what was expected and what was found.
    pub fn mismatches(&self, arrived: &Arrived) -> Vec<String> {
        let canary = self.canary.as_ref().map(|c| c.equals.as_str());
        let asked = [
            ("host", self.host.as_deref(), Some(arrived.host.as_str())),
            ("database", self.database.as_deref(), Some(arrived.database.as_str())),
            ("system identifier", self.system_identifier.as_deref(), Some(arrived.system_identifier.as_str())),
            ("canary", canary, arrived.canary.as_deref()),
        ];
        let differing = asked.into_iter().filter_map(|(what, expected, found)| {
            let expected = expected.filter(|e| Some(*e) != found)?;
            Some(format!("{what}: expected {expected}, found {}", found.unwrap_or("nothing")))
        });
        differing.collect()
    }

    /// Whether a connection that named no environment has led here, as far as its address and its cluster tell: nothing that is
    /// expected differs, and the cluster, or host and database, are.
    pub fn is_at(&self, arrived: &Arrived) -> bool {
        let address_known = self.host.is_some() && self.database.is_some();
        let known = self.system_identifier.is_some() || address_known;
        let same =
            |expected: &Option<String>, found: &str| expected.as_deref().is_none_or(|expected| expected == found);
        // A cluster that is known is the same under each of its names.
        let host = self.system_identifier.is_some() || same(&self.host, &arrived.host);
        known
            && host
            && same(&self.database, &arrived.database)
            && same(&self.system_identifier, &arrived.system_identifier)
    }

    /// Whether a plan or run there is recognised by more than its address.
    pub fn identified(&self) -> bool {
        self.system_identifier.is_some() || self.canary.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
        default = \"staging\"
        [environments.staging]
        database_url = \"postgresql://stage/shop\"
        [environments.production]
        database_url_variable = \"PRODUCTION_URL\"
        host = \"db1\"
        protected = true
        canary = { query = \"select value from setting where name = 'environment'\", equals = \"production\" }
        policy = { approvals = 2, ticket = \"^OPS-[0-9]+$\" }
    ";

    #[test]
    fn a_database_that_is_not_the_expected_one_is_told_with_what_was_found() {
        let all = Environments::parse(FILE).unwrap();
        let arrived = Arrived {
            host: "db2".into(),
            database: "shop".into(),
            system_identifier: "7".into(),
            canary: Some("staging".into()),
        };
        assert_eq!(
            all.named("production").unwrap().mismatches(&arrived),
            ["host: expected db1, found db2", "canary: expected production, found staging"]
        );
        assert!(all.named("staging").unwrap().mismatches(&arrived).is_empty());
        assert_eq!(all.named("prod").unwrap_err().help, "pgmend.toml has production, staging");
    }

    #[test]
    fn the_default_is_never_a_protected_environment() {
        let text = FILE.replace("default = \"staging\"", "default = \"production\"");
        assert_eq!(
            Environments::parse(&text).unwrap_err().message,
            "the default environment `production` is protected or not there"
        );
    }
}
