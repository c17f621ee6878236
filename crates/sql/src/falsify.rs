//! Whether a statement's assignments provably falsify its own predicate: only then may the sweep apply
//! it again to rows that still match, since a row that was changed can no longer match by itself.

use pg_query::protobuf::a_const::Val;
use pg_query::protobuf::{self as p, AExprKind, BoolExprType, NullTestType};
use pg_query::{Node, NodeEnum};
use pgmend_core::refusal::Refusal;
use pgmend_core::table::Table;

use crate::fragment;
use crate::statement::{Statement, Tree};

/// A constant, as far as two of them can be told apart for certain.
#[derive(Debug, Clone, PartialEq)]
enum Constant {
    Null,
    Integer(i64),
    Text(String),
    Bool(bool),
}

impl Statement {
    /// Whether one conjunct of WHERE is false for every row once the assignments are made: `c is null`,
    /// `c = x`, `c <> y` or `c is distinct from y`, where the statement sets c to the constant y.
    pub fn falsifies_itself(&self, table: &Table) -> bool {
        let Tree::Update(update) = &self.tree else { return false };
        let Some(condition) = &update.where_clause else { return false };
        let assigned = assignments(&update.target_list);
        conjuncts(condition).iter().any(|conjunct| {
            assigned.iter().any(|(column, value)| {
                comparable(table, column) && falsified(conjunct, column, value, is_textual(table, column))
            })
        })
    }

    /// The same statement with one more condition.
    pub fn with_condition(&self, condition: &str) -> Result<Statement, Refusal> {
        let condition = fragment::expression(condition)?;
        let mut narrowed = self.clone();
        let clause = match &mut narrowed.tree {
            Tree::Update(update) => &mut update.where_clause,
            Tree::Delete(delete) => &mut delete.where_clause,
            Tree::Insert(_) => return Ok(narrowed),
        };
        *clause = Some(Box::new(fragment::and(clause.take().map(|c| *c), condition)));
        Ok(narrowed)
    }
}

/// Types whose equality is that of their text: no collation that ignores differences, no padding.
fn comparable(table: &Table, column: &str) -> bool {
    let plain = ["text", "integer", "bigint", "smallint", "boolean"];
    table.column(column).is_some_and(|c| {
        let known = plain.contains(&c.base_type.sql.as_str()) || c.base_type.sql.starts_with("character varying");
        (known || c.base_type.category == 'E') && c.base_type.collation.is_none()
    })
}

/// Whether the column holds a text as it was spelled: `'01'` and `'1'` are two texts, but one integer.
fn is_textual(table: &Table, column: &str) -> bool {
    table
        .column(column)
        .is_some_and(|c| !["integer", "bigint", "smallint", "boolean"].contains(&c.base_type.sql.as_str()))
}

/// Whether two constants are different values for certain. Blanks at the end may be cut off by a `varchar(n)`.
fn differ(a: &Constant, b: &Constant, textual: bool) -> bool {
    match (a, b) {
        (Constant::Integer(a), Constant::Integer(b)) => a != b,
        (Constant::Bool(a), Constant::Bool(b)) => a != b,
        (Constant::Text(a), Constant::Text(b)) => textual && a.trim_end() != b.trim_end(),
        (Constant::Null | Constant::Integer(_) | Constant::Text(_) | Constant::Bool(_), _) => false,
    }
}

/// Columns set to constants.
fn assignments(targets: &[Node]) -> Vec<(String, Constant)> {
    let assignment = |node: &Node| match &node.node {
        Some(NodeEnum::ResTarget(target)) if target.indirection.is_empty() => {
            Some((target.name.clone(), constant(target.val.as_deref()?)?))
        }
        Some(_) | None => None,
    };
    targets.iter().filter_map(assignment).collect()
}

fn conjuncts(node: &Node) -> Vec<&Node> {
    match &node.node {
        Some(NodeEnum::BoolExpr(expr)) if expr.boolop() == BoolExprType::AndExpr => {
            expr.args.iter().flat_map(conjuncts).collect()
        }
        Some(_) | None => vec![node],
    }
}

fn falsified(conjunct: &Node, column: &str, value: &Constant, textual: bool) -> bool {
    match &conjunct.node {
        Some(NodeEnum::NullTest(test)) => {
            let same = test.arg.as_deref().is_some_and(|arg| is_column(arg, column));
            same && match test.nulltesttype() {
                NullTestType::IsNull => *value != Constant::Null,
                NullTestType::IsNotNull => *value == Constant::Null,
                NullTestType::Undefined => false,
            }
        }
        Some(NodeEnum::AExpr(expr)) => {
            compared(expr, column).is_some_and(|other| match (expr.kind(), operator(expr)) {
                (AExprKind::AexprOp, Some("=")) => differ(&other, value, textual),
                (AExprKind::AexprOp, Some("<>")) | (AExprKind::AexprDistinct, _) => other == *value,
                (_, _) => false,
            })
        }
        Some(_) | None => false,
    }
}

/// The constant that the expression compares the column with.
fn compared(expr: &p::AExpr, column: &str) -> Option<Constant> {
    let (left, right) = (expr.lexpr.as_deref()?, expr.rexpr.as_deref()?);
    if is_column(left, column) {
        return constant(right);
    }
    if is_column(right, column) { constant(left) } else { None }
}

fn operator(expr: &p::AExpr) -> Option<&str> {
    match expr.name.as_slice() {
        [Node { node: Some(NodeEnum::String(name)) }] => Some(&name.sval),
        [..] => None,
    }
}

/// An unqualified or qualified reference to the column. A joined table's column of the same name is
/// ruled out by the caller, who sweeps only statements without FROM.
fn is_column(node: &Node, column: &str) -> bool {
    let Some(NodeEnum::ColumnRef(reference)) = &node.node else { return false };
    matches!(reference.fields.last(), Some(Node { node: Some(NodeEnum::String(name)) }) if name.sval == column)
}

fn constant(node: &Node) -> Option<Constant> {
    match &node.node {
        Some(NodeEnum::AConst(constant)) if constant.isnull => Some(Constant::Null),
        Some(NodeEnum::AConst(constant)) => match constant.val.as_ref()? {
            Val::Ival(integer) => Some(Constant::Integer(i64::from(integer.ival))),
            Val::Sval(text) => Some(Constant::Text(text.sval.clone())),
            Val::Boolval(boolean) => Some(Constant::Bool(boolean.boolval)),
            Val::Fval(_) | Val::Bsval(_) => None,
        },
        Some(_) | None => None,
    }
}
