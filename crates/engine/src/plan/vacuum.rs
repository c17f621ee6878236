//! What a plan says of the vacuums that its run is to make: whether they help, and whether this role may.

use pgmend_core::finding::Finding;
use pgmend_core::plan::{ChangeKind, Plan};
use pgmend_pg::readtx::ReadTx;

use crate::error::Error;

/// A finding, where vacuums are asked for and none would be made.
pub async fn finding(tx: &ReadTx<'_>, plan: &Plan) -> Result<Option<Finding>, Error> {
    let Some(every) = plan.limits.vacuum_every else { return Ok(None) };
    let why = match plan.kind {
        ChangeKind::Insert => Some("new rows leave no dead ones behind"),
        ChangeKind::Update | ChangeKind::Delete | ChangeKind::Undo if plan.one_transaction => {
            Some("all rows change in one transaction, and nothing can be vacuumed before it ends")
        }
        ChangeKind::Update | ChangeKind::Delete | ChangeKind::Undo => None,
    };
    if let Some(why) = why {
        return Ok(Some(Finding::note(
            "no_vacuum",
            format!("vacuum_every = \"{every}\" does nothing here: {why}"),
            "",
        )));
    }
    let role = &plan.settings.role;
    let tables = tx.vacuumable(plan.target_oid, role).await?;
    let forbidden = tables.into_iter().find(|table| !table.may);
    Ok(forbidden.map(|table| {
        let message = format!("role {role} may not vacuum {}: the run goes on without its vacuums", table.name);
        let help = "run as a member of the table's owner, or from PostgreSQL 17 on: grant maintain on … to …";
        Finding::warning("no_vacuum", message, help)
    }))
}
