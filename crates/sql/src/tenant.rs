//! A statement narrowed to some tenants, or to one of them: the values of one column of its target.

use pg_query::protobuf as p;
use pg_query::{Node, NodeEnum};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::Column;

use crate::deparse;
use crate::fragment;
use crate::reads::ColumnsRead;
use crate::statement::{Statement, Tree, without_returning};

impl Statement {
    /// The same UPDATE or DELETE for these tenants only. What it means is another change than before: its canonical
    /// text says so.
    pub fn among(&self, column: &Column, values: &[String]) -> Result<Statement, Refusal> {
        let tenant = fragment::column_sql(self.called(), &column.name);
        let type_sql = &column.base_type.sql;
        let listed: Vec<String> = values.iter().map(|value| format!("{}::{type_sql}", literal(value))).collect();
        let mut narrowed = self.first_asked(&format!("{tenant} in ({})", listed.join(", ")), column)?;
        narrowed.canonical = deparse::text(&without_returning(&narrowed.tree.node()))?;
        Ok(narrowed)
    }

    /// The same for one tenant: a parameter after those of the job, or NULL, where that parameter is NULL too.
    /// Equality is the server's own for the column's type and collation.
    pub fn of_tenant(&self, column: &Column, null: bool) -> Result<Statement, Refusal> {
        let tenant = fragment::column_sql(self.called(), &column.name);
        let (number, type_sql) = (self.params() + 1, &column.base_type.sql);
        let condition = match null {
            // Not `is not distinct from`, which no index answers.
            false => format!("{tenant} = ${number}::text::{type_sql}"),
            true => format!("{tenant} is null and ${number}::text is null"),
        };
        let mut narrowed = self.first_asked(&condition, column)?;
        narrowed.params = number;
        Ok(narrowed)
    }

    /// With a condition before its own: among conditions that cost the same the server asks the first one first, so
    /// that rows of other tenants, where the statement's own may fail, are left out before.
    fn first_asked(&self, condition: &str, column: &Column) -> Result<Statement, Refusal> {
        let mut narrowed = self.clone();
        let clause = match &mut narrowed.tree {
            Tree::Update(update) => &mut update.where_clause,
            Tree::Delete(delete) => &mut delete.where_clause,
            Tree::Insert(_) => {
                let help = "leave [tenants] out: new rows are made in one order";
                return Err(Refusal::new(Code::TenantsTogether, "an INSERT has no tenants of its own", help));
            }
        };
        let first = fragment::expression(condition)?;
        let own = clause.take().map(|own| conjuncts(*own)).unwrap_or_default();
        let all = own.into_iter().fold(first, |all, next| fragment::and(Some(all), next));
        *clause = Some(Box::new(all));
        if let ColumnsRead::Some(names) = &mut narrowed.columns
            && !names.contains(&column.name)
        {
            names.push(column.name.clone());
        }
        Ok(narrowed)
    }
}

/// The parts of a condition, as the grammar flattens them.
fn conjuncts(condition: Node) -> Vec<Node> {
    match condition.node {
        Some(NodeEnum::BoolExpr(expr)) if expr.boolop == p::BoolExprType::AndExpr as i32 => expr.args,
        content => vec![Node { node: content }],
    }
}

/// A text as a literal of SQL, as the parser of this crate reads it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
