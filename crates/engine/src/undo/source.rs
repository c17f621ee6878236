//! Where a run's images are: in its own table, or in the change set that it applied.

use pgmend_core::mask::{MASKED, Mask, ValueKind};
use pgmend_core::plan::{ImageColumn, ImageLayout, Plan, Sample};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{RelationName, Table, quote_ident};
use pgmend_pg::Session;
use pgmend_pg::images::ImageTable;
use pgmend_pg::readtx::{FreezeTx, ReadTx};
use pgmend_pg::scene::Scene;
use pgmend_pg::store::StoredRun;
use pgmend_sql::{Kind, fill_in_order};

use super::columns::UndoColumns;
use crate::encryption::{Encrypted, Identities};
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::freeze::Filling;
use crate::plan::sample::value_kind;
use crate::trace::keys_plain;

/// Rows shown of an undo.
pub const SAMPLES: u32 = 5;

/// The images of a run.
pub struct Source {
    relation: RelationName,
    /// Their layout.
    pub layout: ImageLayout,
    /// Which of its rows were applied.
    filter: String,
    /// Column that orders the rows as they were applied, and the condition of images.
    order: &'static str,
    ops: Vec<char>,
    /// Whether it is a change set, whose key is the one before the change.
    pub change_set: bool,
    /// What may be shown of the rows: columns declared plain, constants of the statement.
    shown: Mask,
    /// What has to be decrypted first, where the images are.
    encrypted: Option<Encrypted>,
}

impl Source {
    /// Finds the images of a run, or says why there are none.
    pub async fn of(run: &StoredRun, forward: &Plan, session: &Session, shown: Mask) -> Result<Self, Error> {
        let none = |why: String| -> Error {
            Refusal::new(
                Code::Irreversible,
                format!("run {} cannot be undone: {why}", run.run_id),
                "restore the rows from a backup",
            )
            .into()
        };
        if run.pruned {
            return Err(none("its images have been pruned".into()));
        }
        if !forward.images.keep {
            return Err(none("images were switched off".into()));
        }
        if let (Some(name), Some(layout)) = (&run.image_table, &forward.images.layout) {
            let relation = RelationName::new("pgmend", name);
            let ops = ops_of(forward);
            return Ok(Self {
                relation,
                layout: layout.clone(),
                filter: "true".into(),
                order: "batch_no",
                ops,
                change_set: false,
                shown,
                encrypted: None,
            });
        }
        let Some(change_set) = forward.change_set.as_ref().filter(|c| !c.layout.key.is_empty()) else {
            return Err(none(forward.reversible.1.clone()));
        };
        let applied = applied(run, session).await?;
        let filter = format!(
            "{applied} and not exists (select from pgmend.ordinals_left_alone('{run}') as l (n) where l.n = pgmend_i.n)",
            run = run.run_id
        );
        let relation = change_set.relation.clone();
        Ok(Self {
            relation,
            layout: change_set.layout.clone(),
            filter,
            order: "n",
            ops: ops_of(forward),
            change_set: true,
            shown,
            encrypted: None,
        })
    }

    /// The same over what the keys of an identity decrypt, where the images are encrypted.
    pub async fn opened(
        self,
        run: &StoredRun,
        forward: &Plan,
        engine: &Engine,
        identities: Option<&Identities>,
    ) -> Result<Self, Error> {
        if !engine.session.is_encrypted(&self.relation.name).await? {
            return Ok(self);
        }
        let keys = engine.opened_keys(run.run_id, identities).await?;
        let kind = if self.change_set { ImageTable::ChangeSet } else { ImageTable::Images };
        let encrypted = Encrypted::new(forward, kind, &self.relation.name, &self.layout, keys);
        Ok(Self { relation: Encrypted::relation(), encrypted: Some(encrypted), ..self })
    }

    /// Decrypts the images, where they are encrypted, into the table that this reads.
    pub async fn decrypt(&self, tx: &FreezeTx<'_>, scene: &Scene) -> Result<(), Error> {
        match &self.encrypted {
            Some(encrypted) => encrypted.decrypt(tx, scene).await,
            None => Ok(()),
        }
    }

    /// Operations of the undo: the inverse of what the run did.
    pub fn ops(&self) -> &[char] {
        &self.ops
    }

    /// The same, less updates that no row asks for: an insert into a table of key columns alone (a link table) has nothing
    /// that an UPDATE could set, and no row that ON CONFLICT changed.
    pub async fn ops_needed(&self, tx: &ReadTx<'_>, assignable: bool) -> Result<Vec<char>, Error> {
        if assignable || !self.ops.contains(&'D') || !self.ops.contains(&'U') {
            return Ok(self.ops.clone());
        }
        let sql = format!(
            "select count(*)::text from (select from {} as pgmend_i where pgmend_i.op = 'U' limit 1) as u",
            self.relation.sql()
        );
        let updated = tx.query("look for rows that ON CONFLICT updated", &sql, vec![]).await?.number()?;
        Ok(self.ops.iter().copied().filter(|op| *op != 'U' || updated > 0).collect())
    }

    /// What the undo does to the table.
    pub fn kinds(&self) -> Vec<Kind> {
        let kind = |op: &char| match op {
            'I' => Kind::Insert,
            'D' => Kind::Delete,
            _ => Kind::Update,
        };
        self.ops.iter().map(kind).collect()
    }

    /// Those of the columns that any row holds another value in than before: where a trigger decides what is
    /// stored all are imaged, and to set the others again would only fire more triggers.
    pub async fn changed<'c>(
        &self,
        tx: &ReadTx<'_>,
        columns: Vec<&'c ImageColumn>,
    ) -> Result<Vec<&'c ImageColumn>, Error> {
        let differs = columns.iter().map(|before| {
            let after = self.layout.after.iter().find(|a| a.attnum == before.attnum).unwrap_or(before);
            format!(
                "coalesce(bool_or(row(pgmend_i.{})::record *<> row(pgmend_i.{})::record), false)::text",
                quote_ident(&before.image_column),
                quote_ident(&after.image_column)
            )
        });
        let differs: Vec<String> = differs.collect();
        let sql =
            format!("select {} from {} as pgmend_i where {}", differs.join(", "), self.relation.sql(), self.filter);
        let answer = tx.query("look for columns that changed", &sql, vec![]).await?;
        let changed =
            |i: &usize| answer.rows.first().and_then(|r| r.get(*i).cloned().flatten()).as_deref() == Some("true");
        let kept: Vec<&ImageColumn> = (0..columns.len()).filter(changed).map(|i| columns[i]).collect();
        Ok(if kept.is_empty() { columns } else { kept })
    }

    /// Counts the images.
    pub fn count(&self) -> String {
        format!("select count(*)::text from {} as pgmend_i where {}", self.relation.sql(), self.filter)
    }

    /// Counts the rows that meet a condition, and gives the key of one of them; no row where none does.
    pub fn lost(&self, condition: &str) -> String {
        let keys = self.layout.key.iter().map(|k| format!(", pgmend_i.{}::text", quote_ident(&k.image_column)));
        format!(
            "select (count(*) over ())::text{} from {} as pgmend_i where {} and {condition} limit 1",
            keys.collect::<String>(),
            self.relation.sql(),
            self.filter
        )
    }

    /// A key of the images, as it may be shown.
    pub fn shown_key(&self, table: &Table, values: &[Option<String>]) -> String {
        let mask = keys_plain(self.shown.clone(), table);
        let part = |(key, value): (&ImageColumn, &Option<String>)| {
            let kind = table.columns.iter().find(|c| c.attnum == key.attnum);
            let kind = kind.map_or(ValueKind::Sensitive, |c| value_kind(c, true));
            let shown = mask.show(&key.column, kind, value.as_deref()).unwrap_or_default();
            format!("{}={shown}", key.column)
        };
        self.layout.key.iter().zip(values).map(part).collect::<Vec<_>>().join(", ")
    }

    /// The statement that turns images into the undo's change set: before is what must still be there,
    /// after is what comes back.
    pub fn filling(
        &self,
        into: RelationName,
        table: &Table,
        columns: &UndoColumns,
        predicate: Option<&str>,
        filter: bool,
        half_rows: Option<i64>,
    ) -> Filling {
        let inverse = "(case pgmend_i.op when 'D' then 'I' when 'I' then 'D' else 'U' end)::\"char\"".to_owned();
        let mut names = vec!["op".to_owned()];
        let mut values = vec![inverse];
        for (target, source) in columns.key_sources() {
            names.push(quote_ident(target));
            values.push(source.to_owned());
        }
        for (target, source) in columns.before_sources().into_iter().chain(columns.after_sources()) {
            names.push(quote_ident(target));
            values.push(source.to_owned());
        }
        let order = self.order_clause(columns);
        let conditions = self.conditions(table, columns, predicate, filter);
        let from = format!("{} as pgmend_i where {conditions}", self.relation.sql());
        let filled =
            |half_rows| fill_in_order(&into.sql(), &names.join(", "), &values.join(", "), &from, &order, half_rows);
        let (sql, in_one_order) = (filled(half_rows), filled(None));
        Filling { layout: columns.layout.clone(), half_rows, sql, in_one_order, relation: into }
    }

    /// Counts the images of rows that a predicate asks for, back already or not.
    pub fn matching(&self, table: &Table, columns: &UndoColumns, predicate: Option<&str>) -> String {
        let conditions = self.conditions(table, columns, predicate, false);
        format!("select count(*)::text from {} as pgmend_i where {conditions}", self.relation.sql())
    }

    /// Which images the change set is made of. `filter` leaves out rows that are as before already.
    fn conditions(&self, table: &Table, columns: &UndoColumns, predicate: Option<&str>, filter: bool) -> String {
        let same_as = |alias: &str| {
            let pairs = table.key_columns(&columns.key).zip(columns.key_sources());
            let same = pairs.map(|(c, (_, source))| format!("{alias}.{} = {source}", quote_ident(&c.name)));
            same.collect::<Vec<_>>().join(" and ")
        };
        let same = same_as("t");
        let mut conditions = vec![self.filter.clone()];
        if filter {
            let pairs = columns.restored_pairs();
            let now: Vec<String> = pairs.iter().map(|(c, _)| format!("t.{}::text", quote_ident(c))).collect();
            let old: Vec<String> = pairs.iter().map(|(_, source)| format!("({source})::text")).collect();
            conditions.push(format!(
                "not (pgmend_i.op = 'U' and exists (select from {} as t where {same} and row({}) is not distinct from row({})))",
                table.alone(),
                now.join(", "),
                old.join(", ")
            ));
        }
        if let Some(predicate) = predicate {
            let name = quote_ident(&table.name.name);
            let same = same_as(&name);
            let gone: Vec<String> = columns
                .before_image_columns()
                .iter()
                .map(|(c, source)| format!("{source} as {}", quote_ident(c)))
                .collect();
            let there = format!("exists (select from {} as {name} where {same} and ({predicate}))", table.alone());
            // A deleted row is asked about as it was, with all its columns; of an updated one only some are imaged.
            conditions.push(if self.ops.contains(&'I') {
                let image = if gone.is_empty() { "1".to_owned() } else { gone.join(", ") };
                format!(
                    "case when pgmend_i.op = 'D' then exists (select from (select {image}) as {name} where {predicate}) \
                     else {there} end"
                )
            } else {
                there
            });
        }
        conditions.join(" and ")
    }

    /// Reverse commit order where a restored column is unique, else the order of the key, which is the
    /// order on disk more often than not.
    fn order_clause(&self, columns: &UndoColumns) -> String {
        let keys: Vec<&str> = columns.key_sources().into_iter().map(|(_, source)| source).collect();
        if columns.reversed {
            let keys: Vec<String> = keys.iter().map(|k| format!("{k} desc")).collect();
            return format!("pgmend_i.{} desc, {}", self.order, keys.join(", "));
        }
        keys.join(", ")
    }

    /// Rows that will be restored, as they are and as they will be.
    pub async fn samples(
        &self,
        tx: &ReadTx<'_>,
        table: &Table,
        columns: &UndoColumns,
        restorable: &str,
        show: bool,
    ) -> Result<Vec<Sample>, Error> {
        let layout = &columns.layout;
        let all = layout.key.iter().chain(&layout.before).chain(&layout.after);
        let list: Vec<String> = all.map(|c| format!("s.{}::text", quote_ident(&c.image_column))).collect();
        let sql = format!("select {} from ({restorable}) as s order by s.n", list.join(", "));
        let answer = tx.query("read samples", &sql, vec![]).await?;
        let mask = Mask { show_all: show, ..keys_plain(self.shown.clone(), table) };
        let cell = |name: &str, key: bool, value: &Option<String>| {
            let kind = table.column(name).map_or(ValueKind::Sensitive, |c| value_kind(c, key));
            mask.show(name, kind, value.as_deref())
        };
        let (keys, before) = (layout.key.len(), layout.before.len());
        let sample = |row: &Vec<Option<String>>| Sample {
            key: layout.key.iter().zip(row).map(|(c, v)| (c.column.clone(), cell(&c.column, true, v))).collect(),
            columns: layout
                .after
                .iter()
                .enumerate()
                .map(|(i, c)| {
                    let old = layout
                        .before
                        .iter()
                        .position(|b| b.column == c.column)
                        .and_then(|b| row.get(keys + b).cloned().flatten());
                    let new = row.get(keys + before + i).cloned().flatten();
                    let key = layout.key.iter().any(|k| k.column == c.column);
                    (c.column.clone(), cell(&c.column, key, &old), cell(&c.column, key, &new))
                })
                .filter(|(_, old, new)| old != new || old.as_deref() == Some(MASKED))
                .collect(),
            already_right: false,
        };
        Ok(answer.rows.iter().map(sample).collect())
    }
}

/// The condition of rows of the change set that the run has come past.
async fn applied(run: &StoredRun, session: &Session) -> Result<String, Error> {
    if session.is_divided(run.run_id).await? {
        let ranges = session.applied_ranges(run.run_id).await?;
        let parts: Vec<String> =
            ranges.iter().map(|(from, to)| format!("(pgmend_i.n > {from} and pgmend_i.n <= {to})")).collect();
        return Ok(if parts.is_empty() { "false".to_owned() } else { format!("({})", parts.join(" or ")) });
    }
    let at = session.last_checkpoint(run.run_id, 0).await?;
    let applied = at.cursor.and_then(|c| c.first().and_then(|n| n.parse::<i64>().ok())).unwrap_or(0);
    Ok(format!("pgmend_i.n <= {applied}"))
}

/// The operations that undo what a plan did.
fn ops_of(forward: &Plan) -> Vec<char> {
    use pgmend_core::plan::{ChangeKind as K, RunSql};
    match forward.kind {
        K::Update => vec!['U'],
        K::Delete => vec!['I'],
        K::Insert => vec!['D', 'U'],
        K::Undo => match &forward.sql {
            RunSql::Freeze { apply, .. } => apply
                .iter()
                .map(|a| match a.op {
                    'D' => 'I',
                    'I' => 'D',
                    other => other,
                })
                .collect(),
            RunSql::Stream { .. } => vec!['U'],
        },
    }
}
