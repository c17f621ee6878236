//! Runs that outlast a window of the allowed hours, or a time without access: `--until-done` waits and goes on.
//!
//! Between two windows the run is *paused*, its lease is given back and no connection is held, since a process that
//! sits on them for sixteen hours helps nobody: whoever looks sees why it waits, a person can cancel it or go on with
//! it from anywhere, and a dead process leaves nothing behind. Credentials are read again for each connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgmend_core::id::RunId;
use pgmend_core::limits::{ACCESS_WAIT_MAX_S, WINDOWS_WAITED_MAX};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::retry::{access_backoff, remedy};
use pgmend_core::run::RunState;
use pgmend_pg::PgError;
use pgmend_pg::store::{Fact, LeaseAnswer, StoredRun};

use super::pace::Metered;
use super::slice::Slice;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::{Outcome, RunOptions};
use crate::progress::{Event, Observer, Stop};

/// While the hours are closed, how often the policy and the run are looked at: both may change meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Lease of a run of which only a word is corrected, seconds.
const SAYING_S: u64 = 10;
/// The server's clock and ours run apart a little: asked for again this long after the opening.
const AFTER_OPENING: Duration = Duration::from_millis(200);

/// Why a run stopped by itself, where it can go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Away {
    /// The allowed hours are over.
    Closed,
}

/// What ended a wait.
pub(super) enum Waited {
    /// What was waited for has come.
    Over,
    /// Somebody wants this process to stop.
    Stopped,
}

impl Engine {
    /// Takes the lease and applies batch after batch; with `until_done`, window after window.
    pub(super) async fn drive(
        &mut self,
        run: StoredRun,
        options: &RunOptions,
        observer: &mut Observer,
        resumed: bool,
    ) -> Result<Outcome, Error> {
        let (mut run, mut resumed) = (run, resumed);
        (self.slice, self.metered) = (Arc::new(Slice::begin()), Metered::begin());
        let until = self.ends_at(&run, options).await?;
        for _ in 0..WINDOWS_WAITED_MAX {
            self.away = None;
            let ended = Box::pin(self.drive_once(run.clone(), options, observer, resumed)).await;
            let ended = ended.map_err(|error| without_room(error, run.run_id));
            self.session.mark(None);
            let away = self.away.take();
            if !options.until_done {
                return ended;
            }
            let waited = match (&ended, away) {
                // A worker may have failed while another one met the end of the hours.
                (Ok(outcome), Some(Away::Closed)) if matches!(outcome.state, RunState::Paused { .. }) => {
                    self.wait_for_hours(Some(run.run_id), until, observer).await?
                }
                (Err(error), _) if is_without_access(error) => self.wait_for_access(error, until, observer).await?,
                (Ok(_) | Err(_), _) => return ended,
            };
            let now = self.one_run(&run.run_id.to_string()).await?;
            let held_back = self.session.wish(run.run_id).await?.is_some();
            if matches!(waited, Waited::Stopped) && !held_back {
                let now = self.no_longer_waits(now).await?;
                return self.outcome(&now, true).await;
            }
            if now.state.ended() || held_back {
                return self.outcome(&now, true).await;
            }
            (run, resumed) = (now, true);
        }
        let now = self.one_run(&run.run_id.to_string()).await?;
        self.outcome(&now, true).await
    }

    /// When the time of the command is over, its waits for hours and access included; `None` where it has no end.
    async fn ends_at(&self, run: &StoredRun, options: &RunOptions) -> Result<Option<Instant>, Error> {
        if !options.until_done {
            return Ok(None);
        }
        let planned = self.session.plan_of(run.plan_id).await?.plan.pace;
        let span = options.pace.over(&planned).stop_after;
        Ok(span.map(|span| Instant::now() + Duration::from_secs(span.seconds())))
    }

    /// Corrects what a run says of itself, that this process goes on in the next hours: it ends. As well as it can: whoever
    /// drives the run by now says something else anyway.
    async fn no_longer_waits(&mut self, run: StoredRun) -> Result<StoredRun, Error> {
        if let RunState::Paused { reason } = &run.state
            && let Some(closed) = reason.strip_suffix(&super::pace::goes_on())
        {
            let _corrected_or_not = self.say_paused(run.run_id, format!("{closed}{}", super::pace::BY_HAND)).await;
        }
        self.one_run(&run.run_id.to_string()).await
    }

    /// Another reason for a run that is paused.
    async fn say_paused(&self, run: RunId, reason: String) -> Result<(), PgError> {
        let (owner, holder) = (uuid::Uuid::now_v7().to_string(), super::ownership::holder());
        let answer = self.session.acquire_lease(run, &owner, &holder, SAYING_S).await?;
        let LeaseAnswer::Acquired(lease) = answer else { return Ok(()) };
        let at = self.session.totals(run).await?;
        let body = serde_json::json!({ "why": reason, "batch": at.batch_no, "changed_rows": at.changed_rows, "dead_rows": at.dead_rows });
        let fact = Fact { name: "run_paused", body: &body };
        let said = self.session.change_state(&lease, &["paused"], &RunState::Paused { reason }, None, fact).await;
        self.session.release(&lease).await?;
        said
    }

    /// Waits, before a run starts, until the policy allows it to.
    pub(super) async fn wait_to_start(&mut self, observer: &mut Observer) -> Result<(), Error> {
        match self.wait_for_hours(None, None, observer).await? {
            Waited::Over => Ok(()),
            Waited::Stopped => Err(wait_ended("the allowed hours")),
        }
    }

    /// Waits without a connection until batches may begin again. Comes back connected.
    async fn wait_for_hours(
        &mut self,
        run: Option<RunId>,
        until: Option<Instant>,
        observer: &mut Observer,
    ) -> Result<Waited, Error> {
        // A run that was drained before the end: this window counts as over.
        let mut drained = run.is_some();
        loop {
            let Some(next) = self.session.next_hours().await? else { return Ok(Waited::Over) };
            if !drained && next.closes_in_s.is_some_and(|s| s > 0.0) {
                return Ok(Waited::Over);
            }
            drained = false;
            let (Some(opens_at), Some(opens_in_s)) = (&next.opens_at, next.opens_in_s) else {
                return Ok(Waited::Stopped);
            };
            let opens_in = Duration::from_secs_f64(opens_in_s.max(0.0)) + AFTER_OPENING;
            let what = format!("the allowed hours, which begin at {opens_at} ({})", next.zone);
            let slept = self.sleep_without_connection(&what, opens_in, until, observer).await?;
            if matches!(slept, Waited::Stopped) || is_past(until) {
                return Ok(Waited::Stopped);
            }
            if opens_in <= LOOK_EVERY {
                return Ok(Waited::Over);
            }
            if let Some(run) = run {
                let ended = self.one_run(&run.to_string()).await?.state.ended();
                if ended || self.session.wish(run).await?.is_some() {
                    return Ok(Waited::Over);
                }
            }
        }
    }

    /// Lets the connection go for a while, though not beyond the next look.
    async fn sleep_without_connection(
        &mut self,
        what: &str,
        opens_in: Duration,
        until: Option<Instant>,
        observer: &mut Observer,
    ) -> Result<Waited, Error> {
        self.session.close();
        observer.tell(&Event::Waiting { what: what.to_owned(), wait_s: opens_in.as_secs_f64() });
        super::interruption::wait_or_stop(observer.stop_receiver(), opens_in.min(LOOK_EVERY).min(left(until))).await;
        let stopped = observer.stop() != Stop::None;
        match self.reconnect().await {
            Ok(()) if stopped => Ok(Waited::Stopped),
            Ok(()) => Ok(Waited::Over),
            Err(error) if is_access(&error.sqlstate) && stopped => Err(wait_ended(what)),
            Err(error) if is_access(&error.sqlstate) => self.wait_for_access(&error.into(), until, observer).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Tries to connect, with the credentials of each moment, for as long as a week. Comes back connected.
    pub(super) async fn wait_for_access(
        &mut self,
        why: &Error,
        until: Option<Instant>,
        observer: &mut Observer,
    ) -> Result<Waited, Error> {
        let began = Instant::now();
        let mut why = why.to_string();
        for attempt in 1.. {
            if began.elapsed() >= Duration::from_secs(ACCESS_WAIT_MAX_S) {
                break;
            }
            let wait = access_backoff(attempt);
            observer.tell(&Event::Waiting { what: format!("access: {why}"), wait_s: wait.as_secs_f64() });
            super::interruption::wait_or_stop(observer.stop_receiver(), wait.min(left(until))).await;
            let stopped = observer.stop() != Stop::None || is_past(until);
            match self.reconnect().await {
                Ok(()) if stopped => return Ok(Waited::Stopped),
                Ok(()) => return Ok(Waited::Over),
                Err(error) if is_access(&error.sqlstate) && stopped => {
                    return Err(wait_ended(&format!("access ({error})")));
                }
                Err(error) if is_access(&error.sqlstate) => why = error.to_string(),
                Err(error) => return Err(error.into()),
            }
        }
        let help = "the run is where its last batch left it; the same command goes on";
        Err(Refusal::new(Code::AccessLost, format!("no access for a week: {why}"), help).into())
    }
}

/// Time until then.
fn left(until: Option<Instant>) -> Duration {
    until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
}

fn is_past(until: Option<Instant>) -> bool {
    left(until).is_zero()
}

/// What a person's end of a wait comes to.
pub(crate) fn wait_ended(what: &str) -> Error {
    let message = format!("stopped while waiting for {what}; nothing was changed meanwhile");
    Refusal::new(Code::WaitEnded, message, "type the same command to wait again").into()
}

/// The connection is lost for good, as far as one run is concerned. A server that does not admit this login any more
/// cannot be told that the run pauses; the run is where its last batch left it.
pub(super) fn cut_off(error: PgError, run: RunId) -> Error {
    if !error.sqlstate.starts_with("28") {
        return error.into();
    }
    let help = format!(
        "once the server admits it again, type: pgmend run {run} --execute; with --until-done a run waits for that by itself"
    );
    Refusal::new(Code::AccessLost, format!("{error} ({})", error.sqlstate), help).into()
}

/// The server lacks room so much that not even the pause could be recorded: the run is where its last batch left it,
/// and its lease runs out by itself.
fn without_room(error: Error, run: RunId) -> Error {
    let Error::Database { doing, message, sqlstate } = &error else { return error };
    // Connections become free by themselves, and are waited for elsewhere; a disk does not.
    let lacking = sqlstate.starts_with("53") && !is_access(sqlstate);
    let Some(remedy) = remedy(sqlstate).filter(|_| lacking) else { return error };
    let help = format!("{remedy}: pgmend run {run} --execute");
    Refusal::new(Code::OutOfRoom, format!("{doing}: {message} ({sqlstate})"), help).into()
}

/// Whether an error of the connection may pass: no access, no server, no free place.
fn is_access(sqlstate: &str) -> bool {
    sqlstate.starts_with("28") || sqlstate.starts_with("08") || sqlstate.starts_with("57P") || sqlstate == "53300"
}

pub(super) fn is_without_access(error: &Error) -> bool {
    match error {
        Error::Refused(refusal) => refusal.code == Code::AccessLost,
        Error::Database { sqlstate, .. } => is_access(sqlstate),
        Error::Corrupt(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_is_not_admitted_any_more_is_no_failure_of_the_run() {
        let run = RunId::from_uuid(uuid::Uuid::nil());
        let lost = cut_off(PgError::new("connect", "28P01", "password authentication failed"), run);
        assert_eq!(lost.exit_code(), pgmend_core::exit::PAUSED);
        assert!(is_without_access(&lost) && lost.help().is_some_and(|help| help.contains("--until-done")));
        let broken = cut_off(PgError::new("read", "XX000", "a fault"), run);
        assert!(!is_without_access(&broken));
        assert!(is_without_access(&cut_off(PgError::new("read", "08006", "gone"), run)));
    }
}
