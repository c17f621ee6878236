//! Refusals: what pgmend will not do, each with a stable code, the object, what would go wrong and
//! the way out. `docs/errors/CODE.md` holds the page that `pgmend explain CODE` prints.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $title:literal;)+) => {
        /// A stable refusal code. Codes are never reused or renumbered.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $name,)+
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$name),+];

            /// `PM…`, as printed.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)+ }
            }

            /// One line that names the refusal.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)+ }
            }
        }
    };
}

codes! {
    // PM1xx: the input.
    /// The text holds no statement.
    Empty = "PM101", "there is no statement";
    /// The text holds several statements.
    SeveralStatements = "PM102", "more than one statement";
    /// Not UPDATE, DELETE or INSERT.
    NotAChange = "PM103", "not an UPDATE, DELETE or INSERT";
    /// PostgreSQL's parser rejects it.
    Syntax = "PM104", "the statement does not parse";
    /// `$1` in the text.
    BareParameter = "PM105", "a `$n` parameter without a name";
    /// `:name` that no parameter declares, or a declared one never used.
    Parameter = "PM106", "a parameter is missing, unused or out of range";
    /// `WHERE CURRENT OF`.
    CurrentOf = "PM107", "WHERE CURRENT OF needs a cursor";
    /// The deparsed tree does not parse back to itself.
    RoundTrip = "PM108", "the rewritten statement does not read back as itself";
    /// A job file or a flag is wrong.
    BadJob = "PM109", "the job is not valid";
    /// The server rejects the statement.
    ServerRejects = "PM110", "the database rejects the statement";
    // PM2xx: what the statement means.
    /// A CTE that writes.
    WritingCte = "PM201", "a WITH query changes data";
    /// Volatile function where it selects rows.
    VolatilePredicate = "PM202", "a volatile function decides which rows change";
    /// User-defined volatile function.
    SideEffects = "PM203", "a function may have side effects";
    /// Several source rows with different values for one target row.
    AmbiguousSource = "PM204", "several source rows match one target row with different values";
    /// ON CONFLICT DO UPDATE with duplicates in the source.
    DuplicateSource = "PM205", "the source proposes the same row twice";
    /// Needs one transaction but is too large for it.
    NotSplittable = "PM206", "the change cannot be split into batches and is too large for one";
    /// Statement-level trigger with transition tables on a change that needs batches.
    StatementTrigger = "PM207", "a statement-level trigger would fire once per batch";
    /// New keys collide with keys of rows still to be changed.
    KeyMoves = "PM208", "the statement moves rows onto keys that other rows hold";
    /// A form that cannot be frozen.
    CannotFreeze = "PM209", "the change set of this statement cannot be computed";
    // PM3xx: key and relation.
    /// No usable key.
    NoKey = "PM301", "the table has no usable key";
    /// No such relation.
    NoSuchTable = "PM302", "no such table";
    /// View, materialized view, foreign table …
    NotATable = "PM303", "the target is not a table";
    /// Inheritance children.
    Inheritance = "PM304", "the target has inheritance children";
    /// Collation version drift.
    CollationDrift = "PM305", "the key's collation was built with another version";
    /// Rewrite rules.
    Rules = "PM306", "the target has rewrite rules";
    /// System catalog, temporary table, pgmend's own table.
    SystemTarget = "PM307", "the target is not a user's permanent table";
    /// Row-level security hides rows.
    RowSecurity = "PM308", "row-level security may hide rows from this role";
    /// The role may not do what the statement needs.
    Privilege = "PM310", "the role lacks a privilege";
    // PM4xx: undo.
    /// Images are gone or were never kept.
    Irreversible = "PM401", "there are no images to restore from";
    /// Undone already.
    AlreadyUndone = "PM402", "the run is already undone";
    /// The table changed too much to restore.
    TableChanged = "PM403", "the table changed since the run in a way that undo cannot follow";
    /// The run has not ended.
    NotFinished = "PM404", "the run has not ended";
    // PM5xx: plans, runs and environment.
    /// No such plan, run or job.
    NotFound = "PM501", "no such plan, run or job";
    /// A plan that no longer describes the database.
    StalePlan = "PM502", "the plan is stale";
    /// A plan that a run has consumed.
    ConsumedPlan = "PM503", "the plan has been used";
    /// Finished already.
    AlreadyDone = "PM504", "this change has already been made";
    /// Another worker holds the lease.
    LeaseHeld = "PM505", "another process drives this run";
    /// The control schema is missing or of another version.
    ControlSchema = "PM506", "the control schema is missing or of another version";
    /// A standby, or another server than planned.
    WrongServer = "PM507", "this is not the server that was planned for";
    /// `session_replication_role` is not origin.
    ReplicationRole = "PM508", "session_replication_role switches triggers and foreign keys off";
    /// The number of rows is not the expected one.
    Expectation = "PM509", "the number of rows is not the expected one";
    /// Cannot connect.
    Connection = "PM510", "cannot connect to the database";
    /// The run is in a state that does not allow it.
    WrongState = "PM511", "the run's state does not allow this";
    /// The change set would be too large, or took too long to compute.
    FreezeBounds = "PM512", "the change set exceeds its bounds";
    /// Another run writes the same columns.
    SameColumns = "PM513", "another run writes the same columns";
    /// A worker of the run has stopped it; raised for a batch of the others.
    StoppedElsewhere = "PM533", "another worker has stopped the run";
    /// The run cannot end: one of its partitions is open.
    PartitionOpen = "PM534", "a partition of the run is open";
    // PM6xx: guardrails.
    /// Fewer approvals than the policy demands, or a veto.
    ApprovalMissing = "PM601", "an approval is missing";
    /// Whoever plans, does not approve; whoever starts, does not review.
    SameRole = "PM602", "another role must do this";
    /// Leave to break the glass that cannot be given or used.
    BreakGlass = "PM603", "the glass cannot be broken like this";
    /// The environment's policy is not met.
    Guardrail = "PM604", "the environment's policy is not met";
    /// Outside the allowed hours.
    OutsideHours = "PM605", "outside the allowed hours";
    /// The connection is not what the environment says.
    WrongEnvironment = "PM606", "this is not the environment that was named";
    /// A protected environment was not named.
    EnvironmentNotNamed = "PM607", "a protected environment must be named";
    /// A chain of the ledger is broken.
    LedgerBroken = "PM608", "the ledger has been tampered with";
    // PM70x: the throttle.
    /// A job switches off a signal that its environment demands.
    Throttle = "PM701", "the job is laxer than the throttle of its environment";
    // PM71x: pace, hours and control.
    /// A pace, or a change of one, out of its bounds.
    PaceBounds = "PM711", "the pace is out of bounds";
    /// The server no longer lets this login in; the run is where its last batch left it.
    AccessLost = "PM712", "the server no longer admits this login";
    /// The wait for an approval was ended by the person who began it.
    WaitEnded = "PM713", "the wait was ended";
    // PM72x: rows that cannot be changed.
    /// More rows cannot be changed than may be set aside.
    TooManyDeadLetters = "PM721", "more rows cannot be changed than may be set aside";
    /// The first rows all fail.
    FirstRowsFail = "PM722", "none of the first rows can be changed";
    /// Dead letters that cannot be retried now.
    CannotRetry = "PM723", "the dead letters cannot be retried";
    /// The new values of some row raise an error (class 22).
    NotComputable = "PM724", "the new values of some rows cannot be computed";
    // PM73x: the paper trail and its roles.
    /// A role that was named does not exist.
    RoleMissing = "PM731", "a role that was named does not exist";
    /// The job is not what its unfinished run was planned from.
    ChangedJob = "PM732", "the job has changed since its unfinished run was planned";
    // PM74x: encrypted images.
    /// The server lacks pgcrypto, or this role may not use it.
    NoPgcrypto = "PM741", "images cannot be encrypted: pgcrypto cannot be used";
    /// The images are encrypted, and no identity was given.
    IdentityMissing = "PM742", "the images are encrypted, and no identity was given";
    /// An identity that opens none of the keys, or is none.
    WrongIdentity = "PM743", "the identity does not open the images";
    /// Not a recipient, or another one than the environment demands.
    Recipient = "PM744", "the recipient of the images is not valid here";
    /// What would need values that only an identity can read.
    EncryptedRows = "PM745", "the change set is encrypted";
    /// Rows that do not read back: another key, an altered row, a type that changed since.
    UnreadableImages = "PM746", "the encrypted images cannot be read back";
    // PM75x: tenants.
    /// No column of the target, one that the statement writes, or values that are not of its type.
    TenantColumn = "PM751", "the column cannot tell tenants apart";
    /// More tenants than one run drives.
    TooManyTenants = "PM752", "there are too many tenants for one run";
    /// The change does not go tenant by tenant.
    TenantsTogether = "PM753", "the change cannot go tenant by tenant";
    /// A person has paused this tenant; raised by the control schema.
    TenantPaused = "PM754", "a person has paused this tenant";
    /// No such tenant, or a run without tenants.
    NoSuchTenant = "PM755", "the run has no such tenant";
    /// Tenants have failed, and the run has stopped.
    TenantsFailed = "PM756", "tenants have failed";
    // PM76x: what the server lacks, the result, and what a live run may still be told.
    /// The server ran out of disk, memory or connections while a run went.
    OutOfRoom = "PM761", "the server has run out of room";
    /// The result is not what the job's `[expect]` says.
    Unexpected = "PM765", "the result is not what the job expects";
    /// A run that needed approvals is to set more rows aside than its plan said.
    UnapprovedDeadLetters = "PM766", "more dead letters than were approved";
    // PM78x: what the surroundings of a statement do to it.
    /// More columns than an image can hold.
    TooManyColumns = "PM780", "the statement changes too many columns";
    /// A schema that comes before pg_catalog redefines operators or functions.
    ShadowedCatalog = "PM781", "the search path redefines what the server defines";
    // PM79x: what only a batch can find.
    /// A trigger that could not be followed wrote more rows than the batch, or what the statement reads.
    UnseenWrites = "PM790", "a trigger wrote rows that the plan could not foresee";
}

impl Code {
    /// The code of that name, whatever its case.
    pub fn find(text: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|c| c.as_str().eq_ignore_ascii_case(text))
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: nothing was written, and the way out is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What is refused, on which object, and what would go wrong. Lower case, no full stop.
    pub message: String,
    /// What to do or to type instead.
    pub help: String,
    /// Byte offset into the user's statement, where known.
    pub position: Option<usize>,
}

impl Refusal {
    /// A refusal without a position.
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into(), position: None }
    }

    /// The same refusal, pointing into the statement.
    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_unique_and_can_be_found_by_name() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::find(&code.as_str().to_lowercase()), Some(*code));
            assert!(Code::ALL[i + 1..].iter().all(|other| other.as_str() != code.as_str()));
        }
    }
}
