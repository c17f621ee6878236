//! A simple-query client: SQL in, rows of text out.

use std::fmt;
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::url::ServerUrl;
use crate::wire::{Message, StartupPacket, text_at};

/// A test that waits longer than this for an answer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// The SQLSTATE that [`Sql`] reports when the connection itself failed.
pub const CONNECTION_LOST: &str = "08006";

/// Rows of columns; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// An error of the server, or of the connection to it ([`CONNECTION_LOST`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgErrorText {
    /// Five characters, such as `23505`.
    pub sqlstate: String,
    /// The primary message, in the server's words.
    pub message: String,
}

impl fmt::Display for PgErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

impl std::error::Error for PgErrorText {}

impl From<io::Error> for PgErrorText {
    fn from(source: io::Error) -> Self {
        lost(source)
    }
}

/// One session with a server that trusts us.
pub struct Sql {
    stream: BufReader<TcpStream>,
    backend_pid: i32,
    notices: Vec<String>,
}

impl Sql {
    /// Opens a session; the URL is like `postgresql://postgres@127.0.0.1:5432/postgres`.
    pub fn connect(url: &str) -> Result<Self, PgErrorText> {
        let url = ServerUrl::parse(url).map_err(lost)?;
        let stream = TcpStream::connect((url.host.as_str(), url.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut sql = Self { stream: BufReader::new(stream), backend_pid: 0, notices: Vec::new() };
        let packet = StartupPacket::session(&[
            ("user", url.user.as_str()),
            ("database", url.database.as_str()),
            ("client_encoding", "UTF8"),
            ("application_name", "pgmend-testkit"),
        ]);
        sql.stream.get_mut().write_all(packet.bytes())?;
        sql.answer()?;
        Ok(sql)
    }

    /// Runs one or more statements and returns the rows of all of them, in order.
    ///
    /// Several statements in one text are one transaction, as everywhere in PostgreSQL.
    pub fn run(&mut self, sql: &str) -> Result<Rows, PgErrorText> {
        self.send(sql)?;
        self.answer()
    }

    /// The first column of the first row; `None` when it is NULL or there is no row.
    pub fn value(&mut self, sql: &str) -> Result<Option<String>, PgErrorText> {
        let first = self.run(sql)?.into_iter().next();
        Ok(first.and_then(|row| row.into_iter().next()).flatten())
    }

    /// Sends statements without waiting, for a session that is to wait for a lock.
    /// [`Sql::answer`] must follow.
    pub fn send(&mut self, sql: &str) -> Result<(), PgErrorText> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        let message = Message::new(b'Q', &body);
        Ok(self.stream.get_mut().write_all(message.bytes())?)
    }

    /// Waits for the answer to what [`Sql::send`] sent.
    pub fn answer(&mut self) -> Result<Rows, PgErrorText> {
        let mut rows = Rows::new();
        let mut failed = None;
        loop {
            let message = Message::read(&mut self.stream)?.ok_or_else(|| lost("the server closed the connection"))?;
            match message.kind() {
                b'D' => rows.push(row(message.body())),
                b'E' => {
                    let report = Report::read(message.body());
                    // A farewell: no ReadyForQuery follows.
                    if matches!(report.severity, "FATAL" | "PANIC") {
                        return Err(report.into_error());
                    }
                    failed.get_or_insert(report.into_error());
                }
                b'N' => self.notices.push(Report::read(message.body()).message.to_owned()),
                b'K' => self.backend_pid = int_at(message.body()),
                b'R' if int_at(message.body()) != 0 => {
                    return Err(lost("the server asks for a password"));
                }
                b'Z' => return failed.map_or(Ok(rows), Err),
                b'G' | b'W' => return Err(lost("the testkit does not speak COPY from the client")),
                _ => {}
            }
        }
    }

    /// The process id of this session on the server, as in `pg_stat_activity`.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Takes the messages of the notices and warnings that arrived so far.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// How long to wait for an answer before the session counts as lost; 60 s at first.
    pub fn set_patience(&mut self, patience: Duration) -> Result<(), PgErrorText> {
        Ok(self.stream.get_ref().set_read_timeout(Some(patience))?)
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        // A farewell spares the server's log a line; a lost connection needs none.
        let _lost = self.stream.get_mut().write_all(Message::new(b'X', &[]).bytes());
    }
}

fn lost(source: impl fmt::Display) -> PgErrorText {
    PgErrorText { sqlstate: CONNECTION_LOST.to_owned(), message: source.to_string() }
}

fn int_at(body: &[u8]) -> i32 {
    match body {
        [a, b, c, d, ..] => i32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

fn row(body: &[u8]) -> Vec<Option<String>> {
    let mut rest = body.get(2..).unwrap_or_default();
    let mut columns = Vec::new();
    while rest.len() >= 4 {
        let length = int_at(rest);
        rest = &rest[4..];
        // A length below zero is NULL.
        let column = usize::try_from(length).ok().map(|length| {
            let (value, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            String::from_utf8_lossy(value).into_owned()
        });
        columns.push(column);
    }
    columns
}

/// The fields of an error or a notice that tests look at.
#[derive(Default)]
struct Report<'a> {
    severity: &'a str,
    sqlstate: &'a str,
    message: &'a str,
}

impl<'a> Report<'a> {
    fn read(body: &'a [u8]) -> Self {
        let (mut report, mut rest) = (Self::default(), body);
        while let Some((&field, after)) = rest.split_first().filter(|(field, _)| **field != 0) {
            rest = after;
            let text = text_at(&mut rest);
            match field {
                // Never translated, unlike the field `S`.
                b'V' => report.severity = text,
                b'C' => report.sqlstate = text,
                b'M' => report.message = text,
                _ => {}
            }
        }
        report
    }

    fn into_error(self) -> PgErrorText {
        PgErrorText { sqlstate: self.sqlstate.to_owned(), message: self.message.to_owned() }
    }
}
