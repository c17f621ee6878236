//! The rows that match, as a SELECT, and what is asked of them: bounds, counts, ambiguity.

use pg_query::protobuf as p;
use pg_query::{Node, NodeEnum};
use pgmend_core::refusal::Refusal;

use crate::apply::plainly_equal;
use crate::assign;
use crate::deparse;
use crate::fragment;
use crate::keyset::{self, Range};
use crate::rewriter::Rewriter;
use crate::statement::Tree;

/// How a joining statement's FROM or USING items are carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// One row for each match.
    All,
    /// One row for each target row that has a match. After values are out of reach.
    Exists,
}

/// A lock on the target's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// None.
    None,
    /// `for no key update of target`.
    NoKeyUpdate,
    /// `for update of target`.
    Update,
}

impl Lock {
    fn sql(self) -> Option<&'static str> {
        match self {
            Lock::None => None,
            Lock::NoKeyUpdate => Some("for no key update"),
            Lock::Update => Some("for update"),
        }
    }
}

/// Which SELECT of the matching rows to build.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'s> {
    /// Yield the key as `pgmend_k1..`, in its own type.
    pub keys: bool,
    /// Yield these columns as `pgmend_b1..`.
    pub before: &'s [String],
    /// Yield where the row is, `ctid`, as `pgmend_place`.
    pub place: bool,
    /// Yield the after values as `pgmend_a1..`, in the order of [`Rewriter::after_columns`].
    pub after: bool,
    /// Yield as `pgmend_a1..` what is assigned instead, which can always be told.
    pub assigned: bool,
    /// How FROM and USING are carried over.
    pub join: Join,
    /// The range of keys.
    pub range: Range,
    /// Leave out rows whose assigned columns already hold their after values.
    pub skip_unchanged: bool,
    /// Order by the key.
    pub order_by_key: bool,
    /// The number of the parameter that limits the rows.
    pub limit: Option<usize>,
    /// The lock to take.
    pub lock: Lock,
}

impl Default for Matched<'_> {
    fn default() -> Self {
        Self {
            keys: true,
            before: &[],
            place: false,
            after: false,
            assigned: false,
            join: Join::Exists,
            range: Range::default(),
            skip_unchanged: false,
            order_by_key: false,
            limit: None,
            lock: Lock::None,
        }
    }
}

/// The parts of an UPDATE or DELETE that select its rows.
struct Parts<'t> {
    with: &'t Option<p::WithClause>,
    relation: &'t Option<p::RangeVar>,
    from: &'t [Node],
    condition: Option<Node>,
}

impl Rewriter<'_> {
    /// The rows that match, as a SELECT. Outputs `pgmend_k1..`, `pgmend_b1..`, `pgmend_a1..`.
    pub fn matched(&self, spec: &Matched<'_>) -> Result<String, Refusal> {
        let parts = self.parts()?;
        let needs_after = spec.after || spec.skip_unchanged;
        let exists = spec.join == Join::Exists && !parts.from.is_empty();
        if (needs_after && (exists || !self.computable_after())) || (spec.assigned && exists) {
            return Err(self.no_after());
        }
        let mut condition = parts.condition;
        let mut from = vec![fragment::node(NodeEnum::RangeVar(parts.relation.clone().unwrap_or_default()))];
        if exists {
            condition = Some(exists_in(parts.from, condition)?);
        } else {
            from.extend_from_slice(parts.from);
        }
        for bound in keyset::conditions(spec.range, self.called(), &self.key_columns())? {
            condition = Some(fragment::and(condition, bound));
        }
        if let Some(differs) = self.differs(spec.skip_unchanged)? {
            condition = Some(fragment::and(condition, differs));
        }
        let mut select = p::SelectStmt {
            with_clause: parts.with.clone(),
            target_list: self.outputs(spec)?,
            from_clause: from,
            where_clause: condition.map(Box::new),
            limit_option: p::LimitOption::Default as i32,
            op: p::SetOperation::SetopNone as i32,
            ..p::SelectStmt::default()
        };
        let key = self.key_columns();
        keyset::arrange(&mut select, self.called(), spec.order_by_key.then_some(&key), spec.limit, spec.lock.sql())?;
        deparse::text(&NodeEnum::SelectStmt(Box::new(select)))
    }

    fn parts(&self) -> Result<Parts<'_>, Refusal> {
        match &self.tree {
            Tree::Update(update) => Ok(Parts {
                with: &update.with_clause,
                relation: &update.relation,
                from: &update.from_clause,
                condition: update.where_clause.as_deref().cloned(),
            }),
            Tree::Delete(delete) => Ok(Parts {
                with: &delete.with_clause,
                relation: &delete.relation,
                from: &delete.using_clause,
                condition: delete.where_clause.as_deref().cloned(),
            }),
            Tree::Insert(_) => Err(self.no_after()),
        }
    }

    fn outputs(&self, spec: &Matched<'_>) -> Result<Vec<Node>, Refusal> {
        let mut outputs = Vec::new();
        if spec.keys {
            for (i, column) in self.key_columns().iter().enumerate() {
                outputs.push(fragment::output(
                    fragment::column(self.called(), &column.name),
                    format!("pgmend_k{}", i + 1),
                ));
            }
        }
        for (i, column) in spec.before.iter().enumerate() {
            outputs.push(fragment::output(fragment::column(self.called(), column), format!("pgmend_b{}", i + 1)));
        }
        if spec.place {
            outputs.push(fragment::output(fragment::column(self.called(), "ctid"), "pgmend_place".into()));
        }
        if spec.after {
            for (i, (_, value)) in self.assignments.after.iter().enumerate() {
                outputs.push(fragment::output(value.clone(), format!("pgmend_a{}", i + 1)));
            }
        }
        if spec.assigned {
            for (i, value) in self.assignments.sources.iter().enumerate() {
                outputs.push(fragment::output(value.clone(), format!("pgmend_a{}", i + 1)));
            }
        }
        if outputs.is_empty() {
            outputs.push(fragment::output(fragment::expression("1")?, String::new()));
        }
        Ok(outputs)
    }

    /// Whether any after value differs from what is there, byte for byte, if asked for and if there is anything to compare.
    pub(crate) fn differs(&self, wanted: bool) -> Result<Option<Node>, Refusal> {
        if !wanted || self.assignments.after.is_empty() {
            return Ok(None);
        }
        let (plain, others): (Vec<_>, Vec<_>) =
            self.assignments.after.iter().partition(|(name, _)| plainly_equal(self.target.table, name));
        let plain = plain.into_iter().map(|(name, value)| self.distinct(name, value));
        let others = (!others.is_empty()).then(|| self.distinct_records(&others));
        let tests: Vec<Node> = plain.chain(others).collect::<Result<_, _>>()?;
        Ok(tests.into_iter().reduce(fragment::or))
    }

    /// `before is distinct from after collate "C"`: an after value's own collation may be another, or not known.
    fn distinct(&self, name: &str, value: &Node) -> Result<Node, Refusal> {
        let collated = self.target.table.column(name).is_some_and(|c| COLLATED.contains(&c.base_type.oid));
        let sql = if collated { "a is distinct from b collate pg_catalog.\"C\"" } else { "a is distinct from b" };
        let mut test = fragment::expression(sql)?;
        if let Some(NodeEnum::AExpr(expr)) = &mut test.node {
            expr.lexpr = Some(Box::new(fragment::column(self.called(), name)));
            match expr.rexpr.as_deref_mut().and_then(|right| right.node.as_mut()) {
                Some(NodeEnum::CollateClause(clause)) => clause.arg = Some(Box::new(value.clone())),
                _ => expr.rexpr = Some(Box::new(value.clone())),
            }
        }
        Ok(test)
    }

    /// `row(before)::record *<> row(after)::record`, which works for every type.
    fn distinct_records(&self, after: &[&(String, Node)]) -> Result<Node, Refusal> {
        let mut before = Vec::new();
        for (name, _) in after {
            let mut value = fragment::column(self.called(), name);
            if let Some(column) = self.target.table.column(name).filter(|column| column.domain.is_some()) {
                // Records compare only if their types are the same, and the after value has the base type.
                value = fragment::cast(value, fragment::type_name(&assign::lossless(&column.base_type))?);
            }
            before.push(value);
        }
        let after = after.iter().map(|(_, value)| value.clone()).collect();
        let mut comparison = fragment::expression("row(1)::record *<> row(1)::record")?;
        if let Some(NodeEnum::AExpr(expr)) = &mut comparison.node {
            fill_row(&mut expr.lexpr, before);
            fill_row(&mut expr.rexpr, after);
        }
        Ok(comparison)
    }

    /// The last key of the next rows in key order, as text: `pgmend_t1..`. No row means that
    /// the range is exhausted. `rows` is the number of the parameter that says how many rows.
    pub fn bound(&self, range: Range, rows: usize) -> Result<String, Refusal> {
        let matched = self.matched(&Matched { range, ..Matched::default() })?;
        let keys = names('k', self.key_columns().len());
        let texts: Vec<String> =
            keys.iter().enumerate().map(|(i, key)| format!("s.{key}::text as pgmend_t{}", i + 1)).collect();
        let list = qualify("m", &keys);
        let last: Vec<String> = keys.iter().map(|key| format!("s.{key} desc")).collect();
        Ok(format!(
            "select {} from (select {list} from ({matched}) as m order by {list} limit ${rows}::text::bigint) as s \
             order by {} limit 1",
            texts.join(", "),
            last.join(", ")
        ))
    }

    /// The keys of the next rows in key order, as text: `pgmend_t1..`. `rows` is the number of the parameter that says
    /// how many.
    pub fn keys(&self, range: Range, rows: usize) -> Result<String, Refusal> {
        let matched = self.matched(&Matched { range, ..Matched::default() })?;
        let keys = names('k', self.key_columns().len());
        let texts: Vec<String> =
            keys.iter().enumerate().map(|(i, key)| format!("m.{key}::text as pgmend_t{}", i + 1)).collect();
        Ok(format!(
            "select {} from ({matched}) as m order by {} limit ${rows}::text::bigint",
            texts.join(", "),
            qualify("m", &keys)
        ))
    }

    /// One row: the target rows that match; no new value is computed.
    pub fn count_matched(&self) -> Result<String, Refusal> {
        Ok(format!("select count(*) from ({}) as m", self.matched(&Matched::default())?))
    }

    /// One row: the target rows that match and, where after values are computable, those of them
    /// that would change, else NULL.
    pub fn count(&self, range: Range) -> Result<String, Refusal> {
        let after = self.after_columns();
        if after.is_empty() || !self.computable_after() {
            let matched = self.matched(&Matched { range, ..Matched::default() })?;
            return Ok(format!("select count(*), null::bigint from ({matched}) as m"));
        }
        let rows = self.rows(&after, true, range, false, Lock::None)?;
        let before: Vec<String> = after
            .iter()
            .zip(names('b', after.len()))
            .map(|(name, output)| {
                let column = self.target.table.column(name).filter(|column| column.domain.is_some());
                let cast = column.map_or_else(String::new, |c| format!("::{}", assign::lossless(&c.base_type)));
                format!("m.{output}{cast}")
            })
            .collect();
        Ok(format!(
            "select count(*), count(*) filter (where row({})::record *<> row({})::record) from ({rows}) as m",
            before.join(", "),
            qualify("m", &names('a', after.len()))
        ))
    }

    /// One row for a joining UPDATE: target rows, those with several matches, and those whose matches
    /// disagree about the after values.
    pub fn ambiguity(&self, range: Range) -> Result<String, Refusal> {
        let matched = self.matched(&Matched { range, assigned: true, join: Join::All, ..Matched::default() })?;
        let keys = qualify("m", &names('k', self.key_columns().len()));
        Ok(format!(
            "select count(*), count(*) filter (where s.matches > 1), count(*) filter (where s.variants > 1) \
             from (select count(*) as matches, count(distinct row({})::text) as variants from ({matched}) as m \
             group by {keys}) as s",
            qualify("m", &names('a', self.assigned_values()))
        ))
    }

    /// The number of values that [`Matched::assigned`] yields.
    pub fn assigned_values(&self) -> usize {
        self.assignments.sources.len()
    }

    /// The matching rows, one for each key: what images and change sets are made of.
    pub(crate) fn rows(
        &self,
        before: &[String],
        after: bool,
        range: Range,
        skip_unchanged: bool,
        lock: Lock,
    ) -> Result<String, Refusal> {
        self.one_of_each(&Matched { before, after, range, skip_unchanged, lock, ..Matched::default() })
    }

    /// The same of the whole table, with their places if asked for.
    pub(crate) fn rows_at(
        &self,
        before: &[String],
        after: bool,
        skip_unchanged: bool,
        place: bool,
    ) -> Result<String, Refusal> {
        self.one_of_each(&Matched { before, after, skip_unchanged, place, ..Matched::default() })
    }

    fn one_of_each(&self, spec: &Matched<'_>) -> Result<String, Refusal> {
        let join = if spec.after || spec.skip_unchanged { Join::All } else { Join::Exists };
        let matched = self.matched(&Matched { join, ..*spec })?;
        if join == Join::Exists || !self.statement.joins_target() {
            return Ok(matched);
        }
        let keys = qualify("d", &names('k', self.key_columns().len()));
        Ok(format!("select distinct on ({keys}) d.* from ({matched}) as d order by {keys}"))
    }
}

/// `exists (select 1 from items where condition)`.
fn exists_in(items: &[Node], condition: Option<Node>) -> Result<Node, Refusal> {
    let mut exists = fragment::expression("exists (select 1 from x)")?;
    if let Some(NodeEnum::SubLink(sublink)) = &mut exists.node
        && let Some(NodeEnum::SelectStmt(select)) = sublink.subselect.as_mut().and_then(|s| s.node.as_mut())
    {
        select.from_clause = items.to_vec();
        select.where_clause = condition.map(Box::new);
    }
    Ok(exists)
}

/// Of the types whose values [`plainly_equal`] compares, those that have a collation, by `pg_type.oid`: text, varchar.
const COLLATED: [u32; 2] = [25, 1043];

/// Puts values into the row of `row(…)::record`.
fn fill_row(cast: &mut Option<Box<Node>>, values: Vec<Node>) {
    if let Some(NodeEnum::TypeCast(cast)) = cast.as_mut().and_then(|cast| cast.node.as_mut())
        && let Some(NodeEnum::RowExpr(row)) = cast.arg.as_mut().and_then(|arg| arg.node.as_mut())
    {
        row.args = values;
    }
}

/// `pgmend_k1`, `pgmend_k2` …
pub(crate) fn names(kind: char, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("pgmend_{kind}{n}")).collect()
}

/// `m.pgmend_k1, m.pgmend_k2`.
pub(crate) fn qualify(alias: &str, names: &[String]) -> String {
    let qualified: Vec<String> = names.iter().map(|name| format!("{alias}.{name}")).collect();
    qualified.join(", ")
}
