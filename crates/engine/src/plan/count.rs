//! Counts of a plan: exact within the time budget, then estimated and labelled so.

use pgmend_core::finding::Finding;
use pgmend_core::job::Mode;
use pgmend_core::mask::Mask;
use pgmend_core::plan::{Counts, Figure, Group};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_pg::Answer;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{Join, Kind, Matched, Range, Rewriter};

use super::bind::Bound;
use super::privileges::DENIED;
use super::sample::{shown_key, value_kind};
use crate::error::Error;

/// `statement_timeout` ran out.
const QUERY_CANCELED: &str = "57014";
/// A value that is taken from a sequence cannot be had in a transaction that only reads.
const READ_ONLY: &str = "25006";

/// Class 22 (data exception): what a row holds cannot be computed with.
const DATA_EXCEPTION: &str = "22";

/// Counts an update or delete, some of whose rows may fail where they may be set aside: then those that match are
/// counted, and a finding tells the error.
pub async fn count_with_failing(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    budget_ms: u64,
    set_aside: bool,
) -> Result<(Counts, Option<Finding>), Error> {
    let error = match count(tx, bound, rewriter, budget_ms).await {
        Err(Error::Database { message, sqlstate, .. }) if sqlstate.starts_with(DATA_EXCEPTION) => {
            format!("{message} ({sqlstate})")
        }
        counted => return Ok((counted?, None)),
    };
    if !set_aside || bound.class.mode == Mode::Freeze || bound.class.one_transaction.is_some() {
        let help = if set_aside {
            "mend these rows, or leave them out: this statement is computed as a whole"
        } else {
            "mend these rows, leave them out, or let them be set aside: --dead-letters N"
        };
        return Err(Refusal::new(Code::NotComputable, error, help).into());
    }
    let matched = within_budget(tx, "count the matching rows", &rewriter.count_matched()?, budget_ms).await?;
    let matched = match matched {
        Some(answer) => Figure::exact(answer.number()?),
        None => Figure::estimated(estimated_rows(tx, bound, rewriter).await?),
    };
    let counts = Counts {
        scanned_rows: Figure::estimated(bound.table.estimated_rows.unwrap_or(0.0) as i64),
        matched_rows: matched,
        changed_rows: Figure::estimated(matched.value),
        already_right_rows: Figure::estimated(0),
        conflict_rows: Figure::exact(0),
    };
    let message = format!("the new values of some rows cannot be computed: {error}");
    let help = "they will be set aside as dead letters, as far as the job allows";
    Ok((counts, Some(Finding::warning("not_computable", message, help))))
}

/// Rows that are already right are written like the others where row triggers fire for them, as the plain statement does: who
/// writes `set id = id` wants just that.
pub fn written_again(bound: &Bound, counts: Counts) -> (Counts, Option<Finding>) {
    let right = counts.already_right_rows;
    if bound.statement.kind() != Kind::Update || !bound.row_triggers() || right.value == 0 {
        return (counts, None);
    }
    let rows = if right.value == 1 { "1 row that is".to_owned() } else { format!("{} rows that are", right.value) };
    let message = format!("{rows} already right will be written too, since triggers fire for them");
    let counts =
        Counts { changed_rows: counts.matched_rows, already_right_rows: Figure { value: 0, ..right }, ..counts };
    (counts, Some(Finding::note("already_right_rows", message, "")))
}

/// Counts an update or delete.
async fn count(tx: &ReadTx<'_>, bound: &Bound, rewriter: &Rewriter<'_>, budget_ms: u64) -> Result<Counts, Error> {
    let counted = within_budget(tx, "count the matching rows", &rewriter.count(Range::default())?, budget_ms).await?;
    let scanned = within_budget(tx, "count the rows", &pgmend_sql::row_count(&bound.table), budget_ms).await?;
    let scanned_rows = match &scanned {
        Some(answer) => Figure::exact(answer.number()?),
        None => Figure::estimated(bound.table.estimated_rows.unwrap_or(0.0) as i64),
    };
    let Some(counted) = counted else {
        let rows = estimated_rows(tx, bound, rewriter).await?;
        return Ok(Counts {
            scanned_rows,
            matched_rows: Figure::estimated(rows),
            changed_rows: Figure::estimated(rows),
            already_right_rows: Figure::estimated(0),
            conflict_rows: Figure::exact(0),
        });
    };
    let matched = counted.number()?;
    let changed = counted.rows.first().and_then(|r| r.get(1).cloned().flatten()).and_then(|n| n.parse().ok());
    let changed = match bound.statement.kind() {
        Kind::Update => changed.unwrap_or(matched),
        Kind::Delete | Kind::Insert => matched,
    };
    Ok(Counts {
        scanned_rows,
        matched_rows: Figure::exact(matched),
        changed_rows: Figure::exact(changed),
        already_right_rows: Figure::exact(matched - changed),
        conflict_rows: Figure::exact(0),
    })
}

/// Counts the rows that an insert proposes.
pub async fn count_proposed(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    budget_ms: u64,
) -> Result<Counts, Error> {
    let proposed = match bound.statement.written_rows() {
        Some(rows) => Figure::exact(rows as i64),
        None => {
            let sql = format!("select count(*) from ({}) as s", bound.statement.source_sql()?);
            match within_budget(tx, "count the proposed rows", &sql, budget_ms).await? {
                Some(answer) => Figure::exact(answer.number()?),
                None => Figure::estimated(estimated_rows(tx, bound, rewriter).await?),
            }
        }
    };
    let scanned = Figure::estimated(bound.table.estimated_rows.unwrap_or(0.0) as i64);
    Ok(Counts {
        scanned_rows: scanned,
        matched_rows: proposed,
        changed_rows: proposed,
        already_right_rows: Figure::exact(0),
        conflict_rows: Figure::exact(0),
    })
}

/// Refuses an `UPDATE … FROM` whose matches disagree, with examples. Gives whether any row has several
/// matches that agree.
pub async fn refuse_ambiguity(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    mask: &Mask,
) -> Result<bool, Error> {
    if bound.statement.kind() != Kind::Update || !bound.statement.joins_target() {
        return Ok(false);
    }
    let answer = tx.query_job("look for ambiguous matches", &rewriter.ambiguity(Range::default())?, vec![]).await?;
    let number =
        |i: usize| answer.rows.first().and_then(|r| r.get(i).cloned().flatten()).and_then(|n| n.parse::<i64>().ok());
    let (several, disagreeing) = (number(1).unwrap_or(0), number(2).unwrap_or(0));
    if disagreeing == 0 {
        return Ok(several > 0);
    }
    let example = ambiguous_keys(tx, bound, rewriter, mask).await?;
    let message = format!(
        "{} of `{}` {} several source rows with different values, for example {example}: PostgreSQL would pick one of them arbitrarily",
        if disagreeing == 1 { "1 row".to_owned() } else { format!("{disagreeing} rows") },
        bound.table.name,
        if disagreeing == 1 { "matches" } else { "match" }
    );
    let help = "make the source unique for each target row, for example with select distinct on (…) … order by …, or an aggregate";
    Err(Refusal::new(Code::AmbiguousSource, message, help).into())
}

async fn ambiguous_keys(tx: &ReadTx<'_>, bound: &Bound, rewriter: &Rewriter<'_>, mask: &Mask) -> Result<String, Error> {
    let key = bound.key()?;
    let spec = Matched { assigned: true, join: Join::All, ..Matched::default() };
    let keys: Vec<String> = (1..=key.columns.len()).map(|i| format!("m.pgmend_k{i}")).collect();
    let after: Vec<String> = (1..=rewriter.assigned_values()).map(|i| format!("m.pgmend_a{i}")).collect();
    let texts: Vec<String> = keys.iter().map(|k| format!("{k}::text")).collect();
    let sql = format!(
        "select {} from ({}) as m group by {} having count(distinct row({})::text) > 1 order by {} limit 3",
        texts.join(", "),
        rewriter.matched(&spec)?,
        keys.join(", "),
        after.join(", "),
        keys.join(", "),
    );
    let answer = tx.query_job("find ambiguous keys", &sql, vec![]).await?;
    let names: Vec<&str> = bound.table.key_columns(key).map(|c| c.name.as_str()).collect();
    let keys = answer.rows.iter().map(|row| shown_key(bound, mask, row)).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("({}) = {}", names.join(", "), keys.join("; ")))
}

/// Counts by the values of a column of the target, the largest groups first.
pub async fn groups(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    by: &str,
    mask: &Mask,
) -> Result<Vec<Group>, Error> {
    let Some(column) = bound.table.column(by) else {
        let names: Vec<&str> = bound.table.columns.iter().map(|c| c.name.as_str()).collect();
        let message = format!("`{}` has no column `{by}`", bound.table.name);
        return Err(Refusal::new(Code::BadJob, message, format!("--by takes one of: {}", names.join(", "))).into());
    };
    let before: Vec<String> = std::iter::once(by.to_owned()).chain(rewriter.after_columns()).collect();
    let after = bound.statement.kind() == Kind::Update && rewriter.computable_after();
    let spec =
        Matched { before: &before, after, join: if after { Join::All } else { Join::Exists }, ..Matched::default() };
    let changed = if after {
        let side = |kind: char, from: usize| {
            (0..rewriter.after_columns().len())
                .map(|i| format!("m.pgmend_{kind}{}", i + from))
                .collect::<Vec<_>>()
                .join(", ")
        };
        format!("count(*) filter (where row({})::text is distinct from row({})::text)", side('b', 2), side('a', 1))
    } else {
        "count(*)".to_owned()
    };
    let sql = format!(
        "select m.pgmend_b1::text, {changed}::text, count(*)::text from ({}) as m group by 1 order by count(*) desc, 1 limit 50",
        rewriter.matched(&spec)?
    );
    let answer = tx.query_job("count by group", &sql, vec![]).await?;
    let kind = value_kind(column, false);
    let number = |cell: &Option<String>| cell.as_deref().and_then(|n| n.parse().ok()).unwrap_or(0_i64);
    let mut groups: Vec<Group> = Vec::new();
    for row in answer.rows.iter().filter(|r| r.len() == 3) {
        let value = mask.show(by, kind, row[0].as_deref());
        let (changed_rows, matched_rows) = (number(&row[1]), number(&row[2]));
        // Values whose tokens are the same are counted together.
        match groups.iter_mut().find(|g| g.value == value) {
            Some(known) => {
                known.changed_rows += changed_rows;
                known.matched_rows += matched_rows;
            }
            None => groups.push(Group { value, changed_rows, matched_rows }),
        }
    }
    Ok(groups)
}

/// Runs a query under the budget; `None` when it ran out, or when the query would take from a sequence. A budget of zero asks for estimates only.
pub(super) async fn within_budget(
    tx: &ReadTx<'_>,
    doing: &'static str,
    sql: &str,
    budget_ms: u64,
) -> Result<Option<Answer>, Error> {
    if budget_ms == 0 {
        return Ok(None);
    }
    tx.limit_to(budget_ms).await?;
    let answer = tx.attempt(doing, sql, vec![]).await;
    tx.limit_to(0).await?;
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if [QUERY_CANCELED, READ_ONLY].contains(&error.sqlstate.as_str()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the server's planner expects the statement to touch.
async fn estimated_rows(tx: &ReadTx<'_>, bound: &Bound, rewriter: &Rewriter<'_>) -> Result<i64, Error> {
    let sql = format!("explain (format json) {}", rewriter.plain()?);
    let answer = match tx.attempt("estimate the rows", &sql, vec![]).await {
        // A role that may only read cannot have it explained: no more than all of them.
        Err(error) if error.sqlstate == DENIED => return Ok(bound.table.estimated_rows.unwrap_or(0.0) as i64),
        answer => answer?,
    };
    let text: String = answer.rows.iter().filter_map(|r| r.first().cloned().flatten()).collect();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(json.pointer("/0/Plan/Plans/0/Plan Rows").and_then(serde_json::Value::as_i64).unwrap_or(0))
}
