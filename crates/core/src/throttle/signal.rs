//! Signals: what is measured, in which unit, and from which value on a run holds. Each default names its source.

use serde::{Deserialize, Serialize};

/// A health measure of the database itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Builtin {
    /// Seconds that the slowest standby is behind.
    ReplayLag,
    /// Bytes that the slowest standby is behind.
    ReplayLagBytes,
    /// Bytes of WAL that the slowest replication slot keeps.
    SlotWal,
    /// WAL segments that wait for the archiver.
    ArchiveQueue,
    /// Whether the archiver's last attempt failed.
    ArchiveFailing,
    /// Other sessions that work, for each core.
    ActiveSessions,
    /// Sessions that wait for a lock that pgmend holds.
    WaitingOnUs,
    /// Seconds since the oldest snapshot of another session was taken.
    OldestSnapshot,
    /// Share of the target's rows that are dead.
    DeadTuples,
    /// Vacuum of the target: 1 while one runs, 2 while it prevents wraparound.
    Vacuum,
    /// Checkpoints that were requested because of much WAL, a minute.
    Checkpoints,
    /// Bytes of WAL a second, of the whole server.
    WalRate,
    /// Milliseconds that a COMMIT takes, as the heartbeat measures it.
    CommitLatency,
}

/// What a value counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// A share, 0 to 1.
    Share,
    /// Whatever the word says: sessions, segments …
    Of(String),
}

/// What the loss of a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// It counts as over its limit.
    Hold,
    /// It counts for nothing until it is back.
    Ignore,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Source {
    /// The database itself.
    Builtin {
        /// Which measure.
        builtin: Builtin,
    },
    /// A query of one number.
    Sql {
        /// The query.
        query: String,
    },
    /// A number from a web address.
    Http {
        /// The address.
        url: String,
        /// Where the number stands in the JSON that is answered (RFC 6901); the whole answer when absent.
        pointer: Option<String>,
        /// A query of Prometheus, sent to `url`/api/v1/query.
        prometheus: Option<String>,
    },
    /// A file on the machine of the worker: 1 while it is there.
    FlagFile {
        /// Its path.
        path: String,
    },
}

/// A signal with its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its name, unique among a run's signals.
    pub name: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub source: Source,
    /// What its value counts.
    pub unit: Unit,
    /// From this value on the run holds; `None` only watches.
    pub enter: Option<f64>,
    /// At this value or below it goes on.
    pub leave: f64,
    /// Seconds between two readings.
    pub poll_s: f64,
    /// Seconds after which a reading says nothing any more.
    pub stale_s: f64,
    /// What its loss means.
    pub on_loss: OnLoss,
    /// Whether it holds also when it could never be read.
    pub required: bool,
}

/// MiB in bytes.
const MIB: f64 = 1_048_576.0;

impl Builtin {
    /// All of them, in the order that plans show.
    pub const ALL: [Builtin; 13] = [
        Builtin::ReplayLag,
        Builtin::ReplayLagBytes,
        Builtin::SlotWal,
        Builtin::ArchiveQueue,
        Builtin::ArchiveFailing,
        Builtin::ActiveSessions,
        Builtin::WaitingOnUs,
        Builtin::OldestSnapshot,
        Builtin::DeadTuples,
        Builtin::Vacuum,
        Builtin::Checkpoints,
        Builtin::WalRate,
        Builtin::CommitLatency,
    ];

    /// The name in job files, output and the control schema.
    pub fn name(self) -> &'static str {
        match self {
            Builtin::ReplayLag => "replay_lag",
            Builtin::ReplayLagBytes => "replay_lag_bytes",
            Builtin::SlotWal => "slot_wal",
            Builtin::ArchiveQueue => "archive_queue",
            Builtin::ArchiveFailing => "archive_failing",
            Builtin::ActiveSessions => "active_sessions",
            Builtin::WaitingOnUs => "waiting_on_us",
            Builtin::OldestSnapshot => "oldest_snapshot",
            Builtin::DeadTuples => "dead_tuples",
            Builtin::Vacuum => "vacuum",
            Builtin::Checkpoints => "checkpoints",
            Builtin::WalRate => "wal_rate",
            Builtin::CommitLatency => "commit_latency",
        }
    }

    /// The signal of that name.
    pub fn named(name: &str) -> Option<Builtin> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == name)
    }

    /// Whether the smooth controller steers by it. Load is steered by; a budget such as lag is not, since a run
    /// would be parked at a part of it for ever; nor is the latency of a COMMIT, of which a long way is a constant part.
    pub fn is_load(self) -> bool {
        matches!(self, Builtin::ActiveSessions | Builtin::WaitingOnUs)
    }

    /// Whether the worker's own heartbeat measures it, so that there is nothing to read from the server.
    pub fn measured_by_worker(self) -> bool {
        self == Builtin::CommitLatency
    }

    /// The limits where nobody says otherwise: enter and leave in the signal's unit, seconds between readings.
    /// Where they come from is told signal by signal in `docs/throttling.md`.
    fn defaults(self) -> (Unit, Option<f64>, f64, f64) {
        let of = |word: &str| Unit::Of(word.to_owned());
        match self {
            // Hysteresis as in graph-node, the level near that of Vitess.
            Builtin::ReplayLag => (Unit::Seconds, Some(10.0), 5.0, 1.0),
            // Ten seconds at 25 MiB/s.
            Builtin::ReplayLagBytes => (Unit::Bytes, Some(256.0 * MIB), 128.0 * MIB, 1.0),
            // Or half of max_slot_wal_keep_size, where that is less: beyond it the slot is lost.
            Builtin::SlotWal => (Unit::Bytes, Some(4_096.0 * MIB), 2_048.0 * MIB, 5.0),
            // GitLab pauses its background migrations from 42 pending segments on.
            Builtin::ArchiveQueue => (of("segments"), Some(42.0), 21.0, 5.0),
            Builtin::ArchiveFailing => (of("failures"), Some(1.0), 0.0, 5.0),
            // Far above what a healthy server shows as a mean over five seconds; the controller is slow long before.
            Builtin::ActiveSessions => (of("per core"), Some(4.0), 2.0, 1.0),
            // One waiter is everyday life for the length of a batch; a queue is not.
            Builtin::WaitingOnUs => (of("sessions"), Some(5.0), 1.0, 1.0),
            // Dead rows that no vacuum may take away pile up behind it.
            Builtin::OldestSnapshot => (Unit::Seconds, Some(7_200.0), 3_600.0, 5.0),
            // A run that updates every row once ends at one half; more means that vacuum does not keep up.
            Builtin::DeadTuples => (Unit::Share, Some(0.6), 0.4, 5.0),
            // 2: a vacuum to prevent wraparound has to win; set 1 to wait for every vacuum, as GitLab does.
            Builtin::Vacuum => (of("(1 runs, 2 prevents wraparound)"), Some(2.0), 1.0, 5.0),
            // One in 10 s over five minutes; the server itself warns of one in 30 s (checkpoint_warning).
            Builtin::Checkpoints => (of("a minute"), Some(6.0), 3.0, 5.0),
            // What a server can take is not known from here: watched, and limited by whoever knows.
            Builtin::WalRate => (Unit::BytesPerSecond, None, 0.0, 1.0),
            // Spirit steers by 100 ms; ours is that of the heartbeat, a round trip included.
            Builtin::CommitLatency => (Unit::Milliseconds, Some(250.0), 100.0, 1.0),
        }
    }

    /// The signal with its defaults. A reading lasts for three to five polls.
    pub fn signal(self) -> Signal {
        let (unit, enter, leave, poll_s) = self.defaults();
        // A heartbeat that does not come through is the lease's business.
        let on_loss = if self.measured_by_worker() { OnLoss::Ignore } else { OnLoss::Hold };
        let stale_s = if poll_s > 1.0 || self.measured_by_worker() { 15.0 } else { 5.0 };
        Signal {
            name: self.name().to_owned(),
            source: Source::Builtin { builtin: self },
            unit,
            enter,
            leave,
            poll_s,
            stale_s,
            on_loss,
            required: false,
        }
    }

    /// What an engineer types to look closer.
    pub fn look(self) -> &'static str {
        match self {
            Builtin::ReplayLag | Builtin::ReplayLagBytes => {
                "psql -c 'select application_name, client_addr, state, replay_lag, replay_lsn from pg_stat_replication'"
            }
            Builtin::SlotWal => {
                "psql -c 'select slot_name, active, wal_status, restart_lsn from pg_replication_slots order by restart_lsn'"
            }
            Builtin::ArchiveQueue | Builtin::ArchiveFailing => "psql -c 'select * from pg_stat_archiver'",
            Builtin::ActiveSessions | Builtin::WaitingOnUs | Builtin::OldestSnapshot => {
                "psql -c 'select pid, state, wait_event_type, wait_event, xact_start, query from pg_stat_activity order by xact_start'"
            }
            Builtin::DeadTuples | Builtin::Vacuum => "psql -c 'select * from pg_stat_progress_vacuum'",
            Builtin::Checkpoints | Builtin::WalRate => "psql -c 'show max_wal_size'",
            Builtin::CommitLatency => {
                "psql -c 'select application_name, sync_state, flush_lag from pg_stat_replication'"
            }
        }
    }
}

impl Signal {
    /// The built-in measure, if it is one.
    pub fn builtin(&self) -> Option<Builtin> {
        match self.source {
            Source::Builtin { builtin } => Some(builtin),
            Source::Sql { .. } | Source::Http { .. } | Source::FlagFile { .. } => None,
        }
    }

    /// What an engineer types to look closer; nothing for a signal that the job brings.
    pub fn look(&self) -> Option<String> {
        match &self.source {
            Source::Builtin { builtin } => Some(builtin.look().to_owned()),
            Source::FlagFile { path } => Some(format!("rm {path}")),
            Source::Sql { .. } | Source::Http { .. } => None,
        }
    }

    /// The name as people read it: `replay lag`.
    pub fn title(&self) -> String {
        self.name.trim_end_matches("_bytes").replace('_', " ")
    }
}

impl Unit {
    /// A value with its unit: `14 s`, `256 MiB`, `60 %`, `5 sessions`.
    pub fn show(&self, value: f64) -> String {
        match self {
            Unit::Seconds if value >= 3_600.0 => format!("{} h", short(value / 3_600.0)),
            Unit::Seconds => format!("{} s", short(value)),
            Unit::Milliseconds => format!("{} ms", short(value)),
            Unit::Bytes => bytes(value),
            Unit::BytesPerSecond => format!("{}/s", bytes(value)),
            Unit::Share => format!("{} %", short(value * 100.0)),
            Unit::Of(word) if word.is_empty() => short(value),
            Unit::Of(word) => format!("{} {word}", short(value)),
        }
    }
}

impl Unit {
    /// A limit after a value of the same unit: a word is not said twice.
    pub fn bare(&self, value: f64) -> String {
        match self {
            Unit::Of(_) => short(value),
            Unit::Seconds | Unit::Milliseconds | Unit::Bytes | Unit::BytesPerSecond | Unit::Share => self.show(value),
        }
    }
}

/// At most one digit after the point, and none where it is zero.
fn short(value: f64) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    if value != 0.0 && rounded == 0.0 { format!("{value:.3}") } else { format!("{rounded}") }
}

fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1_024.0 && unit + 1 < units.len() {
        scaled /= 1_024.0;
        unit += 1;
    }
    format!("{} {}", short(scaled), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_leaves_below_where_it_enters_and_lasts_for_three_polls() {
        for builtin in Builtin::ALL {
            let signal = builtin.signal();
            assert!(signal.enter.is_none_or(|enter| signal.leave < enter), "{}", signal.name);
            assert!(signal.stale_s >= 3.0 * signal.poll_s, "{}", signal.name);
            assert_eq!(Builtin::named(&signal.name), Some(builtin));
            assert_eq!(serde_json::to_string(&builtin).unwrap(), format!("\"{}\"", signal.name));
        }
    }

    #[test]
    fn values_are_shown_with_their_unit() {
        assert_eq!(Unit::Seconds.show(14.04), "14 s");
        assert_eq!(Unit::Seconds.show(9_000.0), "2.5 h");
        assert_eq!(Unit::Seconds.show(3_600.0), "1 h");
        assert_eq!(Unit::Bytes.show(256.0 * MIB), "256 MiB");
        assert_eq!(Unit::Share.show(0.6), "60 %");
        assert_eq!(Unit::Of("sessions".into()).show(5.0), "5 sessions");
        assert_eq!(Unit::Of(String::new()).show(0.004), "0.004");
    }
}
