//! Named points at which tests kill the process, at every boundary where a crash could lose or double
//! a row. `PGMEND_FAULT=name` aborts at the first passage, `name:3` at the third. Debug builds only.

use std::sync::atomic::{AtomicU64, Ordering};

/// Every point, in the order that a run passes them.
pub const POINTS: [&str; 6] =
    ["run_started", "lease_taken", "batch_applied", "batch_committed", "before_finish", "after_finish"];

static PASSED: AtomicU64 = AtomicU64::new(0);

/// Passes a point.
pub fn point(name: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Ok(wanted) = std::env::var("PGMEND_FAULT") else { return };
    let (wanted, nth) = wanted.split_once(':').map_or((wanted.as_str(), 1), |(n, k)| (n, k.parse().unwrap_or(1)));
    if wanted == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == nth {
        std::process::abort();
    }
}
