//! Rows apart: the rows of a small batch that failed, tried one by one in one transaction. Those that the change
//! cannot take are set aside as dead letters in the transaction of the others' checkpoint: passed over, never lost.
//!
//! A row is a dead letter only if the change itself failed on it alone. What fails while the next rows are looked
//! for (a predicate that divides by zero, say) is the statement's business and fails the run.

use std::time::Instant;

use pgmend_core::dead_letters::{APART_ROWS_MAX, Tally, Verdict};
use pgmend_core::plan::{Apart, Apply, RunSql};
use pgmend_core::refusal::Code;
use pgmend_core::retry::{Disposition, disposition};
use pgmend_pg::batch::{BatchStart, Checkpoint, FencedTx};
use pgmend_pg::dead_letters::Place;
use pgmend_pg::{Answer, PgError, Statement};

use super::fault;
use super::frozen::NOT_APPLIED;
use super::halves::{Rows, Stretch, halves};
use super::interruption::cancellable;
use super::recover::QUERY_CANCELED;
use super::step::{Applied, Reached, Step, millis};
use super::stream::IMAGES_DIFFER;
use super::worker::Worker;
use crate::control::key_text;

/// What became of one row.
pub(super) enum Tried {
    Changed {
        /// Images saved apart from the change.
        imaged_rows: Option<i64>,
    },
    /// Nothing to change.
    Skipped,
    Conflict,
    /// The change cannot take it.
    Failed(PgError),
}

impl Worker<'_, '_> {
    /// Whether rows of this run may be set aside at all.
    pub(super) fn may_set_aside(&self) -> bool {
        let can = match self.sql() {
            RunSql::Stream { apart, .. } => apart.is_some(),
            RunSql::Freeze { .. } => true,
        };
        can && self.plan.may_set_rows_aside() && self.dead_letters.allowed(self.run.planned_rows.max(1)) > 0
    }

    /// Applies the next few rows one by one.
    pub(super) async fn apart_batch(&mut self) -> Result<Step, PgError> {
        if self.partition.is_some() {
            self.look_around().await?;
        }
        let step = match self.sql() {
            RunSql::Stream { apart: Some(apart), .. } => self.stream_apart(&apart).await?,
            RunSql::Stream { apart: None, .. } => return Err(PgError::corrupt("a plan without rows apart")),
            RunSql::Freeze { apply, conflicts, .. } => self.frozen_apart(&apply, conflicts.as_deref()).await?,
        };
        match step {
            Step::Applied(_) | Step::Exhausted => self.apart = false,
            Step::Skipped => {}
        }
        Ok(step)
    }

    async fn stream_apart(&mut self, apart: &Apart) -> Result<Step, PgError> {
        let Some(upper) = self.run.upper_bound.clone() else { return Ok(Step::Exhausted) };
        let Stretch { to, rows, .. } = match self.next_stretch(&upper).await? {
            Ok(stretch) => stretch,
            Err(step) => return Ok(step),
        };
        let began = Instant::now();
        let keys = self.keys_statement(apart, rows, &to);
        let reached = self.reached(rows, to);
        let mut tx = self.begin_apart(self.pass, &reached, vec![keys]).await?;
        let keys: Vec<Vec<String>> =
            tx.answers().iter().flat_map(|a| &a.rows).map(|row| row.iter().flatten().cloned().collect()).collect();
        if keys.len() > APART_ROWS_MAX as usize {
            tx.rollback().await?;
            // They came since the bound was read.
            return Err(PgError::new("try rows one by one", QUERY_CANCELED, "more rows than were to be tried"));
        }
        let mut sum = Sum::default();
        for key in keys {
            let tried = self.try_key(&mut tx, apart, &key).await;
            let place = Place { ordinal: None, key };
            if let Err(error) = self.account(&mut tx, &mut sum, &place, tried).await {
                return give_up(tx, error).await;
            }
        }
        self.close_apart(tx, sum, reached, began).await
    }

    /// Changes the row with one key, if it still matches.
    pub(super) async fn try_key(&self, tx: &mut FencedTx<'_>, apart: &Apart, key: &[String]) -> Result<Tried, PgError> {
        let own: Vec<String> = std::iter::once(self.image_batch_no().to_string()).chain(key.iter().cloned()).collect();
        let statement = |doing: &'static str, sql: &str| Statement {
            doing,
            sql: self.with_images(sql),
            params: self.params_with(own.clone()),
        };
        let image = apart.image.as_ref().map(|sql| statement("save the image of a row", sql));
        let separate = image.is_some();
        let statements = image.into_iter().chain([statement("change a row", &apart.change)]).collect();
        match self.attempt(tx, statements).await {
            Ok(answers) => {
                let affected: Vec<i64> = answers.iter().map(|a| a.affected as i64).collect();
                let changed = affected.last().copied().unwrap_or(0);
                let imaged_rows = separate.then(|| affected[0]);
                if changed > 1 || imaged_rows.is_some_and(|imaged| imaged != changed) {
                    let message = format!("one row, {changed} changed and {imaged_rows:?} imaged");
                    return Err(PgError::new("change a row", IMAGES_DIFFER, message));
                }
                Ok(if changed == 1 { Tried::Changed { imaged_rows } } else { Tried::Skipped })
            }
            Err(error) if of_the_row(&error) => Ok(Tried::Failed(error)),
            Err(error) => Err(error),
        }
    }

    async fn frozen_apart(&mut self, apply: &[Apply], conflicts: Option<&str>) -> Result<Step, PgError> {
        let rows = self.last_ordinal();
        let lower = self.ordinal()?;
        if lower >= rows {
            return Ok(Step::Exhausted);
        }
        let upper = self.upper(lower, rows);
        let reached = Reached::all(vec![upper.to_string()]);
        let began = Instant::now();
        let mut tx = self.begin_apart(0, &reached, Vec::new()).await?;
        let mut sum = Sum::default();
        for ordinal in lower + 1..=upper {
            let tried = self.try_ordinal(&mut tx, apply, conflicts, ordinal).await;
            let place = match self.place(&mut tx, ordinal).await {
                Ok(place) => place,
                Err(error) => return give_up(tx, error).await,
            };
            if let Err(error) = self.account(&mut tx, &mut sum, &place, tried).await {
                return give_up(tx, error).await;
            }
        }
        self.close_apart(tx, sum, reached, began).await
    }

    /// Applies one row of the change set, or finds that it is a conflict.
    pub(super) async fn try_ordinal(
        &self,
        tx: &mut FencedTx<'_>,
        apply: &[Apply],
        conflicts: Option<&str>,
        ordinal: i64,
    ) -> Result<Tried, PgError> {
        let spanned = match self.span_statement(ordinal - 1, ordinal) {
            Some(statement) => super::frozen::spanned(ordinal - 1, ordinal, &tx.run(statement).await?),
            None => Some(self.without_span(ordinal - 1, ordinal)),
        };
        let spanned = spanned.ok_or_else(|| PgError::corrupt("the change set lacks rows"))?;
        let changes = self.frozen_statements(&spanned, apply, None);
        let changed: i64 = match self.attempt(tx, changes).await {
            Ok(answers) => answers.iter().map(|a| a.affected as i64).sum(),
            Err(error) if of_the_row(&error) => return Ok(Tried::Failed(error)),
            Err(error) => return Err(error),
        };
        if changed > 0 {
            return Ok(Tried::Changed { imaged_rows: None });
        }
        if !apply.iter().all(|a| a.every_row) {
            return Ok(Tried::Skipped);
        }
        let found = match conflicts {
            Some(sql) => tx.run(self.conflicts_statement(&spanned, sql)).await?.rows.len(),
            None => 0,
        };
        if found > 0 {
            return Ok(Tried::Conflict);
        }
        let message = "the row was left as it is, although nothing stands against it: does a trigger hold it back?";
        Ok(Tried::Failed(PgError::new("apply the change set", NOT_APPLIED, message)))
    }

    /// The key of a row of the change set.
    async fn place(&self, tx: &mut FencedTx<'_>, ordinal: i64) -> Result<Place, PgError> {
        let Some(change_set) = &self.plan.change_set else { return Err(PgError::corrupt("no change set")) };
        let cells: Vec<String> = change_set
            .layout
            .key
            .iter()
            .map(|k| format!("s.{}::text", pgmend_core::table::quote_ident(&k.image_column)))
            .collect();
        if cells.is_empty() {
            return Ok(Place { ordinal: Some(ordinal), key: Vec::new() });
        }
        let sql =
            format!("select {} from {} as s where s.n = $1::text::bigint", cells.join(", "), change_set.relation.sql());
        let answer = tx.run(Statement::new("read the key of a row", sql, vec![ordinal.to_string()])).await?;
        let key = answer.rows.into_iter().next().and_then(|row| row.into_iter().collect::<Option<Vec<String>>>());
        let key = key.ok_or_else(|| PgError::corrupt("the change set lacks a row"))?;
        Ok(Place { ordinal: Some(ordinal), key })
    }

    /// Adds a row to the batch's sum; one that failed is set aside, or stops the run.
    async fn account(
        &self,
        tx: &mut FencedTx<'_>,
        sum: &mut Sum,
        place: &Place,
        tried: Result<Tried, PgError>,
    ) -> Result<(), PgError> {
        match tried? {
            Tried::Changed { imaged_rows } => {
                sum.changed_rows += 1;
                sum.imaged_rows = sum.imaged_rows.or(imaged_rows.map(|_| 0)).map(|n| n + imaged_rows.unwrap_or(0));
            }
            Tried::Skipped => sum.skipped_rows += 1,
            Tried::Conflict => sum.conflict_rows += 1,
            Tried::Failed(error) => {
                sum.dead_rows += 1;
                tx.set_aside(place, &error).await?;
                let row = key_text(self.plan.key.as_ref(), &place.key, &self.shown);
                sum.last = format!("{error} ({}) at row {row}", error.sqlstate);
            }
        }
        Ok(())
    }

    async fn close_apart(
        &self,
        mut tx: FencedTx<'_>,
        sum: Sum,
        reached: Reached,
        began: Instant,
    ) -> Result<Step, PgError> {
        fault::point("rows_set_aside");
        let allowed = match self.letters_elsewhere(&mut tx, &sum).await {
            Ok(elsewhere) => self.allow(&sum, elsewhere),
            Err(error) => Err(error),
        };
        if let Err(error) = allowed {
            return give_up(tx, error).await;
        }
        let Sum { changed_rows, skipped_rows, conflict_rows, dead_rows, imaged_rows, .. } = sum;
        let took_ms = millis(began);
        let checkpoint = Checkpoint { changed_rows, imaged_rows, skipped_rows, conflict_rows, took_ms };
        let wal_bytes = tx.commit(checkpoint, None).await?.wal_bytes;
        let applied = Applied { changed_rows, skipped_rows, conflict_rows, dead_rows, took_ms, wal_bytes, reached };
        Ok(Step::Applied(applied))
    }

    /// Rows that other workers of the run have set aside.
    async fn letters_elsewhere(&self, tx: &mut FencedTx<'_>, sum: &Sum) -> Result<i64, PgError> {
        match sum.dead_rows > 0 && self.partition.is_some() {
            true => tx.letters_elsewhere().await,
            false => Ok(self.others.dead_rows),
        }
    }

    /// Refuses a batch that sets too many rows aside.
    fn allow(&self, sum: &Sum, letters_elsewhere: i64) -> Result<(), PgError> {
        if sum.dead_rows == 0 {
            return Ok(());
        }
        let at = self.total();
        let so_far = at.changed_rows + at.skipped_rows + at.conflict_rows;
        let tally = Tally {
            planned_rows: self.run.planned_rows,
            good_rows: so_far + sum.changed_rows + sum.skipped_rows + sum.conflict_rows,
            dead_rows: self.at.dead_rows + letters_elsewhere + sum.dead_rows,
        };
        let refuse = |code: Code, message: String| Err(PgError::new("change the rows", code.as_str(), message));
        match self.dead_letters.verdict(tally) {
            Verdict::SetAside => Ok(()),
            Verdict::TooMany { allowed } => refuse(
                Code::TooManyDeadLetters,
                format!(
                    "{} rows cannot be changed and {allowed} may be set aside, the last one: {}; mend them, or allow more: \
                     pgmend resume {} --dead-letters N",
                    tally.dead_rows,
                    sum.last,
                    self.run_id()
                ),
            ),
            Verdict::WrongStatement => refuse(
                Code::FirstRowsFail,
                format!(
                    "none of the first {} rows can be changed, so that the statement is more likely wrong than the rows: {}",
                    tally.dead_rows, sum.last
                ),
            ),
        }
    }

    pub(super) async fn begin_apart(
        &self,
        pass: i32,
        reached: &Reached,
        statements: Vec<Statement>,
    ) -> Result<FencedTx<'_>, PgError> {
        let start = BatchStart {
            batch_no: self.at.batch_no + 1,
            pass,
            cursor_to: reached.cursor_to(),
            first_half_to: reached.first_half_to.as_deref(),
            target_oid: self.plan.target_oid,
            system_identifier: &self.plan.database.system_identifier,
            statements,
        };
        let session = self.session();
        cancellable(session, self.observer.stop_receiver(), self.lease.begin(session, &self.scene, start)).await
    }

    async fn attempt(&self, tx: &mut FencedTx<'_>, statements: Vec<Statement>) -> Result<Vec<Answer>, PgError> {
        cancellable(self.session(), self.observer.stop_receiver(), tx.attempt(statements)).await
    }

    fn keys_statement(&self, apart: &Apart, rows: Rows, to: &[String]) -> Statement {
        let from = self.from(rows);
        let sql = self.sql();
        let keys = match (rows, halves(&sql)) {
            (Rows::SecondHalf, Some(halves)) => &halves.second_keys,
            (Rows::All | Rows::FirstHalf | Rows::SecondHalf, _) => &apart.keys,
        };
        let sql = if from.is_some() { &keys.after } else { &keys.from_start };
        let own = std::iter::once((APART_ROWS_MAX + 1).to_string())
            .chain(to.iter().cloned())
            .chain(from.into_iter().flatten());
        Statement { doing: "list rows to try one by one", sql: self.with_images(sql), params: self.params_with(own) }
    }
}

/// Rows of a batch.
#[derive(Default)]
struct Sum {
    changed_rows: i64,
    imaged_rows: Option<i64>,
    skipped_rows: i64,
    conflict_rows: i64,
    dead_rows: i64,
    /// The last row that failed, and why.
    last: String,
}

/// Rolls back and hands the error on. A rollback that fails leaves the session marked, and is made up for before its
/// next use.
pub(super) async fn give_up<T>(tx: FencedTx<'_>, error: PgError) -> Result<T, PgError> {
    if !error.is_connection() {
        tx.rollback().await?;
    }
    Err(error)
}

/// Whether an error says something about the row that was tried, rather than about the moment or the run.
fn of_the_row(error: &PgError) -> bool {
    !error.is_ours() && disposition(&error.sqlstate) == Disposition::IsolateRow
}
