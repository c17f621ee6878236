//! Ownership of a run: the lease, waited for with a countdown, and the heartbeat that keeps it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgmend_core::id::RunId;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_pg::Session;
use pgmend_pg::batch::Lease;
use pgmend_pg::conninfo::Conninfo;
use pgmend_pg::store::LeaseAnswer;

use super::wishes::{HOURS_EVERY, LOOK_EVERY, Wishes};
use crate::error::Error;
use crate::progress::{Event, Observer, Stop};

/// Heartbeats within one lease.
const HEARTBEATS_PER_LEASE: u64 = 6;
/// More time left than the clock allows means that the lease was renewed.
const RENEWED_S: f64 = 0.2;
/// How often the countdown is shown and the lease tried for.
const COUNTDOWN: Duration = Duration::from_secs(1);

/// How this process is named to others.
pub fn holder() -> String {
    format!("process {} of {}", std::process::id(), crate::engine::client())
}

/// Takes the lease. A live holder is told apart from a dead one by its heartbeat: while `left_s` is
/// renewed someone lives, and is not waited for; once it only shrinks, it is waited out.
pub async fn take(session: &Session, run: RunId, seconds: u64, observer: &mut Observer) -> Result<Lease, Error> {
    let owner = uuid::Uuid::now_v7().to_string();
    let holder = holder();
    let mut seen: Option<(f64, Instant)> = None;
    loop {
        // From the last answer to this question: a slow answer makes no dead holder look alive.
        let asked = Instant::now();
        match session.acquire_lease(run, &owner, &holder, seconds).await? {
            LeaseAnswer::Acquired(lease) => return Ok(lease),
            LeaseAnswer::Held { holder, left_s } => {
                if seen.is_some_and(|(left, at)| left_s > left - asked.duration_since(at).as_secs_f64() + RENEWED_S) {
                    let at = session.totals(run).await?;
                    let message = format!(
                        "run {run} is being driven by {holder}: {} rows changed in {} batches so far",
                        at.changed_rows, at.batch_no
                    );
                    let help = format!(
                        "watch it: pgmend status {}; when its lease runs out, the same command goes on",
                        run.short()
                    );
                    return Err(Refusal::new(Code::LeaseHeld, message, help).into());
                }
                seen = Some((left_s, Instant::now()));
                observer.tell(&Event::WaitingForLease { holder, left_s });
                if observer.stop() != Stop::None {
                    let help = "type the same command to wait again";
                    return Err(Refusal::new(Code::LeaseHeld, "stopped while waiting for the lease", help).into());
                }
                tokio::time::sleep(COUNTDOWN.min(Duration::from_secs_f64(left_s.max(0.05)))).await;
            }
        }
    }
}

/// Renews the lease from a connection of its own until it is dropped.
pub struct Heartbeat {
    task: tokio::task::JoinHandle<()>,
    shared: Arc<Shared>,
    trust: Duration,
}

struct Shared {
    /// The lease that is renewed; none between two partitions.
    lease: Mutex<Option<Lease>>,
    begun: Instant,
    /// Milliseconds after `begun` at which the last successful heartbeat was sent.
    sent_ms: AtomicU64,
    /// Microseconds from sending the last heartbeat to its answer: a round trip and a commit.
    took_us: AtomicU64,
    /// Microseconds of the last look at what people want: a round trip and a short read.
    looked_us: AtomicU64,
    lost: AtomicBool,
}

impl Heartbeat {
    /// Starts the heartbeat of a lease just taken. On its way it looks for what people want of the run.
    pub fn start(conninfo: &Conninfo, lease: &Lease, seconds: u64, wishes: &Wishes) -> Self {
        let shared = Arc::new(Shared {
            lease: Mutex::new(Some(lease.clone())),
            begun: Instant::now(),
            sent_ms: AtomicU64::new(0),
            took_us: AtomicU64::new(0),
            looked_us: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        });
        let task = tokio::spawn(beat(conninfo.clone(), lease.run, seconds, Arc::clone(&shared), wishes.clone()));
        Self { task, shared, trust: Duration::from_secs(seconds) * 2 / 3 }
    }

    /// Renews nothing until it follows another lease: this one is about to be given back.
    pub fn rest(&self) {
        *self.shared.lease() = None;
    }

    /// Renews another lease of the same run from now on, which was just taken. False where it has ended meanwhile.
    pub fn follow(&self, lease: &Lease) -> bool {
        if self.lost() || self.task.is_finished() {
            return false;
        }
        self.shared.sent_ms.store(self.shared.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        *self.shared.lease() = Some(lease.clone());
        true
    }

    /// Whether the lease may still be relied on: for two thirds of its length, counted from when the last
    /// heartbeat was sent. The fence decides in the end; this only avoids work that it would stop.
    pub fn trusted(&self) -> bool {
        let sent = Duration::from_millis(self.shared.sent_ms.load(Ordering::Relaxed));
        !self.lost() && self.shared.begun.elapsed().saturating_sub(sent) < self.trust
    }

    /// What the last heartbeat took, a round trip and a commit; `None` before the first.
    pub fn took(&self) -> Option<Duration> {
        measured(&self.shared.took_us)
    }

    /// What a round trip with a short read took last, no commit; `None` before the first.
    pub fn round_trip(&self) -> Option<Duration> {
        measured(&self.shared.looked_us)
    }

    /// Whether another worker has taken over.
    pub fn lost(&self) -> bool {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// It is whole or not there: a panic elsewhere leaves none half written.
    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn measured(us: &AtomicU64) -> Option<Duration> {
    let us = us.load(Ordering::Relaxed);
    (us > 0).then(|| Duration::from_micros(us))
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn beat(conninfo: Conninfo, run: RunId, seconds: u64, shared: Arc<Shared>, wishes: Wishes) {
    let every = Duration::from_millis(seconds * 1_000 / HEARTBEATS_PER_LEASE);
    let mut session: Option<Session> = None;
    // The first one soon: it tells what a commit takes.
    let mut due = Duration::ZERO;
    let mut hours_due = Duration::ZERO;
    loop {
        // Twice for each heartbeat at least, or a short lease would leave no turn to look.
        tokio::time::sleep(LOOK_EVERY.min(every / 2)).await;
        if session.as_ref().is_none_or(Session::is_closed) {
            session = connect(&conninfo).await;
        }
        let Some(open) = &session else {
            tokio::time::sleep(every).await;
            continue;
        };
        let sent = shared.begun.elapsed();
        let renewed = shared.lease().clone();
        let Some(lease) = renewed.filter(|_| sent >= due) else {
            let hours_too = sent >= hours_due;
            match tokio::time::timeout(every, wishes.look(open, run, hours_too)).await {
                Ok(Ok(())) if hours_too => hours_due = sent + HOURS_EVERY,
                Ok(Ok(())) => {
                    let took = shared.begun.elapsed().saturating_sub(sent);
                    shared.looked_us.store(took.as_micros() as u64, Ordering::Relaxed);
                }
                Ok(Err(_)) | Err(_) => session = None,
            }
            continue;
        };
        let answer = tokio::time::timeout(every, open.heartbeat(&lease, seconds)).await;
        if shared.lease().as_ref() != Some(&lease) && matches!(answer, Ok(Ok(_))) {
            // What became of a lease that was given back meanwhile is nobody's concern.
            continue;
        }
        match answer {
            Ok(Ok(true)) => {
                due = sent + every;
                shared.sent_ms.store(sent.as_millis() as u64, Ordering::Relaxed);
                let took = shared.begun.elapsed().saturating_sub(sent);
                shared.took_us.store(took.as_micros() as u64, Ordering::Relaxed);
            }
            Ok(Ok(false)) => {
                shared.lost.store(true, Ordering::Relaxed);
                return;
            }
            Ok(Err(_)) | Err(_) => session = None,
        }
    }
}

async fn connect(conninfo: &Conninfo) -> Option<Session> {
    let session = Session::connect(&conninfo.again()).await.ok()?;
    session.become_self().await.ok()?;
    Some(session)
}
