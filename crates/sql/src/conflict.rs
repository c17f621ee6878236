//! Change sets with more than the plain case: rows that can no longer be applied, and values that
//! triggers decide.

use pgmend_core::table::{Key, Table, quote_ident};

use crate::apply::{Guard, Window, same_key, unchanged};
use crate::rewriter::ImageColumns;

/// A change set over a target: what every statement that applies it needs.
#[derive(Debug, Clone, Copy)]
pub struct Applied<'a> {
    /// The target.
    pub table: &'a Table,
    /// Its key.
    pub key: &'a Key,
    /// The change set, ready for SQL.
    pub change_set: &'a str,
    /// Its columns.
    pub columns: &'a ImageColumns,
    /// Columns that must still hold what the change set says.
    pub guard: &'a Guard,
    /// The ordinals.
    pub window: Window,
    /// One more condition over `t` and `s` for deletes.
    pub block: Option<&'a str>,
    /// One more condition over `s` for inserts.
    pub complete: Option<&'a str>,
}

impl Applied<'_> {
    /// Updates rows and saves their images in one statement, the after values as the server stored them.
    /// `batch` is the number of the batch number's parameter; `images` are a subset of the change set's columns.
    /// Lock: the rows, as an update takes. Index: the change set's primary key, the target's key.
    pub fn update_imaged(&self, image_table: &str, batch: usize, images: &ImageColumns) -> String {
        let set = self.columns.after.iter().map(|(c, image)| format!("{} = s.{}", quote_ident(c), quote_ident(image)));
        let keys: Vec<String> = self.table.key_columns(self.key).map(|c| quote_ident(&c.name)).collect();
        let mut returning = vec!["s.n as pgmend_n".to_owned()];
        let (mut kept, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for (i, key) in keys.iter().enumerate().take(images.keys.len()) {
            returning.push(format!("t.{key} as pgmend_k{i}"));
            kept.push(format!("d.pgmend_k{i}"));
        }
        for (column, image) in &images.before {
            let source = self.columns.before.iter().find(|(c, _)| c == column).map_or(image, |(_, source)| source);
            before.push(format!("s.{}", quote_ident(source)));
        }
        for (i, (column, _)) in images.after.iter().enumerate() {
            returning.push(format!("t.{} as pgmend_a{i}", quote_ident(column)));
            after.push(format!("d.pgmend_a{i}"));
        }
        let (list, values) = images.written(&kept, &before, &after);
        format!(
            "with pgmend_done as (update {} as t set {} from {} as s where {} and s.op = 'U' and {}{}{} returning {}) \
             insert into {image_table} (batch_no, op, {list}) select ${batch}::text::bigint, 'U', {values} from {} as s join pgmend_done as d on d.pgmend_n = s.n where {}",
            self.table.alone(),
            set.collect::<Vec<_>>().join(", "),
            self.change_set,
            self.window.condition("s"),
            same_key(self.table, self.key, &self.columns.keys),
            self.window.within_span(self.table, self.key),
            unchanged(self.table, self.guard),
            returning.join(", "),
            self.change_set,
            self.window.condition("s"),
        )
    }

    /// Records the rows of the window that cannot be applied: the exact complement of the updates,
    /// deletes and inserts in the same snapshot. Run before them. `run` and `batch` are parameter numbers.
    /// Lock: new rows of `pgmend.conflict`. Index: the change set's primary key, the target's key.
    pub fn record_conflicts(&self, run: usize, batch: usize) -> String {
        let key_texts: Vec<String> = self.columns.keys.iter().map(|k| format!("s.{}::text", quote_ident(k))).collect();
        let gone = format!("t.{} is null", quote_ident(&self.table.columns[self.key.columns[0]].name));
        let held = unchanged(self.table, self.guard);
        let held = held.strip_prefix(" and ").unwrap_or("true");
        let block = self.block.unwrap_or("true");
        let complete = self.complete.unwrap_or("true");
        format!(
            "select pgmend.record_conflict(${run}::text::uuid, ${batch}::text::bigint, c.n, c.pgmend_key, c.pgmend_reason) from (\
             select s.n, array[{}]::text[] as pgmend_key, case \
             when s.op = 'I' then case when not ({gone}) then 'the key is taken' when not ({complete}) then 'what it refers to is gone' end \
             when {gone} then 'the row is gone' \
             when not ({held}) then 'the row was changed since' \
             when s.op = 'D' and not ({block}) then 'other rows refer to it' end as pgmend_reason \
             from {} as s left join {} as t on {} where {}) as c where c.pgmend_reason is not null",
            key_texts.join(", "),
            self.change_set,
            self.table.alone(),
            same_key(self.table, self.key, &self.columns.keys),
            self.window.condition("s"),
        )
    }

    /// Counts the same rows without recording them, by operation and reason: op, reason (empty for rows
    /// that will be applied), rows.
    /// Lock: none. Index: the target's key, or a merge or hash over both.
    pub fn classify(&self, already: Option<&str>) -> String {
        format!(
            "select s.op::text, {} as pgmend_reason, count(*)::text \
             from {} as s left join {} as t on {} group by 1, 2 order by 1, 2",
            self.verdict(already),
            self.change_set,
            self.table.alone(),
            same_key(self.table, self.key, &self.columns.keys),
        )
    }

    /// The first rows of the change set that can be applied, to be shown.
    /// Lock: none. Index: the change set's primary key, the target's key.
    pub fn applicable(&self, rows: u32) -> String {
        format!(
            "select s.* from {} as s left join {} as t on {} where {} = '' order by s.n limit {rows}",
            self.change_set,
            self.table.alone(),
            same_key(self.table, self.key, &self.columns.keys),
            self.verdict(None),
        )
    }

    /// Why a row of the change set cannot be applied; empty if it can.
    fn verdict(&self, already: Option<&str>) -> String {
        let gone = format!("t.{} is null", quote_ident(&self.table.columns[self.key.columns[0]].name));
        let held = unchanged(self.table, self.guard);
        let held = held.strip_prefix(" and ").unwrap_or("true");
        let block = self.block.unwrap_or("true");
        let complete = self.complete.unwrap_or("true");
        let already = already.unwrap_or("false");
        format!(
            "case \
             when s.op = 'I' then case when not ({gone}) then 'the key is taken' when not ({complete}) then 'what it refers to is gone' else '' end \
             when {gone} then 'the row is gone' \
             when s.op = 'U' and not ({held}) and ({already}) then 'already' \
             when not ({held}) then 'the row was changed since' \
             when s.op = 'D' and not ({block}) then 'other rows refer to it' else '' end"
        )
    }

    /// The condition over `t` and `s` that the row already holds the after values, for [`Self::classify`].
    pub fn already(&self) -> Option<String> {
        let condition = unchanged(self.table, &self.columns.after);
        condition.strip_prefix(" and ").map(str::to_owned)
    }
}
