//! What each part says on the page: tables, with the targets beside the figures.

use std::fmt::Write as _;

use crate::beside::{Beside, LOOK_S, Neighbour, P99_TARGET, Rate, SESSIONS, TRANSACTIONS_PER_S};
use crate::contest::{
    BASE, Contest, DISTANT, FIXED, FREEZE, FREEZE_PLANNED, LOOP, MEND_DELETE, MEND_INSERT, MEND_RANKED, ONE_DELETE,
    ONE_INSERT, ONE_RANKED, STREAM, STREAM_BARE, TWO, UNDO, UNDO_PLANNED, median,
};
use crate::figure::{Bound, Figure, Unit};
use crate::forecast::Forecast;
use crate::lag::Lagged;
use crate::lap::Lap;
use crate::memory::Memory;
use crate::page::Section;
use crate::part::Part;
use crate::peers::{PEERS, SLOW_ROWS};
use crate::stage::{RANKED, REPAIR, Stage};

/// Rows a second against the one big UPDATE, at least.
const SPEED_TARGETS: [(&str, Option<f64>); 9] = [
    (STREAM, Some(0.95)),
    (TWO, Some(1.30)),
    (STREAM_BARE, Some(0.95)),
    (FREEZE, Some(0.80)),
    (UNDO, Some(0.80)),
    (FREEZE_PLANNED, None),
    (UNDO_PLANNED, None),
    (FIXED, None),
    (LOOP, None),
];
/// A plan with exact counts, as a share of the run's time, at most.
const PLAN_TARGET: f64 = 0.15;
/// The last tenth of the batches against the first, at least.
const TENTH_TARGET: f64 = 0.9;
const MEMORY_TARGET_MIB: f64 = 64.0;
const FORECAST_TARGET: f64 = 0.30;
/// Of what a rate that a person tuned could do, at least.
const CAPACITY_TARGET: f64 = 0.80;
/// Of what a script with a fixed sleep adds to an application's p99, at most.
const HARM_TARGET: f64 = 0.50;
const RACED: &str =
    "| rows/s against the one big UPDATE | by the clock | target | by processor time |\n|---|---|---|---|\n";
const MEASURED: &str = "\n| | measured | target |\n|---|---|---|\n";

/// A section that grows line by line.
struct Draft(Section);

impl Draft {
    fn new(part: Part, text: impl Into<String>) -> Self {
        Self(Section { part, text: text.into(), figures: Vec::new() })
    }

    /// A row of a table, and a figure of its own.
    fn line(&mut self, unit: Unit, name: &str, values: Vec<f64>, bound: Option<Bound>) {
        let (Some(row), Some(value)) = (line(name, values.clone(), bound), median(values)) else { return };
        self.0.text.push_str(&row);
        self.0.figures.push(Figure { part: self.0.part, unit, name: name.to_owned(), value, bound });
    }

    /// One contestant: by the clock with its target, and by processor time.
    fn raced(&mut self, unit: Unit, title: &str, (name, base): (&str, &str), contest: &Contest, bound: Option<Bound>) {
        let before = self.0.text.len();
        self.line(unit, title, contest.shares(name, base), bound);
        if self.0.text.len() > before {
            let cpu = median(contest.cpu_shares(name, base)).map_or(String::new(), |share| format!("{share:.2}"));
            self.0.text.truncate(self.0.text.trim_end().len());
            let _ = writeln!(self.0.text, " {cpu} |");
        }
    }
}

/// Every way of making the change.
pub fn contest(contest: &Contest, stage: &Stage) -> Section {
    let mib = |bytes: i64| bytes / 1_048_576;
    let mut draft = Draft::new(
        Part::Contest,
        format!(
            "## Speed\n\n{} rows in {} MiB, {} MiB with three indexes, none of them on the changed column. Every lap starts \
             from a fresh copy, vacuumed, analysed and written to disk (the undo: from the run's result, treated likewise). A \
             lap of pgmend is the whole run with its checks at the end; batches are adaptive unless said.\n\n```sql\n{REPAIR}\n\
             ```\n\n{RACED}",
            stage.rows,
            mib(stage.heap_bytes),
            mib(stage.all_bytes),
        ),
    );
    for (name, target) in SPEED_TARGETS {
        draft.raced(Unit::Speed, name, (name, BASE), contest, target.map(Bound::AtLeast));
    }
    let distant = format!("{DISTANT}, against {STREAM} here");
    draft.raced(Unit::Ratio, &distant, (DISTANT, STREAM), contest, Some(Bound::AtLeast(0.85)));
    let by_hand = format!("{STREAM}, against the {LOOP}");
    draft.raced(Unit::Ratio, &by_hand, (STREAM, LOOP), contest, Some(Bound::AtLeast(1.0)));
    let one_statement = [
        (MEND_RANKED, ONE_RANKED, Some(Bound::AtLeast(0.80))),
        (MEND_DELETE, ONE_DELETE, None),
        (MEND_INSERT, ONE_INSERT, None),
    ];
    for (name, base, bound) in one_statement {
        draft.raced(Unit::Ratio, &format!("{name}, against the one statement"), (name, base), contest, bound);
    }
    let _ = write!(
        draft.0.text,
        "\nThe update above could stream: freezing it costs a pass over all rows more. The ranked one must be frozen, as \
         no batch can compute a place among all rows:\n\n```sql\n{RANKED}\n```\n"
    );
    if let Some(speed) = median(contest.figures(BASE, |lap| Some(lap.rows_per_s()))) {
        let _ = write!(draft.0.text, "\nThe one big UPDATE: {speed:.0} rows/s.\n");
    }
    draft.0.text.push_str(MEASURED);
    let plan = contest.figures(STREAM, |lap| lap.plan_seconds.map(|plan| plan / lap.seconds));
    let name = "plan with exact counts, share of the run's time";
    draft.line(Unit::Ratio, name, plan, Some(Bound::AtMost(PLAN_TARGET)));
    for name in [STREAM_BARE, STREAM, FREEZE, UNDO] {
        let tenths = contest.figures(name, |lap: &Lap| lap.last_tenth);
        let name = format!("last tenth of the batches against the first, {name}");
        draft.0.text.extend(line(&name, tenths, Some(Bound::AtLeast(TENTH_TARGET))));
    }
    draft.0
}

/// Other people's ways.
pub fn peers(contest: &Contest, stage: &Stage, django: Option<&str>) -> Section {
    let mut draft = Draft::new(
        Part::Peers,
        format!(
            "## Others\n\nThe same change by the means of others, on a table like the one above of {} rows; those that go row by \
             row change the first {} of it. Rows a second are what is compared.\n\n\
             - reshape is not run itself: the table has the triggers that its `alter_column` makes, and a client sends what its \
             backfill sends, batches of 1,000 rows in key order, each looked up and committed by itself.\n\
             - Django {}: a task of django-maintenance-tasks with the package's own defaults, and `bulk_update` by hand. The time to \
             start Python is no part of it.\n\
             - The script reads the keys, then sends one UPDATE after the other over the local network.\n\n{RACED}",
            stage.rows,
            SLOW_ROWS.min(stage.rows),
            django.unwrap_or("(not installed here, left out)"),
        ),
    );
    for name in PEERS {
        draft.raced(Unit::Speed, name, (name, BASE), contest, None);
    }
    draft.0.text.extend(line(&format!("{STREAM}, on this table"), contest.shares(STREAM, BASE), None));
    draft.0.text.push_str("\n| pgmend with images, rows/s against | measured | target |\n|---|---|---|\n");
    for name in PEERS {
        let name_here = format!("pgmend with images against {name}");
        draft.line(Unit::Ratio, &name_here, contest.shares(STREAM, name), Some(Bound::AtLeast(1.0)));
    }
    draft.0
}

/// The table with an index in random order.
pub fn scattered(contest: &Contest) -> Section {
    let mut draft = Draft::new(
        Part::Scattered,
        format!(
            "## With an index in random order\n\nThe same table, but its second index is over `customer_id`, whose values come \
             in no order. Once a batch is committed, its dead entries lie scattered over the whole of that index, and each of its \
             pages that fills up is cleaned first (bottom-up deletion, PostgreSQL 14 and later): processor time that the one big \
             UPDATE does not spend, since nothing of it is dead before its end (its index is the larger afterwards). A loop by \
             hand pays for it. pgmend changes every other row first, so that nearly half of the rows need no entry \
             ([halves](design/halves.md)).\n\n{RACED}"
        ),
    );
    for name in [LOOP, STREAM_BARE] {
        draft.raced(Unit::Ratio, name, (name, BASE), contest, None);
    }
    draft.raced(Unit::Ratio, &format!("{STREAM_BARE}, against the loop by hand"), (STREAM_BARE, LOOP), contest, None);
    // What it shows is how tables differ, not how pgmend does.
    draft.0.figures.clear();
    draft.0
}

/// The application beside a run.
pub fn beside(beside: &Beside) -> Section {
    let mut draft = Draft::new(
        Part::Beside,
        format!(
            "## Beside an application\n\npgbench reads four rows for each that it writes, anywhere in the same table, {TRANSACTIONS_PER_S} \
             transactions a second in {SESSIONS} sessions; the time of a transaction includes its wait for its turn. Each round is one \
             stretch of this on a fresh table, with a look of {LOOK_S} s at everything below, in another order than the round before; the \
             percentiles are those of all transactions of all looks. Script and loops are written by hand in PL/pgSQL and keep no \
             images; the script sleeps after each batch for the same time, the loops until their rate allows the next.\n\n\
             | beside | rows/s | transactions | p50 | p99 | p99.5 | p99 against alone |\n|---|---|---|---|---|---|---|\n"
        ),
    );
    let alone_ms = beside.alone_ms();
    for seen in beside.seen() {
        let rows = seen.rows_per_s().map_or(String::new(), |rows| format!("{rows:.0}"));
        let (name, p99_ms) = (seen.neighbour.name(), seen.p99_ms());
        let _ = writeln!(
            draft.0.text,
            "| {name} | {rows} | {} | {:.2} ms | {p99_ms:.2} ms | {:.2} ms | {:.2} |",
            seen.transactions(),
            seen.percentile_ms(0.5),
            seen.percentile_ms(0.995),
            p99_ms / alone_ms
        );
        let bound = (seen.neighbour == Neighbour::Run).then_some(Bound::AtMost(alone_ms * P99_TARGET));
        let name = format!("beside {name}");
        draft.0.figures.push(Figure { part: Part::Beside, unit: Unit::Millis, name, value: p99_ms, bound });
    }
    draft.0.text.push_str(MEASURED);
    let mut ratio =
        |name: &str, value: Option<f64>, bound| draft.line(Unit::Ratio, name, value.into_iter().collect(), bound);
    let slowed = beside.slowed(Neighbour::Run);
    ratio("the application's p99 beside a run, against alone", slowed, Some(Bound::AtMost(P99_TARGET)));
    let own = beside.capacity_used(|neighbour| matches!(neighbour, Neighbour::RunAt(_)));
    let name = "rows/s of a run as it comes, against the fastest `--rate` that keeps that p99";
    ratio(name, own, Some(Bound::AtLeast(CAPACITY_TARGET)));
    let loops = beside.capacity_used(|neighbour| matches!(neighbour, Neighbour::Loop(..)));
    ratio("the same against the fastest loop without images that keeps it", loops, None);
    let harm = beside.harm(Neighbour::RunAt(Rate::OfTheScript), Neighbour::Script);
    ratio("what a run at the script's rate adds to p99, against the script", harm, Some(Bound::AtMost(HARM_TARGET)));
    draft.0
}

/// The slow standby.
pub fn lag(lagged: &Lagged) -> Section {
    let mut draft = Draft::new(
        Part::Lag,
        format!(
            "## A standby that is late\n\nThe same run, of {} rows, while a streaming standby may replay for {:.0} ms of every \
             {:.0} ms. The limit is {} s of replay lag. How late the standby is was looked at every {:.0} ms, beside pgmend: the age of \
             the first position of the primary that it had not replayed.\n\n| | |\n|---|---|\n\
             | the run took | {:.1} s, {:.1} s of them held |\n| without a standby | {:.1} s |\n| holds | {} |\n\
             | the longest batch | {:.2} s |\n| most late | {:.1} s |\n",
            lagged.rows,
            lagged.replays_ms,
            lagged.of_ms,
            lagged.limit_s,
            lagged.looked_every_ms,
            lagged.seconds,
            lagged.held_s,
            lagged.alone_s,
            lagged.holds,
            lagged.longest_batch_s,
            lagged.most_s,
        ),
    );
    draft.0.text.push_str(MEASURED);
    let name = format!("most replay lag of a slow standby, limit {} s and one batch", lagged.limit_s);
    let bound = Bound::AtMost(lagged.limit_s as f64 + lagged.batch_replayed_s);
    draft.line(Unit::Seconds, &name, vec![lagged.most_s], Some(bound));
    let _ = write!(
        draft.0.text,
        "\nOne batch: the standby took {:.2} s for what the longest of them wrote.\n",
        lagged.batch_replayed_s
    );
    draft.0
}

/// What was planned, and what came.
pub fn forecasts(forecasts: &[Forecast]) -> Section {
    let mut draft = Draft::new(
        Part::Forecast,
        format!(
            "## What the plan says and what comes\n\nAfter a rehearsal of three batches. The duration is to be within \
             ± {:.0} %, the rows exact.\n\n| run | rows planned | changed | planned | took | off by | |\n|---|---|---|---|---|---|---|\n",
            FORECAST_TARGET * 100.0
        ),
    );
    let mut good = 0;
    for f in forecasts {
        let off = f.planned_s / f.took_s - 1.0;
        let met = off.abs() <= FORECAST_TARGET && f.planned_rows == f.changed_rows;
        good += usize::from(met);
        let _ = writeln!(
            draft.0.text,
            "| {} | {} | {} | {:.1} s | {:.1} s | {:+.0} % | {} |",
            f.name,
            f.planned_rows,
            f.changed_rows,
            f.planned_s,
            f.took_s,
            off * 100.0,
            verdict(met)
        );
    }
    if let Some(f) = forecasts.first() {
        let _ = write!(draft.0.text, "\nBasis: {}.\n", f.basis);
    }
    draft.0.figures.push(Figure {
        part: Part::Forecast,
        unit: Unit::Count,
        name: "durations predicted within ± 30 % after a rehearsal".into(),
        value: good as f64,
        bound: Some(Bound::AtLeast(forecasts.len() as f64)),
    });
    draft.0
}

/// Resident memory at so many rows.
pub fn memory(part: Part, rows: u64, found: &[Memory]) -> Section {
    let title = if part == Part::Large { "Memory at a large table" } else { "Memory" };
    let mut draft = Draft::new(
        part,
        format!(
            "## {title}\n\nThe highest resident memory of a process that plans and runs; target {MEMORY_TARGET_MIB} MiB. The table has \
             {rows} rows.\n\n| scenario | rows changed | MiB | |\n|---|---|---|---|\n"
        ),
    );
    for m in found {
        let good = verdict(m.mib <= MEMORY_TARGET_MIB);
        let _ = writeln!(draft.0.text, "| {} | {} | {:.1} | {good} |", m.scenario, m.changed_rows, m.mib);
    }
    let most = found.iter().map(|m| m.mib).fold(0.0, f64::max);
    draft.0.figures.push(Figure {
        part,
        unit: Unit::Mib,
        name: format!("most resident memory of pgmend at {rows} rows"),
        value: most,
        bound: Some(Bound::AtMost(MEMORY_TARGET_MIB)),
    });
    draft.0
}

/// One row of a table: the median, how far the laps lie apart, the target and whether it is met.
fn line(name: &str, values: Vec<f64>, bound: Option<Bound>) -> Option<String> {
    let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
    let middle = median(values)?;
    let target = bound.map_or(String::new(), |bound| {
        let (sign, limit) = bound.sign();
        format!("{sign} {limit:.2} {}", verdict(bound.met_by(middle)))
    });
    Some(format!("| {name} | **{middle:.2}** ({low:.2} to {high:.2}) | {target} |\n"))
}

fn verdict(good: bool) -> &'static str {
    if good { "met" } else { "MISSED" }
}
