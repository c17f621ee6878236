//! The layers that one connection's settings come from, strongest first: the connection string, its
//! service, the environment. What none of them says keeps its default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pgmend_core::refusal::{Code, Refusal};

use super::{keyword, pairs, url};
use crate::service;

/// Reads one environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Raw values by keyword, each with where it was read.
pub(super) struct Settings<'a> {
    values: BTreeMap<&'static str, (String, String)>,
    env: Environment<'a>,
}

impl<'a> Settings<'a> {
    /// Collects all layers.
    pub(super) fn collect(explicit: Option<&str>, env: Environment<'a>) -> Result<Self, Refusal> {
        let mut settings = Self { values: BTreeMap::new(), env };
        match (explicit, settings.variable("DATABASE_URL")) {
            (Some(text), _) if text.trim().is_empty() => {
                return Err(Refusal::new(
                    Code::Connection,
                    "the database URL is empty",
                    "is the shell variable that it comes from set? Leave `--database-url` out to use DATABASE_URL or PG*",
                ));
            }
            (Some(text), _) => settings.add_string(text, "the connection string")?,
            (None, Some(text)) => settings.add_string(&text, "DATABASE_URL")?,
            (None, None) => {}
        }
        settings.add_service()?;
        for (keyword, variable) in keyword::from_environment() {
            if let Some(value) = settings.variable(variable) {
                settings.add(keyword, value, variable)?;
            }
        }
        Ok(settings)
    }

    fn add_string(&mut self, text: &str, origin: &str) -> Result<(), Refusal> {
        let pairs = match url::after_scheme(text.trim()) {
            Some(rest) => url::parse(rest)?,
            None => pairs::parse(text)?,
        };
        // Within one string the last mention of a keyword counts, as in libpq.
        for (keyword, value) in pairs.into_iter().rev() {
            self.add(&keyword, value, origin)?;
        }
        Ok(())
    }

    fn add_service(&mut self) -> Result<(), Refusal> {
        let Some(name) = self.text("service").map(str::to_owned).or_else(|| self.variable("PGSERVICE")) else {
            return Ok(());
        };
        let chosen = self.text("servicefile").map(str::to_owned).or_else(|| self.variable("PGSERVICEFILE"));
        let system = self.variable("PGSYSCONFDIR").map(PathBuf::from);
        let found =
            service::settings(&name, chosen.as_deref().map(Path::new), self.home().as_deref(), system.as_deref())?;
        // In a service the first mention counts.
        for (keyword, value) in found {
            self.add(&keyword, value, &format!("service `{name}`"))?;
        }
        Ok(())
    }

    /// Adds a value unless a stronger layer has given one.
    fn add(&mut self, name: &str, value: String, origin: &str) -> Result<(), Refusal> {
        let name = keyword::accept(name, &value, origin)?;
        self.values.entry(name).or_insert_with(|| (value, origin.to_owned()));
        Ok(())
    }

    /// An environment variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// The user's home folder.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }

    /// The value of a keyword, if it is set and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of a keyword as an owned text.
    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// The value of a keyword that takes a whole number.
    pub(super) fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| self.invalid(name, "write a whole number"))
    }

    /// The value of a keyword that takes one of some words.
    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(self.invalid(name, &format!("use one of {}", words.join(", "))))
            }
        }
    }

    /// The refusal of a keyword's value, which it shows (no secret goes through here).
    pub(super) fn invalid(&self, name: &str, help: &str) -> Refusal {
        let (value, origin) = self.values.get(name).map_or(("", "the settings"), |(value, origin)| (value, origin));
        Refusal::new(Code::Connection, format!("`{name}` from {origin} is not valid: `{value}`"), help)
    }
}
