//! Other people's ways of making the same change, on a smaller table. What they are compared by is rows a second: the slow
//! ones change the first rows of the table only.

use std::process::Command;
use std::time::Instant;

use crate::arguments::Arguments;
use crate::contest::{self, BASE, Contest, STREAM};
use crate::error::BenchError;
use crate::lap::Lap;
use crate::loops::{KEY_COLUMNS, TOUCH_TRIGGER, touch_batch};
use crate::stage::Stage;

pub const TOUCH: &str = "reshape's backfill: a trigger, 1,000 rows touched a batch";
pub const BULK: &str = "Django by hand: bulk_update, 1,000 rows a batch";
pub const TASKS: &str = "django-maintenance-tasks: saved row by row";
pub const ROW_BY_ROW: &str = "a script: one UPDATE and COMMIT a row";

/// All of them.
pub const PEERS: [&str; 4] = [TOUCH, BULK, TASKS, ROW_BY_ROW];
/// Each has a lap of pgmend next to it.
const HEATS: [&str; 10] = [BASE, STREAM, TOUCH, BULK, STREAM, BASE, TASKS, STREAM, ROW_BY_ROW, BASE];
/// Rows that the slow ones change.
pub const SLOW_ROWS: u64 = 5_000;

const DJANGO: &str = include_str!("peers/django_peer.py");

/// One alternation. A peer that is not installed is left out, and said to be.
pub fn round(contest: &mut Contest, stage: &Stage, arguments: &Arguments, round: usize) -> Result<(), BenchError> {
    let django = django_version(arguments)?;
    if django.is_none() {
        let python = arguments.python.display();
        eprintln!(
            "no Django: {python} -m pip install django-maintenance-tasks 'psycopg[binary]' (Python 3.12 or later)"
        );
    }
    for name in HEATS {
        let missing = django.is_none() && [BULK, TASKS].contains(&name);
        if missing || !(name == BASE || arguments.wants(name)) {
            continue;
        }
        let url = stage.fresh()?;
        let lap = match name {
            TOUCH => touched(stage)?,
            BULK => in_django(stage, arguments, "bulk", stage.rows)?,
            TASKS => in_django(stage, arguments, "tasks", SLOW_ROWS)?,
            ROW_BY_ROW => row_by_row(stage, SLOW_ROWS)?,
            name => contest::measure(stage, &url, name)?,
        };
        contest.record(round, name, lap);
    }
    Ok(())
}

/// As a client that sends one statement after the other, each of them a transaction.
fn touched(stage: &Stage) -> Result<Lap, BenchError> {
    let mut sql = stage.sql()?;
    sql.run(TOUCH_TRIGGER)?;
    let (began, cpu) = (Instant::now(), stage.cpu_seconds());
    let mut last: Option<String> = None;
    loop {
        sql.run(KEY_COLUMNS)?;
        let next = sql.value(&touch_batch(last.as_deref()))?;
        if next.is_none() {
            break;
        }
        last = next;
    }
    let lap = timed(stage, began, cpu, 0);
    let filled = sql.value("select count(*) from orders where new_region in ('north', 'south')")?;
    let rows = filled.and_then(|n| n.parse().ok()).unwrap_or(0);
    complete(TOUCH, Lap { rows, ..lap }, stage.rows)
}

/// As one writes it in a quarter of an hour: reads the keys, then changes row after row.
fn row_by_row(stage: &Stage, most: u64) -> Result<Lap, BenchError> {
    let rows = most.min(stage.rows);
    let mut sql = stage.sql()?;
    let (began, cpu) = (Instant::now(), stage.cpu_seconds());
    let wrong =
        sql.run(&format!("select id, customer_id from orders where region = 'unknown' and id <= {rows} order by id"))?;
    for row in &wrong {
        let [Some(id), Some(customer)] = &row[..] else { continue };
        let even = customer.parse::<i64>().is_ok_and(|customer| customer % 2 == 0);
        let region = if even { "north" } else { "south" };
        sql.run(&format!("update orders set region = '{region}' where id = {id}"))?;
    }
    complete(ROW_BY_ROW, timed(stage, began, cpu, wrong.len() as i64), rows)
}

fn timed(stage: &Stage, began: Instant, cpu: Option<f64>, rows: i64) -> Lap {
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = stage.cpu_seconds().zip(cpu).map(|(now, then)| now - then);
    Lap { rows, seconds, cpu_seconds, ..Lap::default() }
}

fn complete(name: &str, lap: Lap, wanted: u64) -> Result<Lap, BenchError> {
    if lap.rows == wanted as i64 {
        return Ok(lap);
    }
    Err(BenchError::new(format!("{name}: {} of {wanted} rows changed", lap.rows)))
}

/// Django's version, where this Python has all that the peer needs.
pub fn django_version(arguments: &Arguments) -> Result<Option<String>, BenchError> {
    let output = Command::new(&arguments.python).args(["-c", DJANGO, "check"]).output();
    let Ok(output) = output else { return Ok(None) };
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(output.status.success().then_some(said))
}

/// The time is the script's own: that of Python and Django to start is no part of it. The processor time of a child is
/// not counted.
fn in_django(stage: &Stage, arguments: &Arguments, how: &str, most: u64) -> Result<Lap, BenchError> {
    let wanted = most.min(stage.rows);
    let (host, port, database) = stage.address();
    let output = Command::new(&arguments.python)
        .args(["-c", DJANGO, how, &host, &port.to_string(), &database, &wanted.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut words = said.split_whitespace();
    let (rows, seconds) = (words.next().and_then(|n| n.parse().ok()), words.next().and_then(|s| s.parse().ok()));
    let (Some(rows), Some(seconds)) = (rows, seconds) else {
        let trouble = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BenchError::new(format!("django {how}: {trouble}")));
    };
    complete(how, Lap { rows, seconds, ..Lap::default() }, wanted)
}
