//! The batch transaction: the only way to write on behalf of a run (design.md, section 4).
//!
//! Two round trips: settings, guards and changes in the first; checkpoint, COMMIT and the next bound in
//! the second. Between them only counts are compared. Guards raise on the server, since an empty result that
//! only the client would notice does not stop a pipelined COMMIT.

use std::sync::atomic::Ordering;

use pgmend_core::id::RunId;

use crate::error::{CONNECTION_FAILURE, PgError};
use crate::image_keys::ImageKey;
use crate::scene::Scene;
use crate::session::{Answer, Session, Statement, array_literal};

/// Ownership of one partition of a run, as the server granted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// The partition.
    pub partition_no: i32,
    /// The number that grows with each takeover.
    pub fence: i64,
}

/// What a batch begins with.
#[derive(Debug)]
pub struct BatchStart<'a> {
    /// Its number, from 1.
    pub batch_no: i64,
    /// The pass over the range that it belongs to: 0, or the sweep's number.
    pub pass: i32,
    /// Where the cursor will stand once it is committed.
    pub cursor_to: &'a [String],
    /// The server that was planned for.
    pub system_identifier: &'a str,
    /// The statements over the user's table, in order.
    pub statements: Vec<Statement>,
}

/// What the checkpoint records.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Checkpoint {
    /// Rows changed.
    pub changed_rows: i64,
    /// Rows imaged, where images are counted apart from changes; must equal the rows changed.
    pub imaged_rows: Option<i64>,
    /// Rows seen and left alone.
    pub skipped_rows: i64,
    /// Conflicts recorded.
    pub conflict_rows: i64,
    /// Milliseconds of execution.
    pub took_ms: f64,
}

/// An open batch transaction. It exists only if the fence was held and the predecessor was there.
#[must_use = "a batch must be committed or rolled back"]
pub struct FencedTx<'s> {
    pub(crate) session: &'s Session,
    pub(crate) lease: Lease,
    pub(crate) scene: Scene,
    pub(crate) batch_no: i64,
    answers: Vec<Answer>,
    /// Where the server's WAL stood when the batch began, in bytes.
    wal_from: Option<f64>,
}

/// A batch that is committed.
#[derive(Debug, Default)]
pub struct Committed {
    /// What was asked for the next batch, if it could be answered.
    pub next: Option<Answer>,
    /// WAL in bytes that the server wrote meanwhile, others' included.
    pub wal_bytes: Option<f64>,
}

impl Lease {
    /// Opens the batch and applies its statements, in one round trip.
    pub async fn begin<'s>(
        &self,
        session: &'s Session,
        scene: &Scene,
        start: BatchStart<'_>,
    ) -> Result<FencedTx<'s>, PgError> {
        if session.dirty.load(Ordering::Relaxed) {
            session.run(&Statement::new("roll back", "select 1", vec![])).await?;
        }
        session.dirty.store(true, Ordering::Relaxed);
        let mut statements = vec![
            Statement::new("begin a batch", "begin isolation level repeatable read", vec![]),
            scene.enter(),
            self.guards(&start),
        ];
        let guards = statements.len() - 1;
        statements.extend(scene.image_key.iter().flat_map(ImageKey::hold));
        statements.push(scene.as_job());
        let ours = statements.len();
        statements.extend(start.statements);
        let answers = session.pipeline(&statements).await;
        // The first error is the cause; later ones only say that the transaction is aborted.
        let mut answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let wal_from = answers.get(guards).and_then(wal_at);
        let answers = answers.split_off(ours);
        Ok(FencedTx { session, lease: self.clone(), scene: scene.clone(), batch_no: start.batch_no, answers, wal_from })
    }

    /// The commit of a batch does not wait for the disk or a standby: a crash that takes the last batches along takes
    /// their checkpoints too, and the next batch then misses its predecessor. The record of the run's end does wait,
    /// and with it everything before it in the WAL.
    ///
    /// Lock:  the lease row for key share; the predecessor's row for update; the batch's own row.
    /// Index: `lease_fence`, `batch_pkey`.
    fn guards(&self, start: &BatchStart<'_>) -> Statement {
        Statement::new(
            "pass the guards of a batch",
            "select pgmend.begin_batch($1::uuid, $2::int, $3::bigint, $4::bigint, $5::int, $6::text[], $7), \
             pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::float8::text, \
             set_config('synchronous_commit', 'off', true)",
            vec![
                self.run.to_string(),
                self.partition_no.to_string(),
                self.fence.to_string(),
                start.batch_no.to_string(),
                start.pass.to_string(),
                array_literal(start.cursor_to),
                start.system_identifier.to_owned(),
            ],
        )
    }
}

impl FencedTx<'_> {
    /// What each statement of the batch gave, in order.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Runs one more statement of the batch.
    pub async fn run(&mut self, statement: Statement) -> Result<Answer, PgError> {
        let mut answers = self.session.pipeline(&[statement]).await;
        answers.pop().unwrap_or_else(|| Err(PgError::corrupt("a statement gave no answer")))
    }

    /// Writes the checkpoint and commits it with the batch, or neither; then asks `next`, outside the
    /// transaction, in the same round trip. An error with SQLSTATE class 08 leaves the outcome unknown: read
    /// the checkpoint.
    pub async fn commit(self, checkpoint: Checkpoint, next: Option<Statement>) -> Result<Committed, PgError> {
        let mut statements = vec![Scene::as_self(), self.end(checkpoint)];
        statements.push(Statement::new("commit a batch", "commit", vec![]));
        let has_next = next.is_some();
        if let Some(next) = next {
            statements.push(Statement::new("begin a read", "begin isolation level repeatable read read only", vec![]));
            statements.push(self.scene.enter());
            statements.push(self.scene.as_job());
            statements.push(next);
            statements.push(Statement::new("end a read", "rollback", vec![]));
        }
        let mut answers = self.session.pipeline(&statements).await;
        let tail = answers.split_off(3);
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.session.dirty.store(false, Ordering::Relaxed);
        let wal_to = answers.get(1).and_then(wal_at);
        let wal_bytes = self.wal_from.zip(wal_to).map(|(from, to)| (to - from).max(0.0));
        if !has_next {
            return Ok(Committed { next: None, wal_bytes });
        }
        // The bound is only a prefetch: if it could not be read, it will be asked for again.
        let Ok(mut tail) = tail.into_iter().collect::<Result<Vec<_>, _>>() else {
            self.session.dirty.store(true, Ordering::Relaxed);
            return Ok(Committed { next: None, wal_bytes });
        };
        tail.pop();
        Ok(Committed { next: tail.pop(), wal_bytes })
    }

    /// Gives the batch up.
    pub async fn rollback(self) -> Result<(), PgError> {
        let statement = Statement::new("roll back a batch", "rollback", vec![]);
        let answer = self.session.pipeline(&[statement]).await.pop();
        self.session.dirty.store(false, Ordering::Relaxed);
        answer.unwrap_or_else(|| Err(PgError::new("roll back a batch", CONNECTION_FAILURE, "no answer"))).map(|_| ())
    }

    /// Lock:  the batch's own row. Index: `batch_pkey`.
    fn end(&self, checkpoint: Checkpoint) -> Statement {
        let params = vec![
            Some(self.lease.run.to_string()),
            Some(self.lease.partition_no.to_string()),
            Some(self.batch_no.to_string()),
            Some(checkpoint.changed_rows.to_string()),
            checkpoint.imaged_rows.map(|rows| rows.to_string()),
            Some(checkpoint.skipped_rows.to_string()),
            Some(checkpoint.conflict_rows.to_string()),
            Some(checkpoint.took_ms.to_string()),
        ];
        let sql = "select pgmend.end_batch($1::uuid, $2::int, $3::bigint, $4::bigint, $5::bigint, $6::bigint, \
                   $7::bigint, $8::double precision), \
                   pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::float8::text";
        Statement { doing: "write the checkpoint", sql: sql.into(), params }
    }
}

/// Where the server's WAL stood, from the second column of an answer.
fn wal_at(answer: &Answer) -> Option<f64> {
    answer.rows.first()?.get(1)?.as_deref()?.parse().ok()
}
