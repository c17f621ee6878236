//! Between two batches: whether the run may go on, and how long it rests. Holding is a normal state: the run is
//! running, its lease is renewed, and the control schema says why nothing moves.

use std::time::{Duration, Instant};

use pgmend_core::run::RunState;
use pgmend_core::throttle::{Manners, Reason, Rung, Verdict};
use pgmend_pg::PgError;

use super::worker::{Turn, Worker};
use crate::error::Error;
use crate::progress::{Event, Stop};

/// A wish, a signal or the heartbeat is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// The value of a hold is told anew this often.
const RETELL: Duration = Duration::from_secs(5);

/// What a run that leaves room waits for, as its announcement begins.
pub(crate) const BESIDE: &str = "the application beside it";

impl Worker<'_, '_> {
    /// Waits for as long as a signal is over its limit, and rests as the pace demands.
    pub(super) async fn hold(&mut self) -> Result<Turn, Error> {
        let mut told: Option<(Instant, Vec<String>)> = None;
        let mut disconnected = false;
        if self.at_the_end() {
            // What is left is to check and to record the end.
            return Ok(Turn::Go);
        }
        loop {
            self.retune();
            self.throttle.commit(self.heartbeat.took());
            match self.throttle.verdict() {
                Verdict::Go => break,
                Verdict::Unread => {}
                Verdict::Hold(reasons) => {
                    let since = *self.throttle.held_since.get_or_insert_with(Instant::now);
                    self.throttle.holds(&reasons);
                    self.tell_hold(&mut told, since, &reasons);
                    match self.throttle.ladder().rung(since.elapsed()) {
                        Rung::Hold => {}
                        Rung::Release if disconnected => {}
                        Rung::Release => {
                            // The probe and the heartbeat have connections of their own.
                            self.session().close();
                            disconnected = true;
                        }
                        Rung::Stop => {
                            self.release().await;
                            return Ok(Turn::Stop(given_up(since, &reasons)));
                        }
                    }
                }
            }
            if self.observer.stop() != Stop::None || !self.heartbeat.trusted() {
                return Ok(Turn::Again);
            }
            if self.wishes.asked() {
                // No batch begins against a wish: what it is, the server says.
                break;
            }
            tokio::select! {
                () = self.throttle.read_or(LOOK) => {}
                _woken = self.wishes.rest(self.observer.stop_receiver(), LOOK) => {}
            }
            if self.overdue() {
                // A hold does not outlast the hours, or the time that the command was given.
                self.release().await;
                if disconnected {
                    self.reload().await?;
                }
                return Ok(Turn::Again);
            }
        }
        let held = self.release().await;
        if disconnected {
            self.reload().await?;
        }
        let rested = match self.rest().await {
            Ok(rested) => rested,
            Err(error) => return Ok(self.recover(error).await?.map_or(Turn::Again, Turn::Stop)),
        };
        // Meanwhile the hours or the command's time may be over, a signal over its limit, and the pace another one.
        Ok(if (held || rested) && !self.wishes.asked() { Turn::Again } else { Turn::Go })
    }

    /// The limits that people set, within what the environment of this process allows.
    fn retune(&mut self) {
        let environment = self.engine.environment.as_ref().map(|named| &named.environment.throttle);
        let limits = self.wishes.limits().into_iter().map(|limit| limit.within(environment)).collect();
        self.throttle.tune(limits);
    }

    /// Tells the observer why nothing moves: at once when the signals change, then from time to time.
    fn tell_hold(&mut self, told: &mut Option<(Instant, Vec<String>)>, since: Instant, reasons: &[Reason]) {
        let signals: Vec<String> = reasons.iter().map(|reason| reason.signal.clone()).collect();
        if told.as_ref().is_some_and(|(at, known)| *known == signals && at.elapsed() < RETELL) {
            return;
        }
        *told = Some((Instant::now(), signals));
        let held_s = since.elapsed().as_secs_f64();
        self.observer.tell(&Event::Holding { held_s, reasons: reasons.to_vec() });
    }

    /// The hold is over, if there was one.
    async fn release(&mut self) -> bool {
        let Some(since) = self.throttle.held_since else { return false };
        self.throttle.settle().await;
        self.observer.tell(&Event::Released { held_s: since.elapsed().as_secs_f64() });
        true
    }

    /// How to behave beside whoever else works on the server. A ratio of rest that people chose goes before the one that
    /// company asks for: it is that of their own server.
    pub(super) fn manners(&self) -> Manners {
        let manners = self.throttle.manners(self.sharing);
        let pace_max = if self.pace_now().nice.is_some() { 1.0 } else { manners.pace_max };
        Manners { pace_max, ..manners }
    }

    /// Rests as the pace demands, not beyond the time that the command was given. Says whether it did.
    async fn rest(&mut self) -> Result<bool, PgError> {
        let most = self.manners().pace_max;
        let (rest, changed) = self.throttle.rest(most);
        if let Some(pace) = changed {
            self.observer.tell(&Event::Slowed { pace });
        }
        if rest.is_zero() {
            return Ok(false);
        }
        let rest = rest.min(self.time_left());
        if most < 1.0 {
            // Few writes: no rest but the last of a command is shorter than a second.
            let what = format!("{BESIDE} (works {} % of the time itself)", (most * 1_000.0).round() / 10.0);
            self.session().announce(&self.lease, self.pacer.asked(), Some((&what, rest.as_secs_f64()))).await?;
        }
        let _woken = self.wishes.rest(self.observer.stop_receiver(), rest).await;
        Ok(true)
    }
}

fn given_up(since: Instant, reasons: &[Reason]) -> RunState {
    let texts: Vec<&str> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    RunState::Paused { reason: format!("held for {} s: {}", since.elapsed().as_secs(), texts.join("; ")) }
}
