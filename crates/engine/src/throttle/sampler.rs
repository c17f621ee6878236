//! The sampler: reads the signals of the database from its own connection, with its own short timeouts, and tells the
//! control schema what the worker holds for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgmend_core::throttle::{Builtin, Reading, Reason, Signal, Source};
use pgmend_pg::conninfo::Conninfo;
use pgmend_pg::health::{Probe, Sampled};
use pgmend_pg::{PgError, Session};

use super::Shared;
use super::meter::Meter;

/// Time for one statement that reads, in milliseconds: one that takes longer is part of the trouble.
const STATEMENT_MS: u64 = 1_000;
/// Time for a whole round, answers included.
const ROUND: Duration = Duration::from_secs(4);
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// How often the values of a hold are written down anew.
const REFRESH: Duration = Duration::from_secs(5);
/// How often it is looked who else works.
const COMPANY: Duration = Duration::from_secs(1);
/// How many times as often a standby is looked at that has a queue: a run writes much within a second.
const CLOSER: u32 = 5;
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(1);

/// Reads signals until it is dropped.
pub struct Sampler {
    pub shared: Arc<Shared>,
    pub conninfo: Conninfo,
    pub target_oid: u32,
    pub meter: Meter,
}

/// An open connection.
struct Line {
    session: Session,
    version_num: u32,
}

/// A signal and when it is read next.
struct Due {
    signal: Signal,
    next: Duration,
}

impl Sampler {
    /// Reads these signals, each in its own time.
    pub async fn run(mut self, signals: Vec<Signal>) {
        let mut all: Vec<Due> = signals
            .into_iter()
            .filter(|signal| !signal.builtin().is_some_and(|builtin| builtin.measured_by_worker()))
            .map(|signal| Due { signal, next: Duration::ZERO })
            .collect();
        let mut line: Option<Line> = None;
        let mut holding = self.shared.holding.subscribe();
        let mut written: Option<Duration> = None;
        let mut company_due = self.shared.company.as_ref().map(|_| Duration::ZERO);
        loop {
            let now = self.shared.now();
            let company = company_due.is_some_and(|due| due <= now);
            let due: Vec<Signal> = all.iter().filter(|d| d.next <= now).map(|d| d.signal.clone()).collect();
            let changed = holding.has_changed().unwrap_or(false);
            let result = self.round(&mut line, &due, company, changed, &mut holding, &mut written).await;
            if let Err(error) = &result {
                line = None;
                self.shared.board().fail(due.iter().map(|s| s.name.as_str()), &error.to_string());
            }
            let now = self.shared.now();
            if company {
                company_due = Some(now + COMPANY);
            }
            for due in all.iter_mut().filter(|d| d.next <= now) {
                let poll = Duration::from_secs_f64(due.signal.poll_s);
                let closer = self.meter.standby_is_behind() && due.signal.builtin().is_some_and(of_standbys);
                let poll = if closer { poll / CLOSER } else { poll };
                due.next = now + if result.is_ok() { poll } else { poll.min(RECONNECT) };
            }
            self.shared.told();
            let next = all.iter().map(|due| due.next).chain(company_due).min().unwrap_or(now + REFRESH);
            let wait = next.saturating_sub(self.shared.now()).min(REFRESH);
            tokio::select! {
                () = tokio::time::sleep(wait.max(Duration::from_millis(10))) => {}
                // Not before a failed attempt has rested: a hold that cannot be told is told later.
                _ = holding.changed(), if result.is_ok() => holding.mark_changed(),
            }
        }
    }

    /// One round: connects if need be, reads what is due, tells what is held.
    async fn round(
        &mut self,
        line: &mut Option<Line>,
        due: &[Signal],
        company: bool,
        changed: bool,
        holding: &mut tokio::sync::watch::Receiver<Vec<Reason>>,
        written: &mut Option<Duration>,
    ) -> Result<(), PgError> {
        if line.as_ref().is_none_or(|line| line.session.is_closed()) {
            *line = Some(in_time(CONNECT, connect(&self.conninfo)).await?);
        }
        let Some(open) = line.as_ref() else { return Ok(()) };
        in_time(ROUND, self.read(open, due, company)).await?;
        let reasons = holding.borrow_and_update().clone();
        let now = self.shared.now();
        let refresh = !reasons.is_empty() && written.is_none_or(|at| now.saturating_sub(at) >= REFRESH);
        if changed || refresh || self.shared.stale_holds.load(Ordering::Relaxed) {
            let lease = self.shared.lease().clone();
            let told = in_time(ROUND, open.session.set_holds(&lease, &reasons)).await;
            if *self.shared.lease() != lease {
                // Of a partition that was left meanwhile, and that told of its holds itself.
                holding.mark_changed();
                return Ok(());
            }
            if told.is_err() {
                holding.mark_changed();
            }
            told?;
            *written = Some(now);
            self.shared.stale_holds.store(false, Ordering::Relaxed);
            self.shared.recorded.send_replace(reasons.len());
        }
        Ok(())
    }

    async fn read(&mut self, line: &Line, due: &[Signal], company: bool) -> Result<(), PgError> {
        let mut probes: Vec<Probe> = due.iter().filter_map(Signal::builtin).filter_map(Probe::of).collect();
        probes.extend(company.then_some(Probe::Company));
        probes.sort();
        probes.dedup();
        if !probes.is_empty() {
            let found = line.session.probe(&probes, self.target_oid, line.version_num, STATEMENT_MS).await?;
            let at = self.shared.now();
            for (probe, sampled) in probes.into_iter().zip(found) {
                match sampled {
                    Ok(sampled) => self.take(at, probe, sampled),
                    Err(error) if error.is_connection() => return Err(error),
                    // What cannot be seen is there.
                    Err(_) if probe == Probe::Company => self.meet(f64::INFINITY, 0.0),
                    Err(error) => {
                        let of_probe = due.iter().filter(|s| s.builtin().and_then(Probe::of) == Some(probe));
                        self.shared.board().fail(of_probe.map(|s| s.name.as_str()), &error.message);
                    }
                }
            }
        }
        for signal in due {
            let Source::Sql { query } = &signal.source else { continue };
            match line.session.ask_number(query, STATEMENT_MS).await {
                Ok(value) => self.shared.record(&signal.name, Reading::Value { value, detail: String::new() }),
                Err(error) if error.is_connection() => return Err(error),
                Err(error) => self.shared.board().fail([signal.name.as_str()], &error.message),
            }
        }
        Ok(())
    }

    fn meet(&self, sessions: f64, working: f64) {
        if let Some(mut company) = self.shared.company() {
            company.look(sessions, working);
        }
    }

    fn take(&mut self, at: Duration, probe: Probe, sampled: Sampled) {
        if let Sampled::Company { sessions, working } = sampled {
            return self.meet(sessions, working);
        }
        let mut board = self.shared.board();
        for read in self.meter.read(at, probe, sampled) {
            if let Some(most) = read.most {
                board.lower(read.builtin.name(), most);
            }
            board.record(read.builtin.name(), at, read.reading);
        }
    }
}

fn of_standbys(builtin: Builtin) -> bool {
    matches!(builtin, Builtin::ReplayLag | Builtin::ReplayLagBytes)
}

async fn connect(conninfo: &Conninfo) -> Result<Line, PgError> {
    let session = Session::connect(conninfo).await?;
    session.become_self().await?;
    let version_num = session.server_version_num().await?;
    Ok(Line { session, version_num })
}

async fn in_time<T>(most: Duration, work: impl Future<Output = Result<T, PgError>>) -> Result<T, PgError> {
    match tokio::time::timeout(most, work).await {
        Ok(result) => result,
        Err(_) => Err(PgError::new("read the signals", "08006", format!("no answer in {} s", most.as_secs()))),
    }
}
