//! The story of one row: every run that touched it, from images and change sets, and from saved digests where
//! those are pruned. Whoever may not read images is told it masked, by the database.

mod masked;
mod subject;

use pgmend_core::mask::{Mask, ValueKind};
use pgmend_core::plan::{ImageColumn, ImageLayout, Plan, Settings};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Table};
use pgmend_pg::PgError;
use pgmend_pg::archive::ImageRow;
use pgmend_pg::images::ImageTable;
use pgmend_pg::scene::Scene;
use pgmend_pg::store::StoredRun;

use crate::encryption::{Identities, rows_of_key};
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::Touch;
use crate::plan::planning_scene;
use crate::plan::sample::value_kind;
use subject::subject;

/// An undo of an undo of … beyond this many shows masked values.
const UNDOS_FOLLOWED_MAX: u32 = 20;

/// The values of one key, as the server prints them.
#[derive(Clone)]
pub(crate) struct RowKey {
    pub columns: Vec<String>,
    pub values: Vec<String>,
}

impl RowKey {
    pub fn columns_in<'t>(&self, table: &'t Table) -> Option<Vec<&'t Column>> {
        self.columns.iter().map(|name| table.column(name)).collect()
    }
}

/// Where the images of a run are.
struct Place<'a> {
    kind: ImageTable,
    name: &'a str,
    layout: &'a ImageLayout,
}

/// A run's images of the row.
pub(crate) struct Found {
    run: StoredRun,
    plan: Plan,
    kind: ImageTable,
    pub rows: Vec<ImageRow>,
    pub layout: ImageLayout,
    /// Whom the values are encrypted to, where no key was opened: the rows are without them.
    pub encrypted_to: Option<String>,
}

impl Engine {
    /// Every run that touched a row, oldest first: when, by whom, and what it changed, masked unless asked for.
    /// `key` are the values of the table's key, in its order. Encrypted values are told only where one of the
    /// identities opens them.
    pub async fn trace(
        &mut self,
        table: &str,
        key: &[String],
        show_values: bool,
        identities: Option<&Identities>,
    ) -> Result<Vec<Touch>, Error> {
        self.need_control_schema().await?;
        let scene = planning_scene(&self.here);
        let tx = self.session.read(&scene, vec![]).await?;
        let subject = subject(&tx, table, key, &self.here.settings.search_path).await;
        tx.end().await?;
        let subject = subject?;
        let mut touches = Vec::new();
        for table in &subject.tables {
            for run in self.session.runs_on(table.oid).await? {
                let plan = self.session.plan_of(run.plan_id).await?.plan;
                let asked = (table, subject.keys.as_slice());
                touches.extend(self.touches_by(&scene, run, plan, asked, show_values, identities).await?);
            }
            let known: Vec<_> = touches.iter().map(|t: &Touch| t.run_id).collect();
            let pruned = self.pruned_touches(table, &subject.keys).await?;
            touches.extend(pruned.into_iter().filter(|t| !known.contains(&t.run_id)));
        }
        refuse_useless(&touches, identities)?;
        // A row's story is told from its beginning; within a second ids sort by their time of creation.
        touches.sort_by(|a, b| (&a.changed_at, a.run_id.uuid()).cmp(&(&b.changed_at, b.run_id.uuid())));
        Ok(touches)
    }

    /// What a run kept of the row; `None` when it kept nothing, or nothing that these keys find.
    pub(crate) async fn images_of(
        &self,
        scene: &Scene,
        run: StoredRun,
        plan: Plan,
        table: &Table,
        keys: &[RowKey],
        identities: Option<&Identities>,
    ) -> Result<Option<Found>, Error> {
        let Some(Place { kind, name, layout }) = place(&run, &plan) else { return Ok(None) };
        if self.session.image_bytes(name).await?.is_none() {
            return Ok(None);
        }
        let layout = layout.clone();
        let encrypted = match self.session.is_encrypted(name).await? {
            true => Some(self.session.image_keys(run.run_id).await?),
            false => None,
        };
        let opened = encrypted.as_ref().zip(identities).map(|(kept, own)| own.open(kept)).unwrap_or_default();
        let tx = self.session.read(scene, vec![]).await?;
        let mut rows = Ok(None);
        for key in keys {
            let Some(columns) = key.columns_in(table) else { continue };
            rows = match &encrypted {
                Some(_) => rows_of_key(&tx, kind, name, &layout, (&columns, &key.values), &opened).await,
                None => tx.images_of_key(kind, name, &layout, &columns, &key.values).await,
            };
            if !matches!(&rows, Ok(found) if found.as_ref().is_none_or(Vec::is_empty)) {
                break;
            }
        }
        tx.end().await?;
        let rows = rows.map_err(|error| unreadable(error, name, &run))?.unwrap_or_default();
        let shut = encrypted.filter(|_| rows.iter().any(|row| row.before.is_empty() && row.after.is_empty()));
        let encrypted_to = shut.and_then(|kept| kept.first().map(|key| key.recipient.clone()));
        Ok((!rows.is_empty()).then_some(Found { run, plan, kind, rows, layout, encrypted_to }))
    }

    /// What may be shown of a run's rows: columns declared plain, constants of the statement. An undo shows what the
    /// run that it undoes may show.
    pub(crate) async fn shown_of(&self, plan: &Plan) -> Result<Mask, Error> {
        let mut forward = None;
        for _ in 0..UNDOS_FOLLOWED_MAX {
            let Some(undone) = forward.as_ref().unwrap_or(plan).undo_of else { break };
            let run = self.one_run(&undone.to_string()).await?;
            forward = Some(self.session.plan_of(run.plan_id).await?.plan);
        }
        let plan = forward.as_ref().unwrap_or(plan);
        Ok(Mask {
            show_all: false,
            plain: plan.plain.iter().cloned().collect(),
            constants: pgmend_sql::constants(&plan.statement),
            key: self.kept_tokens().await?,
        })
    }

    /// What one run did to the row. Where this role may not read the run's images the database answers, with masked values.
    async fn touches_by(
        &self,
        scene: &Scene,
        run: StoredRun,
        plan: Plan,
        (table, keys): (&Table, &[RowKey]),
        show_values: bool,
        identities: Option<&Identities>,
    ) -> Result<Vec<Touch>, Error> {
        match self.images_of(scene, run.clone(), plan.clone(), table, keys, identities).await {
            Ok(None) => Ok(Vec::new()),
            Ok(Some(found)) => {
                let shown = self.shown_of(&found.plan).await?;
                let mask = Mask { show_all: show_values, ..keys_plain(shown, table) };
                self.touches_of(&found, table, &mask).await
            }
            Err(Error::Refused(refusal)) if refusal.code == Code::Privilege && !show_values && identities.is_none() => {
                let Some(found) = self.masked_images_of(scene, run, plan, table, keys).await? else {
                    return Ok(Vec::new());
                };
                self.touches_of(&found, table, &Mask { show_all: true, ..Mask::default() }).await
            }
            Err(error) => Err(error),
        }
    }

    async fn touches_of(&self, found: &Found, table: &Table, mask: &Mask) -> Result<Vec<Touch>, Error> {
        let mut touches = Vec::new();
        for row in &found.rows {
            // A row of a change set without a batch, or one that was a conflict, was never changed.
            let Some(changed_at) = self.session.batch_begun_at(found.run.run_id, found.kind, row.place).await? else {
                continue;
            };
            let encrypted_to = found.encrypted_to.clone();
            let columns = match encrypted_to {
                Some(_) => Vec::new(),
                None => columns_of(row, &found.layout, table, mask),
            };
            touches.push(Touch { columns, encrypted_to, ..touch(&found.run, changed_at) });
        }
        Ok(touches)
    }

    /// Runs whose images are pruned, found by the digest of a key.
    async fn pruned_touches(&self, table: &Table, keys: &[RowKey]) -> Result<Vec<Touch>, Error> {
        let scene = Scene { settings: digest_settings(&self.here.settings), ..planning_scene(&self.here) };
        let mut touches: Vec<Touch> = Vec::new();
        for key in keys {
            let Some(columns) = key.columns_in(table) else { continue };
            let types: Vec<String> = columns.iter().map(|c| c.base_type.sql.clone()).collect();
            let tx = self.session.read(&scene, vec![]).await?;
            let digest = tx.key_digest(&types, &key.values).await;
            tx.end().await?;
            let found = self.session.runs_touching(table.oid, &digest?, &key.values).await;
            for (run, changed_at) in found.map_err(|error| not_theirs(error, table))? {
                let run = self.one_run(&run.to_string()).await?;
                if touches.iter().all(|t| t.run_id != run.run_id) {
                    touches.push(Touch { pruned: true, ..touch(&run, changed_at) });
                }
            }
        }
        Ok(touches)
    }
}

fn unreadable(error: PgError, name: &str, run: &StoredRun) -> Error {
    if error.sqlstate != "42501" {
        return error.into();
    }
    let message = format!("this role may not read pgmend.{name}, the images of run {}", run.run_id);
    let other = Some(&run.effective_role)
        .filter(|role| **role != run.started_by)
        .map_or(String::new(), |role| format!(" or {role}"));
    let help = format!(
        "connect as {}{other}, or let an administrator type: grant select on pgmend.{name} to …",
        run.started_by
    );
    Refusal::new(Code::Privilege, message, help).into()
}

/// Whether a key is among those of pruned images is told to those who may read the row.
fn not_theirs(error: PgError, table: &Table) -> Error {
    if error.sqlstate != Code::Privilege.as_str() {
        return error.into();
    }
    let message = format!(
        "this role may not ask by this key which runs touched a row of `{}`: it may not read the row, and an answer would confirm a guess",
        table.name
    );
    let help = format!(
        "ask by the primary key, where that is of integers or uuids; or let the table's owner type: grant select on {} to …",
        table.name.sql()
    );
    Refusal::new(Code::Privilege, message, help).into()
}

/// The run's own images, or the change set that serves as them.
fn place<'a>(run: &'a StoredRun, plan: &'a Plan) -> Option<Place<'a>> {
    if let (Some(name), Some(layout)) = (&run.image_table, &plan.images.layout) {
        return Some(Place { kind: ImageTable::Images, name, layout });
    }
    let change_set = plan.change_set.as_ref()?;
    Some(Place { kind: ImageTable::ChangeSet, name: &change_set.relation.name, layout: &change_set.layout })
}

fn touch(run: &StoredRun, changed_at: String) -> Touch {
    Touch {
        run_id: run.run_id,
        job: run.job.clone(),
        kind: run.kind.clone(),
        changed_at,
        changed_by: run.started_by.clone(),
        columns: Vec::new(),
        pruned: false,
        encrypted_to: None,
    }
}

/// An identity that opens nothing of what was found is the wrong one; one that opens some of it is not.
fn refuse_useless(touches: &[Touch], identities: Option<&Identities>) -> Result<(), Refusal> {
    let mut shut = touches.iter().filter_map(|touch| touch.encrypted_to.as_ref());
    let Some(recipient) = shut.next().filter(|_| identities.is_some()) else { return Ok(()) };
    if touches.iter().any(|touch| !touch.columns.is_empty()) {
        return Ok(());
    }
    let message = format!("the identity opens none of the row's images: they are encrypted to {recipient}");
    let help = "give the identity of that recipient: age-keygen -y FILE prints whose a file is";
    Err(Refusal::new(Code::WrongIdentity, message, help))
}

/// Columns that refer to other tables are keys there.
pub(crate) fn keys_plain(mut shown: Mask, table: &Table) -> Mask {
    let keys = table.references.iter().flat_map(|fk| fk.from_columns.iter().cloned());
    let keys = keys.filter(|name| table.column(name).is_some_and(|c| value_kind(c, true) == ValueKind::Plain));
    shown.plain.extend(keys);
    shown
}

/// What the image of a row says changed, column by column.
fn columns_of(
    row: &ImageRow,
    layout: &ImageLayout,
    table: &Table,
    mask: &Mask,
) -> Vec<(String, Option<String>, Option<String>)> {
    let key = |attnum: i16| table.keys.iter().any(|k| table.key_columns(k).any(|c| c.attnum == attnum));
    let show = |column: &ImageColumn, value: Option<&String>| {
        let now = table.columns.iter().find(|c| c.attnum == column.attnum);
        let kind = now.map_or(ValueKind::Sensitive, |c| value_kind(c, key(column.attnum)));
        mask.show(&column.column, kind, value.map(String::as_str))
    };
    let find = |part: &[ImageColumn], values: &[Option<String>], attnum: i16| {
        part.iter().position(|c| c.attnum == attnum).and_then(|i| values.get(i).cloned().flatten())
    };
    let columns = if row.op == 'D' { &layout.before } else { &layout.after };
    let cells = columns.iter().map(|column| {
        let before = if row.op == 'I' { None } else { find(&layout.before, &row.before, column.attnum) };
        let after = if row.op == 'D' { None } else { find(&layout.after, &row.after, column.attnum) };
        (column, before, after)
    });
    let changed = cells.filter(|(_, before, after)| before != after);
    changed
        .map(|(column, before, after)| {
            (column.column.clone(), show(column, before.as_ref()), show(column, after.as_ref()))
        })
        .collect()
}

/// The settings of `pgmend.prune_image_table`: equal keys must print equally.
fn digest_settings(here: &Settings) -> Settings {
    Settings {
        time_zone: "UTC".into(),
        date_style: "ISO, YMD".into(),
        interval_style: "postgres".into(),
        formats: [("bytea_output", "hex"), ("extra_float_digits", "1")].map(|(k, v)| (k.into(), v.into())).into(),
        ..here.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(attnum: i16, column: &str) -> ImageColumn {
        let (type_sql, image_column) = ("text".to_owned(), format!("x_{column}"));
        ImageColumn { attnum, column: column.into(), image_column, type_sql, type_oid: 25, typmod: -1, collation: None }
    }

    #[test]
    fn only_columns_that_changed_are_told() {
        let layout = ImageLayout {
            key: vec![],
            before: vec![image(2, "a"), image(3, "b"), image(4, "read")],
            after: vec![image(2, "a"), image(3, "b")],
        };
        let text = |t: &str| Some(t.to_owned());
        let row = ImageRow {
            place: 1,
            op: 'U',
            before: vec![text("x"), text("same"), text("z")],
            after: vec![text("y"), text("same")],
        };
        let mask = Mask { show_all: true, ..Mask::default() };
        let shown = columns_of(&row, &layout, &empty_table(), &mask);
        assert_eq!(shown, [("a".to_owned(), text("x"), text("y"))]);
        let deleted = ImageRow { op: 'D', after: vec![], ..row };
        assert_eq!(columns_of(&deleted, &layout, &empty_table(), &mask).len(), 3);
    }

    fn empty_table() -> Table {
        serde_json::from_value(serde_json::json!({
            "oid": 1, "name": {"schema": "public", "name": "t"}, "kind": "plain", "relkind": "r", "persistence": "p", "columns": [],
            "keys": [], "unique_indexes": [], "index_count": 0, "unusable_keys": [], "referenced_by": [], "references": [],
            "triggers": [], "rules": [], "row_security": false, "policies": 0, "partitions": [], "inheritance_children": [],
            "replica_identity": "d", "publications": [], "estimated_rows": null, "heap_bytes": 0, "total_bytes": 0, "fingerprint": ""
        }))
        .expect("the fields of a table")
    }
}
