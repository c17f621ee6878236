//! INSERT: its source computed into a change set, and the frozen rows inserted from there.

use pg_query::protobuf as p;
use pg_query::{Node, NodeEnum};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, Table, quote_ident};

use crate::apply::Window;
use crate::assign;
use crate::change::Returning;
use crate::deparse;
use crate::fragment;
use crate::rewriter::{Options, Rewriter};
use crate::statement::{Statement, Tree};

/// The rows that an INSERT proposes: which columns, from which source.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    /// The target's columns, in the source's order.
    pub(crate) columns: Vec<String>,
    /// The source, defaults that read the clock included.
    pub(crate) source: p::SelectStmt,
    /// Whether an inlined default reads the clock.
    pub(crate) uses_clock: bool,
}

/// Makes explicit what an INSERT leaves to the server: its columns, `DEFAULT`s inside VALUES, and
/// defaults that read the clock.
pub(crate) fn propose(
    insert: &p::InsertStmt,
    table: &Table,
    options: &Options,
    instant: usize,
) -> Result<Proposal, Refusal> {
    let mut source = source_of(insert)?;
    let columns = columns_of(insert, &source, table, options)?;
    let mut proposal = Proposal { columns: Vec::new(), source: p::SelectStmt::default(), uses_clock: false };
    bind_literals(&mut source, &columns, instant, &mut proposal.uses_clock)?;
    if source.values_lists.is_empty() {
        proposal.columns = columns.iter().map(|column| column.name.clone()).collect();
    } else {
        proposal.columns = settle_values(&mut source, &columns, table, instant, &mut proposal.uses_clock)?;
    }
    for column in &table.columns {
        if !proposal.columns.contains(&column.name)
            && let Some(default) = assign::clock_default(column, instant)?
        {
            append(&mut source, default)?;
            proposal.columns.push(column.name.clone());
            proposal.uses_clock = true;
        }
    }
    proposal.source = source;
    Ok(proposal)
}

/// Untyped literals that read the clock by the type of the column they go into.
fn bind_literals(
    source: &mut p::SelectStmt,
    columns: &[&Column],
    instant: usize,
    found: &mut bool,
) -> Result<(), Refusal> {
    for row in source.values_lists.iter_mut().filter_map(|row| row.node.as_mut()) {
        if let NodeEnum::List(row) = row {
            for (cell, column) in row.items.iter_mut().zip(columns) {
                assign::bind_literal(cell, column, instant, found)?;
            }
        }
    }
    if width(source) == Some(source.target_list.len()) {
        for (target, column) in source.target_list.iter_mut().filter_map(|target| target.node.as_mut()).zip(columns) {
            if let NodeEnum::ResTarget(target) = target
                && let Some(value) = &mut target.val
            {
                assign::bind_literal(value, column, instant, found)?;
            }
        }
    }
    Ok(())
}

/// The source; `DEFAULT VALUES` is one row without columns.
fn source_of(insert: &p::InsertStmt) -> Result<p::SelectStmt, Refusal> {
    match insert.select_stmt.as_ref().and_then(|source| source.node.as_ref()) {
        Some(NodeEnum::SelectStmt(select)) => Ok((**select).clone()),
        Some(_) | None => bare_rows(1),
    }
}

/// So many rows without columns.
fn bare_rows(count: usize) -> Result<p::SelectStmt, Refusal> {
    let select = fragment::statement(&format!("select from generate_series(1, {count})"))?;
    if let NodeEnum::SelectStmt(select) = select { Ok(*select) } else { Ok(p::SelectStmt::default()) }
}

fn columns_of<'t>(
    insert: &p::InsertStmt,
    source: &p::SelectStmt,
    table: &'t Table,
    options: &Options,
) -> Result<Vec<&'t Column>, Refusal> {
    if insert.cols.is_empty() {
        let width = if insert.select_stmt.is_none() { Some(0) } else { width(source).or(options.source_width) };
        let width = width.ok_or_else(|| {
            cannot_freeze(table, "the number of columns of its source is not known", "write the column list")
        })?;
        return Ok(table.columns.iter().take(width).collect());
    }
    let mut columns = Vec::new();
    for target in &insert.cols {
        let Some(NodeEnum::ResTarget(target)) = &target.node else { continue };
        if !target.indirection.is_empty() {
            let why = format!("it writes only a part of column {}", target.name);
            return Err(cannot_freeze(table, &why, "write the whole column"));
        }
        columns.push(table.column(&target.name).ok_or_else(|| {
            Refusal::new(
                Code::ServerRejects,
                format!("column {} of {} does not exist", target.name, table.name),
                "correct the name in the column list",
            )
        })?);
    }
    Ok(columns)
}

/// Drops columns that are DEFAULT in every row, and writes out the default where only some rows ask for it.
fn settle_values(
    source: &mut p::SelectStmt,
    columns: &[&Column],
    table: &Table,
    instant: usize,
    uses_clock: &mut bool,
) -> Result<Vec<String>, Refusal> {
    let mut rows: Vec<Vec<Node>> = source.values_lists.iter().filter_map(items).collect();
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    if width > columns.len() || rows.iter().any(|row| row.len() != width) {
        return Err(Refusal::new(
            Code::ServerRejects,
            format!("the rows of VALUES do not fit the columns of {}", table.name),
            "give every row one value for each column",
        ));
    }
    let is_default = |node: &Node| matches!(node.node, Some(NodeEnum::SetToDefault(_)));
    let mut kept = Vec::new();
    for (i, column) in columns.iter().enumerate().take(width).rev() {
        if rows.iter().all(|row| is_default(&row[i])) {
            rows.iter_mut().for_each(|row| drop(row.remove(i)));
            continue;
        }
        for cell in rows.iter_mut().map(|row| &mut row[i]).filter(|cell| is_default(cell)) {
            *cell = match assign::clock_default(column, instant)? {
                Some(default) => {
                    *uses_clock = true;
                    default
                }
                None => written_default(column, table)?,
            };
        }
        kept.insert(0, column.name.clone());
    }
    if kept.is_empty() {
        *source = bare_rows(rows.len())?;
    } else {
        source.values_lists = rows.into_iter().map(|items| fragment::node(NodeEnum::List(p::List { items }))).collect();
    }
    Ok(kept)
}

fn items(list: &Node) -> Option<Vec<Node>> {
    match &list.node {
        Some(NodeEnum::List(list)) => Some(list.items.clone()),
        _ => None,
    }
}

/// What DEFAULT stands for.
fn written_default(column: &Column, table: &Table) -> Result<Node, Refusal> {
    if column.identity.is_some() {
        let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
        return fragment::expression(&format!(
            "pg_catalog.nextval(pg_catalog.pg_get_serial_sequence({}, {})::pg_catalog.regclass)",
            literal(&table.name.sql()),
            literal(&column.name)
        ));
    }
    fragment::expression(column.default_sql.as_deref().unwrap_or("null"))
}

/// One more column at the end of the source. Where a set operation or DISTINCT compares rows, the
/// source is wrapped: there its literals have got their types already.
fn append(source: &mut p::SelectStmt, value: Node) -> Result<(), Refusal> {
    if !source.values_lists.is_empty() {
        for row in &mut source.values_lists {
            if let Some(NodeEnum::List(list)) = &mut row.node {
                list.items.push(value.clone());
            }
        }
        return Ok(());
    }
    let plain = matches!(source.op(), p::SetOperation::SetopNone | p::SetOperation::Undefined);
    if !plain || !source.distinct_clause.is_empty() {
        let wrapped = std::mem::take(source);
        if let NodeEnum::SelectStmt(mut outer) = fragment::statement("select pgmend_s.* from (select) as pgmend_s")? {
            if let Some(NodeEnum::RangeSubselect(inner)) = outer.from_clause.first_mut().and_then(|f| f.node.as_mut()) {
                inner.subquery = Some(Box::new(fragment::node(NodeEnum::SelectStmt(Box::new(wrapped)))));
            }
            *source = *outer;
        }
    }
    source.target_list.push(fragment::output(value, String::new()));
    Ok(())
}

/// The number of columns a source yields, unless a `*` hides it.
fn width(source: &p::SelectStmt) -> Option<usize> {
    if let Some(row) = source.values_lists.first() {
        return items(row).map(|items| items.len());
    }
    if let Some(left) = &source.larg {
        return width(left);
    }
    let star = source.target_list.iter().any(|target| match &target.node {
        Some(NodeEnum::ResTarget(target)) => target.val.as_deref().is_none_or(has_star),
        _ => true,
    });
    (!star).then_some(source.target_list.len())
}

/// Whether the value is a `*`, which stands for several.
pub(crate) fn has_star(value: &Node) -> bool {
    let is_star = |node: Option<&Node>| matches!(node.and_then(|n| n.node.as_ref()), Some(NodeEnum::AStar(_)));
    match &value.node {
        Some(NodeEnum::ColumnRef(column)) => is_star(column.fields.last()),
        Some(NodeEnum::AIndirection(indirection)) => is_star(indirection.indirection.last()),
        _ => false,
    }
}

fn cannot_freeze(table: &Table, why: &str, help: &str) -> Refusal {
    Refusal::new(Code::CannotFreeze, format!("the rows to insert into {} cannot be frozen: {why}", table.name), help)
}

impl Statement {
    /// INSERT: the number of columns its source yields; `None` when a `*` hides it.
    pub fn source_width(&self) -> Option<usize> {
        let Tree::Insert(insert) = &self.tree else { return None };
        if insert.select_stmt.is_none() { Some(0) } else { source_of(insert).ok().and_then(|source| width(&source)) }
    }

    /// INSERT … VALUES: the number of rows, as written.
    pub fn written_rows(&self) -> Option<usize> {
        let Tree::Insert(insert) = &self.tree else { return None };
        let source = source_of(insert).ok()?;
        let whole = source.limit_count.is_none() && source.limit_offset.is_none();
        (whole && !source.values_lists.is_empty()).then_some(source.values_lists.len())
    }

    /// INSERT: the source alone, with its WITH, so that the server can describe it. The clock is as written.
    pub fn source_sql(&self) -> Result<String, Refusal> {
        let Tree::Insert(insert) = &self.tree else {
            return Err(Refusal::new(Code::NotAChange, "only an INSERT has a source", "write an INSERT"));
        };
        let mut source = source_of(insert)?;
        source.with_clause = match (insert.with_clause.clone(), source.with_clause.take()) {
            (Some(mut outer), Some(inner)) => {
                outer.ctes.extend(inner.ctes);
                outer.recursive |= inner.recursive;
                Some(outer)
            }
            (outer, inner) => outer.or(inner),
        };
        deparse::text(&NodeEnum::SelectStmt(Box::new(source)))
    }
}

impl Rewriter<'_> {
    fn insertion(&self) -> Result<(&p::InsertStmt, &Proposal), Refusal> {
        match (&self.tree, &self.proposal) {
            (Tree::Insert(insert), Some(proposal)) => Ok((insert, proposal)),
            (_, _) => Err(Refusal::new(Code::NotAChange, "only an INSERT proposes rows", "write an INSERT")),
        }
    }

    /// INSERT: the target's columns that [`Self::freeze_source`] yields, in order.
    pub fn insert_columns(&self) -> Result<Vec<String>, Refusal> {
        Ok(self.insertion()?.1.columns.clone())
    }

    /// INSERT: computes the proposed rows into `value_columns`, one for each of [`Self::insert_columns`].
    /// `op` and `n` are left to their defaults.
    pub fn freeze_source(&self, change_set: &str, value_columns: &[String]) -> Result<String, Refusal> {
        let (insert, proposal) = self.insertion()?;
        let frozen = p::InsertStmt {
            relation: Some(fragment::relation(change_set)?),
            cols: value_columns.iter().map(|name| column_target(name)).collect(),
            select_stmt: Some(Box::new(fragment::node(NodeEnum::SelectStmt(Box::new(proposal.source.clone()))))),
            on_conflict_clause: None,
            returning_clause: None,
            with_clause: insert.with_clause.clone(),
            r#override: p::OverridingKind::OverridingNotSet as i32,
        };
        deparse::text(&NodeEnum::InsertStmt(Box::new(frozen)))
    }

    /// INSERT: inserts a window of frozen rows in order, with the user's OVERRIDING and ON CONFLICT.
    pub fn insert_apply(
        &self,
        change_set: &str,
        value_columns: &[String],
        window: Window,
        returning: Returning<'_>,
    ) -> Result<String, Refusal> {
        let (insert, proposal) = self.insertion()?;
        let values: Vec<String> = value_columns.iter().map(|name| format!("pgmend_s.{}", quote_ident(name))).collect();
        let source = fragment::statement(&format!(
            "select {} from {change_set} as pgmend_s where {} order by pgmend_s.n",
            values.join(", "),
            window.condition("pgmend_s")
        ))?;
        let mut applied = insert.clone();
        applied.cols = proposal.columns.iter().map(|name| column_target(name)).collect();
        applied.select_stmt = Some(Box::new(fragment::node(source)));
        applied.returning_clause = self.returning(returning);
        if applied.on_conflict_clause.is_none() {
            // Its queries fed the source, which is frozen.
            applied.with_clause = None;
        }
        deparse::text(&NodeEnum::InsertStmt(Box::new(applied)))
    }
}

fn column_target(name: &str) -> Node {
    fragment::node(NodeEnum::ResTarget(Box::new(p::ResTarget {
        name: name.to_owned(),
        indirection: Vec::new(),
        val: None,
        location: -1,
    })))
}
