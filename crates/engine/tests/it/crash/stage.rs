//! A database with a table to change, the same table beside it for the plain statement, and what must
//! be true of both in the end.

use pgmend::{Identities, JobFile, Mode};
use pgmend_testkit::{Database, Server, Sql};

use super::text;
use super::worker::{Errand, Worker};

/// The tables, with gaps between the keys. `entry` has keys that no two runs give alike.
const TABLES: &str = "
    create table account (id int primary key, grp int not null, balance bigint not null, touched bigint not null default 0);
    create table deposit (id int primary key, amount bigint not null);
    create table entry (id bigserial primary key, amount bigint not null);
    insert into account select 3 * n, n % 4, 100 * n from generate_series(1, {rows}) n;
    insert into deposit select 2 * n, n from generate_series(1, {rows}) n;
    create schema plain;
    create table plain.account (like account including all);
    create table plain.entry (like entry including all);
    insert into plain.account select * from account;
    create schema before;
    create table before.account as select * from account;
    create table before.entry as select * from entry;
";

/// One kind of change, none of which can be made twice unnoticed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub statement: &'static str,
    pub mode: Option<Mode>,
    pub images: bool,
    pub undo: bool,
    /// Every other row of a stretch first.
    pub in_halves: bool,
}

const ADD: &str = "update account set balance = balance + 5 where grp <> 3";

/// A stream with images.
pub const STREAM: Shape =
    Shape { name: "stream", statement: ADD, mode: Some(Mode::Stream), images: true, undo: false, in_halves: false };
/// A stream without.
pub const BARE: Shape = Shape { name: "bare", images: false, ..STREAM };
/// A stream whose stretches go in two batches.
pub const HALVED: Shape = Shape { name: "halved", in_halves: true, ..STREAM };
/// The same without images.
pub const HALVED_BARE: Shape = Shape { name: "halved_bare", in_halves: true, ..BARE };
/// A change set computed before, whose stretches go in two halves.
pub const FREEZE: Shape = Shape { name: "freeze", mode: Some(Mode::Freeze), in_halves: true, ..STREAM };
/// Rows that go.
pub const DELETE: Shape =
    Shape { name: "delete", statement: "delete from account where grp <> 3", mode: None, ..STREAM };
/// The same from a change set computed before.
pub const FROZEN_DELETE: Shape = Shape { name: "frozen_delete", mode: Some(Mode::Freeze), ..DELETE };
/// A change after which no row matches any more: what still does in the end is changed then.
pub const SWEEP: Shape =
    Shape { name: "sweep", statement: "update account set grp = 3, balance = balance + 5 where grp <> 3", ..STREAM };
/// New rows, and rows that were there.
pub const UPSERT: Shape = Shape {
    name: "upsert",
    statement: "insert into account as a (id, grp, balance) select id, 9, amount from deposit \
                on conflict (id) do update set balance = a.balance + excluded.balance",
    mode: None,
    ..STREAM
};
/// New rows that nothing keeps from being inserted twice.
pub const INSERT: Shape = Shape {
    name: "insert",
    statement: "insert into entry (amount) select balance from account where grp <> 3",
    mode: None,
    ..STREAM
};
/// Back again.
pub const UNDO: Shape = Shape { name: "undo", undo: true, in_halves: true, ..STREAM };
/// Rows that come back.
pub const UNDO_DELETE: Shape = Shape { name: "undo_delete", undo: true, ..DELETE };

/// Rows that go again, and rows that become as they were.
pub const UNDO_UPSERT: Shape = Shape { name: "undo_upsert", undo: true, ..UPSERT };
/// Back again from a change set.
pub const UNDO_FREEZE: Shape = Shape { name: "undo_freeze", undo: true, ..FREEZE };

/// A database set up for one shape.
pub struct Stage {
    pub database: Database,
    pub shape: Shape,
    pub file: JobFile,
    /// Rows beyond those planned that the run is to change.
    pub arrived: u32,
    /// What opens its images, where they are encrypted.
    pub identity: Option<Identities>,
    rows: u32,
}

impl Stage {
    /// A database on the shared server, with so many rows.
    pub fn new(shape: Shape, rows: u32, batch_rows: u32) -> Self {
        Self::on(Server::shared(), shape, rows, batch_rows)
    }

    /// A database on this server.
    pub fn on(server: &Server, shape: Shape, rows: u32, batch_rows: u32) -> Self {
        let database = Database::create(server, &format!("crash_{}", shape.name)).expect("a database is created");
        let mut file = JobFile { mode: shape.mode, ..JobFile::default() };
        file.limits.batch_rows = Some(batch_rows);
        // The least: a takeover is waited for in some of these tests.
        file.limits.lease_seconds = 3;
        file.limits.in_halves = shape.in_halves.then_some(true);
        file.images.keep = shape.images;
        file.images.reason = (!shape.images).then(|| "a test of runs without".to_owned());
        let stage = Self { database, shape, file, arrived: 0, identity: None, rows };
        stage.reset().expect("the tables are created");
        stage
    }

    /// Makes everything as it was, in the user's tables and in the control schema, and the plain statement's
    /// result beside it. For an undo, the change to be undone has been made.
    pub fn reset(&self) -> Result<(), String> {
        let mut sql = self.sql();
        sql.run("drop schema if exists public, plain, before, pgmend cascade; create schema public").map_err(text)?;
        sql.run(&TABLES.replace("{rows}", &self.rows.to_string())).map_err(text)?;
        sql.run("analyze").map_err(text)?;
        if !self.shape.undo {
            sql.run(&format!("set search_path = plain, public; {}", self.shape.statement)).map_err(text)?;
            return Ok(());
        }
        let (_, said) = Worker::start(&Errand { undo: false, ..self.errand() }, None).end();
        said.as_ref().filter(|said| said.succeeded()).map(|_| ()).ok_or_else(|| format!("the change to undo: {said:?}"))
    }

    pub fn sql(&self) -> Sql {
        self.database.sql().expect("the server is up")
    }

    /// Locks a row of `account` until the session commits or goes: no run gets past it, so that it is still under way
    /// whatever a busy machine makes of it. Its batches are to wait for the row meanwhile.
    pub fn hold(&mut self, id: u32) -> Sql {
        self.wait_for_rows();
        let mut other = self.sql();
        let locked =
            other.run(&format!("begin; select from account where id = {id} for update")).expect("it is locked");
        assert_eq!(locked.len(), 1, "there is no row {id}");
        other
    }

    /// Lets batches wait for rows that others hold as long as any test takes: neither of the timeouts makes them smaller.
    pub fn wait_for_rows(&mut self) {
        (self.file.limits.lock_timeout_ms, self.file.limits.statement_timeout_ms) = (60_000, Some(60_000));
    }

    pub fn errand(&self) -> Errand {
        Errand {
            url: self.database.url(),
            job: format!("crash-{}", self.shape.name),
            statement: self.shape.statement.to_owned(),
            file: self.file.clone(),
            undo: self.shape.undo,
            retry: false,
            here: None,
            stop_after: None,
        }
    }

    pub fn worker(&self) -> Worker {
        Worker::start(&self.errand(), None)
    }

    /// As if the dead worker's lease had run out.
    pub fn expire_leases(&self) -> Result<(), String> {
        let there = "select to_regclass('pgmend.lease') is not null";
        if self.sql().value(there).map_err(text)?.as_deref() == Some("t") {
            self.sql().run("update pgmend.lease set expires_at = '-infinity'").map_err(text)?;
        }
        Ok(())
    }

    /// Runs the rest, from where a dead worker left it.
    pub fn go_on(&self) -> Result<(), String> {
        self.expire_leases()?;
        let (_, said) = self.worker().end();
        said.as_ref()
            .filter(|said| said.succeeded())
            .map(|_| ())
            .ok_or_else(|| format!("the rest of the run: {said:?}"))
    }
}
