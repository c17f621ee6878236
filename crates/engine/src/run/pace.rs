//! Keeps a run to the pace that people asked for, between two batches: rate, rests, rows and time of one command, and
//! the end of the allowed hours. What is decided is decided by `core::pace`; nothing here waits within a transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgmend_core::digits::thousands;
use pgmend_core::pace::meter::{Meter, Wait, batch_rows_max};
use pgmend_core::pace::{Pace, Setting};
use pgmend_core::plan::RunSql;
use pgmend_core::run::RunState;
use pgmend_pg::PgError;
use pgmend_pg::pace::Hours;

use super::frozen::Spanned;
use super::nights::Away;
use super::slice::{Most, Slice};
use super::stream::Prefetched;
use super::wishes::{Closing, Woken};
use super::worker::{Turn, Worker, first_of_partition};
use crate::progress::Event;

/// Waits from this length on are told to listeners each time; shorter ones are the pace itself, and told once.
const TOLD_MS: f64 = 1_000.0;
/// Waits from this length on are told to the database, so that `status` knows them from any machine.
const ANNOUNCED_MS: f64 = 2_000.0;

/// What a run that stops at the end of the hours says, whose process ends.
pub(super) const BY_HAND: &str = "type the same command then, or now with --until-done";
/// What other workers have claimed is looked at this often, should nobody tell of it.
const CLAIMED_LOOK: Duration = Duration::from_secs(1);

/// The meter of one worker, from partition to partition: a new one would begin each with an empty bucket, and not know
/// how long a batch takes.
#[derive(Debug)]
pub(crate) struct Metered {
    meter: Meter,
    /// Until when the meter knows what time it is.
    at: Instant,
}

impl Metered {
    /// A worker begins.
    pub fn begin() -> Self {
        Self { meter: Meter::default(), at: Instant::now() }
    }

    /// A batch changed so many rows.
    pub fn record(&mut self, rows: i64, took_ms: f64) {
        // The bucket leaks for this time too, at the next look; it is no rest.
        let untold_ms = self.at.elapsed().as_secs_f64() * 1_000.0;
        self.meter.batch(u64::try_from(rows).unwrap_or(0), took_ms, untold_ms);
    }

    fn pass(&mut self, rate: Option<f64>) {
        let now = Instant::now();
        self.meter.pass((now - self.at).as_secs_f64() * 1_000.0, rate);
        self.at = now;
    }
}

/// The pace of one command.
#[derive(Debug)]
pub(super) struct Pacer {
    /// As the command was started.
    asked: Pace,
    /// What the command has done so far.
    slice: Arc<Slice>,
    announced: bool,
    /// What the last wait was told to be for: the same is not told again, unless it is long.
    told: Option<String>,
    /// Whether this process goes on by itself in the next allowed hours.
    until_done: bool,
    /// The rate and the size that people asked for when the next batch's bound was read, and the size of it.
    sized: (Option<u32>, Option<u32>, u32),
}

impl Pacer {
    /// A command begins, with this pace.
    pub fn new(asked: Pace, until_done: bool, slice: Arc<Slice>) -> Self {
        Self { asked, slice, announced: false, told: None, until_done, sized: (None, None, u32::MAX) }
    }

    /// The pace that the command was started with.
    pub fn asked(&self) -> &Pace {
        &self.asked
    }

    /// Why this command is done for today, if it is.
    fn done(&self, pace: &Pace) -> Option<String> {
        if let Some(most) = pace.rows_max.filter(|most| self.slice.changed_rows() >= *most) {
            let beyond = self.slice.changed_rows().saturating_sub(most);
            let beyond = if beyond == 0 { String::new() } else { format!(" ({beyond} more)") };
            return Some(format!("stopped after {most} rows{beyond}, as asked"));
        }
        let span = pace.stop_after.filter(|span| self.slice.elapsed() >= Duration::from_secs(span.seconds()))?;
        Some(format!("stopped after {span}, as asked"))
    }

    /// Time that this command has left.
    fn left(&self, pace: &Pace) -> Duration {
        let span = pace.stop_after.map(|span| Duration::from_secs(span.seconds()));
        span.map_or(Duration::MAX, |span| span.saturating_sub(self.slice.elapsed()))
    }
}

impl Worker<'_, '_> {
    /// The pace of the run that counts now: as the command was started, and as people have changed it since.
    fn pace_of_run(&self) -> Pace {
        let changes = self.wishes.tuned();
        self.pacer.asked.tuned(changes.iter().map(|change| (change.setting, change.value)))
    }

    /// This worker's share of it, in whole rows a second. Rows and time are counted over all workers.
    pub(super) fn pace_now(&self) -> Pace {
        let run = self.pace_of_run();
        Pace { rate: run.rate.map(|rate| (rate / self.sharing).max(1)), ..run }
    }

    /// Rows a second that this worker may change: its exact share, which may be less than one.
    fn rate_now(&self) -> Option<f64> {
        self.pace_of_run().rate.map(|rate| f64::from(rate) / f64::from(self.sharing))
    }

    /// Rows that the next batch may have at the pace that counts now, or that under way: what it has claimed is its own.
    pub(super) fn paced_rows(&self) -> u32 {
        let pace = self.pace_now();
        let left = pace.rows_max.map(|most| match &self.claim {
            Some(claim) => claim.rows().into(),
            None => self.pacer.slice.room(most),
        });
        batch_rows_max(pace.rate, left)
    }

    /// Claims the rows of the next batch. `false`: other workers may be changing all that the command has left; one of
    /// their batches is over now, or has had its time, and there is to be another look.
    pub(super) async fn claim(&mut self) -> bool {
        let bounded = !self.plan.one_transaction && !self.at_the_end();
        let rows = self.pacer.asked.rows_max.filter(|_| bounded);
        let batches = self.stop_after.filter(|_| bounded);
        let slice = Arc::clone(&self.pacer.slice);
        let given_back = slice.given_back();
        let ahead_rows = self.ahead_rows();
        self.claim = slice.claim(self.batch_rows().max(ahead_rows), Most { rows, batches });
        let Some(claim) = &self.claim else {
            let _ended_or_not = tokio::time::timeout(CLAIMED_LOOK, given_back).await;
            return false;
        };
        if claim.rows() < ahead_rows {
            // The bound of a command's last batch was read before the batch ahead of it was counted.
            self.forget_ahead();
        }
        true
    }

    /// Rows up to the bound that was read ahead; 0 without one.
    fn ahead_rows(&self) -> u32 {
        let streamed = self.prefetched.as_ref().map(|ahead| ahead.rows);
        streamed.or(self.spanned.as_ref().map(Spanned::rows)).unwrap_or(0)
    }

    /// Forgets the bound that was read ahead: it is too far.
    fn forget_ahead(&mut self) {
        if !matches!(self.prefetched, Some(Prefetched { to: None, .. })) {
            self.prefetched = None;
        }
        self.spanned = None;
    }

    /// Waits until the next batch may begin.
    pub(super) async fn pace(&mut self) -> Result<Turn, PgError> {
        self.resize();
        if self.at_the_end() {
            return Ok(Turn::Go);
        }
        if !self.pacer.announced {
            let pace = self.pacer.asked.clone();
            // Whoever drove it before may have had another pace.
            let known = self.resumed && !first_of_partition(&self.lease);
            if known || !pace.is_empty() {
                self.session().announce(&self.lease, &pace, None).await?;
            }
            self.pacer.announced = true;
        }
        loop {
            let pace = self.pace_now();
            if let Some(reason) = self.pacer.done(&pace) {
                return Ok(Turn::Stop(RunState::Paused { reason }));
            }
            if let Some(state) = self.drained().await? {
                return Ok(Turn::Stop(state));
            }
            let (rate, rows) = (self.rate_now(), self.batch_rows());
            self.engine.metered.pass(rate);
            let wait = self.engine.metered.meter.wait(rate, pace.nice, rows);
            let Some(wait) = wait.filter(|_| !self.plan.one_transaction) else {
                return Ok(Turn::Go);
            };
            let rest = Duration::from_secs_f64(wait.ms() / 1_000.0).min(self.time_left());
            self.say(&pace, wait).await?;
            match self.wishes.rest(self.observer.stop_receiver(), rest).await {
                Woken::Rested => {}
                Woken::Tuned => self.resize(),
                Woken::Signal => return Ok(Turn::Again),
                // The server refuses the batch, and says why.
                Woken::Asked => return Ok(Turn::Go),
            }
        }
    }

    /// Says what is waited for: at first, and where it is long enough to wonder about.
    async fn say(&mut self, pace: &Pace, wait: Wait) -> Result<(), PgError> {
        let why = match wait {
            Wait::Rate(_) => format!("at most {} rows/s", thousands(pace.rate.unwrap_or(0).into())),
            Wait::Rest(_) => format!("rests {} × the batch before", pace.nice.unwrap_or(0.0)),
        };
        let wait_s = wait.ms() / 1_000.0;
        if wait.ms() >= ANNOUNCED_MS {
            let asked = self.pacer.asked.clone();
            self.session().announce(&self.lease, &asked, Some((&format!("the pace ({why})"), wait_s))).await?;
        }
        let news = self.pacer.told.as_ref() != Some(&why);
        if news || wait.ms() >= TOLD_MS {
            self.pacer.told = Some(why.clone());
            self.observer.tell(&Event::Pacing { why, wait_s });
        }
        Ok(())
    }

    /// Takes over the size that people have set. A bound that was read ahead for a larger batch is forgotten.
    fn resize(&mut self) {
        let changes = self.wishes.tuned();
        let rows = changes.iter().find(|change| change.setting == Setting::BatchRows).map(|change| change.value as u32);
        self.sizing.tune(rows);
        let pace = self.pace_now();
        let size = self.batch_rows();
        let (rate_then, rows_then, size_then) = self.pacer.sized;
        let slower = (rate_then, rows_then) != (pace.rate, rows) && size < size_then;
        if slower {
            self.forget_ahead();
        }
        self.pacer.sized = (pace.rate, rows, size);
    }

    /// Whether it is known already that nothing is left: then there is nothing to wait for.
    pub(super) fn at_the_end(&self) -> bool {
        if (self.plan.one_transaction && self.at.batch_no > 0) || self.driven_by_others() {
            return true;
        }
        match self.sql() {
            RunSql::Stream { .. } => matches!(self.prefetched, Some(Prefetched { to: None, .. })),
            RunSql::Freeze { .. } => {
                let rows = self.last_ordinal();
                self.ordinal().is_ok_and(|ordinal| ordinal >= rows)
            }
        }
    }

    /// Stops before a batch that would cross the end of the allowed hours, by the time that batches take.
    async fn drained(&mut self) -> Result<Option<RunState>, PgError> {
        let Some(closing) = self.wishes.closing() else { return Ok(None) };
        let left_ms = closing.at.saturating_duration_since(Instant::now()).as_secs_f64() * 1_000.0;
        if self.engine.metered.meter.fits(left_ms) {
            return Ok(None);
        }
        // Read again: somebody may have allowed more since.
        let Some(next) = self.session().next_hours().await? else { return Ok(None) };
        if next.closes_in_s.is_some_and(|s| self.engine.metered.meter.fits(s * 1_000.0)) {
            return Ok(None);
        }
        Ok(Some(self.closed(why_closed(&closing.hours, &next))))
    }

    /// Time that the command has left.
    pub(super) fn time_left(&self) -> Duration {
        self.pacer.left(&self.pace_now())
    }

    /// Whether a run that is held for other reasons has to stop all the same: its time is over, or its hours are.
    pub(super) fn overdue(&self) -> bool {
        let pace = self.pace_now();
        let closed = |closing: Closing| {
            !self
                .engine
                .metered
                .meter
                .fits(closing.at.saturating_duration_since(Instant::now()).as_secs_f64() * 1_000.0)
        };
        self.pacer.done(&pace).is_some() || self.wishes.closing().is_some_and(closed)
    }

    /// The run stops because of the hours; whoever drives it until it is done goes on in the next ones.
    pub(super) fn closed(&mut self, reason: String) -> RunState {
        self.engine.away = Some(Away::Closed);
        let then = if self.pacer.until_done { goes_on() } else { BY_HAND.to_owned() };
        RunState::Paused { reason: format!("{reason}: {then}") }
    }
}

/// What a run that stops at the end of the hours says, whose process waits for the next ones.
pub(super) fn goes_on() -> String {
    format!("process {} of {} goes on by itself then", std::process::id(), crate::engine::client())
}

/// Why no batch may begin, by the window that was heard of, open or the one to come, and the one after it.
fn why_closed(heard: &Hours, next: &Hours) -> String {
    let zone = &next.zone;
    let begin = next.opens_at.as_deref().unwrap_or("no time within 400 days");
    // Of a window that has not opened the end says nothing: it is not the one that is over.
    match heard.closes_at.as_deref().filter(|_| heard.opens_in_s.is_some_and(|s| s <= 0.0)) {
        Some(end) => {
            format!("the allowed hours end at {end}, too soon for another batch; they begin again at {begin} ({zone})")
        }
        None => format!("outside the allowed hours, which begin again at {begin} ({zone})"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Hours, why_closed};

    #[test]
    fn hours_that_are_over_are_not_told_by_the_end_of_the_next_ones() {
        let heard = |opens_in_s: f64| Hours {
            opens_in_s: Some(opens_in_s),
            closes_in_s: Some(3_600.0),
            opens_at: Some("2026-11-23 00:00:00".into()),
            closes_at: Some("2027-12-28 00:00:00".into()),
            zone: "UTC".into(),
        };
        let open = why_closed(&heard(-10.0), &heard(60.0));
        assert!(open.starts_with("the allowed hours end at 2027-12-28 00:00:00, too soon"), "{open}");
        let closed = why_closed(&heard(60.0), &heard(60.0));
        assert_eq!(closed, "outside the allowed hours, which begin again at 2026-11-23 00:00:00 (UTC)");
    }
}
