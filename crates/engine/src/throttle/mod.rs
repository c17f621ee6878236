//! The throttle of a run: a sampler reads the signals from a connection of its own, and the worker looks at the board
//! between two batches. That look costs no round trip; all decisions are `core::throttle`'s.

mod flag;
mod http;
mod meter;
mod sampler;
pub(crate) mod survey;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgmend_core::plan::{Certainty, Plan};
use pgmend_core::throttle::rate::Twice;
use pgmend_core::throttle::{
    Board, Builtin, Company, Controller, Ladder, Limit, Manners, Reading, Reason, Signal, Source, Verdict,
};
use pgmend_pg::batch::Lease;
use pgmend_pg::conninfo::Conninfo;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use meter::Meter;
use sampler::Sampler;

/// A change of so few rows is over before a signal could tell of it; only a throttle that somebody wrote down counts.
const THROTTLED_ROWS_MIN: i64 = 100;
/// Cores of a server of which nobody said how many it has.
const CORES_UNKNOWN: u32 = 4;
/// A pace that differs by less than this from the one told last is not told.
const TOLD_STEP: f64 = 0.05;
/// Time for the last words about a hold when a run stops.
const SETTLE: Duration = Duration::from_secs(2);

/// What the tasks that read and the worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    begun: Instant,
    /// On whose behalf holds are told.
    lease: Mutex<Lease>,
    /// Whether the database may know of a hold that is none any more.
    stale_holds: AtomicBool,
    board: Mutex<Board>,
    /// Who else works on the server; nobody is looked for where the run keeps full pace anyway.
    company: Option<Mutex<Company>>,
    /// Grows with every round of readings.
    read: watch::Sender<u64>,
    /// What the worker holds for; empty while it works.
    holding: watch::Sender<Vec<Reason>>,
    /// How many reasons the database knows of.
    recorded: watch::Sender<usize>,
}

impl Shared {
    fn new(signals: Vec<Signal>, company: Option<Company>, lease: Lease, stale_holds: bool) -> Self {
        Self {
            begun: Instant::now(),
            lease: Mutex::new(lease),
            stale_holds: AtomicBool::new(stale_holds),
            company: company.map(Mutex::new),
            board: Mutex::new(Board::new(signals, Duration::ZERO)),
            read: watch::channel(0).0,
            holding: watch::channel(Vec::new()).0,
            recorded: watch::channel(0).0,
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Readings are whole or not there: a panic elsewhere leaves none half written.
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As for the board.
    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As for the board.
    fn company(&self) -> Option<MutexGuard<'_, Company>> {
        self.company.as_ref().map(|company| company.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn record(&self, name: &str, reading: Reading) {
        self.board().record(name, self.now(), reading);
    }

    fn told(&self) {
        self.read.send_modify(|rounds| *rounds += 1);
    }
}

/// The throttle of one worker.
pub(crate) struct Throttle {
    shared: Arc<Shared>,
    controller: Controller,
    commits: Twice,
    ladder: Ladder,
    tasks: Vec<JoinHandle<()>>,
    /// Whether the control schema may know of a hold.
    pub told: bool,
    /// Since when the run holds.
    pub held_since: Option<Instant>,
    /// How long the last batch took; taken by the rest after it.
    took: Option<Duration>,
    /// The pace that was told last.
    paced: f64,
    /// The signals with the plan's limits.
    planned: Vec<Signal>,
    /// What people changed of these.
    tuned: Vec<Limit>,
}

impl Drop for Throttle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Throttle {
    /// Begins to read the signals of a plan.
    pub fn start(conninfo: &Conninfo, lease: &Lease, plan: &Plan, resumed: bool) -> Self {
        let throttle = &plan.throttle;
        let signals = signals_of(plan);
        let cores = cores(throttle.cores, conninfo);
        let company = (!signals.is_empty() && throttle.full_pace.is_none()).then(|| Company::new(cores));
        // Whoever drove the run before may have died while it held.
        let (shared, planned) =
            (Arc::new(Shared::new(signals.clone(), company, lease.clone(), resumed)), signals.clone());
        let mut tasks = Vec::new();
        let (by_database, beside): (Vec<Signal>, Vec<Signal>) =
            signals.into_iter().partition(|s| matches!(s.source, Source::Builtin { .. } | Source::Sql { .. }));
        if !by_database.is_empty() || !beside.is_empty() {
            let sampler = Sampler {
                shared: Arc::clone(&shared),
                conninfo: conninfo.clone(),
                target_oid: plan.target_oid,
                meter: Meter::new(cores),
            };
            tasks.push(tokio::spawn(sampler.run(by_database)));
        }
        for signal in beside {
            let shared = Arc::clone(&shared);
            tasks.push(match signal.source {
                Source::Http { .. } => tokio::spawn(http::watch(shared, signal)),
                Source::FlagFile { .. } | Source::Builtin { .. } | Source::Sql { .. } => {
                    tokio::spawn(flag::watch(shared, signal))
                }
            });
        }
        Self {
            shared,
            controller: Controller::default(),
            commits: Twice::default(),
            ladder: throttle.ladder(),
            tasks,
            told: false,
            held_since: None,
            took: None,
            paced: 1.0,
            planned,
            tuned: Vec::new(),
        }
    }

    /// Goes on with another partition of the same run, at the readings and the pace of the one before.
    pub fn follow(&mut self, lease: &Lease) {
        *self.shared.lease() = lease.clone();
        self.told = false;
        self.shared.stale_holds.store(lease.fence > 1, Ordering::Relaxed);
    }

    /// Whether the database may know of a hold of this partition.
    pub fn may_be_told(&self) -> bool {
        self.told || self.shared.stale_holds.load(Ordering::Relaxed)
    }

    /// Whether the run may go on.
    pub fn verdict(&self) -> Verdict {
        let now = self.shared.now();
        self.shared.board().verdict(now)
    }

    /// Takes over the limits that people set for this run; those of the plan come back when they count no more.
    pub fn tune(&mut self, limits: Vec<Limit>) {
        if limits == self.tuned {
            return;
        }
        let mut board = self.shared.board();
        let gone = self.tuned.iter().filter(|before| limits.iter().all(|limit| limit.signal != before.signal));
        for signal in gone.filter_map(|limit| self.planned.iter().find(|signal| signal.name == limit.signal)) {
            board.relimit(&signal.name, signal.enter, signal.leave);
        }
        for limit in &limits {
            board.relimit(&limit.signal, Some(limit.enter), limit.leave);
        }
        drop(board);
        self.tuned = limits;
    }

    /// When a hold reaches its next rung.
    pub fn ladder(&self) -> Ladder {
        self.ladder
    }

    /// Tells what the worker holds for; nothing while it works.
    pub fn holds(&mut self, reasons: &[Reason]) {
        self.told |= !reasons.is_empty();
        self.shared.holding.send_if_modified(|held| {
            let differs = held != reasons;
            if differs {
                *held = reasons.to_vec();
            }
            differs
        });
    }

    /// Waits for the next readings, or for so long.
    pub async fn read_or(&self, most: Duration) {
        let mut read = self.shared.read.subscribe();
        let _either = tokio::time::timeout(most, read.changed()).await;
    }

    /// Takes note of a batch.
    pub fn batch(&mut self, took: Duration) {
        self.took = Some(took);
    }

    /// Takes note of what a round trip with a COMMIT takes, as the heartbeat has measured it.
    pub fn commit(&mut self, took: Option<Duration>) {
        // One that was slow may have been this machine's fault, and the next comes only seconds later.
        let believed = took.and_then(|took| self.commits.record(took.as_secs_f64() * 1_000.0));
        if let Some(value) = believed {
            self.shared.record(Builtin::CommitLatency.name(), Reading::Value { value, detail: String::new() });
        }
    }

    /// How long to rest after the last batch, at a pace of so much at most; nothing after an empty step. Gives the pace too
    /// if it has changed.
    pub fn rest(&mut self, most: f64) -> (Duration, Option<f64>) {
        let Some(took) = self.took.take() else { return (Duration::ZERO, None) };
        let now = self.shared.now();
        let load = self.shared.board().utilization(now);
        self.controller.observe(now, load);
        let pace = self.controller.pace().min(most);
        let changed = (pace - self.paced).abs() >= TOLD_STEP;
        if changed {
            self.paced = pace;
        }
        (self.controller.rest(took, most), changed.then_some(pace))
    }

    /// How each of so many workers behaves beside whoever else works on the server.
    pub fn manners(&self, workers: u32) -> Manners {
        self.shared.company().map_or(Manners::ALONE, |company| company.manners(workers))
    }

    /// The database is told that nothing is held any more, before the lease goes. If the sampler cannot tell
    /// it in time, whoever ends the run does.
    pub async fn settle(&mut self) {
        self.holds(&[]);
        self.held_since = None;
        let mut recorded = self.shared.recorded.subscribe();
        let _told = tokio::time::timeout(SETTLE, recorded.wait_for(|reasons| *reasons == 0)).await;
    }
}

/// The signals that a run of this plan holds for.
pub(crate) fn signals_of(plan: &Plan) -> Vec<Signal> {
    if is_small(plan) && plan.throttle.is_default() { Vec::new() } else { plan.throttle.signals() }
}

/// Whether all of it fits into a batch that nobody notices.
fn is_small(plan: &Plan) -> bool {
    let rows = plan.counts.matched_rows;
    rows.certainty == Certainty::Exact && rows.value <= THROTTLED_ROWS_MIN
}

/// Cores of the server: as the job or its environment says, those of this machine if it is the same, or a guess.
fn cores(said: Option<u32>, conninfo: &Conninfo) -> u32 {
    let here = |host: &String| host.starts_with('/') || ["localhost", "127.0.0.1", "::1"].contains(&host.as_str());
    let local = || {
        let cores = std::thread::available_parallelism().ok()?;
        conninfo.hosts().iter().all(here).then(|| u32::try_from(cores.get()).unwrap_or(CORES_UNKNOWN))
    };
    said.or_else(local).unwrap_or(CORES_UNKNOWN)
}
