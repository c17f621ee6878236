//! Who keeps a batch waiting. Once a batch is over, nobody can tell any more: so when one has run into a lock, the next
//! attempt is watched from a connection of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgmend_pg::Session;
use pgmend_pg::conninfo::Conninfo;
use tokio::task::JoinHandle;

use crate::control::blocker::who;

/// How often it is looked, in the length of a lock wait.
const LOOK: Duration = Duration::from_millis(100);
/// A watch looks no longer than this: attempts, with the pauses between them, are over by then.
const WATCH_MAX: Duration = Duration::from_secs(60);

/// Looks for sessions that keep pgmend waiting on a table, until it is dropped.
pub(super) struct BlockerWatch {
    task: JoinHandle<()>,
    seen: Arc<Mutex<Option<String>>>,
}

impl BlockerWatch {
    /// Begins to look.
    pub fn start(conninfo: &Conninfo, target_oid: u32) -> Self {
        let seen = Arc::new(Mutex::new(None));
        let task = tokio::spawn(look(conninfo.clone(), target_oid, Arc::clone(&seen)));
        Self { task, seen }
    }

    /// Whom it saw last.
    pub fn seen(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it has looked for as long as it does.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for BlockerWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(conninfo: Conninfo, target_oid: u32, seen: Arc<Mutex<Option<String>>>) {
    let begun = Instant::now();
    let Ok(session) = Session::connect(&conninfo).await else { return };
    while begun.elapsed() < WATCH_MAX {
        match session.blockers(target_oid).await {
            Ok(found) => {
                if let Some(blocker) = found.first() {
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(who(blocker));
                }
            }
            // The run is told of its own errors; a name is only a help.
            Err(_) => return,
        }
        tokio::time::sleep(LOOK).await;
    }
}
