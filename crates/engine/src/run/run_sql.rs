//! The plan's SQL as the worker of one run sends it: over the run's own images and dead letters, with its parameters.

use pgmend_core::id::RunId;
use pgmend_core::plan::RunSql;
use pgmend_core::table::RelationName;
use pgmend_pg::partitions::IMAGE_BATCH_STRIDE;

use super::worker::Worker;
use crate::plan::statements::{DEAD_LETTERS, IMAGE_TABLE};

impl Worker<'_, '_> {
    /// What this pass sends: the plan's statements, or those of its sweep.
    pub fn sql(&self) -> RunSql {
        self.plan.sweep.as_ref().filter(|_| self.pass > 0).unwrap_or(&self.plan.sql).clone()
    }

    /// The number under which images of the next batch are kept: unique in the run, whatever its partition.
    pub fn image_batch_no(&self) -> i64 {
        i64::from(self.lease.partition_no) * IMAGE_BATCH_STRIDE + self.at.batch_no + 1
    }

    /// The statement over the run's own table of images, its own dead letters, and its change set as it can be read.
    pub fn with_images(&self, sql: &str) -> String {
        let sql = &match &self.letters {
            Some(opened) => opened.instead(sql),
            None => sql.to_owned(),
        };
        let sql = match sql.contains(DEAD_LETTERS) {
            true => sql.replace(DEAD_LETTERS, &open_letters(self.run_id())),
            false => sql.to_owned(),
        };
        match &self.run.image_table {
            Some(name) => sql.replace(IMAGE_TABLE, &RelationName::new("pgmend", name).sql()),
            None => sql,
        }
    }

    /// The job's parameters followed by a statement's own.
    pub fn params_with(&self, own: impl IntoIterator<Item = String>) -> Vec<Option<String>> {
        self.params.iter().cloned().chain(own.into_iter().map(Some)).collect()
    }
}

/// The keys of a run's open dead letters, as a relation. Lock: none. Index: `dead_letter_run_id`.
fn open_letters(run: RunId) -> String {
    format!("(select l.key from pgmend.open_letter_keys('{run}') as l (key))")
}
