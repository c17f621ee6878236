//! Whether the server accepts a statement, and whether this role may make the change: a plan needs no right to
//! write, a run does.

use pgmend_core::finding::Finding;
use pgmend_core::job::{BoundParam, Job};
use pgmend_core::plan::Plan;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_pg::PgError;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{Kind, Range, Rewriter};

use super::bind::Bound;
use crate::error::Error;

/// `insufficient_privilege`.
pub const DENIED: &str = "42501";
/// `undefined_function`, of operators too.
const NO_SUCH_OPERATOR: &str = "42883";
/// `datatype_mismatch`.
const OTHER_TYPE: &str = "42804";
/// The finding of a plan that its own role may not run.
const CHECK: &str = "no_write_privilege";
const WAY_OUT: &str = "grant it, or connect as a role that has it (options=-c role=… in the URL)";

/// The server must accept the statement: names, types, and the right to read what it reads. Where only the right to
/// write is missing, a finding says so.
pub async fn accepted_by_server(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    job: &Job,
) -> Result<Option<Finding>, Error> {
    let typed = job.statement.as_str();
    let sql = format!("explain {}", rewriter.plain()?);
    let refused = match tx.attempt("check the statement", &sql, vec![]).await {
        Ok(_) => return Ok(None),
        Err(error) if error.is_connection() => return Err(error.into()),
        Err(error) => error,
    };
    if refused.sqlstate != DENIED || may_write(tx, bound).await? {
        misfit(tx, &job.params).await?;
        return Err(rejected(&refused, typed, &job.params).into());
    }
    let reading = match bound.statement.kind() {
        Kind::Insert => bound.statement.source_sql()?,
        Kind::Update | Kind::Delete => rewriter.count(Range::default())?,
    };
    match tx.attempt("check what the statement reads", &format!("explain {reading}"), vec![]).await {
        Ok(_) => {}
        Err(error) if error.is_connection() => return Err(error.into()),
        Err(error) => return Err(rejected(&error, typed, &job.params).into()),
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

/// Refuses a parameter whose value is none of its type, or whose type there is not: of a statement that binds it the
/// server says neither which one it is nor where.
async fn misfit(tx: &ReadTx<'_>, params: &[BoundParam]) -> Result<(), Error> {
    for (place, param) in params.iter().enumerate() {
        let sql = format!("select (${}::{}) is null", place + 1, param.type_sql);
        match tx.attempt("check a parameter", &sql, vec![]).await {
            Ok(_) => {}
            Err(error) if error.is_connection() => return Err(error.into()),
            Err(error) => {
                let name = &param.name;
                let message = format!("parameter `{name}` does not fit its type {}: {}", param.type_sql, error.message);
                let help = format!("mend `type` or `value` under [params.{name}], or pass --param {name}=VALUE");
                return Err(Refusal::new(Code::Parameter, message, help).into());
            }
        }
    }
    Ok(())
}

fn rejected(error: &PgError, typed: &str, params: &[BoundParam]) -> Refusal {
    let (code, help) = match error.sqlstate.as_str() {
        DENIED => (Code::Privilege, WAY_OUT.to_owned()),
        NO_SUCH_OPERATOR | OTHER_TYPE if !params.is_empty() => {
            let bound: Vec<String> = params.iter().map(|p| format!(":{} as {}", p.name, p.type_sql)).collect();
            let cast = format!("write :{}::TYPE", params[0].name);
            (Code::ServerRejects, format!("bound are {}; {cast}, or declare the type in [params]", bound.join(", ")))
        }
        _ => (
            Code::ServerRejects,
            error.named.hint.clone().unwrap_or_else(|| "try the statement with EXPLAIN in psql".to_owned()),
        ),
    };
    let refusal = Refusal::new(code, error.message.clone(), help);
    // The server's position is in our text; the name it complains about is usually in the user's too.
    match error.message.split('"').nth(1).and_then(|name| place_of_name(typed, name)) {
        Some(at) => refusal.at(at),
        None => refusal,
    }
}

/// Where the user's text has a name as a word of its own.
fn place_of_name(typed: &str, name: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |at: usize| {
        !typed[..at].chars().next_back().is_some_and(part) && !typed[at + name.len()..].chars().next().is_some_and(part)
    };
    let mut places = typed.match_indices(name).map(|(at, _)| at).filter(|at| whole(*at));
    places.next().filter(|_| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::place_of_name;

    #[test]
    fn a_name_is_pointed_at_only_where_it_is_a_word_of_its_own() {
        assert_eq!(place_of_name("update t set nosuch = 1", "nosuch"), Some(13));
        assert_eq!(place_of_name("update acct set a = 1", "dat"), None, "a part of `update`");
        assert_eq!(place_of_name("update update_log set day = date", "date"), Some(28));
        assert_eq!(place_of_name("update t set a = 1", ""), None);
    }
}
