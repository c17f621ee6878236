//! Measures pgmend against the one big statement and a hand-written loop, all on the same rows in one
//! run, and writes the table that the README quotes.
//!
//! ```sh
//! cargo run --release -p pgmend-bench
//! cargo run --release -p pgmend-bench -- --rows 200000 --rounds 1 --only stream
//! ```
//!
//! Only ratios within one run mean something: the machine, its disk and its neighbours change the rest.

mod arguments;
mod beside;
mod contest;
mod cpu;
mod error;
mod forecast;
mod lap;
mod memory;
mod page;
mod stage;

use arguments::Arguments;
use contest::Contest;
use error::BenchError;
use page::Page;
use stage::{Shape, Stage};

fn main() -> Result<(), BenchError> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(child) = memory::child(&words) {
        return child;
    }
    let Some(arguments) = Arguments::parse(&words)? else {
        println!("{}", arguments::USAGE);
        return Ok(());
    };
    let mut page = Page::new(&arguments);
    // First, since it leaves nothing behind for the others to contend with.
    if let Some(rows) = arguments.large_rows {
        let large = Stage::build(rows, Shape::Narrow, &arguments.settings)?;
        page.memory(rows, &memory::all(&large)?);
        page.write(&arguments)?;
    }
    if arguments.only_large {
        println!("{}", page.text());
        return Ok(());
    }
    let stage = Stage::build(arguments.rows, Shape::Ordered, &arguments.settings)?;
    page.describe(&stage)?;
    let mut contest = Contest::default();
    for round in 0..arguments.rounds {
        contest.round(&stage, &arguments, round)?;
        page.contest(&contest);
        page.write(&arguments)?;
    }
    if arguments.forecast {
        page.forecasts(&forecast::all(&stage, &arguments)?);
        page.write(&arguments)?;
    }
    if arguments.memory {
        page.memory(arguments.rows, &memory::all(&stage)?);
        page.write(&arguments)?;
    }
    if arguments.beside {
        page.beside(&beside::all(&stage)?);
        page.write(&arguments)?;
    }
    drop(stage);
    if arguments.scattered && arguments.rounds > 0 {
        let scattered = Stage::build(arguments.rows, Shape::Scattered, &arguments.settings)?;
        let mut contest = Contest::default();
        for round in 0..arguments.rounds {
            contest.round(&scattered, &arguments, round)?;
            page.scattered(&contest);
            page.write(&arguments)?;
        }
    }
    println!("{}", page.text());
    Ok(())
}
