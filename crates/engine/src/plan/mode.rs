//! Stream or freeze, once the rows are counted; what [`super::class`] proved from the tree and the catalog comes first.

use pgmend_core::job::{Job, Mode};
use pgmend_core::limits::BATCH_ROWS_CEILING;
use pgmend_core::plan::Counts;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::Key;
use pgmend_sql::Kind;

use super::bind::Bound;
use crate::error::Error;

/// A change of fewer rows than this share of a large table is frozen: walking the key would read far more
/// than it changes.
const SPARSE_SHARE: f64 = 0.05;
/// A table below this many rows is walked in no time.
const SPARSE_TABLE_ROWS: i64 = 100_000;

/// A change that cannot be split must fit into one batch.
pub(super) fn refuse_large_transaction(bound: &Bound, rows: i64, most: u32) -> Result<(), Error> {
    let Some((code, reason)) = &bound.class.one_transaction else { return Ok(()) };
    if rows <= i64::from(most) {
        return Ok(());
    }
    let message = format!("{reason}; all {rows} rows would have to change in one transaction, which may hold {most}");
    let help = if most < BATCH_ROWS_CEILING {
        "split the statement by a condition under which the rule holds, or raise rows_per_transaction_max"
    } else {
        "split the statement by a condition under which the rule holds, or drop the constraint or trigger for the time of the run"
    };
    Err(Refusal::new(*code, message, help).into())
}

/// Settles whether a statement streams or is frozen, once it is counted: what cannot be computed apart, or matches several
/// times, or is sparse, decides against what the tree alone said.
pub(super) fn choose(
    bound: &mut Bound,
    counts: &Counts,
    job: &Job,
    several_matches: bool,
    empty: &Key,
) -> Result<(), Error> {
    refuse_large_transaction(bound, counts.matched_rows.value, job.file.limits.rows_per_transaction_max)?;
    let computable = bound.rewriter(empty)?.computable_after() || bound.statement.kind() != Kind::Update;
    if several_matches {
        bound.class.mode = Mode::Freeze;
        bound.class.reason = "rows have several matches that agree: one of each is computed once".into();
    }
    if bound.class.mode == Mode::Freeze && !computable {
        run_as_it_is(bound, counts, job)?;
    }
    let (scanned, matched) = (counts.scanned_rows.value, counts.matched_rows.value);
    let sparse = scanned > SPARSE_TABLE_ROWS && (matched as f64) < SPARSE_SHARE * scanned as f64;
    // A frozen delete has one order, which no tenant keeps.
    let sparse = sparse && !(bound.tenant.is_some() && bound.statement.kind() == Kind::Delete);
    if job.file.mode.is_none() && bound.class.mode == Mode::Stream && sparse && computable {
        bound.class.mode = Mode::Freeze;
        bound.class.reason = format!("only {matched} of {scanned} rows match: one scan finds them all");
    }
    Ok(())
}

/// New values of elements and fields cannot be computed apart from the update. What would have to be frozen
/// because of more than that runs as it is, in one batch: the plain statement.
fn run_as_it_is(bound: &mut Bound, counts: &Counts, job: &Job) -> Result<(), Error> {
    let reason = format!(
        "{}, and it assigns to elements or fields, whose new values cannot be computed apart from the update",
        bound.class.reason
    );
    if job.file.mode == Some(Mode::Freeze) || bound.class.key_written {
        let help = "assign the whole column, for example with array functions, jsonb_set or row(…)";
        return Err(Refusal::new(Code::CannotFreeze, reason, help).into());
    }
    bound.class.mode = Mode::Stream;
    bound.class.reason.clone_from(&reason);
    bound.class.row_local = false;
    bound.class.one_transaction.get_or_insert((Code::CannotFreeze, reason));
    refuse_large_transaction(bound, counts.matched_rows.value, job.file.limits.rows_per_transaction_max)
}
