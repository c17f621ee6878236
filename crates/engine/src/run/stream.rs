//! Batches over key ranges: each computes its changes in its own transaction.

use std::time::Instant;

use pgmend_core::limits::BATCH_ROWS_CEILING;
use pgmend_core::plan::{Ranged, RunSql};
use pgmend_pg::batch::{BatchStart, Checkpoint};
use pgmend_pg::{PgError, Statement};

use super::fault;
use super::interruption::cancellable;
use super::recover::QUERY_CANCELED;
use super::step::{Applied, Step, millis};
use super::worker::Worker;

/// Rows that a bound may scan past at once when looking for matches has run into the timeout.
const WINDOW_ROWS: u32 = 100_000;
/// Windows looked through by one call, so that a stop is noticed in between.
const WINDOWS_PER_STEP: u32 = 20;
/// A guard of ours: rows changed are not rows imaged.
pub(super) const IMAGES_DIFFER: &str = "PM521";

impl Worker<'_, '_> {
    /// Applies the next batch of a streamed run.
    pub(super) async fn stream_batch(&mut self) -> Result<Step, PgError> {
        if self.driven_by_others() {
            return Ok(Step::Exhausted);
        }
        let Some(upper) = self.run.upper_bound.clone() else { return Ok(Step::Exhausted) };
        let bound = match self.prefetched.take() {
            Some(bound) => bound,
            None if self.plan.one_transaction => (self.from().as_ref() != Some(&upper)).then(|| upper.clone()),
            None if self.fits_at_once() => Some(upper.clone()),
            None => match self.next_bound(&upper).await? {
                Bound::At(to) => Some(to),
                Bound::End => None,
                Bound::Further => return Ok(Step::Skipped),
            },
        };
        let Some(to) = bound else { return Ok(Step::Exhausted) };
        let began = Instant::now();
        let statements = self.batch_statements(&to)?;
        let separate_images = statements.len() == 2;
        let start = BatchStart {
            batch_no: self.at.batch_no + 1,
            pass: self.pass,
            cursor_to: &to,
            system_identifier: &self.plan.database.system_identifier,
            statements,
        };
        let session = self.session();
        let tx =
            cancellable(session, self.observer.stop_receiver(), self.lease.begin(session, &self.scene, start)).await?;
        let affected: Vec<i64> = tx.answers().iter().map(|a| a.affected as i64).collect();
        let changed_rows = affected.last().copied().unwrap_or(0);
        let imaged_rows = separate_images.then(|| affected[0]);
        fault::point("batch_applied");
        if imaged_rows.is_some_and(|imaged| imaged != changed_rows) {
            tx.rollback().await?;
            let message = format!("{changed_rows} rows changed but {} imaged", affected[0]);
            return Err(PgError::new("change a batch", IMAGES_DIFFER, message));
        }
        if let Err(error) = self.refuse_other_count(changed_rows) {
            tx.rollback().await?;
            return Err(error);
        }
        let ceiling = if self.plan.one_transaction { BATCH_ROWS_CEILING } else { self.sizing.ceiling() };
        if changed_rows > i64::from(ceiling) {
            tx.rollback().await?;
            // Rows came into the range since its bound was read: a smaller batch keeps the promise.
            return Err(PgError::new("change a batch", QUERY_CANCELED, "more rows than a transaction may change"));
        }
        let took_ms = millis(began);
        let checkpoint = Checkpoint { changed_rows, imaged_rows, skipped_rows: 0, conflict_rows: 0, took_ms };
        let over = to == upper;
        let next = match over || self.plan.one_transaction {
            true => None,
            false => self.bound_statement(Some(&to), &upper, self.batch_rows()),
        };
        let committed = tx.commit(checkpoint, next).await?;
        self.prefetched = match over {
            // Nothing comes after the last key of the range.
            true => Some(None),
            false => committed.next.map(|answer| key(&answer.rows, upper.len())),
        };
        Ok(Step::Applied(Applied {
            changed_rows,
            skipped_rows: 0,
            conflict_rows: 0,
            dead_rows: 0,
            took_ms: millis(began),
            wal_bytes: committed.wal_bytes,
            cursor: to,
        }))
    }

    /// Whether a tenant has so few rows by the plan's count that its first batch takes all of them, and no bound needs
    /// to be looked for. Should it have many more by now, the batch is refused for its size, and bounds are looked for.
    fn fits_at_once(&self) -> bool {
        let untried = self.at.batch_no == 0 && self.pass == 0 && self.attempt == 0 && self.skipped_to.is_none();
        let most = i64::from(self.batch_rows() / 2);
        untried && self.cornering.is_none() && self.tenant().is_some_and(|tenant| tenant.rows <= most)
    }

    /// Images and change over the range from the cursor to `to`.
    fn batch_statements(&self, to: &[String]) -> Result<Vec<Statement>, PgError> {
        let sql = self.sql();
        let RunSql::Stream { image, change, .. } = &sql else {
            return Err(PgError::corrupt("a frozen plan is not streamed"));
        };
        let from = self.from();
        let number = self.image_batch_no().to_string();
        let own: Vec<String> =
            std::iter::once(number).chain(to.iter().cloned()).chain(from.iter().flatten().cloned()).collect();
        let statement = |doing: &'static str, sql: &Ranged| Statement {
            doing,
            sql: self.with_images(if from.is_some() { &sql.after } else { &sql.from_start }),
            params: self.params_with(own.clone()),
        };
        let images = image.as_ref().map(|sql| statement("save the images of a batch", sql));
        Ok(images.into_iter().chain([statement("change a batch", change)]).collect())
    }

    /// Where the next batch starts.
    pub(super) fn from(&self) -> Option<Vec<String>> {
        // A pass that has no batch yet starts from the start.
        let cursor = if self.at.pass == self.pass { self.at.cursor.clone() } else { None };
        self.skipped_to.clone().or(cursor).or_else(|| self.partition.as_ref().and_then(|part| part.lower.clone()))
    }

    fn bound_statement(&self, from: Option<&[String]>, upper: &[String], rows: u32) -> Option<Statement> {
        let sql = self.sql();
        let RunSql::Stream { bound, .. } = &sql else { return None };
        let own =
            std::iter::once(rows.to_string()).chain(upper.iter().cloned()).chain(from.unwrap_or(&[]).iter().cloned());
        let sql = if from.is_some() { &bound.after } else { &bound.from_start };
        Some(Statement { doing: "find the next rows", sql: self.with_images(sql), params: self.params_with(own) })
    }

    /// The last key of the next batch. When matches are so rare that looking for them runs into the timeout,
    /// looks window by window.
    pub(super) async fn next_bound(&mut self, upper: &[String]) -> Result<Bound, PgError> {
        let from = self.from();
        match self.read_bound(from.as_deref(), upper).await {
            Err(error) if error.sqlstate == QUERY_CANCELED => {}
            other => return other.map(|found| found.map_or(Bound::End, Bound::At)),
        }
        for _ in 0..WINDOWS_PER_STEP {
            let from = self.from();
            let Some(end) = self.read_window(from.as_deref(), upper).await? else { return Ok(Bound::End) };
            if let Some(found) = self.read_bound(from.as_deref(), &end).await? {
                return Ok(Bound::At(found));
            }
            self.skipped_to = Some(end);
        }
        Ok(Bound::Further)
    }

    async fn read_bound(&self, from: Option<&[String]>, upper: &[String]) -> Result<Option<Vec<String>>, PgError> {
        match self.bound_statement(from, upper, self.batch_rows()) {
            Some(statement) => self.read_key(statement, upper.len()).await,
            None => Ok(None),
        }
    }

    async fn read_window(&self, from: Option<&[String]>, upper: &[String]) -> Result<Option<Vec<String>>, PgError> {
        let RunSql::Stream { window, .. } = &self.plan.sql else { return Ok(None) };
        let sql = if from.is_some() { &window.after } else { &window.from_start };
        let own = std::iter::once(WINDOW_ROWS.to_string())
            .chain(upper.iter().cloned())
            .chain(from.unwrap_or(&[]).iter().cloned());
        let params = self.params_with(own);
        self.read_key(Statement { doing: "find the end of a window", sql: sql.clone(), params }, upper.len()).await
    }

    async fn read_key(&self, statement: Statement, columns: usize) -> Result<Option<Vec<String>>, PgError> {
        let session = self.session();
        let tx = session.read(&self.scene, statement.params).await?;
        let answer =
            cancellable(session, self.observer.stop_receiver(), tx.query_job(statement.doing, &statement.sql, vec![]))
                .await;
        tx.end().await?;
        Ok(key(&answer?.rows, columns))
    }
}

/// Where the next batch ends.
pub(super) enum Bound {
    At(Vec<String>),
    /// The range is exhausted.
    End,
    /// Windows without a match were passed over, and there are more.
    Further,
}

fn key(rows: &[Vec<Option<String>>], columns: usize) -> Option<Vec<String>> {
    rows.first().map(|row| row.iter().take(columns).flatten().cloned().collect())
}
