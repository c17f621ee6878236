//! From what a probe found to readings of signals: counters become rates, positions become lag.

use std::time::Duration;

use pgmend_core::throttle::lag::{Trail, latest};
use pgmend_core::throttle::rate::{Rate, Smoothed};
use pgmend_core::throttle::{Builtin, Reading};
use pgmend_pg::health::{Probe, Sampled};

/// Requested checkpoints are counted over this window.
const CHECKPOINT_WINDOW: Duration = Duration::from_secs(300);
/// The rate of WAL is a mean over this window.
const WAL_WINDOW: Duration = Duration::from_secs(10);

/// Remembers what a single reading does not tell.
#[derive(Debug)]
pub struct Meter {
    cores: f64,
    trail: Trail,
    sessions: Smoothed,
    checkpoints: Rate,
    wal: Rate,
}

/// A reading of a signal, and a limit that the server sets.
#[derive(Debug)]
pub struct Read {
    pub builtin: Builtin,
    pub reading: Reading,
    pub most: Option<f64>,
}

impl Meter {
    /// A meter for a server with so many cores.
    pub fn new(cores: u32) -> Self {
        Self {
            cores: f64::from(cores.max(1)),
            trail: Trail::default(),
            sessions: Smoothed::default(),
            checkpoints: Rate::over_whole(CHECKPOINT_WINDOW),
            wal: Rate::over(WAL_WINDOW),
        }
    }

    /// Whether some standby has much to replay.
    pub fn standby_is_behind(&self) -> bool {
        self.trail.is_behind()
    }

    /// Readings of the signals that a probe stands for. A rate has none at first.
    pub fn read(&mut self, at: Duration, probe: Probe, sampled: Sampled) -> Vec<Read> {
        let one = |builtin: Builtin, reading: Reading| vec![Read { builtin, reading, most: None }];
        match (probe, sampled) {
            (Probe::Standbys, Sampled::Standbys { position, standbys }) => {
                let late = self.trail.late(at, position, &standbys);
                let reading = |builtin: Builtin, found: Option<(f64, String)>| {
                    let (value, detail) = found.unwrap_or_default();
                    Read { builtin, reading: Reading::Value { value, detail }, most: None }
                };
                vec![
                    reading(Builtin::ReplayLag, latest(&late, |l| l.seconds)),
                    reading(Builtin::ReplayLagBytes, latest(&late, |l| l.bytes)),
                ]
            }
            (Probe::Standbys, Sampled::Unreadable(why)) => [Builtin::ReplayLag, Builtin::ReplayLagBytes]
                .map(|builtin| Read { builtin, reading: Reading::Unreadable { why: why.clone() }, most: None })
                .into(),
            (Probe::Of(builtin), Sampled::Unreadable(why)) => one(builtin, Reading::Unreadable { why }),
            (Probe::Of(builtin), Sampled::Value { value, detail, most }) => {
                let Some((value, detail)) = self.value(at, builtin, value, detail) else { return Vec::new() };
                vec![Read { builtin, reading: Reading::Value { value, detail }, most }]
            }
            // Who else is there is no measure with a limit.
            (Probe::Company, _) | (_, Sampled::Company { .. }) => Vec::new(),
            (Probe::Of(_), Sampled::Standbys { .. }) | (Probe::Standbys, Sampled::Value { .. }) => Vec::new(),
        }
    }

    fn value(&mut self, at: Duration, builtin: Builtin, value: f64, detail: String) -> Option<(f64, String)> {
        match builtin {
            Builtin::ActiveSessions => {
                let detail = format!("{} cores ({detail})", self.cores);
                Some((self.sessions.record(value) / self.cores, detail))
            }
            // Until two readings are there nothing has happened yet.
            Builtin::Checkpoints => Some((self.checkpoints.record(at, value).unwrap_or(0.0) * 60.0, detail)),
            Builtin::WalRate => Some((self.wal.record(at, value).unwrap_or(0.0), detail)),
            Builtin::ReplayLag
            | Builtin::ReplayLagBytes
            | Builtin::SlotWal
            | Builtin::ArchiveQueue
            | Builtin::ArchiveFailing
            | Builtin::WaitingOnUs
            | Builtin::OldestSnapshot
            | Builtin::DeadTuples
            | Builtin::Vacuum
            | Builtin::CommitLatency => Some((value, detail)),
        }
    }
}
