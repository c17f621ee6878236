//! What people want of a run while it goes: to pause it, to give it up, to change its pace. The heartbeat looks for it
//! twice a second, from its own connection; whoever waits between two batches waits here, and is woken by it.
//!
//! Looked for rather than listened for: LISTEN is session state, which a pooler in transaction mode hands to
//! strangers, and a look is one read of two small tables by their keys. The last word stays with the server, which
//! lets no batch begin against a wish (`pgmend.begin_batch`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgmend_core::id::RunId;
use pgmend_core::throttle::Limit;
use pgmend_pg::pace::{Hours, Tuned, Wanted};
use pgmend_pg::{PgError, Session};
use tokio::sync::watch;

use crate::progress::Stop;

/// How often a heartbeat looks: a wish is known within a second, the way to the server included.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the allowed hours are read: a policy changes seldom, and its calendar is some work for the server.
pub(crate) const HOURS_EVERY: Duration = Duration::from_secs(5);

/// What is wanted now, as last heard. Clones see the same.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    heard: Arc<watch::Sender<Wanted>>,
    hours: Arc<watch::Sender<Option<Closing>>>,
}

/// The end of the allowed hours.
#[derive(Debug, Clone)]
pub(crate) struct Closing {
    /// When they end, by this process's clock; in the past when they have.
    pub at: Instant,
    /// The window, as the server told.
    pub hours: Hours,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// It lasted as long as it should.
    Rested,
    /// A signal wants this process to stop.
    Signal,
    /// A person wants the run to stop: the next batch will be told so by the server.
    Asked,
    /// Another pace is wanted: look again how long to wait.
    Tuned,
}

impl Wishes {
    /// Nothing is wanted yet.
    pub fn new() -> Self {
        Self { heard: Arc::new(watch::Sender::new(Wanted::default())), hours: Arc::new(watch::Sender::new(None)) }
    }

    /// Looks at what is wanted now, and at the allowed hours.
    pub async fn look(&self, session: &Session, run: RunId, hours_too: bool) -> Result<(), PgError> {
        self.hear(session.wanted(run).await?);
        if hours_too {
            let hours = session.hours().await?;
            let now = Instant::now();
            self.hours.send_replace(hours.map(|hours| {
                let open = hours.opens_in_s.is_some_and(|s| s <= 0.0);
                let left_s = hours.closes_in_s.filter(|_| open).unwrap_or(0.0).max(0.0);
                Closing { at: now + Duration::from_secs_f64(left_s), hours }
            }));
        }
        Ok(())
    }

    /// When the allowed hours end; `None` where every hour is allowed, or none was read yet.
    pub fn closing(&self) -> Option<Closing> {
        self.hours.borrow().clone()
    }

    /// Whether somebody wants the run to pause or to end.
    pub fn asked(&self) -> bool {
        self.heard.borrow().stop.is_some()
    }

    /// Takes note of what is wanted now.
    pub fn hear(&self, wanted: Wanted) {
        self.heard.send_if_modified(|last| {
            let news = *last != wanted;
            *last = wanted;
            news
        });
    }

    /// How people changed the limits of signals.
    pub fn limits(&self) -> Vec<Limit> {
        self.heard.borrow().limits.iter().map(|tuned| tuned.limit.clone()).collect()
    }

    /// How people changed the pace.
    pub fn tuned(&self) -> Vec<Tuned> {
        self.heard.borrow().tuned.clone()
    }

    /// Waits between two batches, no longer than until a signal or a person wants something. Never within a
    /// transaction.
    pub async fn rest(&self, mut stop: watch::Receiver<Stop>, wait: Duration) -> Woken {
        let mut wanted = self.heard.subscribe();
        let before = wanted.borrow_and_update().clone();
        if before.stop.is_some() {
            return Woken::Asked;
        }
        let heard = async {
            match wanted.wait_for(|now| *now != before).await.map(|now| now.stop.is_some()) {
                Ok(true) => Woken::Asked,
                Ok(false) => Woken::Tuned,
                // Not while `self` lives, which holds the sender.
                Err(_) => std::future::pending().await,
            }
        };
        let signalled = async {
            // A sender that is gone will never ask.
            if stop.wait_for(|wish| *wish != Stop::None).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => Woken::Rested,
            () = signalled => Woken::Signal,
            woken = heard => woken,
        }
    }
}

#[cfg(test)]
mod tests {
    use pgmend_core::pace::Setting;
    use pgmend_pg::guardrails::Wish;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn pause() -> Wanted {
        let stop = Wish { wish: "pause".into(), reason: "slow".into(), asked_by: "alice".into(), unapproved: None };
        Wanted { stop: Some(stop), ..Wanted::default() }
    }

    fn slower() -> Wanted {
        let reason = "slow".to_owned();
        let tuned = Tuned { setting: Setting::Rate, value: 5.0, reason, tuned_by: "alice".into(), expires_at: None };
        Wanted { tuned: vec![tuned], ..Wanted::default() }
    }

    #[tokio::test]
    async fn a_wait_ends_with_whatever_comes_first() {
        let (signal, stop) = watch::channel(Stop::None);
        let wishes = Wishes::new();
        assert_eq!(wishes.rest(stop.clone(), Duration::from_millis(1)).await, Woken::Rested);
        let woken_by = |wanted: Wanted| {
            let (wishes, stop) = (wishes.clone(), stop.clone());
            async move {
                let resting = tokio::spawn({
                    let wishes = wishes.clone();
                    async move { wishes.rest(stop, LONG).await }
                });
                tokio::task::yield_now().await;
                wishes.hear(wanted);
                resting.await
            }
        };
        assert_eq!(woken_by(slower()).await.unwrap(), Woken::Tuned);
        assert_eq!(woken_by(pause()).await.unwrap(), Woken::Asked);
        assert_eq!(wishes.rest(stop.clone(), LONG).await, Woken::Asked, "it still stands");
        wishes.hear(Wanted::default());
        signal.send_replace(Stop::AfterBatch);
        assert_eq!(wishes.rest(stop, LONG).await, Woken::Signal);
    }
}
