//! The counts of a run with several workers: what one of them knows of the others, and what a listener hears of all.

use std::collections::BTreeMap;

use pgmend_pg::PgError;
use pgmend_pg::store::LastCheckpoint;

use super::worker::Worker;
use crate::progress::Event;

impl Worker<'_, '_> {
    /// Whether other workers have driven all that this pass is about.
    pub fn driven_by_others(&self) -> bool {
        self.divided && self.pass == 0
    }

    /// Reads what other workers of the run have done.
    pub async fn look_around(&mut self) -> Result<(), PgError> {
        let all = self.session().totals(self.run_id()).await?;
        self.others = LastCheckpoint {
            changed_rows: all.changed_rows - self.at.changed_rows,
            skipped_rows: all.skipped_rows - self.at.skipped_rows,
            conflict_rows: all.conflict_rows - self.at.conflict_rows,
            dead_rows: all.dead_rows - self.at.dead_rows,
            ..LastCheckpoint::default()
        };
        Ok(())
    }

    /// The counts of the whole run, as far as known.
    pub fn total(&self) -> LastCheckpoint {
        LastCheckpoint {
            changed_rows: self.at.changed_rows + self.others.changed_rows,
            skipped_rows: self.at.skipped_rows + self.others.skipped_rows,
            conflict_rows: self.at.conflict_rows + self.others.conflict_rows,
            dead_rows: self.at.dead_rows + self.others.dead_rows,
            ..self.at.clone()
        }
    }
}

/// An event of one partition.
#[derive(Debug)]
pub(super) struct Told {
    pub partition_no: i32,
    pub event: Event,
}

/// Sums the events of partitions up, so that a listener hears of one run.
pub(super) struct Totals {
    /// Rows changed before this command, and not by a partition heard of since.
    changed_before: i64,
    batches: i64,
    /// Changed, skipped, conflicts, dead, by partition.
    parts: BTreeMap<i32, [i64; 4]>,
}

impl Totals {
    pub fn new(changed_before: i64) -> Self {
        Self { changed_before, batches: 0, parts: BTreeMap::new() }
    }

    /// The event of the whole run; `None` for one that says nothing about it.
    pub fn over_all(&mut self, told: Told) -> Option<Event> {
        let Event::Batch {
            mut changed_rows,
            mut skipped_rows,
            mut conflict_rows,
            mut dead_rows,
            batch_no,
            rows,
            took_ms,
            next_batch_rows,
            planned_rows,
            cursor,
        } = told.event
        else {
            // The beginning and the end of a partition are not those of the run.
            return (!matches!(told.event, Event::Started { .. } | Event::Ended { .. })).then_some(told.event);
        };
        if !self.parts.contains_key(&told.partition_no) {
            // What earlier sessions changed of this partition is counted in it from now on.
            self.changed_before -= changed_rows - rows;
        }
        self.parts.insert(told.partition_no, [changed_rows, skipped_rows, conflict_rows, dead_rows]);
        self.batches += 1;
        let sum = |i: usize| self.parts.values().map(|part| part[i]).sum::<i64>();
        changed_rows = sum(0) + self.changed_before;
        skipped_rows = sum(1);
        conflict_rows = sum(2);
        dead_rows = sum(3);
        let batch_no = batch_no.max(self.batches);
        Some(Event::Batch {
            batch_no,
            rows,
            changed_rows,
            skipped_rows,
            conflict_rows,
            dead_rows,
            took_ms,
            next_batch_rows,
            planned_rows,
            cursor,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_sums_over_partitions_and_earlier_sessions() {
        let told = |partition_no, rows, changed_rows| Told {
            partition_no,
            event: Event::Batch {
                batch_no: 1,
                rows,
                changed_rows,
                skipped_rows: 1,
                conflict_rows: 0,
                dead_rows: 0,
                took_ms: 1.0,
                next_batch_rows: 10,
                planned_rows: 100,
                cursor: String::new(),
            },
        };
        let changed = |event| match event {
            Some(Event::Batch { changed_rows, .. }) => changed_rows,
            _ => -1,
        };
        // 30 rows were changed before: 20 of them in partition 1, 10 in partition 2.
        let mut totals = Totals::new(30);
        assert_eq!(changed(totals.over_all(told(1, 5, 25))), 35);
        assert_eq!(changed(totals.over_all(told(2, 5, 15))), 40);
        assert_eq!(changed(totals.over_all(told(1, 5, 30))), 45);
    }
}
