//! What a batch wrote, counted on the server: where triggers could not be followed, more rows than the batch's own may
//! have been written. The session's counters tell, within the transaction, before it commits.

use pgmend_core::plan::Counted;

use crate::batch::Lease;
use crate::session::Statement;

/// The tables whose written rows are counted in each batch, and how the target's are to come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `update`, `delete` or `insert`.
    kind: &'static str,
    target: u32,
    /// What the statement reads.
    others: String,
}

impl Written {
    /// By a change of that kind.
    pub fn by(kind: pgmend_core::plan::ChangeKind, target: u32, counted: &Counted) -> Self {
        let others = counted.reads.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        Self { kind: kind.name(), target, others: format!("{{{others}}}") }
    }

    /// The counts so far, as one text.
    /// Lock:  none (the session's own counters). Index: `pg_inherits_parent_index`.
    pub(crate) fn count(&self) -> Statement {
        let params = vec![self.target.to_string(), self.others.clone()];
        Statement::new("count what is written", "select pgmend.written_rows($1::oid, $2::oid[])::text", params)
    }

    /// Raises an error on the server where more was written since `before` than the batch changed.
    /// Lock:  none (the session's own counters). Index: `pg_inherits_parent_index`, `batch_pkey`.
    pub(crate) fn refuse_more(&self, lease: &Lease, batch_no: i64, before: &str, changed_rows: i64) -> Statement {
        let sql = "select pgmend.refuse_unseen_writes($1::uuid, $2::int, $3::bigint, $4, $5::oid, $6::oid[], \
                   $7::bigint[], $8::bigint)";
        let params = vec![
            lease.run.to_string(),
            lease.partition_no.to_string(),
            batch_no.to_string(),
            self.kind.to_owned(),
            self.target.to_string(),
            self.others.clone(),
            before.to_owned(),
            changed_rows.to_string(),
        ];
        Statement::new("compare what is written with what was to change", sql, params)
    }
}
