//! Measures pgmend against the one big statement, hand-written loops and other tools, all on the same rows in one run,
//! and writes the page, the plot and the table that the README quotes.
//!
//! ```sh
//! cargo run --release -p pgmend-bench
//! cargo run --release -p pgmend-bench -- --part contest --rows 200000 --rounds 1 --only stream
//! ```
//!
//! Only ratios within one run mean something: the machine, its disk and its neighbours change the rest.

mod arguments;
mod beside;
mod contest;
mod cpu;
mod error;
mod figure;
mod forecast;
mod lag;
mod lap;
mod loops;
mod memory;
mod page;
mod part;
mod peers;
mod plot;
mod section;
mod stage;

use std::time::Instant;

use arguments::Arguments;
use beside::Beside;
use contest::Contest;
use error::BenchError;
use page::{Page, Section};
use part::Part;
use stage::{Shape, Stage};

/// The slow standby's table is so much smaller than the others', or its run would last for hours.
const LAG_SHARE: u64 = 4;

fn main() -> Result<(), BenchError> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(child) = memory::child(&words) {
        return child;
    }
    let Some(arguments) = Arguments::parse(&words)? else {
        println!("{}", arguments::USAGE);
        return Ok(());
    };
    if arguments.measures(Part::Beside) && arguments.rows < beside::ROWS_MIN {
        let least = beside::ROWS_MIN;
        return Err(BenchError::new(format!(
            "an application needs {least} rows beside it: --rows {least}, or --no-beside"
        )));
    }
    let began = Instant::now();
    let mut bench = Bench { page: Page::open(&arguments)?, arguments, timed: Instant::now(), times: Vec::new() };
    // First, since it leaves nothing behind for the others to contend with.
    bench.large()?;
    bench.on_the_table()?;
    bench.peers()?;
    bench.lag()?;
    bench.scattered()?;
    bench.page.write()?;
    println!("{}", bench.page.text());
    let parts: Vec<String> =
        bench.times.iter().map(|(part, s)| format!("{} {:.1} min", part.name(), s / 60.0)).collect();
    eprintln!("{:.1} minutes: {}", began.elapsed().as_secs_f64() / 60.0, parts.join(", "));
    Ok(())
}

/// What is measured, and the page that it makes.
struct Bench {
    arguments: Arguments,
    page: Page,
    /// Since when the part that goes on is measured.
    timed: Instant,
    times: Vec<(Part, f64)>,
}

impl Bench {
    /// Whether a part is wanted; its time begins.
    fn begin(&mut self, part: Part) -> bool {
        self.timed = Instant::now();
        self.arguments.measures(part)
    }

    fn stage(&self, rows: u64, shape: Shape) -> Result<Stage, BenchError> {
        Stage::build(rows, shape, &self.arguments.settings)
    }

    /// Puts a section on the page, with what it was measured on and how long it took so far.
    fn put(&mut self, mut section: Section, stage: &Stage, rounds: Option<usize>) -> Result<(), BenchError> {
        let seconds = self.timed.elapsed().as_secs_f64();
        let cores = std::thread::available_parallelism()?;
        let rounds = rounds.map_or(String::new(), |rounds| match rounds {
            1 => ", one round".to_owned(),
            rounds => format!(", {rounds} rounds"),
        });
        let text = section.text.trim_end().to_owned();
        section.text = format!(
            "{text}\n\nMeasured on PostgreSQL {}, {cores} cores, fsync on, {} rows{rounds}, in {:.1} minutes.",
            stage.version(),
            stage.rows,
            seconds / 60.0
        );
        self.times.retain(|(part, _)| *part != section.part);
        self.times.push((section.part, seconds));
        self.page.put(section)
    }

    fn large(&mut self) -> Result<(), BenchError> {
        if !self.begin(Part::Large) {
            return Ok(());
        }
        let rows = self.arguments.large_rows;
        let stage = self.stage(rows, Shape::Narrow)?;
        let section = section::memory(Part::Large, rows, &memory::all(&stage)?);
        self.put(section, &stage, None)
    }

    /// The parts that share one server and its table.
    fn on_the_table(&mut self) -> Result<(), BenchError> {
        let parts = [Part::Contest, Part::Forecast, Part::Memory, Part::Beside];
        if !parts.iter().any(|part| self.arguments.measures(*part)) {
            return Ok(());
        }
        let stage = self.stage(self.arguments.rows, Shape::Ordered)?;
        if self.begin(Part::Contest) {
            let mut contest = Contest::default();
            for round in 0..self.arguments.rounds {
                contest.round(&stage, &self.arguments, round)?;
                self.put(section::contest(&contest, &stage), &stage, Some(round + 1))?;
            }
        }
        if self.begin(Part::Forecast) {
            let section = section::forecasts(&forecast::all(&stage, &self.arguments)?);
            self.put(section, &stage, None)?;
        }
        if self.begin(Part::Memory) {
            let section = section::memory(Part::Memory, stage.rows, &memory::all(&stage)?);
            self.put(section, &stage, None)?;
        }
        if self.begin(Part::Beside) {
            let mut beside = Beside::default();
            for round in 0..self.arguments.rounds {
                beside.round(&stage, round)?;
                self.put(section::beside(&beside), &stage, Some(round + 1))?;
            }
        }
        Ok(())
    }

    fn peers(&mut self) -> Result<(), BenchError> {
        if !self.begin(Part::Peers) {
            return Ok(());
        }
        let stage = self.stage(self.arguments.peer_rows, Shape::Ordered)?;
        let django = peers::django_version(&self.arguments)?;
        let mut contest = Contest::default();
        for round in 0..self.arguments.rounds {
            peers::round(&mut contest, &stage, &self.arguments, round)?;
            let section = section::peers(&contest, &stage, django.as_deref());
            self.put(section, &stage, Some(round + 1))?;
        }
        Ok(())
    }

    fn lag(&mut self) -> Result<(), BenchError> {
        if !self.begin(Part::Lag) {
            return Ok(());
        }
        let stage = self.stage((self.arguments.rows / LAG_SHARE).max(1), Shape::Ordered)?;
        let section = section::lag(&lag::measure(&stage, self.arguments.lag_limit_s)?);
        self.put(section, &stage, None)
    }

    fn scattered(&mut self) -> Result<(), BenchError> {
        if !self.begin(Part::Scattered) {
            return Ok(());
        }
        let stage = self.stage(self.arguments.rows, Shape::Scattered)?;
        let mut contest = Contest::default();
        for round in 0..self.arguments.rounds {
            contest.round(&stage, &self.arguments, round)?;
            self.put(section::scattered(&contest), &stage, Some(round + 1))?;
        }
        Ok(())
    }
}
