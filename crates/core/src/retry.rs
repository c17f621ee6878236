//! What an error means for a run, from its SQLSTATE (PostgreSQL documentation, appendix A), and how
//! long to wait before the next attempt.

use std::time::Duration;

/// What to do after an error inside a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Read the checkpoint again and try the batch again.
    RetryBatch,
    /// Our own timeout: try a smaller batch.
    ShrinkBatch,
    /// A row that the change cannot take: halve down to it.
    IsolateRow,
    /// A function of the database objects, for a reason of its own: halve down to the row that it is about, then stop.
    /// Its text is masked, and a batch has thousands of rows.
    FindRow,
    /// The server or the role cannot go on for now: pause.
    PauseRun,
    /// Anything else: stop and show.
    FailRun,
}

/// The disposition of a SQLSTATE raised by a batch.
pub fn disposition(sqlstate: &str) -> Disposition {
    match sqlstate {
        // serialization failure, deadlock, lock not available
        "40001" | "40P01" | "55P03" => Disposition::RetryBatch,
        // idle-in-transaction and transaction timeouts; a plan gone stale
        "25P03" | "25P04" | "26000" | "0A000" => Disposition::RetryBatch,
        // query canceled by statement_timeout
        "57014" => Disposition::ShrinkBatch,
        // read-only transaction: the primary became a standby
        "25006" => Disposition::RetryBatch,
        "42501" => Disposition::PauseRun,
        // RAISE without a SQLSTATE, ASSERT
        "P0001" | "P0004" => Disposition::FindRow,
        code if code.starts_with("08") || code.starts_with("57P") => Disposition::RetryBatch,
        code if code.starts_with("22") || code.starts_with("23") => Disposition::IsolateRow,
        code if code.starts_with("53") || code.starts_with("28") => Disposition::PauseRun,
        _ => Disposition::FailRun,
    }
}

/// What somebody has to do before a run that paused at this SQLSTATE can go on; `None` where the server's own words
/// say it.
pub fn remedy(sqlstate: &str) -> Option<&'static str> {
    match sqlstate {
        "53100" => Some("free space on the server's disk, then go on (pgmend explain PM761)"),
        "53200" => Some("give the server more memory, or other work less, then go on (pgmend explain PM761)"),
        "53300" => Some("free a connection, or raise the limit, then go on (pgmend explain PM761)"),
        "53400" => Some("raise that limit of the server, then go on (pgmend explain PM761)"),
        "42501" => Some("grant that right again, then go on"),
        _ => None,
    }
}

/// First pause between attempts.
const BACKOFF_FIRST_MS: u64 = 250;
/// Longest pause between attempts.
const BACKOFF_MAX_MS: u64 = 8_000;

/// The pause before attempt `attempt` (1 is the first retry): doubling, capped, and spread by
/// `jitter` (0.0 to 1.0) over its upper half so that two workers do not march in step.
pub fn backoff(attempt: u32, jitter: f64) -> Duration {
    let full = BACKOFF_FIRST_MS.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(BACKOFF_MAX_MS);
    Duration::from_millis((full as f64 * (0.5 + 0.5 * jitter.clamp(0.0, 1.0))) as u64)
}

/// First pause while a server does not admit this login or is away, in seconds.
const ACCESS_FIRST_S: u64 = 5;
/// Longest such pause, in seconds: whoever mends the access is not kept waiting for long.
const ACCESS_MAX_S: u64 = 300;

/// The pause before attempt `attempt` (1 is the first) to get access again: doubling, capped.
pub fn access_backoff(attempt: u32) -> Duration {
    Duration::from_secs(ACCESS_FIRST_S.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(ACCESS_MAX_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_classes_22_and_23_point_at_a_row() {
        assert_eq!(disposition("23505"), Disposition::IsolateRow);
        assert_eq!(disposition("22P02"), Disposition::IsolateRow);
        assert_eq!(disposition("40001"), Disposition::RetryBatch);
        assert_eq!(disposition("53100"), Disposition::PauseRun);
        assert_eq!(disposition("57014"), Disposition::ShrinkBatch);
        assert_eq!(disposition("XX001"), Disposition::FailRun);
        assert_eq!(disposition("P0001"), Disposition::FindRow);
    }

    #[test]
    fn whatever_the_server_lacks_pauses_a_run_and_says_what_to_do() {
        for lacking in ["53100", "53200", "53300", "53400", "42501"] {
            assert_eq!(disposition(lacking), Disposition::PauseRun, "{lacking}");
            assert!(remedy(lacking).is_some_and(|remedy| remedy.contains("then go on")), "{lacking}");
        }
        assert_eq!(remedy("40001"), None);
    }

    #[test]
    fn backoff_doubles_and_is_capped() {
        assert_eq!(backoff(1, 1.0).as_millis(), 250);
        assert_eq!(backoff(3, 1.0).as_millis(), 1_000);
        assert_eq!(backoff(60, 1.0).as_millis(), 8_000);
        assert_eq!(backoff(1, 0.0).as_millis(), 125);
        assert_eq!([1, 2, 7, 60].map(|n| access_backoff(n).as_secs()), [5, 10, 300, 300]);
    }
}
