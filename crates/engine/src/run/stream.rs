//! Batches over key ranges: each computes its changes in its own transaction.

use std::time::Instant;

use pgmend_core::limits::BATCH_ROWS_CEILING;
use pgmend_core::plan::{Ranged, RunSql};
use pgmend_pg::batch::{BatchStart, Checkpoint};
use pgmend_pg::{PgError, Statement};

use super::fault;
use super::halves::{Rows, Stretch, halves};
use super::interruption::cancellable;
use super::recover::QUERY_CANCELED;
use super::step::{Applied, Step, millis};
use super::worker::Worker;
use crate::progress::Stop;

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
        let stretch = match self.known_stretch(&upper) {
            Some(known) => known,
            None => self.next_stretch(&upper).await?,
        };
        let Stretch { to, rows, keys, rows_max } = match stretch {
            Ok(stretch) => stretch,
            Err(step) => return Ok(step),
        };
        let began = Instant::now();
        let statements = self.batch_statements(rows, &to)?;
        let separate_images = statements.len() == 2;
        let reached = self.reached(rows, to);
        let start = BatchStart {
            batch_no: self.at.batch_no + 1,
            pass: self.pass,
            cursor_to: reached.cursor_to(),
            first_half_to: reached.first_half_to.as_deref(),
            target_oid: self.plan.target_oid,
            system_identifier: &self.plan.database.system_identifier,
            statements,
        };
        let session = self.session();
        let tx =
            cancellable(session, self.observer.stop_receiver(), self.lease.begin(session, &self.scene, start)).await?;
        let affected: Vec<i64> = tx.answers().iter().map(|a| a.affected as i64).collect();
        let changed_rows = affected.last().copied().unwrap_or(0);
        if changed_rows == 0 && keys.is_some() {
            // None of these keys matches: nothing is committed, and the next rows that do are looked for.
            tx.rollback().await?;
            self.learn_of_density(rows, keys, 0);
            return Ok(Step::Skipped);
        }
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
        let ceiling = match rows {
            Rows::All if self.plan.one_transaction => BATCH_ROWS_CEILING,
            Rows::All => self.sizing.ceiling().min(rows_max.unwrap_or(u32::MAX)),
            Rows::FirstHalf | Rows::SecondHalf => self.sizing.half_max(),
        };
        if changed_rows > i64::from(ceiling) {
            tx.rollback().await?;
            // Rows came into the range since its bound was read, or since they were counted: a smaller batch keeps the promise.
            return Err(PgError::new("change a batch", QUERY_CANCELED, "more rows than a transaction may change"));
        }
        let took_ms = millis(began);
        let checkpoint = Checkpoint { changed_rows, imaged_rows, skipped_rows: 0, conflict_rows: 0, took_ms };
        let over = reached.cursor.as_ref() == Some(&upper);
        let in_halves = self.in_halves();
        let next_rows = if in_halves { Rows::FirstHalf } else { Rows::All };
        let (next_keys, next_size) = (self.keys_to_count(next_rows), self.batch_rows());
        // Before a batch of the second half nothing needs to be looked for: its rows are those of the same stretch.
        let next = match &reached.first_half_to {
            _ if over || self.plan.one_transaction => None,
            None => self.bound_statement(reached.cursor.as_deref(), &upper, next_rows),
            Some(to) if rows == Rows::FirstHalf && self.first_goes_on(to, &upper, 1) => {
                self.bound_statement(Some(to), &upper, next_rows)
            }
            Some(_) => None,
        };
        let committed = tx.commit(checkpoint, next).await?;
        self.prefetched = match over {
            // Nothing comes after the last key of the range.
            true => Some(Prefetched { to: None, rows: 0, in_halves, keys: None }),
            false => committed.next.map(|answer| {
                let to = key(&answer.rows, upper.len());
                Prefetched { to, rows: next_size, in_halves, keys: next_keys }
            }),
        };
        self.learn_of_halves(rows, changed_rows, committed.in_place_rows);
        self.learn_of_density(rows, keys, changed_rows);
        Ok(Step::Applied(Applied {
            changed_rows,
            skipped_rows: 0,
            conflict_rows: 0,
            dead_rows: 0,
            took_ms: millis(began),
            wal_bytes: committed.wal_bytes,
            reached,
        }))
    }

    /// The rows of the next batch, as far as they are known without a look: those of a second half, of a bound that came
    /// with the last commit, or all that there are.
    fn known_stretch(&mut self, upper: &[String]) -> Option<Result<Stretch, Step>> {
        let ahead = self.prefetched.take();
        if let Some(first_half_to) = &self.at.first_half_to {
            return match ahead {
                Some(Prefetched { to: Some(to), keys, .. }) if self.first_goes_on(first_half_to, upper, 0) => {
                    Some(Ok(Stretch::up_to(to, Rows::FirstHalf, keys)))
                }
                None if self.first_goes_on(first_half_to, upper, 0) => None,
                // Nothing is left for the first half, or there shall be no more of it.
                Some(_) | None => self.known_second().map(Ok),
            };
        }
        let bound = match ahead {
            Some(Prefetched { to: None, .. }) => None,
            Some(Prefetched { to: Some(to), in_halves: false, keys, .. }) => Some((to, Rows::All, keys)),
            Some(Prefetched { to: Some(to), in_halves: true, keys, .. }) if self.in_halves() => {
                Some((to, Rows::FirstHalf, keys))
            }
            // Too far for a batch of all rows.
            Some(Prefetched { to: Some(_), in_halves: true, .. }) => return None,
            None if self.plan.one_transaction => {
                (self.from(Rows::All).as_deref() != Some(upper)).then(|| (upper.to_vec(), Rows::All, None))
            }
            None if self.fits_at_once() => {
                let whole = Stretch::up_to(upper.to_vec(), Rows::All, None);
                return Some(Ok(Stretch { rows_max: Some(self.batch_rows()), ..whole }));
            }
            None => return None,
        };
        Some(bound.map(|(to, rows, keys)| Stretch::up_to(to, rows, keys)).ok_or(Step::Exhausted))
    }

    /// Whether a tenant has so few rows by the plan's count that its first batch takes all of them, and no bound needs
    /// to be looked for. Should it have many more by now, the batch is refused for its size, and bounds are looked for.
    fn fits_at_once(&self) -> bool {
        let untried = self.at.batch_no == 0 && self.pass == 0 && self.attempt == 0 && self.skipped_to.is_none();
        let most = i64::from(self.batch_rows() / 2);
        untried && self.cornering.is_none() && self.tenant().is_some_and(|tenant| tenant.rows <= most)
    }

    /// Images and change over these rows of the range from the cursor to `to`.
    fn batch_statements(&self, rows: Rows, to: &[String]) -> Result<Vec<Statement>, PgError> {
        let sql = self.sql();
        let RunSql::Stream { image, change, .. } = &sql else {
            return Err(PgError::corrupt("a frozen plan is not streamed"));
        };
        let (image, change) = match rows.of(&sql)? {
            Some(half) => (&half.image, &half.change),
            None => (image, change),
        };
        let from = self.from(rows);
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

    /// Where the next batch of these rows starts.
    pub(super) fn from(&self, rows: Rows) -> Option<Vec<String>> {
        if let (Rows::FirstHalf, Some(first_half_to)) = (rows, &self.at.first_half_to) {
            return Some(first_half_to.clone());
        }
        // A pass that has no batch yet starts from the start.
        let cursor = if self.at.pass == self.pass { self.at.cursor.clone() } else { None };
        self.skipped_to.clone().or(cursor).or_else(|| self.partition.as_ref().and_then(|part| part.lower.clone()))
    }

    /// The last key of the next of these rows, as many as a batch takes. A first half has no bound of its own: its stretch is one
    /// of all rows.
    fn bound_statement(&self, from: Option<&[String]>, upper: &[String], rows: Rows) -> Option<Statement> {
        let sql = self.sql();
        let RunSql::Stream { bound, window, .. } = &sql else { return None };
        let keys = self.keys_to_count(rows);
        let bound = match (rows, halves(&sql)) {
            (Rows::SecondHalf, Some(halves)) => &halves.second_bound,
            (Rows::All | Rows::FirstHalf | Rows::SecondHalf, _) if keys.is_some() => window.as_ref(),
            (Rows::All | Rows::FirstHalf | Rows::SecondHalf, _) => bound,
        };
        let count = keys.unwrap_or_else(|| self.stretch_rows(rows == Rows::FirstHalf));
        let own =
            std::iter::once(count.to_string()).chain(upper.iter().cloned()).chain(from.unwrap_or(&[]).iter().cloned());
        let sql = if from.is_some() { &bound.after } else { &bound.from_start };
        Some(Statement { doing: "find the next rows", sql: self.with_images(sql), params: self.params_with(own) })
    }

    /// The last key of the next batch. When matches are so rare that looking for them runs into the timeout,
    /// looks window by window.
    pub(super) async fn next_bound(&mut self, upper: &[String], rows: Rows) -> Result<Bound, PgError> {
        let from = self.from(rows);
        match self.read_bound(from.as_deref(), upper, rows).await {
            Err(error) if error.sqlstate == QUERY_CANCELED => {}
            other => return other.map(|found| found.map_or(Bound::End, Bound::At)),
        }
        for _ in 0..WINDOWS_PER_STEP {
            if self.wishes.asked() || self.observer.stop() != Stop::None || self.overdue() {
                break;
            }
            let from = self.from(rows);
            let Some(end) = self.read_window(from.as_deref(), upper).await? else { return Ok(Bound::End) };
            if let Some(found) = self.read_bound(from.as_deref(), &end, rows).await? {
                return Ok(Bound::At(found));
            }
            self.skipped_to = Some(end);
        }
        Ok(Bound::Further)
    }

    pub(super) async fn read_bound(
        &self,
        from: Option<&[String]>,
        upper: &[String],
        rows: Rows,
    ) -> Result<Option<Vec<String>>, PgError> {
        match self.bound_statement(from, upper, rows) {
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
        let read = session.read_once(&self.scene, statement);
        let answer = cancellable(session, self.observer.stop_receiver(), read).await?;
        Ok(key(&answer.rows, columns))
    }
}

/// The bound of a batch, read ahead.
pub(super) struct Prefetched {
    /// The last key; `None` where nothing is left.
    pub to: Option<Vec<String>>,
    /// How many rows were asked for; those of one batch, where it is so far away that these are two.
    pub rows: u32,
    /// So far away that a batch up to it goes in halves.
    pub in_halves: bool,
    /// How many keys that is, where these were counted.
    pub keys: Option<u32>,
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
