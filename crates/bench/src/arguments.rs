//! The command line.

use std::path::PathBuf;

use crate::error::BenchError;

/// Rows of the main measurement.
const ROWS: u64 = 2_000_000;
/// Rows of the large memory measurement.
const LARGE_ROWS: u64 = 20_000_000;
/// Alternations; the median of fewer than three is an anecdote.
const ROUNDS: usize = 3;

pub const USAGE: &str = "\
usage: pgmend-bench [options]

  --rows N          rows of the table (2,000,000)
  --rounds N        alternations of all contestants (3)
  --only NAME,…     contestants whose name begins with one of these; the one big update always takes part
  --no-contest      forecasts and memory only
  --no-forecast     leave out the plan's predictions
  --no-memory       leave out the memory
  --no-beside       leave out the application beside a run
  --no-scattered    leave out the table with an index in random order
  --only-large      nothing but that
  --large           also measure the memory at 20,000,000 rows (12 GB of disk)
  --set NAME=VALUE  a server setting
  --output FILE     where to write the page (docs/bench.md; - writes none)";

/// What to measure.
#[derive(Debug, Clone)]
pub struct Arguments {
    pub rows: u64,
    pub rounds: usize,
    pub only: Vec<String>,
    pub forecast: bool,
    pub memory: bool,
    pub beside: bool,
    pub scattered: bool,
    pub only_large: bool,
    pub large_rows: Option<u64>,
    pub settings: Vec<(String, String)>,
    pub output: Option<PathBuf>,
}

impl Arguments {
    /// `None` when help was asked for.
    pub fn parse(words: &[String]) -> Result<Option<Self>, BenchError> {
        let mut arguments = Self {
            rows: ROWS,
            rounds: ROUNDS,
            only: Vec::new(),
            forecast: true,
            memory: true,
            beside: true,
            scattered: true,
            only_large: false,
            large_rows: None,
            settings: Vec::new(),
            output: Some(PathBuf::from("docs/bench.md")),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| BenchError::new(format!("{word} needs a value")));
            match word.as_str() {
                "--rows" => arguments.rows = number(word, value()?)?,
                "--rounds" => arguments.rounds = number(word, value()?)? as usize,
                "--only" => arguments.only = value()?.split(',').map(str::to_owned).collect(),
                "--no-contest" => arguments.rounds = 0,
                "--only-large" => arguments.only_large = true,
                "--no-forecast" => arguments.forecast = false,
                "--no-memory" => arguments.memory = false,
                "--no-beside" => arguments.beside = false,
                "--no-scattered" => arguments.scattered = false,
                "--large" => arguments.large_rows = Some(LARGE_ROWS),
                "--large-rows" => arguments.large_rows = Some(number(word, value()?)?),
                "--set" => {
                    let value = value()?;
                    let (name, setting) =
                        value.split_once('=').ok_or_else(|| BenchError::new("--set takes NAME=VALUE"))?;
                    arguments.settings.push((name.to_owned(), setting.to_owned()));
                }
                "--output" => arguments.output = Some(value()?).filter(|v| *v != "-").map(PathBuf::from),
                "--help" | "-h" => return Ok(None),
                other => return Err(BenchError::new(format!("unknown option {other}\n{USAGE}"))),
            }
        }
        Ok(Some(arguments))
    }

    /// Whether a contestant takes part.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()))
    }
}

fn number(option: &str, text: &str) -> Result<u64, BenchError> {
    let digits: String = text.chars().filter(|c| *c != '_' && *c != ',').collect();
    digits.parse().map_err(|_| BenchError::new(format!("{option} takes a number, not `{text}`")))
}
