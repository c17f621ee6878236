//! A person at a shell: a database of their own, a folder, and what they typed with what came back.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use pgmend_testkit::{Database, Server, Sql};
use tempfile::TempDir;

/// Accounts with a wrong role, their sessions, and a column that dates each row.
const TABLES: &str = "
    create table users (
        id bigint primary key, email text not null unique, role text not null, country text not null,
        note text, updated_at timestamptz not null default '2024-01-01 00:00Z'
    );
    insert into users (id, email, role, country, note)
    select n, 'user' || n || '@example.com', case when n % 4 = 0 then 'memeber' else 'member' end,
           (array['DE', 'NO', 'SE'])[1 + n % 3], 'note ' || n
      from generate_series(1, 600) n;
    create table session (
        id bigint primary key, user_id bigint not null references users on delete cascade, began_on date not null
    );
    insert into session select n, n, date '2024-01-01' + n::int from generate_series(1, 600) n;
";

/// A person at a shell.
pub struct Shell {
    pub database: Database,
    pub folder: TempDir,
    url: String,
    said: String,
}

impl Shell {
    pub fn open(hint: &str) -> Self {
        let database = Database::create(Server::shared(), hint).expect("a database is created");
        let folder = tempfile::tempdir().expect("there is a place for temporary folders");
        let url = database.url();
        let shell = Self { database, folder, url, said: String::new() };
        shell.sql().run(TABLES).expect("the tables are created");
        shell.write("fix.sql", "update users set role = 'member' where role = 'memeber'");
        shell.sql().run("analyze").expect("the tables are analyzed");
        shell
    }

    pub fn sql(&self) -> Sql {
        self.database.sql().expect("the server is up")
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("the folder can be made");
        std::fs::write(path, text).expect("the folder can be written");
    }

    /// From now on as another role or with other options.
    pub fn connect_as(&mut self, url: String) {
        self.url = url;
    }

    /// A line of psql, as it would be typed.
    pub fn psql(&mut self, statement: &str) {
        self.said.push_str(&format!("$ psql -c {}\n\n", word(statement)));
        self.sql().run(statement).expect("the server accepts it");
    }

    /// A line of pgmend, with its output and its exit code.
    pub fn pgmend(&mut self, words: &[&str]) -> Output {
        let output = self.command(words).output().expect("the binary under test was built by cargo");
        self.note(words, &output);
        output
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgmend"));
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("DATABASE_URL", &self.url).env("USER", "alice");
        command
    }

    /// What a command said and how it ended.
    pub fn note(&mut self, words: &[&str], output: &Output) {
        let words: Vec<String> = words.iter().map(|w| word(w)).collect();
        self.said.push_str(&format!("$ pgmend {}\n", words.join(" ")));
        // Steps between the first and the last batch depend on the machine's pace.
        for line in String::from_utf8_lossy(&output.stderr).lines().filter(|line| !line.contains("event=batch")) {
            self.said.push_str(&format!("2> {line}\n"));
        }
        self.said.push_str(&String::from_utf8_lossy(&output.stdout));
        let code = output.status.code().map_or("by a signal".to_owned(), |code| code.to_string());
        self.said.push_str(&format!("[exit {code}]\n\n"));
    }

    /// All of it so far; begins anew.
    pub fn transcript(&mut self) -> String {
        let said = std::mem::take(&mut self.said);
        let said = said.replace(self.database.name(), "shop").replace(&self.url, "‹url›");
        // How a batch is found differs between versions of the server.
        let mut kept = String::new();
        let mut explaining = false;
        for line in said.lines() {
            explaining = if line.starts_with("EXPLAIN") { true } else { explaining && !line.is_empty() };
            if !explaining || line.starts_with("EXPLAIN") {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        without_the_volatile(&kept)
    }
}

fn word(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:@=,".contains(c));
    if plain && !text.is_empty() { text.to_owned() } else { format!("\"{text}\"") }
}

/// What differs from run to run, and the word that stands for it.
const VOLATILE: &[(&str, &str)] = &[
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "‹id›"),
    (r"(  (?:plan )?)[0-9a-f]{8} · digest [0-9a-f]{12}", "${1}‹id› · digest ‹digest›"),
    (r"digest `[0-9a-f]{64}`", "digest `‹digest›`"),
    (r"by run [0-9a-f]{8}\b", "by run ‹id›"),
    (r"hash -?[0-9a-f]+", "hash ‹hash›"),
    (r"‹[0-9a-hjkmnp-tv-z]{6}›", "‹masked›"),
    (r"(change_set|image)_[0-9]{8}_([a-z_]+)_[0-9a-f]{8}", "${1}_‹date›_${2}_‹id›"),
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "‹time›"),
    (r"control schema pgmend(,| is at) version [0-9]+", "control schema pgmend${1} version ‹n›"),
    (r"PostgreSQL [0-9.]+", "PostgreSQL ‹version›"),
    (r"process [0-9]+ of alice@[^ ,]+", "process ‹pid› of alice@‹host›"),
    (r"alice@[^ ,]+, pgmend [0-9.]+", "alice@‹host›, pgmend ‹version›"),
    (r" *~?[0-9.]+ (bytes|kB|MB)\b", " ‹size›"),
    (r"[0-9.]+(?: m?s)?–[0-9.]+ m?s\b", "‹duration›"),
    (r"\b[0-9.]+ m?s\b", "‹duration›"),
    // How a batch is found differs between versions of the server.
    (r"(EXPLAIN of one batch).*", "${1}"),
    // A rehearsal takes as many small batches as it needs to time them, from places that are drawn by lot.
    (r"(audit|users): [0-9,]+ (inserted|updated)", "${1}: ‹n› ${2}"),
    (r"\(rows: [0-9,]+ inserted; of the target [0-9,]+\)", "(rows: ‹n› inserted; of the target ‹n›)"),
    (r"about [0-9]+ dead", "about ‹n› dead"),
    (r"random +[0-9,]+ rows?\b", "random ‹n› rows"),
    (r"(speed +)[0-9,]+(–[0-9,]+)? rows an hour", "${1}‹n› rows an hour"),
    // Who else is at work on the server of the tests is by chance.
    (r"\n +in company .*", ""),
    // What a signal measures depends on what else the server does.
    (r"\bnow [0-9][^;]*;", "now ‹value›;"),
    (r"[0-9,]+ rows/s", "‹rate› rows/s"),
    (r"(took_ms|rows_per_s|eta_s|left_s|wait_s)=[0-9.-]+", "${1}=‹n›"),
];

fn without_the_volatile(text: &str) -> String {
    VOLATILE.iter().fold(text.to_owned(), |text, (what, word)| {
        let what = regex::Regex::new(what).expect("the table holds expressions");
        what.replace_all(&text, *word).into_owned()
    })
}
