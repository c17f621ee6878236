//! The surroundings of a command: the database it was given, and where its output goes.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use pgmend::Engine;
use pgmend::guard::Named;
use pgmend_core::environment::Environments;
use serde::Serialize;

use crate::args::{Global, Output};
use crate::environment;
use crate::failure::Failure;
use crate::log::Log;
use crate::progress::Progress;
use crate::render;
use crate::render::paint::Paint;

/// The surroundings of a command.
#[derive(Debug)]
pub struct Shell {
    database_url: Option<String>,
    /// The environment that was named, `--env`.
    env: Option<String>,
    /// Whether the database was typed, rather than found.
    database_typed: bool,
    /// Where `pgmend.toml` is looked for, upward.
    start: PathBuf,
    output: Output,
    /// What the lines under NEXT must carry to reach the same database.
    address: String,
    paint: Paint,
    /// The structured log, if one was asked for.
    pub log: Log,
    /// The progress on stderr, once there is one: what is said beside it must not spoil its bar.
    progress: Arc<OnceLock<Progress>>,
}

impl Shell {
    /// The surroundings as typed and as the process finds them.
    pub fn new(global: &Global) -> Self {
        let from_environment = std::env::var("DATABASE_URL").ok();
        // An empty DATABASE_URL is what an unset one looks like in many a CI system.
        let database_url = global.database_url.clone().filter(|url| !url.trim().is_empty());
        let typed = database_url.as_deref().filter(|url| Some(*url) != from_environment.as_deref());
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let env = global.env.as_ref().map_or(String::new(), |env| format!(" --env {}", quoted(env)));
        Self {
            output: global.output,
            address: format!("{env}{}", typed.map(address).unwrap_or_default()),
            database_typed: typed.is_some(),
            database_url,
            env: global.env.clone(),
            start: PathBuf::from("."),
            paint: Paint { on: std::io::stdout().is_terminal() && !plain },
            log: Log::default(),
            progress: Arc::default(),
        }
    }

    /// What is said from now on is said beside this progress.
    pub fn beside(&self, progress: &Progress) {
        // A command drives one run; of a second progress, what is said to the first one is on the same stderr.
        drop(self.progress.set(progress.clone()));
    }

    /// Shows errors of the database with the values in them, if asked for: on stderr, and in no log.
    pub fn show_errors(&self, engine: &mut Engine, show_values: bool) {
        if !show_values || self.log.on_stderr() {
            return;
        }
        let progress = Arc::clone(&self.progress);
        engine.show_errors_in_full(move |text| {
            let said = format!("the database says, shown here only: {text}");
            match progress.get() {
                Some(progress) => progress.say(&said),
                // Nobody is left to tell when the place for errors is gone.
                None => drop(writeln!(std::io::stderr().lock(), "{said}")),
            }
        });
    }

    /// Looks for `pgmend.toml` from here upward.
    pub fn starting_at(mut self, job: Option<&str>) -> Self {
        self.start = job.map(PathBuf::from).filter(|path| path.exists()).unwrap_or(self.start);
        self
    }

    /// Opens the structured log.
    pub fn open_log(&mut self, global: &Global) -> Result<(), Failure> {
        self.log = Log::open(global)?;
        Ok(())
    }

    /// The environments of the nearest `pgmend.toml`.
    pub fn environments(&self) -> Result<Environments, Failure> {
        Ok(environment::find(&self.start)?)
    }

    /// The environment that is meant, if any.
    pub fn environment(&self) -> Result<Option<Named>, Failure> {
        Ok(environment::meant(&self.environments()?, self.env.as_deref(), self.database_typed)?)
    }

    /// Connects, to the environment that is meant if there is one.
    pub async fn engine(&self) -> Result<Engine, Failure> {
        let Some(named) = self.environment()? else {
            let mut engine = Engine::connect(self.database_url.as_deref()).await?;
            engine.protect(environment::protected(&self.environments()?));
            return Ok(engine);
        };
        let from_file = if self.database_typed { None } else { environment::database_url(&named)? };
        let url = from_file.or_else(|| self.database_url.clone());
        Ok(Engine::connect_to(url.as_deref(), named).await?)
    }

    /// Connects to another environment of the file, to look something up there.
    pub async fn elsewhere(&self, name: &str) -> Result<Engine, Failure> {
        let named = Named { name: name.to_owned(), environment: self.environments()?.named(name)?.clone() };
        let url = environment::database_url(&named)?;
        Ok(Engine::connect_to(url.as_deref(), named).await?)
    }

    /// Whether programs read the output.
    pub fn json(&self) -> bool {
        self.output == Output::Json
    }

    /// Whether a person can be asked.
    pub fn interactive(&self) -> bool {
        !self.json() && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }

    /// The line to type next, so that it reaches the same database.
    pub fn line(&self, command: &str) -> String {
        match command.strip_prefix("psql ") {
            Some(rest) => format!("psql {}{rest}", self.conninfo()),
            None => addressed(command, &self.address),
        }
    }

    /// What psql is told of the database, which looks at neither `DATABASE_URL` nor `pgmend.toml`; nothing where the
    /// `PG*` variables lead it there.
    fn conninfo(&self) -> String {
        let named = self.environment().ok().flatten();
        let of_env = named.filter(|_| !self.database_typed).map(|named| named.environment);
        let variable = of_env.as_ref().and_then(|env| env.database_url_variable.clone());
        let in_file = of_env.and_then(|env| env.database_url);
        match (variable, in_file.or_else(|| self.database_url.clone().filter(|_| self.database_typed))) {
            (Some(variable), _) => format!("\"${variable}\" "),
            (None, Some(url)) => format!("{} ", secretless(&url)),
            (None, None) if self.database_url.is_some() => "\"$DATABASE_URL\" ".to_owned(),
            (None, None) => String::new(),
        }
    }

    /// Shows a result: its JSON to programs, its text to people.
    pub fn show(&self, value: &impl Serialize, text: impl FnOnce(Paint) -> String) -> Result<(), Failure> {
        if !self.json() {
            return print(&text(self.paint));
        }
        let json = serde_json::to_string_pretty(value)
            .map_err(|source| Failure::Io { message: format!("cannot print the result as JSON: {source}") })?;
        print(&format!("{json}\n"))
    }

    /// Shows something that only people want.
    pub fn tell(&self, text: impl FnOnce(Paint) -> String) -> Result<(), Failure> {
        if self.json() { Ok(()) } else { print(&text(self.paint)) }
    }

    /// Says why the command stopped: to people on stderr, to programs on stdout.
    pub fn fail(&self, failure: &Failure) {
        let paint = Paint { on: self.paint.on && std::io::stderr().is_terminal() };
        self.log.fail(failure);
        let said = if self.log.on_stderr() && !self.json() {
            Ok(())
        } else if self.json() {
            print(&format!("{}\n", render::error::json(failure)))
        } else {
            std::io::stderr()
                .write_all(render::error::text(failure, paint).as_bytes())
                .map_err(|e| Failure::io("print", &e))
        };
        // Nobody is left to tell when the place for errors is gone; the exit code still tells.
        drop(said);
    }
}

/// Prints to stdout. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::io("print", &source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// ` --database-url …` for a line to type.
fn address(url: &str) -> String {
    format!(" --database-url {}", secretless(url))
}

/// A URL as a word for the shell. One with a password is not repeated on the screen.
fn secretless(url: &str) -> String {
    let authority = url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let secret = url.contains("password=")
        || authority.and_then(|a| a.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'));
    if secret { "\"$DATABASE_URL\"".to_owned() } else { quoted(url) }
}

/// A word as a POSIX shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.contains('\'') && !word.contains(['"', '$', '`', '\\', '!']) {
        format!("\"{word}\"")
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The line with the database that it is meant for, which goes before a remark.
fn addressed(line: &str, address: &str) -> String {
    match line.split_once("  # ") {
        Some((command, remark)) => format!("{command}{address}  # {remark}"),
        None => format!("{line}{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Shell, address, addressed, quoted};
    use crate::args::{Global, LogFormat, Output};

    #[test]
    fn the_database_of_a_line_stands_before_its_remark() {
        assert_eq!(addressed("pgmend report fix", " --env live"), "pgmend report fix --env live");
        let line = "pgmend run fix --execute  # the same, showing the masked text";
        assert_eq!(
            addressed(line, " --env live"),
            "pgmend run fix --execute --env live  # the same, showing the masked text"
        );
    }

    #[test]
    fn a_line_for_psql_leads_to_the_same_database() {
        let line = |url: Option<&str>, typed: bool| {
            let (output, log_format) = (Output::Text, LogFormat::Human);
            let database_url = url.map(str::to_owned);
            let global = Global { database_url, env: None, output, log_format, log_file: None };
            let shell =
                Shell { database_typed: typed, database_url: global.database_url.clone(), ..Shell::new(&global) };
            shell.line("psql -c 'select 1'  # looks")
        };
        let url = Some("postgresql://alice@db/shop");
        assert_eq!(line(url, true), "psql postgresql://alice@db/shop -c 'select 1'  # looks");
        assert_eq!(line(url, false), "psql \"$DATABASE_URL\" -c 'select 1'  # looks");
        assert_eq!(line(Some("postgresql://a:secret@db/shop"), true), "psql \"$DATABASE_URL\" -c 'select 1'  # looks");
        assert_eq!(line(None, false), "psql -c 'select 1'  # looks");
    }

    #[test]
    fn a_password_is_not_repeated_on_the_screen() {
        assert_eq!(address("postgresql://alice@db/shop"), " --database-url postgresql://alice@db/shop");
        for url in ["postgresql://alice:s3cret@db/shop", "host=db password=s3cret", "postgresql://db/x?password=s3cret"]
        {
            assert!(!address(url).contains("s3cret"), "{url}");
        }
    }

    #[test]
    fn a_word_survives_the_shell() {
        assert_eq!(quoted("jobs/fix-roles"), "jobs/fix-roles");
        assert_eq!(quoted("country = 'NO'"), r#""country = 'NO'""#);
        assert_eq!(quoted("it's $5"), r"'it'\''s $5'");
        assert_eq!(quoted(""), "''");
    }
}
