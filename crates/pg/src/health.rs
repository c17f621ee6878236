//! Reads what signals measure. Each probe is one statement that needs no right beyond reading the server's own views;
//! what this role may not see is told as such. Decides nothing.

use std::sync::atomic::Ordering;

use pgmend_core::id::RunId;
use pgmend_core::throttle::lag::Standby;
use pgmend_core::throttle::{Builtin, Reason};
use serde::{Deserialize, Serialize};

use crate::batch::Lease;
use crate::error::PgError;
use crate::session::{Answer, Session, Statement};
use crate::store::{from_json, text};

/// `insufficient_privilege`.
const FORBIDDEN: &str = "42501";

const HOLDS: &str = include_str!("../sql/store/holds.sql");

/// A statement that measures one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// The positions of the primary and its standbys.
    Standbys,
    /// Who else works on the server.
    Company,
    /// Any other measure.
    Of(Builtin),
}

impl Probe {
    /// The probe that a built-in signal needs; none for what the worker measures itself.
    pub fn of(builtin: Builtin) -> Option<Probe> {
        match builtin {
            Builtin::ReplayLag | Builtin::ReplayLagBytes => Some(Probe::Standbys),
            Builtin::CommitLatency => None,
            Builtin::SlotWal
            | Builtin::ArchiveQueue
            | Builtin::ArchiveFailing
            | Builtin::ActiveSessions
            | Builtin::WaitingOnUs
            | Builtin::OldestSnapshot
            | Builtin::DeadTuples
            | Builtin::Vacuum
            | Builtin::Checkpoints
            | Builtin::WalRate => Some(Probe::Of(builtin)),
        }
    }

    fn sql(self, server_version_num: u32) -> &'static str {
        let builtin = match self {
            Probe::Standbys => return include_str!("../sql/health/standbys.sql"),
            Probe::Company => return include_str!("../sql/health/company.sql"),
            Probe::Of(builtin) => builtin,
        };
        match builtin {
            Builtin::SlotWal => include_str!("../sql/health/slot_wal.sql"),
            Builtin::ArchiveQueue => include_str!("../sql/health/archive_queue.sql"),
            Builtin::ArchiveFailing => include_str!("../sql/health/archive_failing.sql"),
            Builtin::ActiveSessions => include_str!("../sql/health/active_sessions.sql"),
            Builtin::WaitingOnUs => include_str!("../sql/health/waiting_on_us.sql"),
            Builtin::OldestSnapshot => include_str!("../sql/health/oldest_snapshot.sql"),
            Builtin::DeadTuples => include_str!("../sql/health/dead_tuples.sql"),
            Builtin::Vacuum => include_str!("../sql/health/vacuum.sql"),
            Builtin::Checkpoints if server_version_num >= 170_000 => include_str!("../sql/health/checkpoints_17.sql"),
            Builtin::Checkpoints => include_str!("../sql/health/checkpoints.sql"),
            Builtin::WalRate | Builtin::ReplayLag | Builtin::ReplayLagBytes | Builtin::CommitLatency => {
                include_str!("../sql/health/wal.sql")
            }
        }
    }

    /// Whether the statement takes the target's oid.
    fn takes_target(self) -> bool {
        matches!(self, Probe::Of(Builtin::DeadTuples | Builtin::Vacuum))
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampled {
    /// A number.
    Value {
        /// The number, or a counter that only grows.
        value: f64,
        /// What it belongs to.
        detail: String,
        /// A limit that the server itself sets, below which the run should stay.
        most: Option<f64>,
    },
    /// Positions of the primary and its standbys.
    Standbys {
        /// The primary's, in bytes.
        position: f64,
        /// The standbys.
        standbys: Vec<Standby>,
    },
    /// Sessions of others.
    Company {
        /// Those that did something within the last second, or whose doings are hidden.
        sessions: f64,
        /// Those that work right now.
        working: f64,
    },
    /// This role may not know.
    Unreadable(String),
}

/// Why a run holds or held, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredHold {
    /// The partition whose worker holds.
    pub partition_no: i32,
    /// The signal.
    pub signal: String,
    /// Whether it holds now.
    pub active: bool,
    /// For how many seconds, if it does.
    pub since_s: Option<f64>,
    /// The value when it was last looked at.
    pub value: Option<f64>,
    /// Where the hold was entered.
    pub enter: f64,
    /// Where it is left.
    pub leave: f64,
    /// One sentence.
    pub reason: String,
    /// What to type to look closer.
    pub look: Option<String>,
    /// Seconds of all holds for this signal so far.
    pub held_s: f64,
    /// How many there were.
    pub holds: i64,
}

#[derive(Deserialize)]
struct StandbyRow {
    position: f64,
    hidden: i64,
    standbys: Vec<Standby>,
}

impl Session {
    /// Version of the server, such as 150004.
    pub async fn server_version_num(&self) -> Result<u32, PgError> {
        let sql = "select current_setting('server_version_num')";
        let answer = self.run(&Statement::new("read the server's version", sql, vec![])).await?;
        Ok(answer.scalar().and_then(|number| number.parse().ok()).unwrap_or_default())
    }

    /// Runs probes in one round trip, in a read-only transaction with short timeouts. One that fails does not harm
    /// the others; an error of the whole is one of the connection.
    pub async fn probe(
        &self,
        probes: &[Probe],
        target_oid: u32,
        server_version_num: u32,
        timeout_ms: u64,
    ) -> Result<Vec<Result<Sampled, PgError>>, PgError> {
        let statements = probes.iter().map(|probe| {
            let params = if probe.takes_target() { vec![target_oid.to_string()] } else { vec![] };
            Statement::new("read a signal", probe.sql(server_version_num), params)
        });
        let answers = self.aside(statements.collect(), timeout_ms).await?;
        let read = |(probe, answer): (&Probe, Result<Answer, PgError>)| match answer {
            Ok(answer) => sampled(*probe, &answer),
            Err(error) if error.sqlstate == FORBIDDEN => Ok(Sampled::Unreadable(error.message)),
            Err(error) => Err(error),
        };
        Ok(probes.iter().zip(answers).map(read).collect())
    }

    /// The one number of a query that a job brings.
    pub async fn ask_number(&self, query: &str, timeout_ms: u64) -> Result<f64, PgError> {
        let query = query.trim().trim_end_matches(';');
        let sql = format!("select answer::double precision::text from ({query}) as q (answer) limit 1");
        let mut answers = self.aside(vec![Statement::new("read a signal", sql, vec![])], timeout_ms).await?;
        let answer = answers.pop().unwrap_or_else(|| Err(PgError::corrupt("a statement gave no answer")))?;
        let number = answer.scalar().and_then(|number| number.parse().ok());
        number.ok_or_else(|| PgError::new("read a signal", "22004", "the query gives no number"))
    }

    /// Statements that may fail one by one, in one read-only transaction and one round trip.
    async fn aside(
        &self,
        statements: Vec<Statement>,
        timeout_ms: u64,
    ) -> Result<Vec<Result<Answer, PgError>>, PgError> {
        let plain = |doing: &'static str, sql: &'static str| Statement::new(doing, sql, vec![]);
        let mut all = vec![
            plain("begin a reading", "begin read only"),
            Statement::new(
                "limit a reading",
                "select set_config('statement_timeout', $1, true), set_config('lock_timeout', $1, true)",
                vec![timeout_ms.to_string()],
            ),
        ];
        let count = statements.len();
        for statement in statements {
            all.push(plain("set a savepoint", "savepoint pgmend"));
            all.push(statement);
            // Also when it succeeded: nothing was written, and an error must not reach the next one.
            all.push(plain("roll back to a savepoint", "rollback to savepoint pgmend"));
        }
        all.push(plain("end a reading", "rollback"));
        self.dirty.store(true, Ordering::Relaxed);
        let mut answers = self.pipeline(&all).await;
        if let Some(Err(broken)) = answers.last() {
            return Err(broken.clone());
        }
        self.dirty.store(false, Ordering::Relaxed);
        if answers.len() < 2 + 3 * count {
            return Err(PgError::corrupt("a statement gave no answer"));
        }
        let read = answers.drain(2..2 + 3 * count).skip(1).step_by(3);
        Ok(read.collect())
    }

    /// Tells the control schema why the worker holds, or that it goes on.
    pub async fn set_holds(&self, lease: &Lease, reasons: &[Reason]) -> Result<(), PgError> {
        let reasons = serde_json::to_string(reasons).map_err(|e| PgError::corrupt(e.to_string()))?;
        let params = vec![lease.run.to_string(), lease.partition_no.to_string(), lease.fence.to_string(), reasons];
        let sql = "select pgmend.set_holds($1::uuid, $2::int, $3::bigint, $4::jsonb)";
        self.run(&Statement::new("tell why the run holds", sql, params)).await?;
        Ok(())
    }

    /// Why a run holds or held, the active reasons first.
    pub async fn holds(&self, run: RunId) -> Result<Vec<StoredHold>, PgError> {
        let answer = self.run(&Statement::new("read the holds", HOLDS, vec![run.to_string()])).await?;
        answer.rows.iter().map(|row| from_json(row, 0)).collect()
    }
}

fn sampled(probe: Probe, answer: &Answer) -> Result<Sampled, PgError> {
    let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
    if probe == Probe::Standbys {
        let found: StandbyRow = from_json(row, 0)?;
        return Ok(match found.hidden {
            0 => Sampled::Standbys { position: found.position, standbys: found.standbys },
            _ => Sampled::Unreadable("this role may not see the standbys".into()),
        });
    }
    let number = |at: usize| row.get(at).cloned().flatten().and_then(|number| number.parse::<f64>().ok());
    if probe == Probe::Company {
        let (sessions, working) =
            number(0).zip(number(1)).ok_or_else(|| PgError::corrupt("a signal gave no number"))?;
        return Ok(Sampled::Company { sessions, working });
    }
    if let Some(why) = row.get(2).cloned().flatten() {
        return Ok(Sampled::Unreadable(why));
    }
    let value = number(0).ok_or_else(|| PgError::corrupt("a signal gave no number"))?;
    Ok(Sampled::Value { value, detail: text(row, 1)?, most: number(3) })
}
