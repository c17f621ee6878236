//! Batches over the ordinals of a change set, applied with compare-and-set.

use std::time::Instant;

use pgmend_core::halving;
use pgmend_core::plan::{Apply, RunSql};
use pgmend_pg::batch::{BatchStart, Checkpoint, FencedTx};
use pgmend_pg::{PgError, Statement};

use super::fault;
use super::interruption::cancellable;
use super::step::{Applied, Reached, Step, millis};
use super::worker::Worker;

/// A row of the change set was not applied although it is no conflict that the catalog explains: halve
/// down to it. Of class 23, so that it is handled as the constraint violation that it stands for.
pub(super) const NOT_APPLIED: &str = "23P99";

/// A range of ordinals with the least and the greatest of its keys, where the plan uses them.
#[derive(Debug)]
pub(super) struct Spanned {
    lower: i64,
    upper: i64,
    keys: Vec<String>,
}

impl Spanned {
    /// Ordinals in the range.
    pub fn rows(&self) -> u32 {
        u32::try_from(self.upper - self.lower).unwrap_or(u32::MAX)
    }
}

impl Worker<'_, '_> {
    /// Applies the next batch of a frozen run.
    pub(super) async fn frozen_batch(&mut self) -> Result<Step, PgError> {
        let RunSql::Freeze { apply, conflicts, .. } = self.sql() else {
            return Err(PgError::corrupt("a streamed plan is not frozen"));
        };
        let rows = self.last_ordinal();
        let lower = self.ordinal()?;
        if lower >= rows || self.driven_by_others() {
            return Ok(Step::Exhausted);
        }
        let spanned = match self.spanned.take().filter(|ahead| ahead.lower == lower) {
            Some(ahead) => ahead,
            None => self.span(lower, self.upper(lower, rows)).await?,
        };
        let upper = spanned.upper;
        let began = Instant::now();
        let tx = self.open(&spanned, &apply, None).await?;
        let changed = affected(tx.answers());
        if let Err(error) = self.refuse_other_count(changed) {
            tx.rollback().await?;
            return Err(error);
        }
        let every_row = apply.iter().all(|a| a.every_row);
        if changed == upper - lower || !every_row {
            let (step, ahead) = self.close(tx, upper, began, changed, 0, upper - lower - changed).await?;
            self.spanned = ahead;
            return Ok(step);
        }
        tx.rollback().await?;
        let Some(conflicts) = conflicts else {
            let message = format!("{changed} of {} rows of the change set were applied", upper - lower);
            return Err(PgError::new("apply the change set", NOT_APPLIED, message));
        };
        self.apply_around_conflicts(&spanned, &apply, &conflicts, began).await
    }

    /// The same batch again, with its conflicts recorded first, in the same snapshot.
    async fn apply_around_conflicts(
        &mut self,
        spanned: &Spanned,
        apply: &[Apply],
        conflicts: &str,
        began: Instant,
    ) -> Result<Step, PgError> {
        let (lower, upper) = (spanned.lower, spanned.upper);
        let tx = self.open(spanned, apply, Some(conflicts)).await?;
        let conflict_rows = tx.answers().first().map_or(0, |a| a.rows.len() as i64);
        let changed = affected(tx.answers().get(1..).unwrap_or(&[]));
        if changed + conflict_rows == upper - lower {
            let (step, ahead) = self.close(tx, upper, began, changed, conflict_rows, 0).await?;
            self.spanned = ahead;
            return Ok(step);
        }
        tx.rollback().await?;
        let message = format!("{changed} rows applied and {conflict_rows} conflicts of {} rows", upper - lower);
        Err(PgError::new("apply the change set", NOT_APPLIED, message))
    }

    /// Passes over a single row that a constraint rejects: a conflict with that reason, and nothing else, in a
    /// batch of its own.
    pub(super) async fn record_rejected(&mut self, reason: &str) -> Result<Step, PgError> {
        let lower = self.ordinal()?;
        let Some(change_set) = &self.plan.change_set else { return Err(PgError::corrupt("no change set")) };
        let keys: Vec<String> = change_set
            .layout
            .key
            .iter()
            .map(|k| format!("s.{}::text", pgmend_core::table::quote_ident(&k.image_column)))
            .collect();
        let number = self.params.len();
        let sql = format!(
            "select pgmend.record_conflict(${}::text::uuid, ${}::text::bigint, s.n, array[{}]::text[], ${}) from {} as s \
             where s.n = ${}::text::bigint",
            number + 1,
            number + 2,
            keys.join(", "),
            number + 3,
            change_set.relation.sql(),
            number + 4,
        );
        let own =
            [self.run_id().to_string(), (self.at.batch_no + 1).to_string(), reason.to_owned(), (lower + 1).to_string()];
        let statement = Statement { doing: "record a conflict", sql, params: self.params_with(own) };
        let began = Instant::now();
        let tx = self.begin(lower + 1, vec![statement]).await?;
        Ok(self.close(tx, lower + 1, began, 0, 1, 0).await?.0)
    }

    /// The ordinal that the checkpoint stands at.
    pub(super) fn ordinal(&self) -> Result<i64, PgError> {
        let lower = self.partition.as_ref().and_then(|part| part.lower.as_ref());
        let Some(cursor) = self.at.cursor.as_ref().or(lower) else { return Ok(0) };
        let ordinal = cursor.first().and_then(|n| n.parse().ok());
        ordinal.ok_or_else(|| PgError::corrupt("a frozen run's cursor is no number"))
    }

    /// The last ordinal of this worker's part of the change set.
    pub(super) fn last_ordinal(&self) -> i64 {
        let rows = self.plan.change_set.as_ref().map_or(0, |c| c.rows);
        let upper = self.partition.as_ref().and_then(|part| part.upper.first()).and_then(|n| n.parse().ok());
        upper.unwrap_or(rows).min(rows)
    }

    /// The last ordinal of a batch after `lower`. Of a change set in halves it takes rows of one half only: the other one's
    /// find room once the first is committed, and its keys ascend. Rows apart are looked up one by one, as many as were asked for:
    /// whether the first of them all fail is a question of their number.
    pub(super) fn upper(&self, lower: i64, rows: i64) -> i64 {
        let size = if self.plan.one_transaction { rows } else { i64::from(self.batch_rows()) };
        let halves = self.plan.change_set.as_ref().and_then(|set| Some((set.half_rows?, set.rows)));
        let Some((half_rows, all)) = halves.filter(|_| !self.apart) else { return (lower + size).min(rows) };
        let end = halving::end_of_half(lower, half_rows, all).min(rows);
        lower + halving::even_share(end - lower, size)
    }

    /// Reads the least and the greatest key of a range. The change set does not change, so that this may
    /// happen outside the batch.
    async fn span(&self, lower: i64, upper: i64) -> Result<Spanned, PgError> {
        let Some(statement) = self.span_statement(lower, upper) else {
            return Ok(self.without_span(lower, upper));
        };
        let session = self.session();
        let tx = session.read(&self.scene, statement.params).await?;
        let answer =
            cancellable(session, self.observer.stop_receiver(), tx.query_job(statement.doing, &statement.sql, vec![]))
                .await;
        tx.end().await?;
        spanned(lower, upper, &answer?).ok_or_else(|| PgError::corrupt("the change set lacks rows"))
    }

    /// A range of a change set whose plan does not use its keys.
    pub(super) fn without_span(&self, lower: i64, upper: i64) -> Spanned {
        Spanned { lower, upper, keys: Vec::new() }
    }

    pub(super) fn span_statement(&self, lower: i64, upper: i64) -> Option<Statement> {
        let RunSql::Freeze { span, .. } = self.sql() else { return None };
        let own = [self.at.batch_no + 1, lower, upper].map(|n| n.to_string());
        Some(Statement {
            doing: "find the keys of a batch",
            sql: self.with_images(&span?),
            params: self.params_with(own),
        })
    }

    async fn open(&self, spanned: &Spanned, apply: &[Apply], conflicts: Option<&str>) -> Result<FencedTx<'_>, PgError> {
        self.begin(spanned.upper, self.frozen_statements(spanned, apply, conflicts)).await
    }

    /// What applies a range, after what records its conflicts, if asked for.
    pub(super) fn frozen_statements(
        &self,
        spanned: &Spanned,
        apply: &[Apply],
        conflicts: Option<&str>,
    ) -> Vec<Statement> {
        let conflicts = conflicts.map(|sql| self.conflicts_statement(spanned, sql));
        let changes = apply.iter().map(|a| self.over_range("apply the change set", spanned, &a.sql));
        conflicts.into_iter().chain(changes).collect()
    }

    pub(super) fn conflicts_statement(&self, spanned: &Spanned, sql: &str) -> Statement {
        self.over_range("record conflicts", spanned, sql)
    }

    fn over_range(&self, doing: &'static str, spanned: &Spanned, sql: &str) -> Statement {
        let own = [self.at.batch_no + 1, spanned.lower, spanned.upper].map(|n| n.to_string());
        let own = own.into_iter().chain([self.run_id().to_string()]).chain(spanned.keys.iter().cloned());
        Statement { doing, sql: self.with_images(sql), params: self.params_with(own) }
    }

    async fn begin(&self, upper: i64, statements: Vec<Statement>) -> Result<FencedTx<'_>, PgError> {
        let start = BatchStart {
            batch_no: self.at.batch_no + 1,
            pass: 0,
            cursor_to: &[upper.to_string()],
            first_half_to: None,
            target_oid: self.plan.target_oid,
            system_identifier: &self.plan.database.system_identifier,
            statements,
        };
        let session = self.session();
        cancellable(session, self.observer.stop_receiver(), self.lease.begin(session, &self.scene, start)).await
    }

    /// Commits, and asks for the keys of the next batch in the same round trip.
    async fn close(
        &self,
        tx: FencedTx<'_>,
        upper: i64,
        began: Instant,
        changed_rows: i64,
        conflict_rows: i64,
        skipped_rows: i64,
    ) -> Result<(Step, Option<Spanned>), PgError> {
        fault::point("batch_applied");
        let took_ms = millis(began);
        let checkpoint = Checkpoint { changed_rows, imaged_rows: None, skipped_rows, conflict_rows, took_ms };
        let rows = self.last_ordinal();
        let (from, to) = (upper, self.upper(upper, rows));
        let next = if from < to { self.span_statement(from, to) } else { None };
        let committed = tx.commit(checkpoint, next).await?;
        let wal_bytes = committed.wal_bytes;
        let ahead = committed.next.and_then(|answer| spanned(from, to, &answer));
        let reached = Reached::all(vec![upper.to_string()]);
        let applied = Applied {
            changed_rows,
            skipped_rows,
            conflict_rows,
            dead_rows: 0,
            took_ms: millis(began),
            wal_bytes,
            reached,
        };
        Ok((Step::Applied(applied), ahead))
    }
}

pub(super) fn spanned(lower: i64, upper: i64, answer: &pgmend_pg::Answer) -> Option<Spanned> {
    let keys: Option<Vec<String>> = answer.rows.first()?.iter().cloned().collect();
    Some(Spanned { lower, upper, keys: keys? })
}

fn affected(answers: &[pgmend_pg::Answer]) -> i64 {
    answers.iter().map(|a| a.affected as i64).sum()
}
