//! The assignments of a SET list: made explicit in the tree, and as the expressions of the after values.

use pg_query::protobuf as p;
use pg_query::{Node, NodeEnum};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, ColumnType, Table};

use crate::clock;
use crate::fragment;

/// What a SET list assigns.
#[derive(Debug, Clone)]
pub(crate) struct Assignments {
    /// Column and value of each whole-column assignment that a SELECT can compute.
    pub(crate) after: Vec<(String, Node)>,
    /// What is assigned, in SET's order, subscripts included: what tells one match of a row from another.
    pub(crate) sources: Vec<Node>,
    /// Columns of which only a part is assigned.
    pub(crate) partial: Vec<String>,
    /// Whether `after` is complete.
    pub(crate) computable: bool,
    /// Whether a default or an untyped literal reads the clock.
    pub(crate) uses_clock: bool,
}

impl Default for Assignments {
    fn default() -> Self {
        Self { after: Vec::new(), sources: Vec::new(), partial: Vec::new(), computable: true, uses_clock: false }
    }
}

/// Expands `(a, b) = row(x, y)` into single assignments, inlines defaults that read the clock, and
/// collects the after values.
pub(crate) fn prepare(targets: &mut [Node], table: &Table, instant: usize) -> Result<Assignments, Refusal> {
    let mut found = Assignments::default();
    for target in targets.iter_mut() {
        let Some(NodeEnum::ResTarget(target)) = &mut target.node else { continue };
        let column = table.column(&target.name).ok_or_else(|| no_column(table, &target.name))?;
        single(target);
        if !target.indirection.is_empty() {
            found.computable = false;
            found.partial.push(column.name.clone());
            found.sources.extend(sources(target)?);
            continue;
        }
        let Some(value) = &mut target.val else { continue };
        bind_literal(value, column, instant, &mut found.uses_clock)?;
        bind_default(value, column, instant, &mut found.uses_clock)?;
        match after(value, column)? {
            After::Value(value) => {
                found.sources.push((*value).clone());
                found.after.push((column.name.clone(), *value));
            }
            After::Left => {}
            After::Unknown => {
                found.computable = false;
                found.sources.extend(sources(target)?);
            }
        }
    }
    Ok(found)
}

enum After {
    /// Computed by this expression.
    Value(Box<Node>),
    /// PostgreSQL computes it: a generated column.
    Left,
    /// No SELECT can compute it.
    Unknown,
}

/// Value and subscripts of a target whose after value cannot be computed; DEFAULT is the same for each match.
fn sources(target: &p::ResTarget) -> Result<Vec<Node>, Refusal> {
    let mut found = Vec::new();
    for part in &target.indirection {
        if let Some(NodeEnum::AIndices(indices)) = &part.node {
            found.extend([&indices.lidx, &indices.uidx].into_iter().flatten().map(|bound| (**bound).clone()));
        }
    }
    let Some(value) = &target.val else { return Ok(found) };
    match &value.node {
        Some(NodeEnum::SetToDefault(_)) => {}
        Some(NodeEnum::MultiAssignRef(multi)) => match element_of_select(multi)? {
            Some(element) => found.push(element),
            None => found.extend(multi.source.as_deref().cloned()),
        },
        Some(_) | None => found.push((**value).clone()),
    }
    Ok(found)
}

/// Whether an assigned value is DEFAULT, also as an element of `(a, b) = (x, default)`.
pub(crate) fn is_default(value: &Node) -> bool {
    match &value.node {
        Some(NodeEnum::SetToDefault(_)) => true,
        Some(NodeEnum::MultiAssignRef(multi)) => match multi.source.as_ref().and_then(|source| source.node.as_ref()) {
            Some(NodeEnum::RowExpr(row)) => {
                let index = usize::try_from(multi.colno - 1).unwrap_or(usize::MAX);
                row.args.get(index).is_some_and(|arg| matches!(arg.node, Some(NodeEnum::SetToDefault(_))))
            }
            _ => false,
        },
        _ => false,
    }
}

/// `(a, b) = row(x, y)` arrives as two targets that share the row; each gets its own element.
fn single(target: &mut p::ResTarget) {
    let element = match target.val.as_ref().and_then(|val| val.node.as_ref()) {
        Some(NodeEnum::MultiAssignRef(multi)) => match multi.source.as_ref().and_then(|source| source.node.as_ref()) {
            // A `t.*` among the elements stands for several.
            Some(NodeEnum::RowExpr(row))
                if i32::try_from(row.args.len()) == Ok(multi.ncolumns)
                    && !row.args.iter().any(crate::insert::has_star) =>
            {
                usize::try_from(multi.colno - 1).ok().and_then(|index| row.args.get(index)).cloned()
            }
            _ => None,
        },
        _ => None,
    };
    if let Some(element) = element {
        target.val = Some(Box::new(element));
    }
}

/// `SET changed_at = 'now'`: an untyped literal that reads the clock only by its column's type.
pub(crate) fn bind_literal(value: &mut Node, column: &Column, instant: usize, found: &mut bool) -> Result<(), Refusal> {
    let word = value.node.as_ref().and_then(clock::string_constant);
    if column.base_type.category == 'D' && word.is_some_and(clock::is_clock_word) {
        let mut typed = fragment::cast(value.clone(), fragment::type_name(&column.base_type.sql)?);
        if clock::bind(&mut typed, instant) {
            *value = typed;
            *found = true;
        }
    }
    Ok(())
}

/// `SET c = DEFAULT` with a default that reads the clock.
fn bind_default(value: &mut Node, column: &Column, instant: usize, found: &mut bool) -> Result<(), Refusal> {
    if matches!(value.node, Some(NodeEnum::SetToDefault(_)))
        && let Some(inlined) = clock_default(column, instant)?
    {
        *value = inlined;
        *found = true;
    }
    Ok(())
}

/// The column's default, bound to the instant, if it reads the clock.
pub(crate) fn clock_default(column: &Column, instant: usize) -> Result<Option<Node>, Refusal> {
    if column.generated || column.identity.is_some() {
        return Ok(None);
    }
    let Some(default) = &column.default_sql else { return Ok(None) };
    let mut default = fragment::expression(default)?;
    Ok(clock::bind(&mut default, instant).then_some(default))
}

fn after(value: &Node, column: &Column) -> Result<After, Refusal> {
    let value = match &value.node {
        Some(NodeEnum::SetToDefault(_)) if column.generated => return Ok(After::Left),
        Some(NodeEnum::SetToDefault(_)) if column.identity.is_some() => return Ok(After::Unknown),
        Some(NodeEnum::SetToDefault(_)) => fragment::expression(column.default_sql.as_deref().unwrap_or("null"))?,
        Some(NodeEnum::MultiAssignRef(multi)) => match element_of_select(multi)? {
            Some(element) => element,
            None => return Ok(After::Unknown),
        },
        Some(_) | None => value.clone(),
    };
    Ok(After::Value(Box::new(fragment::cast(value, fragment::type_name(&lossless(&column.base_type))?))))
}

/// `(a, b) = (select x, y …)`: `(select s.c1 from (select x, y …) as s(c1, c2))`.
fn element_of_select(multi: &p::MultiAssignRef) -> Result<Option<Node>, Refusal> {
    let Some(NodeEnum::SubLink(sublink)) = multi.source.as_ref().and_then(|source| source.node.as_ref()) else {
        return Ok(None);
    };
    let names: Vec<String> = (1..=multi.ncolumns).map(|n| format!("c{n}")).collect();
    let mut element =
        fragment::expression(&format!("(select s.c{} from (select) as s({}))", multi.colno, names.join(", ")))?;
    if let Some(NodeEnum::SubLink(outer)) = &mut element.node
        && let Some(NodeEnum::SelectStmt(select)) = outer.subselect.as_mut().and_then(|s| s.node.as_mut())
        && let Some(NodeEnum::RangeSubselect(inner)) = select.from_clause.first_mut().and_then(|f| f.node.as_mut())
    {
        inner.subquery.clone_from(&sublink.subselect);
        return Ok(Some(element));
    }
    Ok(None)
}

/// The type to cast an after value to. A cast to `varchar(3)` cuts silently where the assignment
/// fails, so the length is left to the assignment.
pub(crate) fn lossless(column: &ColumnType) -> String {
    const BOUNDED: &[(&str, &str)] = &[
        ("character varying", "pg_catalog.varchar"),
        // Not pg_catalog.bpchar, which is deparsed as `char`: a length of one.
        ("character", "bpchar"),
        ("bit varying", "pg_catalog.varbit"),
        ("bit", "pg_catalog.\"bit\""),
    ];
    let Some((name, rest)) = column.sql.split_once('(') else {
        return column.sql.clone();
    };
    let array = rest.split_once(')').map_or("", |(_, array)| array);
    BOUNDED
        .iter()
        .find(|(bounded, _)| *bounded == name)
        .map_or_else(|| column.sql.clone(), |(_, free)| format!("{free}{array}"))
}

fn no_column(table: &Table, name: &str) -> Refusal {
    Refusal::new(
        Code::ServerRejects,
        format!("column {name} of {} does not exist", table.name),
        "correct the name in the SET list",
    )
}
