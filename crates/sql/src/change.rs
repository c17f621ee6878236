//! The user's own change over a range of keys, its images, and its change set.

use pg_query::Node;
use pg_query::protobuf as p;
use pgmend_core::refusal::Refusal;
use pgmend_core::table::{ForeignKey, quote_ident};

use crate::deparse;
use crate::family::{self, equal};
use crate::fragment;
use crate::keyset::{self, Range};
use crate::matched::{Lock, names, qualify};
use crate::rewriter::{ImageColumns, Rewriter};
use crate::statement::{Kind, Tree};

/// One more than a change set may hold: enough to tell that it is too large, and an end of what it takes on disk.
const FREEZE_LIMIT: i64 = pgmend_core::limits::FREEZE_ROWS_MAX + 1;

/// What a change gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returning<'s> {
    /// Nothing.
    None,
    /// The key as `pgmend_k1..` and these columns as `pgmend_a1..`.
    Rows(&'s [String]),
}

/// The order of a change set's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<'a> {
    /// That of the key.
    Key,
    /// A column of `columns.before`, then the key: rows with one value of it follow each other.
    FirstBy(&'a str),
    /// That of the table's pages: each is written in one batch, whatever the order of the key.
    Heap,
}

impl Rewriter<'_> {
    /// The user's own UPDATE or DELETE over a range of keys.
    pub fn change(&self, range: Range, skip_unchanged: bool, returning: Returning<'_>) -> Result<String, Refusal> {
        if skip_unchanged && !self.computable_after() {
            return Err(self.no_after());
        }
        let mut extra = keyset::conditions(range, self.called(), &self.key_columns())?;
        extra.extend(self.differs(skip_unchanged)?);
        let mut tree = self.tree.clone();
        let (condition, returns) = match &mut tree {
            Tree::Update(update) => (&mut update.where_clause, &mut update.returning_clause),
            Tree::Delete(delete) => (&mut delete.where_clause, &mut delete.returning_clause),
            Tree::Insert(_) => return Err(self.no_after()),
        };
        for conjunct in extra {
            *condition = Some(Box::new(fragment::and(condition.take().map(|node| *node), conjunct)));
        }
        *returns = self.returning(returning);
        deparse::text(&tree.node())
    }

    /// RETURNING with the target's name before every column: joined tables may have the same ones.
    pub(crate) fn returning(&self, returning: Returning<'_>) -> Option<p::ReturningClause> {
        let Returning::Rows(columns) = returning else { return None };
        let mut exprs: Vec<Node> = Vec::new();
        for (i, column) in self.key_columns().iter().enumerate() {
            exprs.push(fragment::output(fragment::column(self.called(), &column.name), format!("pgmend_k{}", i + 1)));
        }
        for (i, column) in columns.iter().enumerate() {
            exprs.push(fragment::output(fragment::column(self.called(), column), format!("pgmend_a{}", i + 1)));
        }
        Some(p::ReturningClause { options: Vec::new(), exprs })
    }

    /// Saves the images of the range before the change. `batch` is a parameter's number. `columns.after`
    /// holds all of [`Self::after_columns`], in order, or nothing.
    pub fn image_insert(
        &self,
        image: &str,
        batch: usize,
        range: Range,
        columns: &ImageColumns,
        skip_unchanged: bool,
        lock: Lock,
    ) -> Result<String, Refusal> {
        let rows = self.rows(&before(columns), !columns.after.is_empty(), range, skip_unchanged, lock)?;
        let of = |kind: char, count: usize| -> Vec<String> {
            names(kind, count).iter().map(|name| format!("m.{name}")).collect()
        };
        let (list, values) = columns.written(
            &of('k', columns.keys.len()),
            &of('b', columns.before.len()),
            &of('a', columns.after.len()),
        );
        Ok(format!(
            "insert into {image} (batch_no, op, {list}) select ${batch}::text::bigint, '{}', {values} from ({rows}) as m",
            self.op(),
        ))
    }

    /// Changes the range and saves its images in one statement, one snapshot for both: before-images
    /// as the SELECT sees them, after-images (any columns) as RETURNING gives them.
    pub fn image_change(
        &self,
        image: &str,
        batch: usize,
        range: Range,
        columns: &ImageColumns,
        skip_unchanged: bool,
    ) -> Result<String, Refusal> {
        let rows = self.rows(&before(columns), false, range, skip_unchanged, Lock::None)?;
        let after: Vec<String> = columns.after.iter().map(|(column, _)| column.clone()).collect();
        let change = self.change(range, skip_unchanged, Returning::Rows(&after))?;
        let keys = names('k', columns.keys.len());
        let same: Vec<String> = keys.iter().map(|key| format!("m.{key} = c.{key}")).collect();
        // The rows are read beside it: a table of the user's by that name must not be captured.
        let mut changed = "pgmend_changed".to_owned();
        while self.statement.reads().iter().any(|(_, name)| *name == changed) {
            changed.push('_');
        }
        let of = |alias: char, names: &[String]| -> Vec<String> {
            names.iter().map(|name| format!("{alias}.{name}")).collect()
        };
        let (before, after) = (names('b', columns.before.len()), names('a', columns.after.len()));
        let (list, values) = columns.written(&of('m', &keys), &of('m', &before), &of('c', &after));
        Ok(format!(
            "with {changed} as ({change}) insert into {image} (batch_no, op, {list}) select ${batch}::text::bigint, \
             '{}', {values} from ({rows}) as m join {changed} as c on {}",
            self.op(),
            same.join(" and ")
        ))
    }

    /// UPDATE or DELETE: computes the change set: `op`, keys, before, after. `n` is left to
    /// its default. `distinct` keeps one row for each key (a joining UPDATE whose matches agree).
    /// `skip_unchanged` leaves out rows that are already right.
    pub fn freeze_insert(
        &self,
        change_set: &str,
        columns: &ImageColumns,
        distinct: bool,
        skip_unchanged: bool,
        order: Order<'_>,
        half_rows: Option<i64>,
    ) -> Result<String, Refusal> {
        let after = !columns.after.is_empty();
        let cascading = family::cascading(self.target.table);
        if self.statement.kind() == Kind::Delete && !cascading.is_empty() {
            return self.freeze_tree(change_set, columns, &cascading);
        }
        let rows = if distinct || !after {
            self.rows_at(&before(columns), after, skip_unchanged && after, order == Order::Heap)?
        } else {
            self.matched(&crate::matched::Matched {
                before: &before(columns),
                after,
                place: order == Order::Heap,
                join: crate::matched::Join::All,
                skip_unchanged,
                ..crate::matched::Matched::default()
            })?
        };
        let keys = qualify("m", &names('k', columns.keys.len()));
        let order = match order {
            Order::Key => keys,
            Order::Heap => "m.pgmend_place".to_owned(),
            Order::FirstBy(first) => {
                let place = columns.before.iter().position(|(column, _)| column == first);
                place.map(|place| format!("m.pgmend_b{}, ", place + 1)).unwrap_or_default() + &keys
            }
        };
        let values = format!("'{}', {}", self.op(), qualify("m", &outputs(columns)));
        let from = format!("({rows}) as m");
        Ok(fill_in_order(change_set, &format!("op, {}", list(columns)), &values, &from, &order, half_rows))
    }

    /// DELETE along a foreign key from the table to itself that cascades: the rows that match and, further
    /// down, those that go with them, each imaged.
    fn freeze_tree(
        &self,
        change_set: &str,
        columns: &ImageColumns,
        cascading: &[&ForeignKey],
    ) -> Result<String, Refusal> {
        let matched = self.rows(&[], false, Range::default(), false, Lock::None)?;
        let (table, outputs) = (self.target.table.alone(), names('k', columns.keys.len()));
        let keys: Vec<String> = self.key_columns().iter().map(|c| c.name.clone()).collect();
        let of =
            |alias: &str| keys.iter().map(|k| format!("{alias}.{}", quote_ident(k))).collect::<Vec<_>>().join(", ");
        let refers = cascading.iter().map(|fk| format!("({})", equal("c", &fk.from_columns, "p", &fk.to_columns)));
        let before: Vec<String> = columns.before.iter().map(|(c, _)| format!(", t.{}", quote_ident(c))).collect();
        Ok(format!(
            "insert into {change_set} (op, {}) with recursive pgmend_gone ({}) as (select {} from ({matched}) as m union \
             select {} from pgmend_gone as g join {table} as p on {} join {table} as c on {}) \
             select 'D', {}{} from pgmend_gone as g join {table} as t on {} order by {} \
             limit {FREEZE_LIMIT}",
            list(columns),
            outputs.join(", "),
            qualify("m", &outputs),
            of("c"),
            equal("p", &keys, "g", &outputs),
            refers.collect::<Vec<_>>().join(" or "),
            of("t"),
            before.concat(),
            equal("t", &keys, "g", &outputs),
            of("t"),
        ))
    }

    fn op(&self) -> char {
        match self.statement.kind() {
            Kind::Update => 'U',
            Kind::Delete => 'D',
            Kind::Insert => 'I',
        }
    }
}

/// Fills a change set in an order. In halves, of each `2 * half_rows` rows every other comes first and the others after
/// these: their ordinals are told from the row's number in that order. The last stretch may have fewer, and its ordinals
/// leave some out, which `pgmend.close_last_stretch` closes up.
pub fn fill_in_order(
    change_set: &str,
    columns: &str,
    values: &str,
    from: &str,
    order: &str,
    half_rows: Option<i64>,
) -> String {
    let Some(half) = half_rows else {
        return format!(
            "insert into {change_set} ({columns}) select {values} from {from} order by {order} limit {FREEZE_LIMIT}"
        );
    };
    let (stretch, at) = (2 * half, "(row_number() over in_order - 1)");
    format!(
        "insert into {change_set} (n, {columns}) select {at} / {stretch} * {stretch} + {at} % 2 * {half} + {at} % {stretch} / 2 + 1, \
         {values} from {from} window in_order as (order by {order}) order by {order} limit {FREEZE_LIMIT}"
    )
}

fn before(columns: &ImageColumns) -> Vec<String> {
    columns.before.iter().map(|(column, _)| column.clone()).collect()
}

/// The image's columns, quoted.
fn list(columns: &ImageColumns) -> String {
    let sides = columns.before.iter().chain(&columns.after).map(|(_, image)| image);
    let quoted: Vec<String> = columns.keys.iter().chain(sides).map(|name| quote_ident(name)).collect();
    quoted.join(", ")
}

/// The outputs of `matched` that go into [`list`].
fn outputs(columns: &ImageColumns) -> Vec<String> {
    let mut outputs = names('k', columns.keys.len());
    outputs.extend(names('b', columns.before.len()));
    outputs.extend(names('a', columns.after.len()));
    outputs
}
