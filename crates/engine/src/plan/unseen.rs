//! Triggers that cannot be followed: those in a language that shows no tables (C), and those that put statements together
//! whose tables come from data. They may write rows of the target, or of what the statement reads, that no analysis
//! foresees; each batch of such a plan counts what was written, and does not commit more than its own rows.

use pgmend_core::finding::Finding;
use pgmend_core::job::Mode;
use pgmend_core::plan::Counted;
use pgmend_core::table::Trigger;
use pgmend_sql::Kind;

use super::around;
use super::bind::Bound;

/// What each batch counts; `None` where every trigger could be followed, or all rows change in one transaction, which is
/// the plain statement whatever its triggers do.
pub fn counted(bound: &Bound) -> Option<Counted> {
    if bound.class.one_transaction.is_some() {
        return None;
    }
    let mut triggers: Vec<String> = bound
        .table
        .triggers
        .iter()
        .filter(|trigger| trigger.enabled && trigger.unfollowed && fires(bound, trigger))
        .map(|trigger| trigger.name.clone())
        .collect();
    if bound.table.cascade_unfollowed {
        triggers.extend(around::cascades(bound).into_iter().map(|fk| fk.name.clone()));
    }
    // The change set of a frozen plan was read before anything was written.
    let reads = match bound.class.mode {
        Mode::Stream => bound.read_tables.clone(),
        Mode::Freeze => Vec::new(),
    };
    (!triggers.is_empty()).then_some(Counted { triggers, reads })
}

/// What the plan says of it.
pub fn finding(counted: Option<&Counted>) -> Option<Finding> {
    let names = counted?.triggers.join(", ");
    let message = format!(
        "what {names} leads to cannot be followed: each batch counts the rows written, and none commits that wrote others than its own"
    );
    Some(Finding::note(
        "unfollowed_trigger",
        message,
        "plan --rehearse 3 shows what it writes; see pgmend explain PM790",
    ))
}

fn fires(bound: &Bound, trigger: &Trigger) -> bool {
    match bound.statement.kind() {
        Kind::Update => trigger.on_update,
        Kind::Delete => trigger.on_delete,
        Kind::Insert => {
            trigger.on_insert || (trigger.on_update && bound.statement.on_conflict().is_some_and(|c| c.update))
        }
    }
}
