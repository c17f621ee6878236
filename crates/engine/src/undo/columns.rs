//! The columns of an undo: images matched to the table as it is now, by attribute number. Added columns
//! keep what they hold, renamed and widened ones are followed, the rest is refused by name.

use pgmend_core::plan::{Apply, ImageColumn, ImageLayout, Plan, RunSql};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Identity, Key, Table, quote_ident};
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{Applied, Guard, ImageColumns, Window, apply_delete, apply_insert, apply_update, span};

use super::Built;
use super::fit::Fit;
use super::source::{SAMPLES, Source};
use crate::error::Error;
use crate::plan::bind::{image_columns, kept_columns};
use crate::plan::statements::IMAGE_TABLE;

/// How the columns of an undo's change set come from the images.
pub struct UndoColumns {
    /// The key, as the table has it now.
    pub key: Key,
    /// The layout of the undo's change set.
    pub layout: ImageLayout,
    /// Whether rows are restored in reverse order.
    pub reversed: bool,
    key_sources: Vec<String>,
    before_sources: Vec<String>,
    after_sources: Vec<String>,
    /// Columns whose new value differs from their key's position: a written key is set, another is not.
    pub key_written: bool,
}

impl UndoColumns {
    /// Matches the images to the table.
    pub async fn of(tx: &ReadTx<'_>, table: &Table, forward: &Plan, source: &Source) -> Result<Self, Error> {
        let old = &source.layout;
        let update_only = source.ops() == ['U'];
        let restored: Vec<&ImageColumn> =
            old.before.iter().filter(|b| !update_only || old.after.iter().any(|a| a.attnum == b.attnum)).collect();
        let restored = if update_only && forward.images.exact { source.changed(tx, restored).await? } else { restored };
        let before = current(tx, table, forward, source, &old.after.iter().collect::<Vec<_>>()).await?;
        let after = current(tx, table, forward, source, &restored).await?;
        let written =
            |k: &ImageColumn| old.after.iter().find(|a| a.attnum == k.attnum && source.change_set && update_only);
        // A run's own images have the key that the row has now, and before it the one that a trigger replaced.
        let stored = |k: &ImageColumn| update_only && old.after.iter().any(|a| a.attnum == k.attnum);
        let keys: Vec<&ImageColumn> = old.key.iter().map(|k| written(k).unwrap_or(k)).collect();
        let keys = current(tx, table, forward, source, &keys).await?;
        let key = key_of(table, forward, &columns_of(&keys))?;
        let unique: Vec<i16> = table
            .unique_indexes
            .iter()
            .filter(|u| u.exclusion || u.name != key.index)
            .flat_map(|u| u.attnums.clone())
            .collect();
        Ok(Self {
            reversed: after.iter().any(|c| unique.contains(&c.column.attnum))
                || old.key.iter().any(|k| written(k).is_some()),
            key_written: old.key.iter().any(|k| written(k).is_some() || (!source.change_set && stored(k))),
            layout: pgmend_pg::images::layout(table, &columns_of(&keys), &columns_of(&before), &columns_of(&after)),
            key,
            key_sources: values_of(keys),
            before_sources: values_of(before),
            after_sources: values_of(after),
        })
    }

    /// Key columns of the change set, and the SQL that reads them from the images.
    pub fn key_sources(&self) -> Vec<(&str, &str)> {
        paired(&self.layout.key, &self.key_sources)
    }

    /// What must still be there, and the SQL that reads it from the images.
    pub fn before_sources(&self) -> Vec<(&str, &str)> {
        paired(&self.layout.before, &self.before_sources)
    }

    /// What comes back, and the SQL that reads it from the images.
    pub fn after_sources(&self) -> Vec<(&str, &str)> {
        paired(&self.layout.after, &self.after_sources)
    }

    /// Columns of the table, and the SQL that reads from the images what they are restored to.
    pub fn restored_pairs(&self) -> Vec<(&str, &str)> {
        self.layout.after.iter().zip(&self.after_sources).map(|(c, s)| (c.column.as_str(), s.as_str())).collect()
    }

    /// The columns that come back.
    pub fn restored(&self) -> Vec<String> {
        self.layout.after.iter().map(|c| c.column.clone()).collect()
    }

    /// Columns by their names now, and the SQL that reads from the images what they held before the change.
    pub fn before_image_columns(&self) -> Vec<(&str, &str)> {
        self.restored_pairs()
    }

    /// The statements that apply the change set.
    /// `together`: all rows in one transaction, where no row can be set aside once a foreign key rejects it.
    pub fn statements(
        &self,
        table: &Table,
        change_set: &str,
        ops: &[char],
        number: usize,
        together: bool,
        pgcrypto: Option<&str>,
    ) -> Result<Built, Error> {
        let columns = image_columns(&self.layout);
        let set = self.assignable(table, &columns);
        if ops.contains(&'U') && set.after.is_empty() {
            let message =
                format!("no column that the run wrote in {} can be set: only the server gives them values", table.name);
            return Err(Refusal::new(Code::Irreversible, message, "the images remain readable with plain SQL").into());
        }
        let guard: Guard = columns.before.clone();
        let window = Window { lower: number + 1, upper: number + 2, span: Some(number + 4) };
        let bare = Applied {
            table,
            key: &self.key,
            change_set,
            columns: &columns,
            guard: &guard,
            window,
            block: None,
            complete: None,
        };
        let block = if ops.contains(&'D') { bare.unreferenced(together) } else { None };
        let complete = if ops.contains(&'I') { bare.complete(together) } else { None };
        let (block, complete) = (block.as_deref(), complete.as_deref());
        let applied = |columns| Applied { columns, block, complete, ..bare };
        let exact = ops.contains(&'U') && table.triggers.iter().any(|t| t.enabled && t.row && t.before && t.on_update);
        let images = exact.then(|| ImageLayout {
            before: self.layout.before.clone(),
            after: self.layout.before.iter().map(after_named).collect(),
            key: self.layout.key.clone(),
        });
        let statement = |op: char| match (op, &images) {
            ('U', None) => apply_update(table, &self.key, change_set, &set, &guard, window, false),
            ('U', Some(images)) => applied(&set).update_imaged(IMAGE_TABLE, number, &kept_columns(images, pgcrypto)),
            ('D', _) => apply_delete(table, &self.key, change_set, &columns, &guard, window, block, false),
            (_, _) => apply_insert(table, &self.key, change_set, &columns.after, window, complete, false),
        };
        let order = ['D', 'U', 'I'];
        let apply =
            order.iter().filter(|op| ops.contains(op)).map(|&op| Apply { sql: statement(op), op, every_row: true });
        let already = applied(&set).already();
        Ok(Built {
            sql: RunSql::Freeze {
                apply: apply.collect(),
                conflicts: Some(applied(&columns).record_conflicts(number + 3, number)),
                residual: None,
                span: Some(span(table, &self.key, change_set, &columns, window)),
            },
            classify: applied(&columns).classify(already.as_deref()),
            restorable: applied(&columns).applicable(SAMPLES),
            images,
        })
    }

    /// Whether there is a column that an UPDATE may set.
    pub fn any_assignable(&self, table: &Table) -> bool {
        !self.assignable(table, &image_columns(&self.layout)).after.is_empty()
    }

    /// Columns that an UPDATE may set: not an identity that is always generated, and the key only where
    /// the run had written it.
    fn assignable(&self, table: &Table, columns: &ImageColumns) -> ImageColumns {
        let fixed = |name: &str| {
            let identity = table.column(name).is_some_and(|c| c.identity == Some(Identity::Always));
            let key = self.layout.key.iter().any(|k| k.column == name);
            identity || (key && !self.key_written)
        };
        let after = columns.after.iter().filter(|(column, _)| !fixed(column)).cloned().collect();
        ImageColumns { after, ..columns.clone() }
    }
}

fn paired<'c>(columns: &'c [ImageColumn], sources: &'c [String]) -> Vec<(&'c str, &'c str)> {
    columns.iter().zip(sources).map(|(c, source)| (c.image_column.as_str(), source.as_str())).collect()
}

/// The same column under the name of an after-image.
fn after_named(column: &ImageColumn) -> ImageColumn {
    let image_column = match column.image_column.strip_prefix("before_") {
        Some(rest) => format!("after_{rest}"),
        None => format!("after_{}", column.attnum),
    };
    ImageColumn { image_column, ..column.clone() }
}

/// A column as the table has it now, and the SQL that reads its value from an image of then.
struct Current<'t> {
    column: &'t Column,
    value: String,
}

/// The columns as the table has them now.
async fn current<'t>(
    tx: &ReadTx<'_>,
    table: &'t Table,
    forward: &Plan,
    source: &Source,
    columns: &[&ImageColumn],
) -> Result<Vec<Current<'t>>, Error> {
    let mut found = Vec::new();
    for old in columns {
        let Some(now) = table.columns.iter().find(|c| c.attnum == old.attnum) else {
            return Err(changed(forward, format!("column `{}` has been dropped", old.column)));
        };
        if now.generated && !old.image_column.starts_with("key_") {
            return Err(changed(forward, format!("column `{}` is generated now", now.name)));
        }
        let value = format!("pgmend_i.{}", quote_ident(&old.image_column));
        let value = match Fit::of(tx, table, source, old, now).await? {
            Fit::Always => value,
            Fit::Cast => format!("{value}::{}", now.base_type.sql),
            Fit::Not(why) => {
                let types = format!("column `{}` was {} and is {}", now.name, old.type_sql, now.base_type.sql);
                return Err(changed(forward, format!("{types}, {why}")));
            }
        };
        found.push(Current { column: now, value });
    }
    Ok(found)
}

fn columns_of<'t>(current: &[Current<'t>]) -> Vec<&'t Column> {
    current.iter().map(|c| c.column).collect()
}

fn values_of(current: Vec<Current<'_>>) -> Vec<String> {
    current.into_iter().map(|c| c.value).collect()
}

fn key_of(table: &Table, forward: &Plan, columns: &[&Column]) -> Result<Key, Error> {
    let attnums: Vec<i16> = columns.iter().map(|c| c.attnum).collect();
    let same = |key: &&Key| table.key_columns(key).map(|c| c.attnum).collect::<Vec<_>>() == attnums;
    let key = table.keys.iter().find(same).cloned();
    key.ok_or_else(|| {
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        changed(forward, format!("there is no usable key on ({}) any more", names.join(", ")))
    })
}

fn changed(forward: &Plan, what: String) -> Error {
    let message = format!("{} has changed since: {what}", forward.target);
    let help = "the images remain readable with plain SQL; restore by hand what you need";
    Refusal::new(Code::TableChanged, message, help).into()
}
