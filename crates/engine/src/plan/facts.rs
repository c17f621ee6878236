//! What the catalog says about the relations, functions and operators of a statement.

use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Key, RuleEvent, Table, TableKind};
use pgmend_pg::catalog::{CalledFunction, ReadRelation};
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{FunctionUse, Kind, Statement};

use crate::error::Error;

/// Catalog facts about a statement.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Relations read, by name.
    pub relations: Vec<(String, ReadRelation)>,
    /// Functions called.
    pub functions: Vec<(FunctionUse, CalledFunction)>,
    /// The first operator over a user's function that is not IMMUTABLE.
    pub unknown_operator: Option<String>,
}

/// Finds the target, and refuses what is not a user's permanent table.
pub async fn target(tx: &ReadTx<'_>, statement: &Statement, search_path: &str) -> Result<Table, Error> {
    refuse_shadows(tx, search_path).await?;
    let (schema, name) = statement.target();
    let Some(oid) = tx.resolve(schema, name).await? else {
        let message = format!("there is no table `{}`", schema.map_or(name.to_owned(), |s| format!("{s}.{name}")));
        let help = format!("check the spelling, or qualify it with its schema; search_path is {search_path}");
        return Err(Refusal::new(Code::NoSuchTable, message, help).into());
    };
    let table = tx.table(oid, search_path).await?;
    // An INSERT writes the named table alone anyway.
    admissible(&table, statement.only() || statement.kind() == Kind::Insert)?;
    unruled(&table, statement)?;
    Ok(table)
}

/// Refuses a search path under which operators and functions of the server mean something else: the statements that count,
/// find and compare rows use them.
async fn refuse_shadows(tx: &ReadTx<'_>, search_path: &str) -> Result<(), Error> {
    // Where the path does not name it, pg_catalog comes first.
    if !search_path.contains("pg_catalog") {
        return Ok(());
    }
    let shadowing = tx.shadowing().await?;
    if shadowing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "search_path names a schema before pg_catalog that redefines what the server defines ({}): batches would compare keys by it",
        shadowing.join(", ")
    );
    let help = format!("leave pg_catalog out of search_path, which is {search_path}, or name it first");
    Err(Refusal::new(Code::ShadowedCatalog, message, help).into())
}

/// Refuses rules that rewrite the statement, or its undo.
fn unruled(table: &Table, statement: &Statement) -> Result<(), Refusal> {
    let rewrites = |on: RuleEvent| match statement.kind() {
        Kind::Update => on == RuleEvent::Update,
        Kind::Delete => on != RuleEvent::Update,
        Kind::Insert => on != RuleEvent::Update || statement.on_conflict().is_some(),
    };
    let rules: Vec<&str> = table.rules.iter().filter(|r| rewrites(r.on)).map(|r| r.name.as_str()).collect();
    if rules.is_empty() {
        return Ok(());
    }
    let message = format!(
        "`{}` has rewrite rules ({}), which would change another set of rows per batch, or on the way back",
        table.name,
        rules.join(", ")
    );
    Err(Refusal::new(Code::Rules, message, "drop the rules, or change the tables that they write"))
}

fn admissible(table: &Table, only: bool) -> Result<(), Refusal> {
    let name = &table.name;
    if matches!(name.schema.as_str(), "pg_catalog" | "information_schema" | "pgmend")
        || name.schema.starts_with("pg_toast")
    {
        let help = "pgmend changes users' tables only";
        return Err(Refusal::new(Code::SystemTarget, format!("`{name}` is a system table"), help));
    }
    if table.kind == TableKind::NotATable {
        let what = match table.relkind {
            'v' => "a view",
            'm' => "a materialized view",
            'f' => "a foreign table, whose rows commit separately",
            'S' => "a sequence",
            'i' | 'I' => "an index",
            _ => "not a table",
        };
        let help = if table.relkind == 'v' {
            "name the table under the view"
        } else {
            "name an ordinary or partitioned table"
        };
        return Err(Refusal::new(Code::NotATable, format!("`{name}` is {what}"), help));
    }
    if table.persistence == 't' {
        let message = format!("`{name}` is a temporary table, which another connection cannot see");
        return Err(Refusal::new(Code::SystemTarget, message, "use an ordinary table"));
    }
    if !table.inheritance_children.is_empty() && !only {
        let children: Vec<String> = table.inheritance_children.iter().map(ToString::to_string).collect();
        let message =
            format!("`{name}` has inheritance children ({}), over which its keys are not unique", children.join(", "));
        return Err(Refusal::new(
            Code::Inheritance,
            message,
            "write ONLY before the table's name, and run each child by itself",
        ));
    }
    if table.row_security {
        let message = format!(
            "row-level security applies to this role on `{name}`: rows that it hides would be skipped silently"
        );
        let help = "run as the table's owner or as a role with BYPASSRLS";
        return Err(Refusal::new(Code::RowSecurity, message, help));
    }
    Ok(())
}

/// Looks up everything that the statement reads and calls.
pub async fn gather(tx: &ReadTx<'_>, statement: &Statement, table: &Table) -> Result<Facts, Error> {
    let mut facts = Facts::default();
    for (schema, name) in statement.reads() {
        if let Some(oid) = tx.resolve(schema.as_deref(), &name).await? {
            facts.relations.push((name, tx.read_relation(oid, table.oid).await?));
        }
    }
    let mut calls = statement.functions();
    for name in statement.defaulted() {
        // Identities draw from a sequence, which the rewriter knows of by itself.
        let default = table.column(&name).filter(|c| c.identity.is_none()).and_then(|c| c.default_sql.as_deref());
        if let Some(default) = default {
            calls.extend(pgmend_sql::functions_of_default(default)?);
        }
    }
    for call in calls {
        if let Some(found) = tx.called_function(call.schema.as_deref(), &call.name).await? {
            facts.functions.push((call, found));
        }
    }
    for operator in statement.operators() {
        if facts.unknown_operator.is_none() && tx.unknown_operator(&operator).await? {
            facts.unknown_operator = Some(operator);
        }
    }
    Ok(facts)
}

/// A key that follows the pages of the table less than this, by the statistics' correlation of its first column (0 to 1),
/// is in no order that is worth anything there.
const FOLLOWS: f64 = 0.5;

/// Whether batches in key order would come back to the same pages again and again, from disk and into the WAL: the key's
/// order is not that of the pages, and these are more than half of the server's own cache. Without statistics: no.
/// Lock: none. Index: pg_statistic's own.
pub async fn is_scattered(tx: &ReadTx<'_>, table: &Table, key: &Key) -> Result<bool, Error> {
    let Some(first) = table.key_columns(key).next() else { return Ok(false) };
    let sql = "select (coalesce(min(abs(s.correlation)) < $4::text::float8, false) \
               and $5::text::bigint > pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / 2)::text \
               from pg_catalog.pg_stats s where s.schemaname = $1 and s.tablename = $2 and s.attname = $3 and not s.inherited";
    let (schema, name) = (table.name.schema.clone(), table.name.name.clone());
    let params = vec![schema, name, first.name.clone(), FOLLOWS.to_string(), table.heap_bytes.to_string()];
    let answer = tx.query("compare the key's order with the pages'", sql, params).await?;
    Ok(answer.scalar() == Some("true"))
}
