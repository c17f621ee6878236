//! Whether several workers may drive a run side by side, or why one must.

use pgmend_core::finding::Finding;
use pgmend_core::job::{Job, Mode};
use pgmend_core::plan::PlanImages;
use pgmend_core::table::{Table, UniqueIndex};
use pgmend_sql::Kind;

use super::bind::Bound;

/// Why one worker must drive the run; `None` where several may.
pub fn reason(job: &Job, bound: &Bound, images: &PlanImages) -> Option<String> {
    let kind = bound.statement.kind();
    let freeze = bound.class.mode == Mode::Freeze;
    if bound.class.one_transaction.is_some() {
        return Some("all rows change in one transaction".into());
    }
    if job.file.canary.is_some() {
        return Some("the canary batch comes before all others".into());
    }
    if job.file.expect_rows.is_some() || job.file.expect.rows.is_some() {
        return Some("the number of rows is watched batch by batch".into());
    }
    if kind == Kind::Insert {
        return Some("new rows are made in order, as sequences number them".into());
    }
    if kind == Kind::Delete && freeze {
        return Some("frozen deletes go in the order of the change set".into());
    }
    if freeze && images.layout.is_some() {
        return Some("a trigger decides what a frozen row becomes".into());
    }
    if kind == Kind::Delete {
        return None;
    }
    unique_index_written(&bound.table, &bound.statement.assigned())
        .map(|u| format!("it writes columns of unique index {}, where a row may have to wait for another", u.name))
}

/// A unique index that a change of these columns may have to move a row out of another's way in.
pub fn unique_index_written<'t>(table: &'t Table, assigned: &[String]) -> Option<&'t UniqueIndex> {
    let written: Vec<i16> = assigned.iter().filter_map(|n| table.column(n)).map(|c| c.attnum).collect();
    table.unique_indexes.iter().find(|u| u.attnums.iter().any(|n| *n == 0 || written.contains(n)))
}

/// A note, where more workers are asked for than there can be.
pub fn finding(job: &Job, reason: Option<&String>) -> Option<Finding> {
    let asked = job.file.limits.workers.filter(|workers| *workers > 1)?;
    reason.map(|why| Finding::note("one_worker", format!("one worker instead of {asked}: {why}"), ""))
}
