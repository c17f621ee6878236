//! The notes of a rehearsal, and what the plan says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use pgmend_core::digits::thousands;
use pgmend_core::finding::Finding;
use pgmend_core::plan::{Rehearsal, RehearsedBatch, TouchedTable};
use pgmend_core::table::{RelationName, Table};
use pgmend_pg::PgError;

use super::watch::{Positions, Seen, Written};

/// Lock modes of tables, the weakest first.
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// One measured batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// Rows changed by the small batch before it, and its milliseconds.
    pub few: (i64, f64),
    /// Rows changed, and milliseconds.
    pub full: (i64, f64),
    /// Rows of the table in the batch's range, where that is known.
    pub scanned_rows: Option<i64>,
    /// WAL in bytes.
    pub wal_bytes: i64,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub timings: Vec<Timing>,
    /// Milliseconds for which a scanned row keeps a query busy.
    pub scan_row_ms: f64,
    /// Commits right after a batch was rolled back: bytes of WAL that they flush, and milliseconds.
    pub flushes: Vec<(i64, f64)>,
    /// Whether rows match the statement again after their change.
    pub matches_again: bool,
    batches: Vec<RehearsedBatch>,
    written: BTreeMap<RelationName, Written>,
    locks: BTreeMap<RelationName, usize>,
    sequences: BTreeSet<RelationName>,
    failures: Vec<(String, String, String)>,
}

impl Notes {
    /// Nothing was seen but this.
    pub fn of_failure(place: &str, error: &PgError) -> Self {
        let mut notes = Self::default();
        notes.failed(place, error);
        notes
    }

    /// Takes note of a batch.
    pub fn batch(&mut self, place: &str, timing: Timing) {
        let (rows, took_ms) = timing.full;
        if rows == 0 {
            return;
        }
        self.batches.push(RehearsedBatch { place: place.to_owned(), rows, took_ms, wal_bytes: timing.wal_bytes });
        self.timings.push(timing);
    }

    /// Takes note of an error, once.
    pub fn failed(&mut self, place: &str, error: &PgError) {
        if !self.failures.iter().any(|(_, sqlstate, message)| *sqlstate == error.sqlstate && *message == error.message)
        {
            self.failures.push((place.to_owned(), error.sqlstate.clone(), error.message.clone()));
        }
    }

    /// Takes note of what a transaction did.
    pub fn saw(&mut self, seen: Seen) {
        for (relation, rows) in seen.written {
            let sums = self.written.entry(relation).or_default();
            sums.iter_mut().zip(rows).for_each(|(sum, rows)| *sum += rows);
        }
        for (relation, mode) in seen.locks {
            let strength = MODES.iter().position(|m| *m == mode).unwrap_or(0);
            let held = self.locks.entry(relation).or_default();
            *held = strength.max(*held);
        }
        self.sequences.extend(seen.sequences);
    }

    /// Of the sequences that the rehearsal locked, keeps those that moved.
    pub fn keep_moved_sequences(&mut self, before: &Positions, after: &Positions) {
        self.sequences.retain(|sequence| before.get(sequence) != after.get(sequence));
    }

    /// The plan's part.
    pub fn rehearsal(&self, target: &Table) -> Rehearsal {
        let touched = self.written.iter().map(|(relation, [inserted, updated, deleted])| TouchedTable {
            table: relation.to_string(),
            inserted_rows: *inserted,
            updated_rows: *updated,
            deleted_rows: *deleted,
            named: *relation == target.name || target.partitions.contains(relation),
        });
        Rehearsal {
            batches: self.batches.clone(),
            touched: touched.collect(),
            locks: self.locks.iter().map(|(relation, mode)| format!("{relation}: {}", MODES[*mode])).collect(),
            sequences: self.sequences.iter().map(ToString::to_string).collect(),
        }
    }

    /// What a reviewer should know of it.
    pub fn findings(&self, rehearsal: &Rehearsal, target: &RelationName) -> Vec<Finding> {
        // Each batch is tried more than once: beside the target's own rows the others tell how many each of them takes along.
        let own: i64 = rehearsal.touched.iter().filter(|t| t.named).map(rows_written).sum();
        let touched = rehearsal.touched.iter().filter(|t| !t.named).map(|t| {
            let kinds = [("inserted", t.inserted_rows), ("updated", t.updated_rows), ("deleted", t.deleted_rows)];
            let kinds = kinds.into_iter().filter(|(_, rows)| *rows > 0);
            let rows: Vec<String> = kinds.map(|(verb, rows)| format!("{} {verb}", thousands(rows))).collect();
            let message = format!(
                "the rehearsal also wrote `{}` (rows: {}; of the target {}), which the statement does not name",
                t.table,
                rows.join(", "),
                thousands(own)
            );
            let help =
                "these rows have no images: undo restores the target only, and its own change fires triggers again";
            Finding::warning("rehearsal_touched", message, help)
        });
        let sequences = rehearsal.sequences.iter().map(|sequence| {
            let message = format!("sequence `{sequence}` moved during the rehearsal; sequences do not roll back");
            Finding::note("rehearsal_sequence", message, "expect a gap in its numbers; the run will move it too")
        });
        let failures = self.failures.iter().map(|(place, sqlstate, message)| failure(place, sqlstate, message));
        let versions: i64 = rehearsal.touched.iter().map(|t| t.inserted_rows + t.updated_rows).sum();
        let dead = (versions > 0).then(|| {
            let message = format!("the rehearsal was rolled back; it left about {versions} dead row versions behind");
            Finding::note(
                "rehearsal_rolled_back",
                message,
                format!("autovacuum removes them; or type: vacuum {}", target.sql()),
            )
        });
        failures.chain(touched).chain(sequences).chain(dead).collect()
    }
}

fn rows_written(table: &TouchedTable) -> i64 {
    table.inserted_rows + table.updated_rows + table.deleted_rows
}

/// Milliseconds since.
pub(super) fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}

fn failure(place: &str, sqlstate: &str, message: &str) -> Finding {
    let (what, help) = match sqlstate {
        "55P03" => ("could not be rehearsed", "another session holds a lock on these rows; the run would retry"),
        "40001" | "40P01" => {
            ("could not be rehearsed", "another session changed these rows at the same time; the run would retry")
        }
        "57014" => (
            "could not be rehearsed",
            "it took longer than its timeout: choose smaller batches (--batch-rows) or a longer statement_timeout_ms",
        ),
        "42501" => ("could not be rehearsed", "grant what is missing, or plan as a role that has it"),
        _ => ("failed in the rehearsal", "the run would stop here: mend these rows first, or exclude them in WHERE"),
    };
    let message = match place {
        "start" => format!("the rehearsal could not begin: {sqlstate} {message}"),
        place => format!("the batch at `{place}` {what}: {sqlstate} {message}"),
    };
    Finding::warning("rehearsal_failed", message, help)
}
