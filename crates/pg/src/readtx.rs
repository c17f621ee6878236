//! Transactions that plan: one snapshot, read-only at the server. The planner gets nothing else, so a
//! dry run cannot write: two locks on the door, the type and the server.

use std::sync::atomic::Ordering;

use crate::error::PgError;
use crate::scene::Scene;
use crate::session::{Answer, Session, Statement};

const READ_ONLY: &str = "begin isolation level repeatable read read only";

/// A transaction with one snapshot.
pub struct ReadTx<'s> {
    session: &'s Session,
    params: Vec<Option<String>>,
}

impl Session {
    /// Opens a `repeatable read, read only` transaction as the job's role. `params` are the job's
    /// parameters and the instant: `$1..$p+1` of every statement built from the job.
    pub async fn read(&self, scene: &Scene, params: Vec<Option<String>>) -> Result<ReadTx<'_>, PgError> {
        self.open(scene, READ_ONLY).await?;
        Ok(ReadTx { session: self, params })
    }

    /// One statement in a `repeatable read, read only` transaction of its own as the job's role, in one round trip.
    pub async fn read_once(&self, scene: &Scene, statement: Statement) -> Result<Answer, PgError> {
        let mut statements = self.opening(scene, READ_ONLY);
        statements.extend([statement, Statement::new("end a transaction", "rollback", vec![])]);
        let mut answers = self.pipeline(&statements).await;
        if answers.pop().is_some_and(|ended| ended.is_ok()) {
            self.dirty.store(false, Ordering::Relaxed);
        }
        // The first error is the cause; later ones only say that the transaction is aborted.
        let answer = answers.into_iter().collect::<Result<Vec<_>, _>>()?.pop();
        answer.ok_or_else(|| PgError::corrupt("a statement gave no answer"))
    }

    async fn open(&self, scene: &Scene, begin: &str) -> Result<(), PgError> {
        let statements = self.opening(scene, begin);
        self.pipeline(&statements).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// What a transaction begins with.
    fn opening(&self, scene: &Scene, begin: &str) -> Vec<Statement> {
        let mut statements = Vec::with_capacity(6);
        // Marked before anything is sent: whatever fails or is dropped on the way, the next user rolls back.
        if self.dirty.swap(true, Ordering::Relaxed) {
            statements.push(Statement::new("roll back", "rollback", vec![]));
        }
        statements.extend([Statement::new("begin a transaction", begin, vec![]), scene.enter(), scene.as_job()]);
        statements
    }

    /// Opens a `repeatable read` transaction whose only write is a change set (the freeze), or which a
    /// rehearsal will roll back.
    pub async fn freeze(&self, scene: &Scene, params: Vec<Option<String>>) -> Result<FreezeTx<'_>, PgError> {
        self.open(scene, "begin isolation level repeatable read").await?;
        Ok(FreezeTx { read: ReadTx { session: self, params } })
    }
}

impl ReadTx<'_> {
    /// Runs a statement that has no parameters of the job.
    pub async fn query(&self, doing: &'static str, sql: &str, params: Vec<String>) -> Result<Answer, PgError> {
        self.send(Statement::new(doing, sql, params)).await
    }

    /// The same with parameters that may be NULL.
    pub(crate) async fn query_with_nulls(
        &self,
        doing: &'static str,
        sql: &str,
        params: Vec<Option<String>>,
    ) -> Result<Answer, PgError> {
        self.send(Statement { doing, sql: sql.to_owned(), params }).await
    }

    /// Runs a statement built from the job: its parameters come first, `own` after them.
    pub async fn query_job(&self, doing: &'static str, sql: &str, own: Vec<String>) -> Result<Answer, PgError> {
        self.send(self.of_job(doing, sql, own)).await
    }

    fn of_job(&self, doing: &'static str, sql: &str, own: Vec<String>) -> Statement {
        let params = self.params.iter().cloned().chain(own.into_iter().map(Some)).collect();
        Statement { doing, sql: sql.to_owned(), params }
    }

    /// Runs a statement that may fail, and goes on in the same transaction if it does.
    pub async fn attempt(&self, doing: &'static str, sql: &str, own: Vec<String>) -> Result<Answer, PgError> {
        let plain = |doing: &'static str, sql: &'static str| Statement::new(doing, sql, vec![]);
        let release = || plain("release a savepoint", "release savepoint pgmend");
        let statements = [plain("set a savepoint", "savepoint pgmend"), self.of_job(doing, sql, own), release()];
        let mut answers = self.session.pipeline(&statements).await.into_iter();
        let lost = || Err(PgError::corrupt("a statement gave no answer"));
        answers.next().unwrap_or_else(lost)?;
        let answer = answers.next().unwrap_or_else(lost);
        if answer.is_ok() {
            answers.next().unwrap_or_else(lost)?;
        } else {
            self.query("roll back to a savepoint", "rollback to savepoint pgmend", vec![]).await?;
            self.send(release()).await?;
        }
        answer
    }

    /// Changes `statement_timeout` for the rest of the transaction; 0 is none.
    pub async fn limit_to(&self, timeout_ms: u64) -> Result<(), PgError> {
        let sql = "select set_config('statement_timeout', $1, true)";
        self.query("set the statement timeout", sql, vec![timeout_ms.to_string()]).await?;
        Ok(())
    }

    /// From now on no query takes more than one core: an application beside needs the others.
    ///
    /// Lock:  none (a setting of this transaction).
    /// Index: none.
    pub async fn on_one_core(&self) -> Result<(), PgError> {
        let sql = "set local max_parallel_workers_per_gather = 0";
        self.send(Statement::new("keep to one core", sql, vec![])).await.map(|_| ())
    }

    /// Ends the transaction.
    pub async fn end(self) -> Result<(), PgError> {
        self.session.dirty.store(false, Ordering::Relaxed);
        self.send(Statement::new("end a transaction", "rollback", vec![])).await?;
        Ok(())
    }

    pub(crate) async fn send_statement(&self, statement: Statement) -> Result<(), PgError> {
        self.send(statement).await.map(|_| ())
    }

    async fn send(&self, statement: Statement) -> Result<Answer, PgError> {
        let mut answers = self.session.pipeline(&[statement]).await;
        answers.pop().unwrap_or_else(|| Err(PgError::corrupt("a statement gave no answer")))
    }
}

/// A transaction that computes a change set, or that rehearses.
pub struct FreezeTx<'s> {
    /// The same snapshot, to read from.
    pub read: ReadTx<'s>,
}

impl FreezeTx<'_> {
    /// Becomes the session's user, for the functions of the control schema.
    pub async fn as_self(&self) -> Result<(), PgError> {
        self.read.query("become the session's user", "select set_config('role', 'none', true)", vec![]).await?;
        Ok(())
    }

    /// Takes on the job's role.
    pub async fn as_job(&self, scene: &Scene) -> Result<(), PgError> {
        let statement = scene.as_job();
        self.read.send(statement).await?;
        Ok(())
    }

    /// Commits the change set together with whatever was stored beside it.
    pub async fn commit(self) -> Result<(), PgError> {
        // An aborted transaction answers COMMIT with Ok: ask whether it is alive before.
        self.read.query("commit a change set", "select 1", vec![]).await?;
        self.read.session.dirty.store(false, Ordering::Relaxed);
        self.read.query("commit a change set", "commit", vec![]).await?;
        Ok(())
    }

    /// Gives it up.
    pub async fn rollback(self) -> Result<(), PgError> {
        self.read.end().await
    }
}
