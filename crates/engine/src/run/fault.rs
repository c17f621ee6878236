//! Named points at which tests kill the process, at every boundary where a crash could lose or double
//! a row. `PGMEND_FAULT=name` aborts at the first passage, `name:3` at the third. Debug builds only.

use std::sync::atomic::{AtomicU64, Ordering};

/// Every point, in the order that a run passes them; one that is not stopped, resumed or swept passes fewer.
pub const POINTS: [&str; 20] = [
    "planned",
    "run_started",
    "lease_taken",
    "run_resumed",
    "images_created",
    "image_key_kept",
    "run_divided",
    "batch_applied",
    "rows_set_aside",
    "letters_retried",
    "batch_committed",
    "vacuum_begun",
    "before_finish",
    "sweep_begun",
    "encryption_begun",
    "range_encrypted",
    "change_set_encrypted",
    "after_finish",
    "run_stopped",
    "lease_released",
];

static PASSED: AtomicU64 = AtomicU64::new(0);

/// Passes a point.
pub fn point(name: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Ok(wanted) = std::env::var("PGMEND_FAULT") else { return };
    let (wanted, nth) = wanted.split_once(':').map_or((wanted.as_str(), 1), |(n, k)| (n, k.parse().unwrap_or(1)));
    debug_assert!(POINTS.contains(&name), "{name} is not listed");
    if wanted == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == nth {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::POINTS;

    /// The sources of the engine that a run goes through.
    const SOURCES: [&str; 12] = [
        include_str!("mod.rs"),
        include_str!("step.rs"),
        include_str!("departure.rs"),
        include_str!("vacuum.rs"),
        include_str!("stream.rs"),
        include_str!("frozen.rs"),
        include_str!("finish.rs"),
        include_str!("recover.rs"),
        include_str!("apart.rs"),
        include_str!("retry.rs"),
        include_str!("image_key.rs"),
        include_str!("../encryption/change_set.rs"),
    ];

    #[test]
    fn every_point_is_passed_somewhere_and_every_passage_is_listed() {
        let passages = SOURCES.iter().flat_map(|source| source.split("fault::point(\"").skip(1));
        let mut passed: Vec<&str> = passages.filter_map(|after| after.split('"').next()).collect();
        passed.sort_unstable();
        passed.dedup();
        let mut listed = POINTS;
        listed.sort_unstable();
        assert_eq!(passed, listed);
    }
}
