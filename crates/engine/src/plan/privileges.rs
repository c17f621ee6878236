//! Whether the server accepts a statement, and whether this role may make the change: a plan needs no right to
//! write, a run does.

use pgmend_core::finding::Finding;
use pgmend_core::plan::Plan;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_pg::PgError;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{Kind, Range, Rewriter};

use super::bind::Bound;
use crate::error::Error;

/// `insufficient_privilege`.
pub const DENIED: &str = "42501";
/// The finding of a plan that its own role may not run.
const CHECK: &str = "no_write_privilege";
const WAY_OUT: &str = "grant it, or connect as a role that has it (options=-c role=… in the URL)";

/// The server must accept the statement: names, types, and the right to read what it reads. Where only the right to
/// write is missing, a finding says so.
pub async fn accepted_by_server(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    typed: &str,
) -> Result<Option<Finding>, Error> {
    let sql = format!("explain {}", rewriter.plain()?);
    let refused = match tx.attempt("check the statement", &sql, vec![]).await {
        Ok(_) => return Ok(None),
        Err(error) if error.is_connection() => return Err(error.into()),
        Err(error) => error,
    };
    if refused.sqlstate != DENIED || may_write(tx, bound).await? {
        return Err(rejected(&refused, typed).into());
    }
    let reading = match bound.statement.kind() {
        Kind::Insert => bound.statement.source_sql()?,
        Kind::Update | Kind::Delete => rewriter.count(Range::default())?,
    };
    match tx.attempt("check what the statement reads", &format!("explain {reading}"), vec![]).await {
        Ok(_) => {}
        Err(error) if error.is_connection() => return Err(error.into()),
        Err(error) => return Err(rejected(&error, typed).into()),
    }
    let message = format!("this role may not {} `{}`: it can plan, but not run", verb(bound), bound.table.name);
    Ok(Some(Finding::warning(CHECK, message, WAY_OUT)))
}

/// Refuses the run of a plan whose role could not write.
pub fn refuse_unprivileged(plan: &Plan) -> Result<(), Error> {
    match plan.findings.iter().any(|finding| finding.check == CHECK) {
        false => Ok(()),
        true => {
            let message = format!("role {} may not {} {}", plan.settings.role, plan.kind.name(), plan.target);
            Err(Refusal::new(Code::Privilege, message, WAY_OUT).into())
        }
    }
}

fn verb(bound: &Bound) -> &'static str {
    match bound.statement.kind() {
        Kind::Update => "update",
        Kind::Delete => "delete from",
        Kind::Insert => "insert into",
    }
}

/// Whether the role has the right to write, on the table or on each column that is assigned.
async fn may_write(tx: &ReadTx<'_>, bound: &Bound) -> Result<bool, Error> {
    let oid = bound.table.oid;
    let sql = match bound.statement.kind() {
        Kind::Delete => format!("select has_table_privilege({oid}, 'DELETE')::text"),
        Kind::Insert => format!("select has_any_column_privilege({oid}, 'INSERT')::text"),
        Kind::Update => {
            let assigned = bound.statement.assigned();
            let numbers =
                bound.table.columns.iter().filter(|c| assigned.contains(&c.name)).map(|c| c.attnum.to_string());
            let numbers: Vec<String> = numbers.collect();
            format!(
                "select coalesce(bool_and(has_column_privilege({oid}, n, 'UPDATE')), false)::text \
                 from unnest('{{{}}}'::smallint[]) as n",
                numbers.join(",")
            )
        }
    };
    Ok(tx.query("check the right to write", &sql, vec![]).await?.scalar() == Some("true"))
}

fn rejected(error: &PgError, typed: &str) -> Refusal {
    let (code, help) = match error.sqlstate.as_str() {
        DENIED => (Code::Privilege, WAY_OUT.to_owned()),
        _ => (
            Code::ServerRejects,
            error.named.hint.clone().unwrap_or_else(|| "try the statement with EXPLAIN in psql".to_owned()),
        ),
    };
    let refusal = Refusal::new(code, error.message.clone(), help);
    // The server's position is in our text; the name it complains about is usually in the user's too.
    let quoted = error.message.split('"').nth(1).and_then(|name| typed.find(name));
    match quoted {
        Some(at) => refusal.at(at),
        None => refusal,
    }
}
