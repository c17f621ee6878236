//! Small pieces of tree, made by PostgreSQL's own parser from SQL that this crate wrote.

use pg_query::protobuf as p;
use pg_query::{Node, NodeEnum};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::quote_ident;

fn broken(what: &str, sql: &str) -> Refusal {
    Refusal::new(
        Code::RoundTrip,
        format!("{what} `{sql}` does not parse"),
        "report this as a defect of pgmend, with the statement",
    )
}

/// The one statement of `sql`.
pub(crate) fn statement(sql: &str) -> Result<NodeEnum, Refusal> {
    let mut parsed = pg_query::parse(sql, 0).map_err(|_| broken("the generated statement", sql))?.protobuf;
    match (parsed.stmts.pop().and_then(|raw| raw.stmt).and_then(|node| node.node), parsed.stmts.is_empty()) {
        (Some(node), true) => Ok(node),
        (_, _) => Err(broken("the generated statement", sql)),
    }
}

fn select(sql: &str, what: &str, whole: &str) -> Result<p::SelectStmt, Refusal> {
    match statement(whole) {
        Ok(NodeEnum::SelectStmt(select)) => Ok(*select),
        Ok(_) | Err(_) => Err(broken(what, sql)),
    }
}

/// A SELECT of nothing: what must be left when the one wanted part is taken out.
fn bare() -> p::SelectStmt {
    p::SelectStmt {
        limit_option: p::LimitOption::Default as i32,
        op: p::SetOperation::SetopNone as i32,
        ..p::SelectStmt::default()
    }
}

/// An expression, for example a column's default. Parentheses keep `a), (b` from being two.
pub(crate) fn expression(sql: &str) -> Result<Node, Refusal> {
    let mut select = select(sql, "the expression", &format!("select ({sql}\n)"))?;
    let target = select.target_list.pop().and_then(|node| node.node);
    match (target, select == bare()) {
        (Some(NodeEnum::ResTarget(target)), true) => {
            target.val.map(|node| *node).ok_or_else(|| broken("the expression", sql))
        }
        (_, _) => Err(broken("the expression", sql)),
    }
}

/// A type, as `format_type` prints it.
pub(crate) fn type_name(sql: &str) -> Result<p::TypeName, Refusal> {
    match expression(&format!("null::{sql}"))?.node {
        Some(NodeEnum::TypeCast(cast)) => cast.type_name.ok_or_else(|| broken("the type", sql)),
        _ => Err(broken("the type", sql)),
    }
}

/// A relation, for example `"pgmend"."image_1"`.
pub(crate) fn relation(sql: &str) -> Result<p::RangeVar, Refusal> {
    let mut select = select(sql, "the relation", &format!("select from {sql}"))?;
    match (select.from_clause.pop().and_then(|node| node.node), select == bare()) {
        (Some(NodeEnum::RangeVar(relation)), true) => Ok(relation),
        (_, _) => Err(broken("the relation", sql)),
    }
}

/// A node around its content.
pub(crate) fn node(content: NodeEnum) -> Node {
    Node { node: Some(content) }
}

/// A string node, as names are made of.
pub(crate) fn name(text: &str) -> Node {
    node(NodeEnum::String(p::String { sval: text.to_owned() }))
}

/// The text of a string node.
pub(crate) fn text(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::String(string)) => Some(&string.sval),
        _ => None,
    }
}

/// `qualifier.column`.
pub(crate) fn column(qualifier: &str, column: &str) -> Node {
    node(NodeEnum::ColumnRef(p::ColumnRef { fields: vec![name(qualifier), name(column)], location: -1 }))
}

/// `qualifier.column` as text.
pub(crate) fn column_sql(qualifier: &str, column: &str) -> String {
    format!("{}.{}", quote_ident(qualifier), quote_ident(column))
}

/// `(value)::type`.
pub(crate) fn cast(value: Node, type_name: p::TypeName) -> Node {
    node(NodeEnum::TypeCast(Box::new(p::TypeCast {
        arg: Some(Box::new(value)),
        type_name: Some(type_name),
        location: -1,
    })))
}

/// `value as output`.
pub(crate) fn output(value: Node, output: String) -> Node {
    node(NodeEnum::ResTarget(Box::new(p::ResTarget {
        name: output,
        indirection: Vec::new(),
        val: Some(Box::new(value)),
        location: -1,
    })))
}

/// `left and right`, flattened as the grammar flattens it.
pub(crate) fn and(left: Option<Node>, right: Node) -> Node {
    match left {
        Some(left) => joined(p::BoolExprType::AndExpr, left, right),
        None => right,
    }
}

/// `left or right`, flattened likewise.
pub(crate) fn or(left: Node, right: Node) -> Node {
    joined(p::BoolExprType::OrExpr, left, right)
}

fn joined(by: p::BoolExprType, left: Node, right: Node) -> Node {
    let mut args = match left.node {
        Some(NodeEnum::BoolExpr(expr)) if expr.boolop == by as i32 => expr.args,
        content => vec![Node { node: content }],
    };
    args.push(right);
    node(NodeEnum::BoolExpr(Box::new(p::BoolExpr { xpr: None, boolop: by as i32, args, location: -1 })))
}

/// `schema.name`, each part quoted as SQL wants it, from the parts of a name in the tree.
pub(crate) fn qualified(names: &[Node]) -> (Option<String>, String) {
    let parts: Vec<&str> = names.iter().filter_map(text).collect();
    match parts.as_slice() {
        [.., schema, name] => (Some((*schema).to_owned()), (*name).to_owned()),
        [name] => (None, (*name).to_owned()),
        [] => (None, String::new()),
    }
}
