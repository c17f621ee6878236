//! Plans: the immutable, digested result of a dry run of a job against one database. Long, since all that is stored and
//! digested stands here: a change to it is a change of the plan's format.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::dead_letters::DeadLetters;
use crate::digest::{Digest, DigestKey};
use crate::expect::{Canary, Expect};
use crate::finding::Finding;
use crate::id::{PlanId, RunId};
use crate::job::{BoundParam, Mode, Scalar};
use crate::limits::Limits;
use crate::mask::MASKED;
use crate::nights::{Nights, lasts_s};
use crate::pace::Pace;
use crate::recipient::Recipient;
use crate::table::RelationName;
use crate::tenants::Tenants;
use crate::throttle::Throttle;

/// The format of stored plans. A plan of another format is refused, never guessed at.
pub const FORMAT: u32 = 1;

/// How sure a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Counted.
    Exact,
    /// Extrapolated from measured rows.
    Sampled,
    /// From the planner's statistics.
    Estimated,
}

/// A number and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// The number.
    pub value: i64,
    /// How sure it is.
    pub certainty: Certainty,
}

impl Figure {
    /// A counted number.
    pub fn exact(value: i64) -> Self {
        Self { value, certainty: Certainty::Exact }
    }

    /// A number from statistics.
    pub fn estimated(value: i64) -> Self {
        Self { value, certainty: Certainty::Estimated }
    }

    /// A number extrapolated from a sample.
    pub fn sampled(value: i64) -> Self {
        Self { value, certainty: Certainty::Sampled }
    }
}

/// What the statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// `UPDATE`.
    Update,
    /// `DELETE`.
    Delete,
    /// `INSERT`.
    Insert,
    /// Restores images of a run.
    Undo,
}

impl ChangeKind {
    /// The word as printed.
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Update => "update",
            ChangeKind::Delete => "delete",
            ChangeKind::Insert => "insert",
            ChangeKind::Undo => "undo",
        }
    }
}

/// Rows that the plan counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows of the target.
    pub scanned_rows: Figure,
    /// Rows that the statement selects.
    pub matched_rows: Figure,
    /// Rows whose values will be different.
    pub changed_rows: Figure,
    /// Rows selected whose values are already as the statement would write them.
    pub already_right_rows: Figure,
    /// For an undo: rows that cannot be restored.
    pub conflict_rows: Figure,
}

/// One row before and after, only the changed columns, as text that may be shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Key columns and values.
    pub key: Vec<(String, Option<String>)>,
    /// Column, before, after.
    pub columns: Vec<(String, Option<String>, Option<String>)>,
    /// Whether the row is already right.
    pub already_right: bool,
}

/// A row that the job named to be looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// What the job calls it.
    pub name: String,
    /// What becomes of it: `will be`, `does not match: stays as it is` …
    pub said: String,
    /// Whether the values after it are known.
    pub changes: bool,
    /// The row, as it may be shown.
    pub sample: Sample,
}

/// A from → to count for a column with few values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The column.
    pub column: String,
    /// The value before, as it may be shown.
    pub from: Option<String>,
    /// The value after.
    pub to: Option<String>,
    /// Rows.
    pub rows: i64,
}

/// Counts of one group of `plan --by COLUMN`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The group's value, as it may be shown.
    pub value: Option<String>,
    /// Rows that will change.
    pub changed_rows: i64,
    /// Rows matched.
    pub matched_rows: i64,
}

/// What stands around the target, one sentence each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Surroundings {
    /// Triggers that will fire.
    pub triggers: Vec<String>,
    /// Rewrite rules.
    pub rules: Vec<String>,
    /// Foreign keys and what they do.
    pub foreign_keys: Vec<String>,
    /// Row-level security.
    pub row_security: String,
    /// Replica identity and publications.
    pub replication: String,
    /// Partitions touched.
    pub partitions: Vec<String>,
}

/// What the run will cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimates {
    /// Batches.
    pub batches: Figure,
    /// Seconds of work, waits excluded: [`Plan::lasts_s`] is with those that a pace asks for.
    pub duration_s: (f64, f64),
    /// How the duration was found: `measured by rehearsal` or `from the size of the rows`.
    pub duration_basis: String,
    /// WAL.
    pub wal_bytes: Figure,
    /// Disk for images or the change set.
    pub image_bytes: Figure,
    /// Dead versions of rows that the run leaves in the target; `None` in plans of before it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_bytes: Option<Figure>,
    /// Who was at work on the server while this was planned; absent where nobody was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<CompanySeen>,
}

impl Estimates {
    /// Seconds at most if all who were at work while this was planned stay as long as the run: it works for a part of
    /// the time only. `None` where nobody was there.
    pub fn slowest_beside_s(&self) -> Option<f64> {
        self.company.map(|company| self.duration_s.1 / company.pace_max)
    }
}

/// Sessions of others that did something in the second in which they were looked at. A single look: it says that a run
/// may take longer, not by how much it will.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CompanySeen {
    /// How many; absent where they could not be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<i64>,
    /// The part of the time that a run works beside them at most, above 0 and up to 1.
    pub pace_max: f64,
}

/// What each batch counts, since triggers could not be followed that may write more rows than the batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The triggers, and the foreign keys that lead to such.
    pub triggers: Vec<String>,
    /// Tables that the statement reads beside the target, by oid: no batch may write one.
    pub reads: Vec<u32>,
}

/// What a rehearsal saw: small batches run for real and rolled back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Batches tried, each with its place (`first`, `last`, `random`, `densest`).
    pub batches: Vec<RehearsedBatch>,
    /// Rows written per table, the target included, as `table: inserted/updated/deleted`.
    pub touched: Vec<TouchedTable>,
    /// Lock modes taken, `table: mode`.
    pub locks: Vec<String>,
    /// Sequences that moved; they do not roll back.
    pub sequences: Vec<String>,
}

/// One batch of a rehearsal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RehearsedBatch {
    /// Where: `first`, `last`, `random`, `densest`.
    pub place: String,
    /// Rows changed.
    pub rows: i64,
    /// Milliseconds.
    pub took_ms: f64,
    /// WAL in bytes.
    pub wal_bytes: i64,
}

/// What a rehearsal wrote to one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TouchedTable {
    /// The table.
    pub table: String,
    /// Rows inserted.
    pub inserted_rows: i64,
    /// Rows updated.
    pub updated_rows: i64,
    /// Rows deleted.
    pub deleted_rows: i64,
    /// Whether the statement names the table.
    pub named: bool,
}

/// The database that a plan is bound to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseIdentity {
    /// `pg_control_system().system_identifier`.
    pub system_identifier: String,
    /// `current_database()`.
    pub database: String,
    /// `pg_database.oid`.
    pub database_oid: u32,
    /// `server_version`.
    pub server_version: String,
}

/// Session settings that change what a statement means; frozen in the plan, set locally by every batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// `current_user` while planning; set by every batch when it differs from the session's user.
    pub role: String,
    /// `search_path`.
    pub search_path: String,
    /// `TimeZone`.
    pub time_zone: String,
    /// `DateStyle`.
    pub date_style: String,
    /// `IntervalStyle`.
    pub interval_style: String,
    /// Whatever else decides how a value becomes text or text a value, by name: `bytea_output`,
    /// `extra_float_digits`, `xmloption` …
    #[serde(default)]
    pub formats: BTreeMap<String, String>,
}

/// A column as pgmend stores it in an image or change set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageColumn {
    /// `pg_attribute.attnum` of the target's column.
    pub attnum: i16,
    /// The target's column.
    pub column: String,
    /// The image's column.
    pub image_column: String,
    /// Base type, ready for SQL.
    pub type_sql: String,
    /// Base type's oid.
    pub type_oid: u32,
    /// Base type's modifier.
    pub typmod: i32,
    /// Collation, ready for SQL.
    pub collation: Option<String>,
}

/// The layout of a table of images or of a change set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageLayout {
    /// The key before the change.
    pub key: Vec<ImageColumn>,
    /// Values before.
    pub before: Vec<ImageColumn>,
    /// Values after.
    pub after: Vec<ImageColumn>,
}

/// Where the rows of a frozen plan are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeSet {
    /// The table in the control schema.
    pub relation: RelationName,
    /// Its layout.
    pub layout: ImageLayout,
    /// Rows.
    pub rows: i64,
    /// Hash of all its rows in order, keyed with the plan's key: a set of few rows could be guessed.
    pub content_hash: String,
    /// In the order of the table's pages rather than of the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_heap_order: bool,
    /// In stretches of twice so many rows, of which every other comes first and the others after these; `None`: all in one order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_rows: Option<i64>,
    /// Milliseconds that it took to compute, index and hash them.
    #[serde(default)]
    pub took_ms: f64,
}

/// A statement over a key range, once without and once with a lower bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranged {
    /// From the start of the table: upper key.
    pub from_start: String,
    /// After a key: upper key, then lower key.
    pub after: String,
}

/// How rows of a range are changed one by one, when some of them cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// The keys of the next n matching rows in key order, as text.
    pub keys: Ranged,
    /// Saves the image of one row: `$p+3…` is its key.
    pub image: Option<String>,
    /// Changes it.
    pub change: String,
}

/// How rows that a run did not change are found at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residual {
    /// Counts the rows that match: all of them, and those that would change (NULL where that cannot be told).
    pub matching: String,
    /// Counts those of them that have no image: asked only if any match, since a statement such as
    /// `n = n + 1` does not falsify its own predicate.
    pub not_imaged: Option<String>,
}

/// The SQL of a run. `$1..$p` are the job's parameters, `$p+1` is the instant, `$p+2` a number (rows of a
/// bound or window, or the batch number), from `$p+3` the range: upper key, then lower key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum RunSql {
    /// Batches over key ranges.
    Stream {
        /// The last key of the next n matching rows.
        bound: Ranged,
        /// The last key of the next n rows of any kind: bounds how far one bound may scan.
        window: Box<Ranged>,
        /// Saves images; `None` when images are off or the change saves them itself.
        image: Option<Ranged>,
        /// Changes the rows.
        change: Ranged,
        /// What is left at the end; `None` if the statement means something else when it is asked again.
        residual: Option<Residual>,
        /// Counts rows that match beyond the upper bound (which follows `$p+2`).
        arrived_later: Option<String>,
        /// Reads the greatest key.
        greatest_key: String,
        /// The rows of a batch one by one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        apart: Option<Box<Apart>>,
        /// Keys that cut the target into `$2` parts of about as many rows, from a sample of `$1` percent of its pages;
        /// `$3…` is the upper bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quantiles: Option<String>,
        /// The same batch in two halves, where that is worth it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        halves: Option<Box<Halves>>,
    },
    /// Batches over ordinals of the change set: `$p+2` batch number, `$p+3` lower, `$p+4` upper.
    Freeze {
        /// The statements of a batch, in order.
        apply: Vec<Apply>,
        /// Records the rows of the range that are conflicts, before the change: also `$p+5` run.
        conflicts: Option<String>,
        /// What is left at the end, where that can be asked.
        residual: Option<Residual>,
        /// The least and the greatest key of the range, as text in one row. The updates and deletes of `apply`
        /// take them as `$p+6…`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        span: Option<String>,
    },
}

/// A stretch of keys changed in two batches: every other row first, told by the hash of its key, and the others once the
/// old versions of these are gone (docs/design/halves.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Halves {
    /// The batch of the rows that go first.
    pub first: HalfBatch,
    /// The batch of the others.
    pub second: HalfBatch,
    /// The last key of the next n rows of the second half.
    pub second_bound: Ranged,
    /// The keys of the second half's rows, to be tried one by one.
    pub second_keys: Ranged,
}

/// A batch of half of the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HalfBatch {
    /// Saves images, where a whole batch does so apart from its change.
    pub image: Option<Ranged>,
    /// Changes the rows.
    pub change: Ranged,
}

/// One statement of a frozen batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Apply {
    /// The statement.
    pub sql: String,
    /// `U`, `D` or `I`: rows of the change set that it applies.
    pub op: char,
    /// Whether every row of the range must be changed, or else is a conflict.
    pub every_row: bool,
}

/// The key of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanKey {
    /// The index.
    pub index: String,
    /// Column names.
    pub columns: Vec<String>,
    /// Column types, ready for SQL.
    pub types: Vec<String>,
}

/// Images of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanImages {
    /// Whether images are kept.
    pub keep: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Layout of the run's own image table; `None` when the change set serves as the images.
    pub layout: Option<ImageLayout>,
    /// Whether the change saves its images itself (one statement), because triggers or the server
    /// decide the values that are stored.
    pub exact: bool,
    /// Whom values are encrypted to, in the run's own images from the first row and in the change set at the end of
    /// the run; `None` where they are plain. Keys are never encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Recipient>,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Stored format.
    pub format: u32,
    /// Identity.
    pub plan_id: PlanId,
    /// The job's name.
    pub job: String,
    /// Goal, owner and ticket, where given.
    pub about: BTreeMap<String, String>,
    /// Columns declared plain: their values may be shown wherever this plan's rows are.
    #[serde(default)]
    pub plain: Vec<String>,
    /// Constants of the statement: such values may be shown, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub constants: BTreeSet<String>,
    /// What it does.
    pub kind: ChangeKind,
    /// The statement as typed.
    pub statement: String,
    /// The statement as understood.
    pub canonical: String,
    /// Parameters.
    pub params: Vec<BoundParam>,
    /// Their values as they may be shown, in the same order.
    #[serde(default)]
    pub shown_params: Vec<String>,
    /// Whether values are shown that would be masked: somebody asked for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shows_values: bool,
    /// The run that this plan undoes.
    pub undo_of: Option<RunId>,
    /// The predicate that limits an undo to some of the rows.
    pub undo_where: Option<String>,
    /// Stream or freeze.
    pub mode: Mode,
    /// Why this mode, in a sentence.
    pub mode_reason: String,
    /// All in one transaction, because intermediate states would break a rule.
    pub one_transaction: bool,
    /// The target.
    pub target: RelationName,
    /// Its oid.
    pub target_oid: u32,
    /// Columns that the statement assigns.
    pub writes: Vec<String>,
    /// Its definition's fingerprint.
    pub fingerprint: String,
    /// Its key; `None` for an insert into a table without one.
    pub key: Option<PlanKey>,
    /// The database.
    pub database: DatabaseIdentity,
    /// Frozen settings.
    pub settings: Settings,
    /// Limits.
    pub limits: Limits,
    /// How fast the run may go; flags and `pgmend tune` go before it.
    #[serde(default, skip_serializing_if = "Pace::is_empty")]
    pub pace: Pace,
    /// Images.
    pub images: PlanImages,
    /// The change set of a frozen plan, once computed.
    pub change_set: Option<ChangeSet>,
    /// The SQL that will run.
    pub sql: RunSql,
    /// The SQL by which the sweep applies the statement again to rows that still match and have no image;
    /// only where the assignments provably falsify the predicate.
    pub sweep: Option<RunSql>,
    /// Counts.
    pub counts: Counts,
    /// Before and after.
    pub samples: Vec<Sample>,
    /// Rows that the job named to be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<Watched>,
    /// From → to.
    pub transitions: Vec<Transition>,
    /// Column of `--by`, and its groups.
    pub groups: Option<(String, Vec<Group>)>,
    /// Around the target.
    pub surroundings: Surroundings,
    /// EXPLAIN of the batch query, and whether it uses the key's index.
    pub explain: Vec<String>,
    /// Cost.
    pub estimates: Estimates,
    /// Rows an hour, nights and the end, once the speed was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nights: Option<Nights>,
    /// Rehearsal, if asked for.
    pub rehearsal: Option<Rehearsal>,
    /// Whether undo can put every row back, and why (not).
    pub reversible: (bool, String),
    /// Where it cannot put all back, whether it can put back the rows of the target: what triggers and cascades write
    /// elsewhere stays changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partly_undoable: bool,
    /// Findings.
    pub findings: Vec<Finding>,
    /// The number of rows that must change.
    pub expect_rows: Option<i64>,
    /// What the job says of its own result.
    #[serde(default, skip_serializing_if = "Expect::is_empty")]
    pub expect: Expect,
    /// A first, small batch to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// How many rows that cannot be changed may be set aside.
    #[serde(default, skip_serializing_if = "DeadLetters::is_default")]
    pub dead_letters: DeadLetters,
    /// When the run holds: what the job says, within what its environment allows.
    #[serde(default, skip_serializing_if = "Throttle::is_default")]
    pub throttle: Throttle,
    /// Why one worker must drive the run; none where several may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_worker: Option<String>,
    /// The tenants that the run drives one by one, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Tenants>,
    /// What each batch counts because of triggers that could not be followed; none where all could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
    /// What makes the same change the same: statement, parameters, target, settings, database, undone run; keyed with the
    /// secret of the database's tokens.
    pub signature: Digest,
    /// What the plan's digest and the hash of its change set are keyed with: whoever gets the plan masked gets it without.
    #[serde(default, skip_serializing_if = "DigestKey::is_empty")]
    pub digest_key: DigestKey,
    /// When, by the server's clock, ISO 8601.
    pub planned_at: String,
    /// Until when it may start a run.
    pub expires_at: String,
    /// `session_user`.
    pub planned_by: String,
}

impl Plan {
    /// The digest that approvals and runs refer to, of all that the plan says.
    pub fn digest(&self) -> Digest {
        self.digest_key.digest(self)
    }

    /// Whether batches go in halves (docs/design/halves.md).
    pub fn in_halves(&self) -> bool {
        match &self.sql {
            RunSql::Stream { halves, .. } => halves.is_some(),
            RunSql::Freeze { .. } => self.change_set.as_ref().is_some_and(|set| set.half_rows.is_some()),
        }
    }

    /// The value of a parameter as it may be shown.
    pub fn shown_param(&self, place: usize) -> &str {
        self.shown_params.get(place).map_or(MASKED, String::as_str)
    }

    /// The plan for a program's output: parameters and watched keys as they may be shown. It cannot be run, and has another digest.
    pub fn for_output(&self) -> Plan {
        let mut plan = Plan { digest_key: DigestKey::default(), constants: BTreeSet::new(), ..self.clone() };
        for place in 0..plan.params.len() {
            plan.params[place].value = self.shown_param(place).to_owned();
        }
        for (row, shown) in plan.expect.watch.iter_mut().zip(&self.watched) {
            let text = |(_, value): &(String, Option<String>)| Scalar::Text(value.clone().unwrap_or_default());
            row.key = shown.sample.key.iter().map(text).collect();
        }
        if let Some(tenants) = &mut plan.tenants {
            tenants.conceal();
        }
        plan
    }

    /// What is done to its rows: `changed`, `deleted`, `inserted`, or, by an undo, `restored`; `taken back` where it removes rows
    /// that an insert has made (and puts back those that its ON CONFLICT has changed).
    pub fn verb(&self) -> &'static str {
        match (self.kind, &self.sql) {
            (ChangeKind::Update, _) => "changed",
            (ChangeKind::Delete, _) => "deleted",
            (ChangeKind::Insert, _) => "inserted",
            (ChangeKind::Undo, RunSql::Freeze { apply, .. }) if apply.iter().any(|one| one.op == 'D') => "taken back",
            (ChangeKind::Undo, RunSql::Freeze { .. } | RunSql::Stream { .. }) => "restored",
        }
    }

    /// What the line of an undo needs besides, after a space: the identity where its images are encrypted.
    pub fn identity_flag(&self) -> &'static str {
        if self.images.recipient.is_some() { " --identity FILE" } else { "" }
    }

    /// The same of a line that tries dead letters again: their new values are computed anew, unless a change set has them.
    pub fn retry_flag(&self) -> &'static str {
        if self.change_set.is_some() { self.identity_flag() } else { "" }
    }

    /// Whether a row that cannot be changed may be set aside at all: not where all rows go together, where their
    /// number is given, or where rows are put back, since an undo has conflicts.
    pub fn may_set_rows_aside(&self) -> bool {
        !self.one_transaction && self.expect_rows.is_none() && self.kind != ChangeKind::Undo
    }

    /// Seconds that the run takes at a pace, at least and at most. Holds are left out.
    pub fn lasts_s(&self, pace: &Pace) -> (f64, f64) {
        let (least, most) = self.estimates.duration_s;
        let rows = self.counts.changed_rows.value;
        // One transaction has nothing to rest between.
        let lasts = |work_s| if self.one_transaction { work_s } else { lasts_s(rows, work_s, pace) };
        (lasts(least), lasts(most))
    }

    /// Whether nothing would change.
    pub fn changes_nothing(&self) -> bool {
        self.counts.changed_rows == Figure::exact(0)
    }
}
