//! The command line.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::BenchError;
use crate::part::Part;

/// Rows of the main measurement.
const ROWS: u64 = 2_000_000;
/// Rows of the table that the peers meet: the slow ones take minutes with more.
const PEER_ROWS: u64 = 200_000;
/// Rows of the large memory measurement.
const LARGE_ROWS: u64 = 20_000_000;
/// Alternations; the median of fewer than three is an anecdote.
const ROUNDS: usize = 3;
/// How late a standby may get, in seconds.
const LAG_LIMIT_S: u64 = 10;

pub const USAGE: &str = "\
usage: pgmend-bench [options]

  --part NAME,…     only these parts: contest, forecast, memory, beside, scattered, peers, lag, large
                    (all but large, which takes 12 GB of disk)
  --no-NAME         without that part
  --redraw          none of them: the table and the plot anew, from the figures that are there
  --rows N          rows of the table (2,000,000)
  --peer-rows N     rows of the table that the peers meet (200,000)
  --rounds N        alternations of all contestants (3)
  --only NAME,…     contestants whose name begins with one of these; the one big update always takes part
  --lag-limit S     how late the slow standby may get, in seconds (10)
  --python PROGRAM  a Python that has django, django-maintenance-tasks and psycopg (python3)
  --large           also measure the memory at 20,000,000 rows
  --large-rows N    the same at so many rows
  --set NAME=VALUE  a server setting
  --output FILE     the page whose sections are written anew (docs/bench.md; - writes none); the figures and the
                    plot lie beside it

A part that is left out keeps its section, its figures and its bars.";

/// What to measure.
#[derive(Debug, Clone)]
pub struct Arguments {
    pub rows: u64,
    pub peer_rows: u64,
    pub rounds: usize,
    pub only: Vec<String>,
    pub parts: BTreeSet<Part>,
    pub lag_limit_s: u64,
    pub python: PathBuf,
    pub large_rows: u64,
    pub settings: Vec<(String, String)>,
    pub output: Option<PathBuf>,
}

impl Arguments {
    /// `None` when help was asked for.
    pub fn parse(words: &[String]) -> Result<Option<Self>, BenchError> {
        let mut arguments = Self {
            rows: ROWS,
            peer_rows: PEER_ROWS,
            rounds: ROUNDS,
            only: Vec::new(),
            parts: Part::ALL.into_iter().filter(|part| *part != Part::Large).collect(),
            lag_limit_s: LAG_LIMIT_S,
            python: PathBuf::from("python3"),
            large_rows: LARGE_ROWS,
            settings: Vec::new(),
            output: Some(PathBuf::from("docs/bench.md")),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| BenchError::new(format!("{word} needs a value")));
            match word.as_str() {
                "--part" => arguments.parts = value()?.split(',').map(Part::named).collect::<Result<_, _>>()?,
                "--redraw" => arguments.parts.clear(),
                "--rows" => arguments.rows = number(word, value()?)?,
                "--peer-rows" => arguments.peer_rows = number(word, value()?)?,
                "--rounds" => arguments.rounds = number(word, value()?)? as usize,
                "--only" => arguments.only = value()?.split(',').map(str::to_owned).collect(),
                "--lag-limit" => arguments.lag_limit_s = number(word, value()?)?.max(1),
                "--python" => arguments.python = PathBuf::from(value()?),
                "--large" => _ = arguments.parts.insert(Part::Large),
                "--large-rows" => {
                    arguments.large_rows = number(word, value()?)?;
                    arguments.parts.insert(Part::Large);
                }
                "--set" => {
                    let value = value()?;
                    let (name, setting) =
                        value.split_once('=').ok_or_else(|| BenchError::new("--set takes NAME=VALUE"))?;
                    arguments.settings.push((name.to_owned(), setting.to_owned()));
                }
                "--output" => arguments.output = Some(value()?).filter(|v| *v != "-").map(PathBuf::from),
                "--help" | "-h" => return Ok(None),
                other => match other.strip_prefix("--no-").map(Part::named) {
                    Some(Ok(part)) => _ = arguments.parts.remove(&part),
                    Some(Err(_)) | None => {
                        return Err(BenchError::new(format!("unknown option {other}\n{USAGE}")));
                    }
                },
            }
        }
        Ok(Some(arguments))
    }

    /// Whether a contestant takes part.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()))
    }

    /// Whether a part is measured.
    pub fn measures(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

fn number(option: &str, text: &str) -> Result<u64, BenchError> {
    let digits: String = text.chars().filter(|c| *c != '_' && *c != ',').collect();
    digits.parse().map_err(|_| BenchError::new(format!("{option} takes a number, not `{text}`")))
}
