//! Waits and statements that end when somebody wants this process to stop.

use std::time::Duration;

use pgmend_pg::{PgError, Session};
use tokio::sync::watch;

use crate::progress::Stop;

/// Turns of a cancellation; then the statement's own timeout has to end it.
const CANCEL_TURNS: u32 = 20;
/// Between two turns: what comes before the statement has begun is lost, and said again.
const CANCEL_TURN: Duration = Duration::from_millis(500);
/// Turns through another session before the server is asked by a cancel request, as psql does. A PgBouncer may lose such a
/// request, and version 1.18 may die of it; without a second session in its pool there is no other way.
const TURNS_BEFORE_REQUEST: u32 = 6;

/// Runs a future, cancelling the session's statement if a second stop is asked for.
pub(super) async fn cancellable<T>(
    session: &Session,
    mut stop: watch::Receiver<Stop>,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    let mut work = std::pin::pin!(work);
    let wished = async {
        // A sender that is gone will never ask.
        if stop.wait_for(|wish| *wish == Stop::Now).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = &mut work => return result,
        () = wished => {}
    }
    // On the heap: it is needed once in a run at most, and the batch's future is large already.
    let mut cancelling = Box::pin(cancel(session));
    tokio::select! {
        result = &mut work => return result,
        () = &mut cancelling => {}
    }
    work.await
}

/// Cancels what the session executes until it is dropped, for so many turns at most. From another session, which finds the
/// statement by its mark wherever a pooler has put it.
async fn cancel(session: &Session) {
    let mark = session.marked();
    let mut other: Option<Session> = None;
    for turn in 1..=CANCEL_TURNS {
        let told = async {
            let Some(mark) = mark.as_deref() else { return Ok(false) };
            let told = match &other {
                Some(open) => open,
                None => other.insert(Session::connect(session.conninfo()).await?),
            };
            told.cancel_marked(mark).await
        };
        let told = matches!(tokio::time::timeout(CANCEL_TURN, Box::pin(told)).await, Ok(Ok(true)));
        if !told && turn >= TURNS_BEFORE_REQUEST {
            // Best effort: if the request does not arrive, the statement's own timeout ends it.
            let _sent = session.canceller().cancel().await;
        }
        tokio::time::sleep(CANCEL_TURN).await;
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
