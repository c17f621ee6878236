//! Waits and statements that end when somebody wants this process to stop.

use std::time::Duration;

use pgmend_pg::{PgError, Session};
use tokio::sync::watch;

use crate::progress::Stop;

/// Runs a future, cancelling the session's statement if a second stop is asked for.
pub(super) async fn cancellable<T>(
    session: &Session,
    mut stop: watch::Receiver<Stop>,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return result,
            changed = stop.changed() => {
                if changed.is_err() {
                    return work.await;
                }
                if *stop.borrow() == Stop::Now {
                    // Best effort: if the request does not arrive, the statement's own timeout ends it.
                    let _ = session.canceller().cancel().await;
                }
            }
        }
    }
}

/// Waits, but no longer than until somebody wants to stop.
pub(super) async fn wait_or_stop(mut stop: watch::Receiver<Stop>, wait: Duration) {
    let wished = async {
        // A sender that is gone will never ask.
        if stop.wait_for(|wish| *wish != Stop::None).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = wished => {}
    }
}
