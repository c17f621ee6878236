//! Vacuums on the way: after each share of the target's rows that the run has changed, it takes its own dead rows away,
//! so that changing every row does not double the table (docs/design/vacuum.md). Between two batches, on a connection of
//! its own, and for nobody's harm: whoever waits for the table, wants the run to stop or holds it ends the vacuum.

use std::time::{Duration, Instant};

use pgmend_core::plan::ChangeKind;
use pgmend_core::throttle::{Builtin, Reason, Verdict};
use pgmend_core::vacuum::{Schedule, Share, VACUUM_MS_MAX};
use pgmend_pg::vacuum::{Ending, Vacuumable, mark};
use pgmend_pg::{PgError, Session};

use super::fault;
use super::worker::{Turn, Worker};
use crate::progress::{Event, Stop};

/// Somebody who waits, a wish, a signal or the lease is looked at this often.
const LOOK: Duration = Duration::from_millis(500);
/// Requests to cancel a vacuum; then its connection is closed.
const CANCELS_MAX: u32 = 10;
/// A session that is only looked at for this long may be in the way of a vacuum.
const LOCK_TIMEOUT_MS: u64 = 500;

/// What came of a vacuum.
struct Vacuumed {
    ending: Ending,
    why: Option<String>,
    pages: (Option<i64>, Option<i64>),
}

impl Vacuumed {
    fn not(ending: Ending, why: impl Into<String>) -> Self {
        Self { ending, why: Some(why.into()), pages: (None, None) }
    }
}

/// The schedule of a run's vacuums, if it is to have any.
pub(super) fn schedule(plan: &pgmend_core::plan::Plan, every: Option<Share>) -> Option<Schedule> {
    let dead_rows = plan.kind != ChangeKind::Insert && !plan.one_transaction;
    let rows = plan.counts.scanned_rows.value.max(plan.counts.changed_rows.value);
    every.filter(|_| dead_rows).map(|every| Schedule::new(every, rows))
}

impl Worker<'_, '_> {
    /// Vacuums the target if it is time. What fails is told and left to the next time: no run depends on it.
    pub(super) async fn vacuum(&mut self) -> Result<Turn, PgError> {
        let Some(mut schedule) = self.vacuums else { return Ok(Turn::Go) };
        let (held, urgent) = self.held_for();
        let changed_rows = self.changed_in_run();
        let wanted_elsewhere = held || self.wishes.asked() || self.observer.stop() != Stop::None;
        if self.at_the_end() || wanted_elsewhere || !schedule.is_due(changed_rows, urgent) {
            return Ok(Turn::Go);
        }
        let start = self.session().begin_vacuum(&self.lease, schedule.due_rows(urgent)).await?;
        let Some(vacuum_no) = start.vacuum_no else {
            schedule.done(start.after_rows);
            self.vacuums = Some(schedule);
            return Ok(Turn::Go);
        };
        fault::point("vacuum_begun");
        let table = self.plan.target.to_string();
        self.observer.tell(&Event::Vacuuming { table: table.clone(), changed_rows: start.after_rows });
        let began = Instant::now();
        let mark = mark(&self.lease, vacuum_no);
        let Vacuumed { ending, why, pages } = self.vacuum_target(&mark).await;
        match ending {
            Ending::GaveWay => schedule.gave_way(start.after_rows),
            Ending::Done | Ending::Skipped | Ending::TooLong | Ending::Failed => schedule.done(start.after_rows),
        }
        self.vacuums = Some(schedule);
        self.observer.tell(&Event::Vacuumed {
            table,
            outcome: ending.name().to_owned(),
            why: why.clone(),
            took_s: began.elapsed().as_secs_f64(),
        });
        self.session().end_vacuum(&self.lease, vacuum_no, ending, why.as_deref(), pages).await?;
        // Meanwhile somebody may want something, and the hours may be over.
        Ok(Turn::Again)
    }

    /// Rows that the run has changed, as far as this process knows.
    fn changed_in_run(&self) -> i64 {
        match self.partition {
            Some(_) => self.engine.slice.run_rows().max(self.at.changed_rows),
            None => self.at.changed_rows,
        }
    }

    /// Whether a signal holds the run that a vacuum would not help, and whether dead rows do.
    fn held_for(&self) -> (bool, bool) {
        let Verdict::Hold(reasons) = self.throttle.verdict() else { return (false, false) };
        let of = |reason: &&Reason, builtin: Builtin| reason.signal == builtin.name();
        let urgent = reasons.iter().any(|reason| of(&reason, Builtin::DeadTuples));
        // A vacuum that runs is ours, or will make ours wait.
        let other = |reason: &Reason| !of(&reason, Builtin::DeadTuples) && !of(&reason, Builtin::Vacuum);
        (reasons.iter().any(other), urgent)
    }

    /// Vacuums the target table by table, until somebody needs the run or the table.
    async fn vacuum_target(&mut self, mark: &str) -> Vacuumed {
        let role = self.plan.settings.role.clone();
        let connected = self.session().connect_for_vacuum(&self.conninfo, &role, VACUUM_MS_MAX, LOCK_TIMEOUT_MS).await;
        let session = match connected {
            Ok(session) => session,
            Err(error) => return Vacuumed::not(Ending::Failed, error.to_string()),
        };
        match self.vacuum_over(&session, mark).await {
            Ok(vacuumed) => vacuumed,
            Err(error) => Vacuumed::not(Ending::Failed, format!("{error} ({})", error.sqlstate)),
        }
    }

    async fn vacuum_over(&mut self, session: &Session, mark: &str) -> Result<Vacuumed, PgError> {
        let deadline = Instant::now() + Duration::from_millis(VACUUM_MS_MAX);
        let (role, pid) = session.acting().await?;
        let tables = session.vacuumable(self.plan.target_oid, &role).await?;
        if let Some(table) = tables.iter().find(|table| !table.may) {
            let why = format!(
                "role {role} may not vacuum {}: it takes its owner, or MAINTAIN from version 17 on",
                table.name
            );
            return Ok(Vacuumed::not(Ending::Skipped, why));
        }
        for table in tables.iter().filter(|table| table.pages > 0) {
            let mut working = std::pin::pin!(session.vacuum(table, mark));
            let ended = tokio::select! {
                ended = &mut working => Ok(ended),
                called = self.called_away(pid, mark, deadline) => Err(called),
            };
            match ended {
                Ok(ended) => ended?,
                Err((ending, why)) => {
                    cancel(session, self.session(), mark, working).await;
                    return Ok(Vacuumed::not(ending, why));
                }
            }
        }
        self.compare(session, &role, &tables).await
    }

    /// A vacuum passes over a table that another session has, without a word: only the statistics tell.
    async fn compare(&self, session: &Session, role: &str, before: &[Vacuumable]) -> Result<Vacuumed, PgError> {
        let counted = |tables: &[Vacuumable]| tables.iter().map(|table| table.vacuums).sum::<i64>();
        let pages = |tables: &[Vacuumable]| tables.iter().map(|table| table.pages).sum::<i64>();
        let expected = before.iter().filter(|table| table.pages > 0).count() as i64;
        let mut after = session.vacuumable(self.plan.target_oid, role).await?;
        for _ in 0..4 {
            if counted(&after) - counted(before) >= expected {
                let pages = (Some(pages(before)), Some(pages(&after)));
                return Ok(Vacuumed { ending: Ending::Done, why: None, pages });
            }
            // Before version 15 the statistics come a moment later.
            tokio::time::sleep(LOOK).await;
            after = session.vacuumable(self.plan.target_oid, role).await?;
        }
        Ok(Vacuumed::not(Ending::Skipped, "another session had the table, such as a vacuum of it"))
    }

    /// Waits until somebody needs the run or the table more than the vacuum does.
    async fn called_away(&mut self, pid: i64, mark: &str, deadline: Instant) -> (Ending, String) {
        loop {
            if Instant::now() >= deadline {
                return (Ending::TooLong, format!("it took longer than {} s", VACUUM_MS_MAX / 1_000));
            }
            if self.observer.stop() != Stop::None {
                return (Ending::GaveWay, "a signal wants this process to stop".to_owned());
            }
            if self.wishes.asked() {
                return (Ending::GaveWay, "a person wants the run to stop".to_owned());
            }
            if self.overdue() {
                return (Ending::GaveWay, "the hours or the time of the command are over".to_owned());
            }
            if !self.heartbeat.trusted() {
                return (Ending::GaveWay, "the lease was not renewed in time".to_owned());
            }
            self.throttle.commit(self.heartbeat.took());
            if self.held_for().0 {
                return (Ending::GaveWay, "a signal holds the run".to_owned());
            }
            match self.session().waits_for(pid, mark).await {
                Ok(None) => {}
                Ok(Some(waiter)) => return (Ending::GaveWay, format!("pid {waiter} waits for the table")),
                // Blind is no time to hold a lock.
                Err(error) => return (Ending::GaveWay, format!("the server was not to be asked: {error}")),
            }
            let _woken = self.wishes.rest(self.observer.stop_receiver(), LOOK).await;
        }
    }
}

/// Ends a vacuum, through `other`: behind a pooler a request to cancel may be lost for good, or too much for the pooler, so
/// that one is sent only if that did not help. What comes before its statement has begun is lost: it is said again. What does
/// not end in time ends with its connection.
async fn cancel(
    session: &Session,
    other: &Session,
    mark: &str,
    mut working: std::pin::Pin<&mut impl Future<Output = Result<(), PgError>>>,
) {
    for _ in 0..CANCELS_MAX {
        let _told = tokio::time::timeout(LOOK, other.end_marked_vacuum(mark)).await;
        if tokio::time::timeout(LOOK, &mut working).await.is_ok() {
            return;
        }
        let _sent = session.canceller().cancel().await;
    }
    session.close();
}
