//! Dead letters: rows tried one by one within a batch, each under a savepoint, and those set aside with their error.

use pgmend_core::id::RunId;
use serde::{Deserialize, Serialize};

use crate::batch::FencedTx;
use crate::error::PgError;
use crate::scene::Scene;
use crate::session::{Answer, Session, Statement, array_literal};
use crate::store::from_json;

/// A row that was set aside, by the key that is stored. What people see is a [`DeadLetter`].
pub type StoredLetter = Letter<Vec<String>>;

/// A row that was set aside, by its key as people may see it: `column=value`, masked where it has to be.
pub type DeadLetter = Letter<String>;

/// A row that was set aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter<K> {
    /// Its number, unique in this control schema.
    pub letter_no: i64,
    /// The batch that set it aside.
    pub batch_no: i64,
    /// Its key.
    pub key: K,
    /// Its place in the change set of a frozen run.
    pub ordinal: Option<i64>,
    /// SQLSTATE of the last error.
    pub sqlstate: String,
    /// The last error, without values.
    pub message: String,
    /// The constraint that the server named.
    pub constraint: Option<String>,
    /// The column that the server named.
    pub column: Option<String>,
    /// How often it was tried by itself.
    pub attempts: i64,
    /// `open`; or what became of it when it was tried again: `changed`, `passed_over` (nothing to change any more) or
    /// `conflict`.
    pub state: String,
    /// When it was set aside, ISO 8601.
    pub recorded_at: String,
    /// When it was settled.
    pub settled_at: Option<String>,
}

impl StoredLetter {
    /// The letter as people may see it.
    pub fn shown_as(self, key: String) -> DeadLetter {
        Letter {
            letter_no: self.letter_no,
            batch_no: self.batch_no,
            key,
            ordinal: self.ordinal,
            sqlstate: self.sqlstate,
            message: self.message,
            constraint: self.constraint,
            column: self.column,
            attempts: self.attempts,
            state: self.state,
            recorded_at: self.recorded_at,
            settled_at: self.settled_at,
        }
    }
}

/// Which row, and where in the change set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its ordinal, for a frozen run.
    pub ordinal: Option<i64>,
    /// Its key as text.
    pub key: Vec<String>,
}

/// What became of a letter that was tried again.
#[derive(Debug, Clone)]
pub enum Settled<'a> {
    /// Its row was changed.
    Changed,
    /// There is nothing to change any more: the row is gone, or does not match, or is right already.
    PassedOver,
    /// It is a conflict now.
    Conflict,
    /// It failed again.
    FailedAgain(&'a PgError),
}

impl Settled<'_> {
    fn state(&self) -> &'static str {
        match self {
            Settled::Changed => "changed",
            Settled::PassedOver => "passed_over",
            Settled::Conflict => "conflict",
            Settled::FailedAgain(_) => "open",
        }
    }
}

impl FencedTx<'_> {
    /// Tries statements under a savepoint: after an error the batch is as it was before them. Constraints that were
    /// deferred are checked here, since at COMMIT it could no longer be told which row broke them.
    pub async fn attempt(&mut self, statements: Vec<Statement>) -> Result<Vec<Answer>, PgError> {
        let own = |doing: &'static str, sql: &'static str| Statement::new(doing, sql, vec![]);
        let mut all = vec![own("set a savepoint", "savepoint pgmend_row")];
        all.extend(statements);
        all.push(own("check deferred constraints", "set constraints all immediate"));
        let answers = self.session.pipeline(&all).await;
        let result: Result<Vec<Answer>, PgError> = answers.into_iter().collect();
        let end = match &result {
            Ok(_) => own("release a savepoint", "release savepoint pgmend_row"),
            // Nothing can be rolled back to where there is no connection.
            Err(error) if error.is_connection() => return result,
            Err(_) => own("roll back to a savepoint", "rollback to savepoint pgmend_row"),
        };
        self.run(end).await?;
        let mut answers = result?;
        answers.pop();
        Ok(answers.split_off(1))
    }

    /// Sets one row aside.
    pub async fn set_aside(&mut self, place: &Place, error: &PgError) -> Result<(), PgError> {
        let params = [
            Some(self.lease.run.to_string()),
            Some(self.lease.partition_no.to_string()),
            Some(self.batch_no.to_string()),
            place.ordinal.map(|n| n.to_string()),
            Some(array_literal(&place.key)),
            Some(error.sqlstate.clone()),
            Some(error.message.clone()),
            error.named.constraint.clone(),
            error.named.column.clone(),
        ];
        let sql = "select pgmend.set_aside($1::uuid, $2::int, $3::bigint, $4::bigint, $5::text[], $6, $7, $8, $9)";
        self.as_oneself(Statement { doing: "set a row aside", sql: sql.into(), params: params.into() }).await?;
        Ok(())
    }

    /// The open letters of the run's other partitions, as the batch's own snapshot has them. After a row was set aside
    /// that is all of them: of two batches with letters the later one fails.
    /// Lock:  none. Index: `partition_pkey`, `batch_pkey` backwards in each partition.
    pub async fn letters_elsewhere(&mut self) -> Result<i64, PgError> {
        let sql = "select coalesce(sum(b.dead_total), 0)::text \
                   from (select 0 as partition_no union all select p.partition_no from pgmend.partition p where p.run_id = $1::uuid) as p \
                   cross join lateral (select b.dead_total from pgmend.batch b where b.run_id = $1::uuid \
                   and b.partition_no = p.partition_no order by b.batch_no desc limit 1) as b \
                   where p.partition_no <> $2::int";
        let params = vec![self.lease.run.to_string(), self.lease.partition_no.to_string()];
        self.as_oneself(Statement::new("count the dead letters", sql, params)).await?.number()
    }

    /// Says what became of a letter.
    pub async fn settle(&mut self, letter_no: i64, settled: &Settled<'_>) -> Result<(), PgError> {
        let error = match settled {
            Settled::FailedAgain(error) => Some(*error),
            Settled::Changed | Settled::PassedOver | Settled::Conflict => None,
        };
        let params = [
            Some(self.lease.run.to_string()),
            Some(self.lease.partition_no.to_string()),
            Some(self.batch_no.to_string()),
            Some(letter_no.to_string()),
            Some(settled.state().to_owned()),
            error.map(|e| e.sqlstate.clone()),
            error.map(|e| e.message.clone()),
            error.and_then(|e| e.named.constraint.clone()),
            error.and_then(|e| e.named.column.clone()),
        ];
        let sql = "select pgmend.settle_dead_letter($1::uuid, $2::int, $3::bigint, $4::bigint, $5, $6, $7, $8, $9)";
        self.as_oneself(Statement { doing: "settle a dead letter", sql: sql.into(), params: params.into() }).await?;
        Ok(())
    }

    /// Runs a statement of the control schema as the session's user, and takes the job's role on again.
    async fn as_oneself(&mut self, statement: Statement) -> Result<Answer, PgError> {
        let answers = self.session.pipeline(&[Scene::as_self(), statement, self.scene.as_job()]).await;
        let answer = answers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().nth(1);
        answer.ok_or_else(|| PgError::corrupt("a statement gave no answer"))
    }
}

impl Session {
    /// Dead letters of a run after `after`, in the order they were set aside; only open ones, if asked for.
    pub async fn dead_letters(
        &self,
        run: RunId,
        open_only: bool,
        after: i64,
        limit: i64,
    ) -> Result<Vec<StoredLetter>, PgError> {
        let params = vec![run.to_string(), open_only.to_string(), after.to_string(), limit.to_string()];
        let sql = include_str!("../sql/store/dead_letters.sql");
        let answer = self.run(&Statement::new("read dead letters", sql, params)).await?;
        answer.rows.iter().map(|row| from_json(row, 0)).collect()
    }
}
