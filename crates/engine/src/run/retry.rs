//! Dead letters tried again: further batches of the same run, with images in the same table, so that its approval
//! covers them and its undo puts them back like the rest (docs/design/dead-letters.md).

use std::time::Instant;

use pgmend_core::dead_letters::APART_ROWS;
use pgmend_core::plan::RunSql;
use pgmend_pg::PgError;
use pgmend_pg::batch::{Checkpoint, FencedTx};
use pgmend_pg::dead_letters::{Settled, StoredLetter};
use pgmend_pg::store::Fact;

use super::apart::{Tried, give_up};
use super::fault;
use super::step::{Applied, Reached, millis};
use super::worker::Worker;
use crate::encryption::OpenedLetters;
use crate::error::Error;
use crate::outcome::Retried;

impl Worker<'_, '_> {
    /// Tries every open letter once. Stops between two batches when asked to.
    pub(super) async fn retry(mut self, letters: Option<OpenedLetters>) -> Result<Retried, Error> {
        self.letters = letters;
        let mut retried = Retried { run_id: Some(self.run_id()), ..Retried::default() };
        let mut after = 0;
        while self.stop_wish().is_none() {
            let found = self.session().dead_letters(self.run_id(), true, after, i64::from(APART_ROWS)).await;
            let tried = match found {
                Ok(letters) => match letters.last() {
                    Some(last) => self.retry_batch(&letters, &mut retried).await.map(|()| last.letter_no),
                    None => break,
                },
                Err(error) => Err(error),
            };
            match tried {
                Ok(last) => after = last,
                Err(error) if error.is_transient() => {
                    // What of the batch was committed is settled, and not read again. Bounded by the attempts.
                    if self.recover(error.clone()).await?.is_some() {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.look_around().await?;
        retried.open_rows = self.total().dead_rows;
        let body = serde_json::json!({
            "changed_rows": retried.changed_rows, "passed_over_rows": retried.passed_over_rows,
            "conflict_rows": retried.conflict_rows, "open_rows": retried.open_rows,
        });
        self.session().record_fact(&self.lease, Fact { name: "dead_letters_retried", body: &body }).await?;
        self.session().release(&self.lease).await?;
        Ok(retried)
    }

    async fn retry_batch(&mut self, letters: &[StoredLetter], retried: &mut Retried) -> Result<(), PgError> {
        // Of a divided run, partition 0 has no cursor of its own yet: its range is behind it.
        let end = || match &self.plan.change_set {
            Some(set) => Some(vec![set.rows.to_string()]),
            None => self.run.upper_bound.clone(),
        };
        let cursor = self.at.cursor.clone().or_else(end);
        let cursor = cursor.ok_or_else(|| PgError::corrupt("dead letters before the first batch"))?;
        let opening = self.letters.as_ref().map(|opened| opened.opening(letters)).unwrap_or_default();
        let began = Instant::now();
        self.need_image_key().await?;
        let reached = Reached { cursor: Some(cursor), first_half_to: self.at.first_half_to.clone() };
        let mut tx = self.begin_apart(self.at.pass, &reached, opening).await?;
        let mut counts = Retried::default();
        let mut imaged_rows = None;
        for letter in letters {
            match self.try_letter(&mut tx, letter, &mut counts).await {
                Ok(imaged) => imaged_rows = add(imaged_rows, imaged),
                Err(error) => return give_up(tx, error).await,
            }
        }
        fault::point("letters_retried");
        let (changed_rows, conflict_rows) = (counts.changed_rows, counts.conflict_rows);
        let skipped_rows = counts.passed_over_rows;
        let took_ms = millis(began);
        let checkpoint = Checkpoint { changed_rows, imaged_rows, skipped_rows, conflict_rows, took_ms };
        let wal_bytes = tx.commit(checkpoint, None).await?.wal_bytes;
        let dead_rows = -(changed_rows + conflict_rows + skipped_rows);
        retried.changed_rows += changed_rows;
        retried.passed_over_rows += skipped_rows;
        retried.conflict_rows += conflict_rows;
        self.advance(Applied { changed_rows, skipped_rows, conflict_rows, dead_rows, took_ms, wal_bytes, reached });
        Ok(())
    }

    /// Tries one letter and says in the batch what became of it. Gives the images saved apart from the change.
    async fn try_letter(
        &self,
        tx: &mut FencedTx<'_>,
        letter: &StoredLetter,
        counts: &mut Retried,
    ) -> Result<Option<i64>, PgError> {
        // The plan's own statement, also after a sweep: the sweep's leaves dead letters out.
        let tried = match (&self.plan.sql, letter.ordinal) {
            (RunSql::Stream { apart: Some(apart), .. }, _) => self.try_key(tx, apart, &letter.key).await?,
            (RunSql::Freeze { apply, conflicts, .. }, Some(ordinal)) => {
                self.try_ordinal(tx, apply, conflicts.as_deref(), ordinal).await?
            }
            (RunSql::Stream { apart: None, .. }, _) | (RunSql::Freeze { .. }, None) => {
                return Err(PgError::corrupt(format!("dead letter {} does not fit its plan", letter.letter_no)));
            }
        };
        let mut imaged = None;
        let settled = match &tried {
            Tried::Changed { imaged_rows } => {
                counts.changed_rows += 1;
                imaged = *imaged_rows;
                Settled::Changed
            }
            Tried::Skipped => {
                counts.passed_over_rows += 1;
                Settled::PassedOver
            }
            Tried::Conflict => {
                counts.conflict_rows += 1;
                Settled::Conflict
            }
            Tried::Failed(error) => Settled::FailedAgain(error),
        };
        tx.settle(letter.letter_no, &settled).await?;
        Ok(imaged)
    }
}

fn add(sum: Option<i64>, more: Option<i64>) -> Option<i64> {
    more.map(|more| sum.unwrap_or(0) + more).or(sum)
}
