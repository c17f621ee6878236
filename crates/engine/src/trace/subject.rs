//! The row that a trace is asked about: its table, and its key as typed, read by the server.

use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Key, Table};
use pgmend_pg::PgError;
use pgmend_pg::readtx::ReadTx;

use super::RowKey;
use crate::error::Error;

/// The row that is asked about.
pub(super) struct Subject {
    /// The table, and the partitioned table that it belongs to.
    pub tables: Vec<Table>,
    /// The key as typed, then the row's other keys, as it is now: a run may have used one of those.
    pub keys: Vec<RowKey>,
}

/// The table as typed, its key checked and read by the server.
pub(super) async fn subject(tx: &ReadTx<'_>, typed: &str, key: &[String], search_path: &str) -> Result<Subject, Error> {
    let oid = resolve(tx, typed).await?;
    let mut tables = vec![tx.table(oid, search_path).await?];
    let root = tx.partition_root(oid).await?;
    if root != oid {
        tables.push(tx.table(root, search_path).await?);
    }
    let names = |table: &Table| -> Vec<String> {
        table.keys.iter().map(|k| table.key_columns(k).map(|c| c.name.clone()).collect::<Vec<_>>().join(", ")).collect()
    };
    let [table, ..] = tables.as_slice() else { return Err(Error::Corrupt("a table that is none".into())) };
    if table.keys.is_empty() {
        let message = format!("`{}` has no usable key, so its rows cannot be told apart", table.name);
        return Err(Refusal::new(
            Code::NoKey,
            message,
            "look at the images themselves: `pgmend report RUN` names their table",
        )
        .into());
    }
    let fitting = typed_keys(table, key);
    if fitting.is_empty() {
        let given = if key.len() == 1 { "1 column".to_owned() } else { format!("{} columns", key.len()) };
        let message = format!("`{}` has no key of {given}", table.name);
        let help = format!("give one value for each column of the key, in this order: {}", names(table).join("; or "));
        return Err(Refusal::new(Code::Parameter, message, help).into());
    }
    let (found, columns, values) = read_key(tx, table, fitting).await?;
    let names = |columns: &[&Column]| columns.iter().map(|c| c.name.clone()).collect();
    let mut keys = vec![RowKey { columns: names(&columns), values }];
    for other in table.keys.iter().filter(|k| k.columns != found.columns) {
        let wanted: Vec<&Column> = table.key_columns(other).collect();
        if let Some(values) = tx.columns_of_row(&table.name, &columns, &keys[0].values, &wanted).await? {
            keys.push(RowKey { columns: names(&wanted), values });
        }
    }
    Ok(Subject { tables, keys })
}

/// The keys that the values may be of, each with its values: those with so many columns, the primary key first; or the one
/// that is named, as in `email=x@y`.
fn typed_keys<'t>(table: &'t Table, typed: &[String]) -> Vec<(&'t Key, Vec<String>)> {
    let named: Option<Vec<(&str, &str)>> = typed.iter().map(|part| part.split_once('=')).collect();
    for key in named.iter().flat_map(|_| &table.keys).filter(|key| key.columns.len() == typed.len()) {
        let value = |column: &Column| {
            let mut parts = named.iter().flatten();
            parts.find(|(name, _)| *name == column.name).map(|(_, value)| (*value).to_owned())
        };
        if let Some(values) = table.key_columns(key).map(value).collect() {
            return vec![(key, values)];
        }
    }
    let keys = table.keys.iter().filter(|key| key.columns.len() == typed.len());
    keys.map(|key| (key, typed.to_vec())).collect()
}

/// The first of these keys that the values are of, as the server reads and prints them.
async fn read_key<'t>(
    tx: &ReadTx<'_>,
    table: &'t Table,
    fitting: Vec<(&'t Key, Vec<String>)>,
) -> Result<(&'t Key, Vec<&'t Column>, Vec<String>), Error> {
    let mut refused = None;
    for (key, given) in fitting {
        let columns: Vec<&Column> = table.key_columns(key).collect();
        let types: Vec<String> = columns.iter().map(|c| c.base_type.sql.clone()).collect();
        match tx.canonical_key(&types, &given).await.map_err(|error| not_a_key(error, table, &columns)) {
            Ok(values) => return Ok((key, columns, values)),
            // `x@y` is no number, but may well be an address: the next key.
            Err(error @ Error::Refused(_)) => {
                refused.get_or_insert(error);
            }
            Err(error @ (Error::Database { .. } | Error::Corrupt(_))) => return Err(error),
        }
    }
    Err(refused.unwrap_or_else(|| Error::Corrupt("a key without a value".into())))
}

async fn resolve(tx: &ReadTx<'_>, typed: &str) -> Result<u32, Error> {
    let (schema, name) = typed.split_once('.').map_or((None, typed), |(schema, name)| (Some(schema), name));
    // As spelt first: `pgmend trace Users 7` means "Users" where there is one.
    let exact = tx.resolve(schema, name).await?;
    let found = match exact {
        Some(oid) => Some(oid),
        None => tx.relation_as_typed(typed).await?,
    };
    found.ok_or_else(|| {
        Refusal::new(
            Code::NoSuchTable,
            format!("there is no table `{typed}`"),
            "write it as in psql, with its schema where needed",
        )
        .into()
    })
}

fn not_a_key(error: PgError, table: &Table, columns: &[&Column]) -> Error {
    if !error.sqlstate.starts_with("22") {
        return error.into();
    }
    let columns: Vec<String> = columns.iter().map(|c| format!("{} ({})", c.name, c.base_type.sql)).collect();
    let message = format!("these are no values of the key of `{}`: {}", table.name, error.message);
    Refusal::new(Code::Parameter, message, format!("the key is {}", columns.join(", "))).into()
}
