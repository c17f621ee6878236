//! A session: one connection, text in, text out. Hides the driver.
//!
//! Every parameter travels as text under its own cast in the SQL, so that no value passes through a
//! client-side type (hazards: `rust_decimal` loses digits, `chrono` has no infinity). Statements are
//! unnamed and typed: no session state, safe behind a transaction-mode pooler, no generic-plan flips.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;

use tokio_postgres::types::{FromSql, Type};

use crate::connect::ConnectError;
use crate::conninfo::Conninfo;
use crate::error::PgError;
use crate::said::Said;

/// A statement with its parameters as text.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What it is for; the beginning of an error message.
    pub doing: &'static str,
    /// The SQL.
    pub sql: String,
    /// `$1…` as text; `None` is NULL.
    pub params: Vec<Option<String>>,
}

impl Statement {
    /// A statement with parameters that are not NULL.
    pub fn new(doing: &'static str, sql: impl Into<String>, params: Vec<String>) -> Self {
        Self { doing, sql: sql.into(), params: params.into_iter().map(Some).collect() }
    }
}

/// What a statement gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Rows, as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// Rows that the command tag counts.
    pub affected: u64,
}

impl Answer {
    /// The first column of the first row.
    pub fn scalar(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

/// Errors that one session shows in full: a person reads the first few, and thousands of rows may fail alike.
const IN_FULL_MAX: u32 = 20;

/// Takes the texts of errors with the values in them, for the eyes of a person who asked for them.
pub type InFull = Arc<dyn Fn(&str) + Send + Sync>;

/// One connection to the server.
pub struct Session {
    client: tokio_postgres::Client,
    driver: crate::connect::ConnectionDriver,
    conninfo: Conninfo,
    /// A transaction may be open on the server although nobody holds it here.
    pub(crate) dirty: AtomicBool,
    /// The control schema was found here.
    pub(crate) installed: AtomicBool,
    /// Where errors are shown in full, if somebody asked for it.
    in_full: Option<InFull>,
    told_in_full: AtomicU32,
    /// A comment that each statement begins with, so that another session finds it on the server.
    mark: RwLock<Option<Arc<str>>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.task.abort();
    }
}

impl Session {
    /// The hosts that the connection was asked for, as typed.
    pub(crate) fn host(&self) -> String {
        self.conninfo.hosts().join(",")
    }

    /// Connects, and sets the role back to the session's user: control statements act as the person
    /// who logged in; the job's role is set by each transaction that touches a user's table.
    pub async fn connect(conninfo: &Conninfo) -> Result<Self, PgError> {
        let (client, driver) = crate::connect::connect(conninfo).await.map_err(ConnectError::into_pg_error)?;
        let (conninfo, dirty, told_in_full) = (conninfo.clone(), AtomicBool::new(false), AtomicU32::new(0));
        let (installed, mark) = (AtomicBool::new(false), RwLock::new(None));
        Ok(Self { client, driver, conninfo, dirty, installed, in_full: None, told_in_full, mark })
    }

    /// From now on errors are also shown in full, the first few of them. They are kept nowhere.
    pub fn show_in_full(&mut self, in_full: Option<InFull>) {
        self.in_full = in_full;
    }

    /// Where errors are shown in full, for the session that follows this one.
    pub fn in_full(&self) -> Option<InFull> {
        self.in_full.clone()
    }

    fn tell_in_full(&self, error: &tokio_postgres::Error) {
        let full = self.in_full.as_ref().zip(error.as_db_error().and_then(|server| Said::from(server).in_full()));
        if let Some((tell, text)) = full
            && self.told_in_full.fetch_add(1, Ordering::Relaxed) < IN_FULL_MAX
        {
            tell(&text);
        }
    }

    /// Where this session is connected to.
    pub fn conninfo(&self) -> &Conninfo {
        &self.conninfo
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Closes the connection now; what is asked of it later fails as on a lost one.
    pub fn close(&self) {
        self.driver.task.abort();
    }

    /// A handle that cancels what runs on this session.
    pub fn canceller(&self) -> crate::connect::Canceller {
        self.driver.cancel.clone()
    }

    /// From now on each statement begins with this comment, which nobody else's has: behind a pooler it is all that
    /// tells which session of the server executes it.
    pub fn mark(&self, mark: Option<&str>) {
        *self.mark.write().unwrap_or_else(PoisonError::into_inner) = mark.map(Arc::from);
    }

    /// What each statement begins with.
    pub fn marked(&self) -> Option<Arc<str>> {
        // It is whole or not there: a panic elsewhere leaves none half written.
        self.mark.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cancels what other sessions of this login execute under a mark. Says whether there was any.
    /// Lock:  none (plain reads of the activity view). Index: none.
    pub async fn cancel_marked(&self, mark: &str) -> Result<bool, PgError> {
        let sql = "select count(pg_catalog.pg_cancel_backend(a.pid))::text from pg_catalog.pg_stat_activity a \
                   where a.datname = current_database() and a.usename = session_user and a.state = 'active' \
                     and a.pid <> pg_catalog.pg_backend_pid() and pg_catalog.strpos(a.query, $1) = 1";
        let answer = self.run(&Statement::new("cancel a statement", sql, vec![mark.to_owned()])).await?;
        Ok(answer.scalar().is_some_and(|count| count != "0"))
    }

    /// Runs one statement by itself.
    pub async fn run(&self, statement: &Statement) -> Result<Answer, PgError> {
        if self.dirty.swap(false, Ordering::Relaxed) {
            self.send(&Statement::new("roll back", "rollback", vec![])).await?;
        }
        self.send(statement).await
    }

    /// Runs statements in one go, in order, without waiting for an answer in between. Gives every
    /// answer: success is decided from all of them, since COMMIT answers Ok even when it rolled back.
    pub(crate) async fn pipeline(&self, statements: &[Statement]) -> Vec<Result<Answer, PgError>> {
        let mut pending: Vec<_> = statements.iter().map(|s| Slot::Waiting(Box::pin(self.send(s)))).collect();
        std::future::poll_fn(|cx| {
            // Polled strictly in order: the first poll of a typed statement puts it on the wire.
            let mut ready = true;
            for slot in &mut pending {
                if let Slot::Waiting(future) = slot {
                    match future.as_mut().poll(cx) {
                        Poll::Ready(answer) => *slot = Slot::Done(Some(answer)),
                        Poll::Pending => ready = false,
                    }
                }
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        pending.into_iter().filter_map(|slot| if let Slot::Done(answer) = slot { answer } else { None }).collect()
    }

    /// Only `query_typed_raw` is safe to pipeline: a plain text query waits for its own prepare, and would
    /// be executed after the COMMIT behind it (rust-postgres issue 930).
    async fn send(&self, statement: &Statement) -> Result<Answer, PgError> {
        let error = |e: tokio_postgres::Error| {
            self.tell_in_full(&e);
            PgError::from_driver(statement.doing, &e)
        };
        let params = statement.params.iter().map(|p| (p, Type::TEXT));
        let sql = match self.marked() {
            Some(mark) => Cow::Owned(format!("{mark} {}", statement.sql)),
            None => Cow::Borrowed(statement.sql.as_str()),
        };
        let stream = self.client.query_typed_raw(&sql, params).await.map_err(error)?;
        let mut stream = Box::pin(stream);
        let mut answer = Answer::default();
        while let Some(row) = next(&mut stream).await {
            let row = row.map_err(error)?;
            let cells = (0..row.len()).map(|i| row.try_get::<_, Cell>(i).map(|c| c.0));
            answer.rows.push(cells.collect::<Result<_, _>>().map_err(error)?);
        }
        answer.affected = stream.rows_affected().unwrap_or(0);
        Ok(answer)
    }
}

enum Slot<F> {
    Waiting(F),
    Done(Option<Result<Answer, PgError>>),
}

async fn next(
    stream: &mut Pin<Box<tokio_postgres::RowStream>>,
) -> Option<Result<tokio_postgres::Row, tokio_postgres::Error>> {
    use futures_core::Stream as _;
    std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

/// A value as text. Our own statements cast everything unusual to text; these few types come natively.
struct Cell(Option<String>);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let text = match *ty {
            Type::BOOL => bool::from_sql(ty, raw)?.to_string(),
            Type::INT2 => i16::from_sql(ty, raw)?.to_string(),
            Type::INT4 => i32::from_sql(ty, raw)?.to_string(),
            Type::INT8 => i64::from_sql(ty, raw)?.to_string(),
            Type::OID => u32::from_sql(ty, raw)?.to_string(),
            Type::FLOAT8 => f64::from_sql(ty, raw)?.to_string(),
            Type::UUID => uuid::Uuid::from_slice(raw)?.to_string(),
            Type::CHAR => raw.iter().map(|&b| b as char).collect(),
            Type::VOID => String::new(),
            Type::TEXT | Type::VARCHAR | Type::NAME | Type::UNKNOWN | Type::BPCHAR | Type::JSON => {
                std::str::from_utf8(raw)?.to_owned()
            }
            ref other => return Err(format!("a column of type {other} must be cast to text").into()),
        };
        Ok(Cell(Some(text)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Cell(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A `text[]` literal of values that are not NULL.
pub fn array_literal(values: &[String]) -> String {
    let quoted = values.iter().map(|v| format!("\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")));
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

impl Session {
    /// Runs a script of our own files, which takes no parameters: the one use of the simple protocol. Only names of
    /// roles vary, and are quoted.
    pub(crate) async fn script(&self, sql: &str) -> Result<(), PgError> {
        self.client.batch_execute(sql).await.map_err(|e| PgError::from_driver("install the control schema", &e))
    }
}

impl Session {
    /// Lets the role of the connection's options go: control statements act as the person who logged in.
    pub async fn become_self(&self) -> Result<(), PgError> {
        self.run(&Statement::new("become the session's user", "set role none", vec![])).await?;
        Ok(())
    }
}
