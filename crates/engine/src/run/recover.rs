//! What a worker does after an error: in-memory progress is dropped, the checkpoint read again, and the
//! error's meaning looked up in `core::retry`.

use pgmend_core::dead_letters::APART_ROWS;
use pgmend_core::job::Mode;
use pgmend_core::limits::RETRIES_MAX;
use pgmend_core::plan::ChangeKind;
use pgmend_core::refusal::Code;
use pgmend_core::retry::{Disposition, backoff, disposition, remedy};
use pgmend_core::run::RunState;
use pgmend_core::tenants::is_contention;
use pgmend_pg::PgError;
use pgmend_pg::error::{CHECKPOINT_MISSING, LEASE_LOST, OTHER_SERVER};
use pgmend_pg::store::LastCheckpoint;

use super::blockers::BlockerWatch;
use super::halves::FirstHalf;
use super::interruption::wait_or_stop;
use super::slice::Claim;
use super::step::{OTHER_COUNT, Step};
use super::tenants::TENANT_PAUSED;
use super::worker::Worker;
use crate::error::Error;
use crate::progress::{Event, Stop};

/// Attempts to get a connection again before the run is given up for now.
pub(super) const RECONNECTS_MAX: u32 = 12;
/// A person asked for a pause; raised by `pgmend.begin_batch`.
const PAUSE_ASKED: &str = "PM530";
/// A person asked for the end; raised by `pgmend.begin_batch`.
const CANCEL_ASKED: &str = "PM531";
/// Another worker has stopped the run; raised for a batch of a partition.
const STOPPED_ELSEWHERE: &str = Code::StoppedElsewhere.as_str();
/// No batch begins at this hour; raised by `pgmend.begin_batch`.
const OUTSIDE_HOURS: &str = "PM532";
/// `query_canceled`: by our timeout, or by a second Ctrl-C.
pub(super) const QUERY_CANCELED: &str = "57014";
/// Guards that would say the same again: too many rows would be set aside (by the job, at the beginning, or, raised by the
/// control schema, as people approved), or a trigger wrote more than the batch.
const FINAL: [&str; 4] = [
    Code::TooManyDeadLetters.as_str(),
    Code::FirstRowsFail.as_str(),
    Code::UnapprovedDeadLetters.as_str(),
    Code::UnseenWrites.as_str(),
];
/// `lock_not_available`, and a timeout that may have been spent on a lock.
const LOCK_WAITS: [&str; 2] = ["55P03", QUERY_CANCELED];
/// `read_only_sql_transaction`: a standby.
const READ_ONLY: &str = "25006";
/// `too_many_connections`.
pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";

impl Worker<'_, '_> {
    /// `None`: try again. `Some`: stop in that state.
    pub(super) async fn recover(&mut self, error: PgError) -> Result<Option<RunState>, Error> {
        // What pgmend's own tables raise is no tenant's business, whatever its class.
        let sqlstate = if error.is_ours() && !error.sqlstate.starts_with("PM") { "XX000" } else { &error.sqlstate };
        let sqlstate = sqlstate.to_owned();
        let stop = self.after_error(error).await?;
        self.trouble = stop.as_ref().map(|_| sqlstate).unwrap_or_default();
        Ok(stop)
    }

    async fn after_error(&mut self, error: PgError) -> Result<Option<RunState>, Error> {
        if error.sqlstate == LEASE_LOST {
            return Err(self.lease_lost());
        }
        if error.sqlstate == OTHER_COUNT || error.sqlstate == CANCEL_ASKED {
            self.reload().await?;
            return Ok(Some(RunState::Cancelled));
        }
        if FINAL.contains(&error.sqlstate.as_str()) {
            self.reload().await?;
            return Ok(Some(RunState::Failed { failure: format!("{} ({})", error.message, error.sqlstate) }));
        }
        if error.sqlstate == STOPPED_ELSEWHERE {
            self.reload().await?;
            return Ok(Some(RunState::Running));
        }
        if error.sqlstate == PAUSE_ASKED || error.sqlstate == TENANT_PAUSED {
            self.reload().await?;
            return Ok(Some(RunState::Paused { reason: error.message }));
        }
        if error.sqlstate == OUTSIDE_HOURS {
            self.reload().await?;
            return Ok(Some(self.closed(error.message)));
        }
        if error.sqlstate == QUERY_CANCELED && self.observer.stop() == Stop::Now {
            self.reload().await?;
            return Ok(Some(RunState::Paused { reason: "stopped by a second signal".into() }));
        }
        let meaning = if error.is_ours() || error.sqlstate == CHECKPOINT_MISSING {
            Disposition::RetryBatch
        } else {
            disposition(&error.sqlstate)
        };
        self.attempt += 1;
        match meaning {
            Disposition::PauseRun => {
                self.reload().await?;
                let remedy = remedy(&error.sqlstate).map_or(String::new(), |remedy| format!("; {remedy}"));
                return Ok(Some(RunState::Paused { reason: format!("{error} ({}){remedy}", error.sqlstate) }));
            }
            Disposition::FailRun => {
                self.reload().await?;
                return Ok(Some(failed(&error, None)));
            }
            Disposition::IsolateRow => return self.corner(&error, true).await,
            Disposition::FindRow => return self.corner(&error, false).await,
            Disposition::ShrinkBatch => self.sizing.shrink(),
            Disposition::RetryBatch => {}
        }
        let blocked_by = self.blocked_by(&error);
        // A server that is away, or not yet the primary, is waited for as long as a connection to it is.
        let away = error.is_connection() || error.sqlstate == OTHER_SERVER || error.sqlstate == READ_ONLY;
        if self.attempt > if away { RECONNECTS_MAX } else { RETRIES_MAX } {
            let later = is_contention(&error.sqlstate) && self.may_wait_for_others();
            if self.batch_rows() <= 1 || error.is_ours() || self.plan.one_transaction || later {
                self.reload().await?;
                return Ok(Some(given_up(&error, blocked_by.as_deref())));
            }
            self.attempt = 1;
            if error.is_contention() {
                // Closer to what is in the way; back to the full size once past it.
                self.cornering = Some((self.batch_rows() / 2).max(1));
            } else {
                self.sizing.shrink();
            }
        }
        let wait = backoff(self.attempt, jitter());
        self.observer.tell(&Event::Retrying {
            attempt: self.attempt,
            wait_s: wait.as_secs_f64(),
            error: error.to_string(),
            sqlstate: error.sqlstate.clone(),
            blocked_by,
        });
        // A person's wish ends the wait as well: the server tells it to the next batch.
        self.wishes.rest(self.observer.stop_receiver(), wait).await;
        self.reload().await?;
        Ok(None)
    }

    /// Who was in the way of a batch that waited in vain, as far as was seen; watches the next attempt.
    fn blocked_by(&mut self, error: &PgError) -> Option<String> {
        if !LOCK_WAITS.contains(&error.sqlstate.as_str()) {
            return None;
        }
        let seen = self.blockers.as_ref().and_then(BlockerWatch::seen);
        if self.blockers.as_ref().is_none_or(BlockerWatch::is_over) {
            self.blockers = Some(BlockerWatch::start(&self.conninfo, self.plan.target_oid));
        }
        seen
    }

    /// The same at the end of a run, where no row is changed any more: what is not in the way is a failure.
    pub(super) async fn recover_end(&mut self, error: PgError) -> Result<Option<RunState>, Error> {
        let passes = error.is_transient() || error.sqlstate == LEASE_LOST || self.observer.stop() == Stop::Now;
        if passes || disposition(&error.sqlstate) == Disposition::PauseRun {
            return self.recover(error).await;
        }
        self.reload().await?;
        Ok(Some(failed(&error, None)))
    }

    /// Forgets what memory says and reads the checkpoint, over a new connection if need be. An old transaction
    /// whose answer was lost has either committed, and then its row is there, or the next batch's guards wait for it.
    pub(super) async fn reload(&mut self) -> Result<(), Error> {
        self.prefetched = None;
        self.spanned = None;
        self.scene.image_key = None;
        let mut reconnects = 0;
        loop {
            let read = match self.session().is_closed() {
                true => self.engine.reconnect().await,
                false => Ok(()),
            };
            let read = match read {
                Ok(()) => self.session().last_checkpoint(self.run_id(), self.lease.partition_no).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(at) => {
                    if at.batch_no != self.at.batch_no {
                        // A batch was committed whose answer was lost, and is past what was skipped before it; or a
                        // failover lost the last batches. What was known ahead of another checkpoint counts no more.
                        self.skipped_to = None;
                        self.first_half = FirstHalf::default();
                        self.recount(&at);
                    }
                    self.pass = self.pass.max(at.pass);
                    self.at = at;
                    return Ok(());
                }
                Err(error)
                    if may_connect_soon(&error) && reconnects < RECONNECTS_MAX && self.observer.stop() != Stop::Now =>
                {
                    reconnects += 1;
                    let wait = backoff(reconnects, jitter());
                    self.observer.tell(&Event::Retrying {
                        attempt: reconnects,
                        wait_s: wait.as_secs_f64(),
                        error: error.to_string(),
                        sqlstate: error.sqlstate.clone(),
                        blocked_by: None,
                    });
                    wait_or_stop(self.observer.stop_receiver(), wait).await;
                }
                Err(error) => return Err(super::nights::cut_off(error, self.run_id())),
            }
        }
    }

    /// The command counts what a commit whose answer was lost has changed, and no longer what a failover has lost.
    fn recount(&mut self, at: &LastCheckpoint) {
        let changed_rows = at.changed_rows - self.at.changed_rows;
        match self.claim.take() {
            Some(claim) if at.batch_no > self.at.batch_no => claim.settle(changed_rows),
            Some(_) | None => self.engine.slice.correct(changed_rows),
        }
    }

    /// A row that the change cannot take: halves the batch down to it. An undo then passes over the row as a
    /// conflict; a run that may set rows aside tries the last few one by one; another run stops, and names the row's
    /// place. Without `pass_over` it is only found.
    async fn corner(&mut self, error: &PgError, pass_over: bool) -> Result<Option<RunState>, Error> {
        self.reload().await?;
        // What failed, which may be more than the next batch would have.
        let size = self.claim.as_ref().map_or(self.batch_rows(), Claim::rows);
        let aside = pass_over && self.may_set_aside();
        // Rows apart have failed one by one already: what is left is no row's error.
        if aside && !self.apart && size <= APART_ROWS {
            self.attempt = 0;
            self.apart = true;
            return Ok(None);
        }
        if size > 1 && !self.apart && !self.plan.one_transaction {
            self.attempt = 0;
            self.cornering = Some(size / 2);
            return Ok(None);
        }
        if pass_over
            && self.plan.kind == ChangeKind::Undo
            && self.plan.mode == Mode::Freeze
            && !self.plan.one_transaction
        {
            let reason = rejection(error);
            match self.record_rejected(&reason).await {
                Ok(Step::Applied(batch)) => {
                    if let Some(claim) = self.claim.take() {
                        claim.settle(batch.changed_rows);
                    }
                    self.cornering = None;
                    self.attempt = 0;
                    self.at.batch_no += 1;
                    self.at.cursor = batch.reached.cursor;
                    self.at.conflict_rows += batch.conflict_rows;
                    return Ok(None);
                }
                Ok(Step::Exhausted | Step::Skipped) => return Ok(None),
                // Bounded like any other: the row is cornered again, and the attempts are counted on.
                Err(error) if error.is_transient() => return Box::pin(self.recover(error)).await,
                Err(error) => return Ok(Some(failed(&error, None))),
            }
        }
        let place = match &self.at.cursor {
            _ if self.plan.one_transaction => None,
            Some(_) if self.plan.mode == Mode::Stream => {
                Some(format!("the first matching row after key ({})", self.shown_cursor()))
            }
            None if self.plan.mode == Mode::Stream => Some("the first matching row".to_owned()),
            Some(_) | None => self
                .plan
                .change_set
                .as_ref()
                .map(|c| format!("row n = {} of {}", self.ordinal().unwrap_or(0) + 1, c.relation)),
        };
        let option = match pass_over && !aside && self.plan.may_set_rows_aside() {
            true => {
                format!("; mend it, or let such rows be set aside: pgmend resume {} --dead-letters N", self.run_id())
            }
            false => String::new(),
        };
        let failure = failed(error, place.filter(|_| !self.apart));
        self.apart = false;
        Ok(Some(match failure {
            RunState::Failed { failure } => RunState::Failed { failure: format!("{failure}{option}") },
            other @ (RunState::Running | RunState::Paused { .. } | RunState::Succeeded | RunState::Cancelled) => other,
        }))
    }
}

fn failed(error: &PgError, place: Option<String>) -> RunState {
    let place = place.map_or(String::new(), |p| format!(" at {p}"));
    RunState::Failed { failure: format!("{error} ({}){place}", error.sqlstate) }
}

/// Every retry was used up. What was only in the way may be gone tomorrow: that is no failure.
fn given_up(error: &PgError, blocked_by: Option<&str>) -> RunState {
    if error.is_ours() || !error.is_contention() {
        return failed(error, None);
    }
    let blocker = blocked_by.map_or(String::new(), |who| format!("; in the way: {who}"));
    RunState::Paused { reason: format!("{error} ({}), {RETRIES_MAX} times over{blocker}", error.sqlstate) }
}

/// Why a constraint rejects a row that an undo would restore.
fn rejection(error: &PgError) -> String {
    let named = error.named.constraint.as_ref().map_or(String::new(), |c| format!(" ({c})"));
    match error.sqlstate.as_str() {
        "23505" | "23P01" | "23P99" => format!("a unique value is taken{named}"),
        "23503" => format!("other rows refer to it, or a row that it refers to is gone{named}"),
        _ => format!("rejected: {}{named}", error.message),
    }
}

/// Whether there may be a connection a moment later.
pub(super) fn may_connect_soon(error: &PgError) -> bool {
    error.is_connection() || error.sqlstate == TOO_MANY_CONNECTIONS
}

/// A number in 0..1 that differs between processes and moments; nothing depends on its quality.
pub(super) fn jitter() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    f64::from(now.wrapping_mul(2_654_435_761) % 1_000) / 1_000.0
}
