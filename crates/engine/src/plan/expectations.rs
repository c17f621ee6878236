//! What the job expects, as far as it can be told before anything is written.

use pgmend_core::digits::thousands;
use pgmend_core::finding::{Finding, Severity};
use pgmend_core::plan::{Certainty, Plan};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::Key;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{Kind, Options, Range, Rewriter, Target};

use super::bind::Bound;
use crate::error::Error;
use crate::run::expectations::value;

/// The finding of a plan that counts another number of rows than must change.
pub const ANOTHER_NUMBER: &str = "expected_number";

/// Blocks a plan outside of what its job expects, and refuses queries that give no answer.
pub async fn check(tx: &ReadTx<'_>, bound: &Bound, plan: &mut Plan) -> Result<(), Error> {
    let expect = plan.expect.clone();
    plan.findings.extend(another_number(plan));
    if let Some(why) = expect.rows.and_then(|band| band.refuses(plan.counts.changed_rows.value)) {
        plan.findings.push(blocker(
            "expected_rows",
            format!("would change {why}"),
            "correct the statement or expect.rows",
        ));
    }
    if let Some(scope) = &expect.scope {
        let outside = outside(tx, bound, scope).await?;
        if outside > 0 {
            let message = format!("{outside} rows that match are outside of the scope `{scope}`");
            plan.findings.push(blocker("scope", message, "narrow the statement, or widen expect.scope"));
        }
    }
    for query in expect.unchanged.iter().chain(expect.after.iter().map(|a| &a.query)) {
        value(tx, query).await.map_err(|error| {
            let message = format!("the expectation `{query}` gives no answer: {}", error.message);
            Refusal::new(Code::BadJob, message, "write one SELECT of one value")
        })?;
    }
    Ok(())
}

async fn outside(tx: &ReadTx<'_>, bound: &Bound, scope: &str) -> Result<i64, Error> {
    if bound.statement.kind() == Kind::Insert {
        let help = "put the condition into the statement's SELECT";
        return Err(
            Refusal::new(Code::BadJob, "expect.scope is about rows that exist, and this is an insert", help).into()
        );
    }
    let narrowed = bound.statement.with_condition(&format!("not coalesce(({scope}), false)"))?;
    let empty = Key { index: String::new(), primary: false, columns: Vec::new() };
    let target = Target { table: &bound.table, key: bound.key.as_ref().unwrap_or(&empty) };
    let rewriter = Rewriter::new(&narrowed, target, Options::default())?;
    Ok(tx.query_job("count rows outside of the scope", &rewriter.count(Range::default())?, vec![]).await?.number()?)
}

/// Blocks a plan that counts another number of rows than must change. One that could only estimate them may be counted
/// once more by its change set; the gate refuses it otherwise.
pub fn another_number(plan: &Plan) -> Option<Finding> {
    let expected = plan.expect_rows?;
    let found = plan.counts.changed_rows;
    (found.certainty == Certainty::Exact && found.value != expected).then(|| {
        let message = format!("would change {} rows, expected are {}", thousands(found.value), thousands(expected));
        blocker(ANOTHER_NUMBER, message, "correct the statement, or the number (--expect, expect_rows)")
    })
}

fn blocker(check: &str, message: String, help: &str) -> Finding {
    Finding { severity: Severity::Blocker, ..Finding::warning(check, message, help) }
}
