//! A database with a table to change, the same table beside it for the plain statement, and what must
//! be true of both in the end.

use pgmend::{JobFile, Mode};
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
";

/// What must be the same in both schemas.
const COMPARED: [&str; 2] = ["select * from {}.account", "select amount, count(*) from {}.entry group by 1"];

/// One kind of change, none of which can be made twice unnoticed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub statement: &'static str,
    pub mode: Option<Mode>,
    pub images: bool,
    pub undo: bool,
}

const ADD: &str = "update account set balance = balance + 5 where grp <> 3";

/// A stream with images.
pub const STREAM: Shape = Shape { name: "stream", statement: ADD, mode: Some(Mode::Stream), images: true, undo: false };
/// A stream without.
pub const BARE: Shape = Shape { name: "bare", images: false, ..STREAM };
/// A change set computed before.
pub const FREEZE: Shape = Shape { name: "freeze", mode: Some(Mode::Freeze), ..STREAM };
/// Rows that go.
pub const DELETE: Shape =
    Shape { name: "delete", statement: "delete from account where grp <> 3", mode: None, ..STREAM };
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
pub const UNDO: Shape = Shape { name: "undo", undo: true, ..STREAM };
/// Rows that come back.
pub const UNDO_DELETE: Shape = Shape { name: "undo_delete", undo: true, ..DELETE };

/// A database set up for one shape.
pub struct Stage {
    pub database: Database,
    pub shape: Shape,
    pub file: JobFile,
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
        file.images.keep = shape.images;
        file.images.reason = (!shape.images).then(|| "a test of runs without".to_owned());
        let stage = Self { database, shape, file, rows };
        stage.reset().expect("the tables are created");
        stage
    }

    /// Makes everything as it was, in the user's tables and in the control schema, and the plain statement's
    /// result beside it. For an undo, the change to be undone has been made.
    pub fn reset(&self) -> Result<(), String> {
        let mut sql = self.sql();
        sql.run("drop schema if exists public, plain, pgmend cascade; create schema public").map_err(text)?;
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

    pub fn errand(&self) -> Errand {
        Errand {
            url: self.database.url(),
            job: format!("crash-{}", self.shape.name),
            statement: self.shape.statement.to_owned(),
            file: self.file.clone(),
            undo: self.shape.undo,
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

    /// What must be true when a run is over, however it came to its end.
    pub fn check(&self) -> Result<(), String> {
        self.equal_to_plain()?;
        self.audit()
    }

    /// Whether the tables are as the plain statement leaves them.
    pub fn equal_to_plain(&self) -> Result<(), String> {
        let mut sql = self.sql();
        for query in COMPARED {
            let (ours, plain) = (query.replace("{}", "public"), query.replace("{}", "plain"));
            let differing = format!(
                "select x::text from (({ours} except all {plain}) union all ({plain} except all {ours})) x order by 1 limit 9"
            );
            let rows = sql.run(&differing).map_err(text)?;
            if !rows.is_empty() {
                return Err(format!("not as the plain statement: {rows:?}"));
            }
        }
        Ok(())
    }

    /// Whether checkpoints, images and ledger tell of the same run, once.
    pub fn audit(&self) -> Result<(), String> {
        let mut sql = self.sql();
        let mut expect = |what: &str, wanted: &str, query: &str| -> Result<String, String> {
            let found = sql.value(query).map_err(text)?.unwrap_or_default();
            if wanted == "*" || wanted == found { Ok(found) } else { Err(format!("{what}: {found}, not {wanted}")) }
        };
        let run = expect("the run", "*", "select run_id from pgmend.run order by started_at desc limit 1")?;
        let runs = if self.shape.undo { "2" } else { "1" };
        expect("runs", runs, "select count(*) from pgmend.run")?;
        expect("state", "succeeded", &format!("select state from pgmend.run where run_id = '{run}'"))?;
        let batches = format!("from pgmend.batch where run_id = '{run}'");
        expect(
            "numbers without a gap",
            "t",
            &format!("select count(*) = max(batch_no) and min(batch_no) = 1 {batches}"),
        )?;
        expect("totals", "t", &format!("select sum(changed_rows) = max(changed_total) {batches}"))?;
        let changed = expect("rows", "*", &format!("select sum(changed_rows) {batches}"))?;
        let wanted = format!("select planned_rows from pgmend.run where run_id = '{run}'");
        expect("planned rows", &changed, &wanted)?;
        let images =
            expect("images", "*", &format!("select coalesce(image_table, '') from pgmend.run where run_id = '{run}'"))?;
        if !images.is_empty() {
            expect("images", &changed, &format!("select count(*) from pgmend.{images}"))?;
        }
        let facts = format!("select string_agg(fact, ' ' order by entry_no) from pgmend.ledger where run_id = '{run}'");
        let facts = expect("facts", "*", &facts)?;
        let (first, last) = (facts.split(' ').next(), facts.split(' ').next_back());
        if first != Some("run_started") || last != Some("run_succeeded") || facts.matches("run_succeeded").count() != 1
        {
            return Err(format!("the ledger says: {facts}"));
        }
        let chain =
            "select count(*) from (select hash, encode(sha256(convert_to(coalesce(lag(hash) over w, '') || E'\\n'
            || entry_no || E'\\n' || fact || E'\\n' || body, 'UTF8')), 'hex') as wanted
            from pgmend.ledger window w as (partition by run_id order by entry_no)) as chain where hash <> wanted";
        expect("broken links of the ledger", "0", chain)?;
        Ok(())
    }
}
