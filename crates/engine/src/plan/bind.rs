//! Binds a job to a database: the statement parsed, its target and key found, its class judged, its
//! statements built.

use std::collections::BTreeSet;

use pgmend_core::job::{Job, Mode};
use pgmend_core::plan::{ImageLayout, Settings};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Key, Table, TableKind};
use pgmend_pg::images::layout;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{ImageColumns, Kind, Options, Order, ParamDecl, Rewriter, Statement, Target, ToldBy};

use super::class::{Case, Class};
use super::freeze::arbiter_columns;
use super::halves::{self, Halvable};
use super::{facts, tenants, triggers};
use crate::error::Error;

/// Columns that a table can have (`MaxHeapAttributeNumber`).
const TABLE_COLUMNS_MAX: usize = 1_600;
/// Columns of our own in a table of images (`batch_no`, `op`) or a change set (`n`, `op`).
const IMAGE_COLUMNS_OWN: usize = 2;

/// A statement bound to its target.
pub struct Bound {
    /// The statement.
    pub statement: Statement,
    /// The target.
    pub table: Table,
    /// Its key; `None` only for an insert into a table without one.
    pub key: Option<Key>,
    /// The verdict.
    pub class: Class,
    /// INSERT: the width of its source, where only the server knows it (`select *`).
    pub source_width: Option<usize>,
    /// The column that tells tenants apart, where the run goes tenant by tenant.
    pub tenant: Option<String>,
    /// The key's order is not that of the table's pages, and these are more than half of the server's cache: a change set
    /// goes in the pages' order.
    pub scattered: bool,
    /// Whether its batches may go in two halves.
    pub halves: Halvable,
    /// What tells the halves of a streamed run.
    pub halves_told_by: ToldBy,
    /// The statement as typed, where the job's list of tenants narrows it.
    pub whole: Option<Statement>,
    /// The tables that it reads beside the target, by oid, those under views included.
    pub read_tables: Vec<u32>,
}

/// Reads the statement of a job. `escapes`: the session has `standard_conforming_strings` off.
pub fn parse(job: &Job, escapes: bool) -> Result<Statement, Refusal> {
    let params: Vec<ParamDecl> =
        job.params.iter().map(|p| ParamDecl { name: p.name.clone(), type_sql: p.type_sql.clone() }).collect();
    if escapes {
        return Statement::parse(&pgmend_sql::with_escapes(&job.statement), &params);
    }
    Statement::parse(&job.statement, &params)
}

/// Binds a statement to the database.
pub async fn bind(tx: &ReadTx<'_>, job: &Job, statement: Statement, settings: &Settings) -> Result<Bound, Error> {
    let mut table = facts::target(tx, &statement, &settings.search_path).await?;
    silence(&mut table, &statement);
    let tenant = job.file.tenants.as_ref().map(|tenants| tenants.column.clone());
    let (statement, whole) = match tenants::narrowed(job, &table, &statement)? {
        Some(narrowed) => (narrowed, Some(statement)),
        None => (statement, None),
    };
    let key = choose_key(&table, &statement, job.file.key.as_deref())?;
    if let Some(key) = key.as_ref().filter(|_| statement.kind() != Kind::Insert) {
        refuse_rounded(&table, key, settings)?;
    }
    let facts = facts::gather(tx, &statement, &table).await?;
    let case = Case {
        statement: &statement,
        table: &table,
        key: key.as_ref(),
        facts: &facts,
        trusted: &job.file.trust_functions,
    };
    let class = case.class()?;
    let class = overridden(class, job.file.mode)?;
    let source_width = source_width(tx, &statement).await?;
    let scattered = match &key {
        Some(key) if may_go_in_heap_order(&statement, &table, &class) => facts::is_scattered(tx, &table, key).await?,
        Some(_) | None => false,
    };
    let halves = halves::of_statement(tx, &statement, (&table, key.as_ref()), &class, scattered).await?;
    let read_tables = facts.relations.iter().flat_map(|(_, relation)| relation.tables.clone()).collect();
    let halves_told_by = halves::told_by(tx, halves, &table, key.as_ref()).await?;
    Ok(Bound {
        statement,
        table,
        key,
        class,
        source_width,
        tenant,
        scattered,
        halves,
        halves_told_by,
        whole,
        read_tables,
    })
}

/// Rows that a delete takes along are gathered by key; a key that changes may collide in any order but its own.
fn may_go_in_heap_order(statement: &Statement, table: &Table, class: &Class) -> bool {
    let takes_along = statement.kind() == Kind::Delete && pgmend_sql::cascades_within(table);
    statement.kind() != Kind::Insert && table.kind == TableKind::Plain && !takes_along && !class.key_written
}

/// `UPDATE OF` triggers do not fire for a statement that sets none of their columns.
fn silence(table: &mut Table, statement: &Statement) {
    let set = match statement.kind() {
        Kind::Update => statement.assigned(),
        Kind::Insert => statement.on_conflict().map(|c| c.set_columns).unwrap_or_default(),
        Kind::Delete => Vec::new(),
    };
    for trigger in table.triggers.iter_mut().filter(|t| !t.of_columns.is_empty()) {
        trigger.on_update &= trigger.of_columns.iter().any(|c| set.contains(c));
    }
}

/// Refuses a key whose values, as the session writes them as text, are not its values.
fn refuse_rounded(table: &Table, key: &Key, settings: &Settings) -> Result<(), Refusal> {
    let digits = settings.formats.get("extra_float_digits").and_then(|d| d.parse::<i32>().ok()).unwrap_or(1);
    let float = |c: &&Column| matches!(c.base_type.sql.as_str(), "real" | "double precision");
    match table.key_columns(key).find(float) {
        Some(column) if digits < 1 => {
            let message = format!(
                "extra_float_digits is {digits} in this session, which rounds the key `{}`: rows between two batches would be left out",
                column.name
            );
            Err(Refusal::new(Code::NoKey, message, "leave the setting out, or set it to 1"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Asks the server how many columns the source of an INSERT yields: one row of NULLs has them all.
async fn source_width(tx: &ReadTx<'_>, statement: &Statement) -> Result<Option<usize>, Error> {
    if statement.kind() != Kind::Insert || statement.source_width().is_some() {
        return Ok(statement.source_width());
    }
    let sql = format!("select s.* from (select) as one left join ({}) as s on false", statement.source_sql()?);
    let answer = tx.query_job("read the width of the source", &sql, vec![]).await?;
    Ok(answer.rows.first().map(Vec::len))
}

fn overridden(class: Class, wanted: Option<Mode>) -> Result<Class, Refusal> {
    match (wanted, class.mode) {
        (Some(Mode::Freeze), Mode::Stream) => {
            Ok(Class { mode: Mode::Freeze, reason: "the job asks for it".into(), ..class })
        }
        (Some(Mode::Stream), Mode::Freeze) => {
            let message = format!("the statement cannot be streamed: {}", class.reason);
            Err(Refusal::new(Code::NotSplittable, message, "leave `mode` out, or set it to freeze"))
        }
        (None, _) | (Some(Mode::Freeze), Mode::Freeze) | (Some(Mode::Stream), Mode::Stream) => Ok(class),
    }
}

/// Whether the key finds the rows again that an insert made, and tells them from those that ON CONFLICT updated: by a key that
/// DO UPDATE moves (or a trigger that fires for it), a row that was there before would be taken for a new one, and an
/// undo would delete it.
fn survives_conflicts(table: &Table, statement: &Statement, key: &Key) -> bool {
    let Some(conflict) = statement.on_conflict().filter(|c| c.update) else { return true };
    let arbiter = arbiter_columns(table, &conflict);
    let decided: BTreeSet<String> = table
        .triggers
        .iter()
        .filter(|t| t.enabled && t.row && t.before && t.on_update)
        .flat_map(|t| triggers::assigned(&t.source))
        .collect();
    let stays = |column: &Column| {
        let name = &column.name;
        let rewritten = arbiter.contains(name) && conflict.set_as_proposed.contains(name);
        !column.generated
            && (rewritten || !conflict.set_columns.contains(name))
            && !decided.contains(&name.to_lowercase())
    };
    table.key_columns(key).all(stays)
}

/// The key that the job names, or the first one that the statement does not write, or the first one.
fn choose_key(table: &Table, statement: &Statement, wanted: Option<&[String]>) -> Result<Option<Key>, Refusal> {
    let names = |key: &Key| table.key_columns(key).map(|c| c.name.clone()).collect::<Vec<_>>();
    if let Some(wanted) = wanted {
        if let Some(key) = table.keys.iter().find(|k| names(k) == wanted) {
            return Ok(Some(key.clone()).filter(|key| survives_conflicts(table, statement, key)));
        }
        let known: Vec<String> = table.keys.iter().map(|k| names(k).join(", ")).collect();
        let message = format!("`{}` has no usable key on ({})", table.name, wanted.join(", "));
        let help = if known.is_empty() { no_key_help(table) } else { format!("usable keys are: {}", known.join("; ")) };
        return Err(Refusal::new(Code::NoKey, message, help));
    }
    let assigned = if statement.kind() == Kind::Update { statement.assigned() } else { Vec::new() };
    let mut keys = table.keys.iter().filter(|key| survives_conflicts(table, statement, key));
    let untouched = |k: &&Key| table.key_columns(k).all(|c| !c.generated && !assigned.contains(&c.name));
    let free = keys.clone().find(untouched);
    if let Some(key) = free.or_else(|| keys.next()) {
        return Ok(Some(key.clone()));
    }
    if statement.kind() == Kind::Insert {
        return Ok(None);
    }
    if let Some(index) = table.drifted_key() {
        let message =
            format!("index {index} uses a collation that was built with another version: ranges may miss rows");
        let help =
            format!("type: reindex table concurrently {}; then refresh the collation's version", table.name.sql());
        return Err(Refusal::new(Code::CollationDrift, message, help));
    }
    let why =
        if table.unusable_keys.is_empty() { String::new() } else { format!(" ({})", table.unusable_keys.join("; ")) };
    let message = format!("`{}` has no unique index on columns that are all NOT NULL{why}", table.name);
    Err(Refusal::new(Code::NoKey, message, no_key_help(table)))
}

fn no_key_help(table: &Table) -> String {
    format!(
        "add one: create unique index concurrently on {} (…) over NOT NULL columns, or a primary key; then plan again",
        table.name.sql()
    )
}

impl Bound {
    /// The key of an update or delete.
    pub fn key(&self) -> Result<&Key, Refusal> {
        self.key.as_ref().ok_or_else(|| {
            Refusal::new(Code::NoKey, format!("`{}` has no usable key", self.table.name), no_key_help(&self.table))
        })
    }

    /// The order of its change set.
    pub fn order(&self) -> Order<'_> {
        match &self.tenant {
            Some(tenant) => Order::FirstBy(tenant),
            None if self.scattered => Order::Heap,
            None => Order::Key,
        }
    }

    /// The builder of the statements; an insert into a table without a key gets an empty one.
    pub fn rewriter<'a>(&'a self, empty: &'a Key) -> Result<Rewriter<'a>, Refusal> {
        let key = self.key.as_ref().unwrap_or(empty);
        Rewriter::new(&self.statement, Target { table: &self.table, key }, Options { source_width: self.source_width })
    }

    /// Whether a BEFORE trigger may decide the values that are stored.
    pub fn before_triggers(&self) -> bool {
        self.table.triggers.iter().any(|t| {
            t.enabled
                && t.row
                && t.before
                && match self.statement.kind() {
                    Kind::Update => t.on_update,
                    Kind::Delete => t.on_delete,
                    Kind::Insert => t.on_insert || t.on_update,
                }
        })
    }

    /// Whether any trigger fires on the statement's kind, so that touching a row is more than writing it.
    pub fn row_triggers(&self) -> bool {
        self.table.triggers.iter().any(|t| t.enabled && t.on_update)
    }

    /// Columns whose values the images hold: the assigned ones; all of them for a delete or an insert, or
    /// where a trigger may write any of them.
    pub fn written(&self) -> Vec<&Column> {
        let all = self.statement.kind() != Kind::Update || self.before_triggers();
        let assigned = self.statement.assigned();
        self.table.columns.iter().filter(|c| c.writable() && (all || assigned.contains(&c.name))).collect()
    }

    /// Columns that a frozen row must still hold: those read or written; all for a delete. The tenant's too: a row that
    /// has moved is another tenant's business.
    pub fn guarded(&self, rewriter: &Rewriter<'_>) -> Vec<&Column> {
        let (written, read) = (self.written(), rewriter.columns_read());
        let is_written = |c: &Column| written.iter().any(|w| w.attnum == c.attnum);
        let told_by = |c: &Column| read.contains(&c.name) || self.tenant.as_ref() == Some(&c.name);
        self.table.columns.iter().filter(|c| !c.generated && (is_written(c) || told_by(c))).collect()
    }

    /// The layout of the run's own images. After values that a SELECT computes stand in its order.
    pub fn image_layout(&self, rewriter: &Rewriter<'_>) -> ImageLayout {
        let key: Vec<&Column> = self.key.as_ref().map(|k| self.table.key_columns(k).collect()).unwrap_or_default();
        let written = self.written();
        let computed = self.statement.kind() == Kind::Update && !self.before_triggers() && rewriter.computable_after();
        let after: Vec<&Column> = match self.statement.kind() {
            Kind::Delete => Vec::new(),
            Kind::Update | Kind::Insert if computed => {
                rewriter.after_columns().iter().filter_map(|name| self.table.column(name)).collect()
            }
            Kind::Update | Kind::Insert => written.clone(),
        };
        layout(&self.table, &key, &written, &after)
    }
}

/// Refuses images or a change set of more columns than a table of PostgreSQL can have.
pub fn refuse_wide(table: &Table, layout: &ImageLayout) -> Result<(), Refusal> {
    let columns = layout.key.len() + layout.before.len() + layout.after.len();
    if columns + IMAGE_COLUMNS_OWN <= TABLE_COLUMNS_MAX {
        return Ok(());
    }
    let message = format!(
        "the key of `{}`, and the values before and after of the columns that change, are {columns} columns; a table holds {}",
        table.name,
        TABLE_COLUMNS_MAX - IMAGE_COLUMNS_OWN
    );
    Err(Refusal::new(
        Code::TooManyColumns,
        message,
        "write some of the columns in one job, and the others in a second one",
    ))
}

/// The layout of a run's own images as the SQL builder takes it. `pgcrypto` is its schema where values are encrypted.
pub fn kept_columns(layout: &ImageLayout, pgcrypto: Option<&str>) -> ImageColumns {
    ImageColumns { pgcrypto: pgcrypto.map(str::to_owned), ..image_columns(layout) }
}

/// The layout as the SQL builder takes it.
pub fn image_columns(layout: &ImageLayout) -> ImageColumns {
    let pairs = |columns: &[pgmend_core::plan::ImageColumn]| {
        columns.iter().map(|c| (c.column.clone(), c.image_column.clone())).collect()
    };
    ImageColumns {
        keys: layout.key.iter().map(|c| c.image_column.clone()).collect(),
        before: pairs(&layout.before),
        after: pairs(&layout.after),
        pgcrypto: None,
    }
}
