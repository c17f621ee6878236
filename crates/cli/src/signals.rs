//! Ctrl-C and SIGTERM: the first finishes the batch, the second cancels it, the third leaves at once.
//! All three are safe: rows and checkpoint are committed together or not at all.

use pgmend::progress::Stop;
use pgmend_core::exit;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::progress::Progress;

/// Turns signals into the wish to stop from now on, for as long as the process lives.
pub fn listen(stop: watch::Sender<Stop>, progress: Progress) -> Result<(), Failure> {
    let listening = |source| Failure::io("listen for signals", &source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(listening)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(listening)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let wish = next(*stop.borrow());
            match wish {
                Some(Stop::Now) => progress.say("cancelling the batch; nothing of it stays"),
                Some(Stop::AfterBatch | Stop::None) => {
                    progress.say("stopping after this batch; press Ctrl-C again to cancel it at once");
                }
                None => {
                    progress.say("left at once; the same command goes on from the last committed batch");
                    std::process::exit(exit::PAUSED.into());
                }
            }
            stop.send_replace(wish.unwrap_or(Stop::Now));
        }
    });
    Ok(())
}

/// What another signal means; `None` when patience is over.
fn next(now: Stop) -> Option<Stop> {
    match now {
        Stop::None => Some(Stop::AfterBatch),
        Stop::AfterBatch => Some(Stop::Now),
        Stop::Now => None,
    }
}

#[cfg(test)]
mod tests {
    use super::next;
    use pgmend::progress::Stop;

    #[test]
    fn each_signal_is_more_urgent_than_the_one_before() {
        assert_eq!(next(Stop::None), Some(Stop::AfterBatch));
        assert_eq!(next(Stop::AfterBatch), Some(Stop::Now));
        assert_eq!(next(Stop::Now), None);
    }
}
