//! From what a rehearsal measured to the pace of the run: what a batch costs, what a row costs, what the
//! checks at the end cost.

use std::time::Instant;

use pgmend_core::plan::RunSql;
use pgmend_pg::PgError;

use super::Rehearsing;
use super::notes::{Notes, Timing, millis};
use crate::plan::cost::Pace;

/// Commits that are timed: an empty transaction that the server must flush.
const COMMITS: usize = 3;
/// Milliseconds for the guards and the checkpoint of a batch, which a rehearsal has not.
const GUARDS_MS: f64 = 1.2;
/// Milliseconds to count an image at the end of a run.
const IMAGE_COUNT_MS: f64 = 0.000_07;
/// Milliseconds to look for the image of a row that matches again.
const NOT_IMAGED_MS: f64 = 0.000_7;
/// A row costs at least this part of its measured time, however much is put down to scanning.
const OWN_PART_MIN: f64 = 0.2;

impl Rehearsing<'_> {
    /// The pace of the run; `None` if no batch could be measured.
    pub(super) async fn pace(&self, notes: &Notes) -> Result<Option<Pace>, PgError> {
        if notes.timings.is_empty() {
            return Ok(None);
        }
        let statements_ms = fixed_ms(&notes.timings);
        let scans = match &self.plan.sql {
            // The bound, the images and the change each walk the range.
            RunSql::Stream { image, .. } => 2.0 + if image.is_some() { 1.0 } else { 0.0 },
            RunSql::Freeze { .. } => 0.0,
        };
        let scan_ms = scans * notes.scan_row_ms;
        let counts = &self.plan.counts;
        let per_change = counts.scanned_rows.value as f64 / counts.changed_rows.value.max(1) as f64;
        let own_ms = own_row_ms(&notes.timings, statements_ms, scan_ms);
        let mut commits = Vec::new();
        for _ in 0..COMMITS {
            commits.push(self.commit_ms().await?);
        }
        let commit_ms = median(commits);
        let wal_row_bytes = wal_row_bytes(&notes.timings);
        let flush_ms = flush_ms(&notes.flushes, commit_ms) * wal_row_bytes;
        Ok(Some(Pace {
            batch_ms: statements_ms + commit_ms + GUARDS_MS,
            row_ms: own_ms + flush_ms + scan_ms * if scans > 0.0 { per_change } else { 0.0 },
            checks_ms: self.checks_ms(notes).await?,
            wal_row_bytes,
        }))
    }

    /// What a commit costs that the server must flush: that of an empty transaction, which leaves nothing.
    pub(super) async fn commit_ms(&self) -> Result<f64, PgError> {
        let tx = self.session.freeze(&self.scene, self.params.clone()).await?;
        let sql = "create temporary table pgmend_rehearsed_commit () on commit drop";
        tx.read.query("make a table for a rehearsal", sql, vec![]).await?;
        let began = Instant::now();
        tx.commit().await?;
        Ok(millis(began))
    }

    /// The checks at the end of the run: what is left is counted, and so are the images.
    async fn checks_ms(&self, notes: &Notes) -> Result<f64, PgError> {
        let residual = match &self.plan.sql {
            RunSql::Stream { residual, .. } | RunSql::Freeze { residual, .. } => residual.as_ref(),
        };
        let rows = self.plan.counts.changed_rows.value as f64;
        let mut checks = if self.plan.images.layout.is_some() { rows * IMAGE_COUNT_MS } else { 0.0 };
        let Some(residual) = residual else { return Ok(checks) };
        let tx = self.session.read(&self.scene, self.params.clone()).await?;
        tx.limit_to(self.plan.limits.count_budget_ms.max(1)).await?;
        let began = Instant::now();
        let counted = tx.attempt("time the check at the end", &residual.matching, vec![]).await;
        let scan_ms = millis(began);
        checks += scan_ms;
        tx.end().await?;
        match counted {
            Err(error) if error.is_connection() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        if notes.matches_again {
            checks += scan_ms + rows * NOT_IMAGED_MS;
        }
        Ok(checks)
    }
}

/// What statements cost beside their rows: from pairs of a small and a full batch, their median.
fn fixed_ms(timings: &[Timing]) -> f64 {
    let fixed = timings.iter().filter(|t| t.few.0 > 0 && t.full.0 > t.few.0).map(|t| {
        let row_ms = (t.full.1 - t.few.1) / (t.full.0 - t.few.0) as f64;
        (t.few.1 - row_ms * t.few.0 as f64).clamp(0.0, t.few.1)
    });
    median(fixed.collect())
}

/// What a changed row costs beside scanning. The median: a batch that first touches pages after a checkpoint
/// writes them to the WAL in full, and what else the machine does only ever adds.
fn own_row_ms(timings: &[Timing], fixed_ms: f64, scan_ms: f64) -> f64 {
    let own = timings.iter().map(|t| {
        let took = (t.full.1 - fixed_ms).max(t.full.1 * OWN_PART_MIN);
        let scanned = t.scanned_rows.unwrap_or(t.full.0) as f64;
        (took - scan_ms * scanned).max(took * OWN_PART_MIN) / t.full.0 as f64
    });
    median(own.collect())
}

/// The median, since other sessions write WAL too.
fn wal_row_bytes(timings: &[Timing]) -> f64 {
    median(timings.iter().map(|t| t.wal_bytes as f64 / t.full.0 as f64).collect())
}

/// What flushing a byte of WAL adds to a commit.
fn flush_ms(flushes: &[(i64, f64)], commit_ms: f64) -> f64 {
    let written = flushes.iter().filter(|(bytes, _)| *bytes > 0);
    median(written.map(|(bytes, took_ms)| (took_ms - commit_ms).max(0.0) / *bytes as f64).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = |i: usize| values.get(i).copied().unwrap_or(0.0);
    (middle(values.len().saturating_sub(1) / 2) + middle(values.len() / 2)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::{Timing, fixed_ms, own_row_ms};

    fn timing(few_ms: f64, full_ms: f64, scanned: i64) -> Timing {
        Timing { few: (100, few_ms), full: (1_000, full_ms), scanned_rows: Some(scanned), wal_bytes: 0 }
    }

    #[test]
    fn two_sizes_tell_a_batch_from_its_rows() {
        let timings = [timing(7.0, 25.0, 1_000)];
        assert!((fixed_ms(&timings) - 5.0).abs() < 1e-9);
        assert!((own_row_ms(&timings, 5.0, 0.0) - 0.02).abs() < 1e-9);
    }

    #[test]
    fn scanning_is_not_put_down_to_the_changed_rows() {
        let timings = [timing(7.0, 25.0, 5_000)];
        assert!((own_row_ms(&timings, 5.0, 0.002) - 0.01).abs() < 1e-9);
    }
}
