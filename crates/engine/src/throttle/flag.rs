//! Flag files: while one is there, the run holds. Looked for on a thread of its own, since a network file system may
//! not answer at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgmend_core::throttle::{Reading, Signal, Source};

use super::Shared;

/// Looks for the file of a signal until the run ends.
pub async fn watch(shared: Arc<Shared>, signal: Signal) {
    let Source::FlagFile { path } = &signal.source else { return };
    let poll = Duration::from_secs_f64(signal.poll_s);
    loop {
        match look(path.clone(), poll).await {
            Some(reading) => shared.record(&signal.name, reading),
            None => shared.board().fail([signal.name.as_str()], "its file system does not answer"),
        }
        shared.told();
        tokio::time::sleep(poll).await;
    }
}

/// Whether the file is there; `None` when that is not known in time.
pub async fn look(path: String, most: Duration) -> Option<Reading> {
    let file = PathBuf::from(&path);
    let looking = tokio::task::spawn_blocking(move || file.try_exists());
    let found = tokio::time::timeout(most.max(Duration::from_secs(1)), looking).await.ok()?.ok()?;
    Some(match found {
        Ok(there) => Reading::Value { value: f64::from(u8::from(there)), detail: path },
        Err(error) => Reading::Unreadable { why: error.to_string() },
    })
}
