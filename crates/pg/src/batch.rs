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
use crate::written::Written;

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
    /// Where the cursor will stand once it is committed: everything up to here is done. Empty before the first.
    pub cursor_to: &'a [String],
    /// Where the first half of the rows is done up to, if that is ahead of the cursor.
    pub first_half_to: Option<&'a [String]>,
    /// The table that it changes.
    pub target_oid: u32,
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
    /// What had been written before the batch, where that is counted.
    written_before: Option<String>,
    target_oid: u32,
    /// What the server's counters said when the batch began.
    from: Counters,
}

/// Counters of the server.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    /// Where its WAL stands, in bytes.
    wal: Option<f64>,
    /// Rows of the target that this session has updated on their own page.
    in_place_rows: Option<i64>,
}

impl Counters {
    /// From the second and third column of an answer.
    fn of(answer: &Answer) -> Self {
        let cell = |i: usize| answer.rows.first()?.get(i)?.as_deref();
        Self { wal: cell(1).and_then(|n| n.parse().ok()), in_place_rows: cell(2).and_then(|n| n.parse().ok()) }
    }
}

/// A batch that is committed.
#[derive(Debug, Default)]
pub struct Committed {
    /// What was asked for the next batch, if it could be answered.
    pub next: Option<Answer>,
    /// WAL in bytes that the server wrote meanwhile, others' included.
    pub wal_bytes: Option<f64>,
    /// Rows of the target whose new version found room on its own page (`n_tup_hot_upd`); `None` where the server does not
    /// count.
    pub in_place_rows: Option<i64>,
}

impl Lease {
    /// The mark of what its holder executes: a comment that no other statement has.
    pub fn mark(&self) -> String {
        format!("/* pgmend run {}, part {}, fence {} */", self.run, self.partition_no, self.fence)
    }

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
        let counts = statements.len();
        statements.extend(scene.written.as_ref().map(Written::count));
        statements.push(scene.as_job());
        let ours = statements.len();
        statements.extend(start.statements);
        let answers = session.pipeline(&statements).await;
        // The first error is the cause; later ones only say that the transaction is aborted.
        let mut answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let from = answers.get(guards).map(Counters::of).unwrap_or_default();
        let counted = scene.written.as_ref().and_then(|_| answers.get(counts)?.scalar());
        let written_before = counted.map(str::to_owned);
        let answers = answers.split_off(ours);
        let (lease, scene) = (self.clone(), scene.clone());
        let (batch_no, target_oid) = (start.batch_no, start.target_oid);
        Ok(FencedTx { session, lease, scene, batch_no, answers, written_before, target_oid, from })
    }

    /// The commit of a batch does not wait for the disk or a standby: a crash that takes the last batches along takes
    /// their checkpoints too, and the next batch then misses its predecessor. The record of the run's end does wait,
    /// and with it everything before it in the WAL.
    ///
    /// Lock:  the lease row for key share; the predecessor's row for update; the batch's own row.
    /// Index: `lease_fence`, `batch_pkey`.
    fn guards(&self, start: &BatchStart<'_>) -> Statement {
        Statement {
            doing: "pass the guards of a batch",
            sql: "select pgmend.begin_batch($1::uuid, $2::int, $3::bigint, $4::bigint, $5::int, $6::text[], $7::text[], $8), \
             pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::float8::text, \
             pg_catalog.pg_stat_get_xact_tuples_hot_updated($9::oid)::text, \
             set_config('synchronous_commit', 'off', true)"
                .into(),
            params: vec![
                Some(self.run.to_string()),
                Some(self.partition_no.to_string()),
                Some(self.fence.to_string()),
                Some(start.batch_no.to_string()),
                Some(start.pass.to_string()),
                Some(array_literal(start.cursor_to)),
                start.first_half_to.map(array_literal),
                Some(start.system_identifier.to_owned()),
                Some(start.target_oid.to_string()),
            ],
        }
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
        let mut statements = vec![Scene::as_self()];
        statements.extend(self.refuse_unseen(checkpoint.changed_rows)?);
        let end = statements.len();
        statements.push(self.end(checkpoint));
        statements.push(Statement::new("commit a batch", "commit", vec![]));
        let (ours, has_next) = (statements.len(), next.is_some());
        if let Some(next) = next {
            statements.push(Statement::new("begin a read", "begin isolation level repeatable read read only", vec![]));
            statements.push(self.scene.enter());
            statements.push(self.scene.as_job());
            statements.push(next);
            statements.push(Statement::new("end a read", "rollback", vec![]));
        }
        let mut answers = self.session.pipeline(&statements).await;
        let tail = answers.split_off(ours);
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.session.dirty.store(false, Ordering::Relaxed);
        let to = answers.get(end).map(Counters::of).unwrap_or_default();
        let committed = Committed {
            next: None,
            wal_bytes: self.from.wal.zip(to.wal).map(|(from, to)| (to - from).max(0.0)),
            in_place_rows: self.from.in_place_rows.zip(to.in_place_rows).map(|(from, to)| (to - from).max(0)),
        };
        if !has_next {
            return Ok(committed);
        }
        // The bound is only a prefetch: if it could not be read, it will be asked for again.
        let Ok(mut tail) = tail.into_iter().collect::<Result<Vec<_>, _>>() else {
            self.session.dirty.store(true, Ordering::Relaxed);
            return Ok(committed);
        };
        tail.pop();
        Ok(Committed { next: tail.pop(), ..committed })
    }

    /// Gives the batch up.
    pub async fn rollback(self) -> Result<(), PgError> {
        let statement = Statement::new("roll back a batch", "rollback", vec![]);
        let answer = self.session.pipeline(&[statement]).await.pop();
        self.session.dirty.store(false, Ordering::Relaxed);
        answer.unwrap_or_else(|| Err(PgError::new("roll back a batch", CONNECTION_FAILURE, "no answer"))).map(|_| ())
    }

    /// The guard against rows that a trigger wrote beside the batch's own, where one may have.
    fn refuse_unseen(&self, changed_rows: i64) -> Result<Option<Statement>, PgError> {
        let Some(written) = &self.scene.written else { return Ok(None) };
        let before = self.written_before.as_ref().ok_or_else(|| PgError::corrupt("nothing was counted"))?;
        Ok(Some(written.refuse_more(&self.lease, self.batch_no, before, changed_rows)))
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
            Some(self.target_oid.to_string()),
        ];
        let sql = "select pgmend.end_batch($1::uuid, $2::int, $3::bigint, $4::bigint, $5::bigint, $6::bigint, \
                   $7::bigint, $8::double precision), \
                   pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::float8::text, \
                   pg_catalog.pg_stat_get_xact_tuples_hot_updated($9::oid)::text";
        Statement { doing: "write the checkpoint", sql: sql.into(), params }
    }
}
