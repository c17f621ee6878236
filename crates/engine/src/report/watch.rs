//! The rows that a job watches, after its run: as its images have them before, as the table has them now.

use pgmend_core::mask::Mask;
use pgmend_core::plan::Plan;
use pgmend_core::table::{Column, Table, quote_ident};
use pgmend_pg::readtx::ReadTx;
use pgmend_pg::store::StoredRun;
use serde::Serialize;

use crate::control::key_text;
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::planning_scene;
use crate::plan::sample::value_kind;
use crate::trace::{Found, RowKey, keys_plain};

/// A watched row, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WatchedRow {
    /// What the job calls it.
    pub name: String,
    /// Its key, `column=value`.
    pub key: String,
    /// Whether this run changed it, and whether somebody did since.
    pub said: String,
    /// Column, before the run, now. Only of columns that the run changed or would have.
    pub columns: Vec<(String, Option<String>, Option<String>)>,
}

impl Engine {
    /// The rows that the plan of a run watches.
    pub(super) async fn watched(&self, run: &StoredRun, plan: &Plan) -> Result<Vec<WatchedRow>, Error> {
        let Some(key) = plan.key.as_ref().filter(|_| !plan.expect.watch.is_empty()) else { return Ok(Vec::new()) };
        let shown = self.shown_of(plan).await?;
        let Some(table) = self.table_now(plan.target_oid).await? else { return Ok(Vec::new()) };
        let mask = keys_plain(shown, &table);
        let mut all = Vec::new();
        for watch in &plan.expect.watch {
            let row = RowKey { columns: key.columns.clone(), values: watch.values() };
            let key = key_text(Some(key), &row.values, &mask);
            let (scene, keys) = (planning_scene(&self.here), [row.clone()]);
            let (found, unreadable) = match self.images_of(&scene, run.clone(), plan.clone(), &table, &keys, None).await
            {
                Ok(found) => (found, false),
                Err(Error::Refused(_)) => (None, true),
                Err(error) => return Err(error),
            };
            if found.as_ref().is_some_and(|found| found.encrypted_to.is_some()) {
                let said = "changed by this run; its values are encrypted".to_owned();
                all.push(WatchedRow { name: watch.name.clone(), key, said, columns: Vec::new() });
                continue;
            }
            let columns = columns(plan, found.as_ref(), &table);
            let now = self.row_now(&table, &row, &columns).await?;
            let (said, columns) = compared(found.as_ref(), &columns, now.as_deref(), &table, &mask);
            let said = if unreadable { "this role may not read the run's images".to_owned() } else { said };
            all.push(WatchedRow { name: watch.name.clone(), key, said, columns });
        }
        Ok(all)
    }

    async fn table_now(&self, oid: u32) -> Result<Option<Table>, Error> {
        let tx = self.session.read(&planning_scene(&self.here), vec![]).await?;
        let table = self.table_within(&tx, oid).await;
        tx.end().await?;
        table
    }

    async fn table_within(&self, tx: &ReadTx<'_>, oid: u32) -> Result<Option<Table>, Error> {
        let sql = "select count(*)::text from pg_catalog.pg_class where oid = $1::oid";
        if tx.query("look for the target", sql, vec![oid.to_string()]).await?.number()? == 0 {
            return Ok(None);
        }
        Ok(Some(tx.table(oid, &self.here.settings.search_path).await?))
    }

    /// The columns of a row as they are; `None` when it is not there, or this role may not read it.
    async fn row_now(
        &self,
        table: &Table,
        row: &RowKey,
        columns: &[String],
    ) -> Result<Option<Vec<Option<String>>>, Error> {
        let Some(key) = row.columns_in(table).filter(|_| !columns.is_empty()) else { return Ok(None) };
        let cells: Vec<String> = columns.iter().map(|c| format!("t.{}::text", quote_ident(c))).collect();
        let same =
            |(i, c): (usize, &&Column)| format!("t.{} = ${}::text::{}", quote_ident(&c.name), i + 1, c.base_type.sql);
        let same: Vec<String> = key.iter().enumerate().map(same).collect();
        let sql = format!("select {} from {} as t where {}", cells.join(", "), table.alone(), same.join(" and "));
        let tx = self.session.read(&planning_scene(&self.here), vec![]).await?;
        let answer = tx.query("look at a watched row", &sql, row.values.clone()).await;
        tx.end().await?;
        match answer {
            Ok(answer) => Ok(answer.rows.into_iter().next()),
            Err(error) if error.is_connection() => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}

/// The columns that the run wrote and that are still there; all of them where rows came or went.
fn columns(plan: &Plan, found: Option<&Found>, table: &Table) -> Vec<String> {
    let written: Vec<String> = match found {
        Some(found) if found.layout.after.is_empty() => found.layout.before.iter().map(|c| c.column.clone()).collect(),
        Some(found) => found.layout.after.iter().map(|c| c.column.clone()).collect(),
        None if plan.writes.is_empty() => table.columns.iter().map(|c| c.name.clone()).collect(),
        None => plan.writes.clone(),
    };
    written.into_iter().filter(|name| table.column(name).is_some()).collect()
}

type Cells = Vec<(String, Option<String>, Option<String>)>;

fn compared(
    found: Option<&Found>,
    columns: &[String],
    now: Option<&[Option<String>]>,
    table: &Table,
    mask: &Mask,
) -> (String, Cells) {
    let key = |name: &str| table.keys.iter().any(|k| table.key_columns(k).any(|c| c.name == name));
    let show = |name: &str, value: Option<&str>| {
        table.column(name).and_then(|c| mask.show(name, value_kind(c, key(name)), value))
    };
    let image = found.and_then(|f| f.rows.last().map(|row| (f, row)));
    let of = |side: &[pgmend_core::plan::ImageColumn], values: &[Option<String>], name: &str| {
        side.iter().position(|c| c.column == name).and_then(|at| values.get(at).cloned().flatten())
    };
    let mut since = false;
    let mut cells = Vec::new();
    for (place, name) in columns.iter().enumerate() {
        let current = now.and_then(|row| row.get(place).cloned().flatten());
        let before = match image {
            Some((_, row)) if row.op == 'I' => None,
            Some((found, row)) => of(&found.layout.before, &row.before, name),
            None => current.clone(),
        };
        let written = image.filter(|(_, row)| row.op != 'D').and_then(|(f, row)| of(&f.layout.after, &row.after, name));
        since |= image.is_some() && written != current;
        cells.push((name.clone(), show(name, before.as_deref()), show(name, current.as_deref())));
    }
    let gone = if now.is_none() { "; it is not there now" } else { "" };
    let said = match (image.is_some(), since) {
        (true, true) => "changed by this run, and otherwise now",
        (true, false) => "changed by this run, and as it left it",
        (false, _) => "not changed by this run",
    };
    (format!("{said}{gone}"), cells)
}
