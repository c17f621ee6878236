//! Resident memory at its highest: each scenario in a process of its own, which is this program again.

use std::process::Command;

use pgmend::{Mode, PlanOptions};

use crate::error::BenchError;
use crate::lap::{self, Work};
use crate::stage::{REPAIR, SPARSE, Stage};

/// The word that makes this program a child; not for people.
const CHILD: &str = "__memory";
/// In this order on one copy of the table: the sparse ones first, since they find their rows unrepaired.
const SCENARIOS: [&str; 5] = ["sparse", "sparse, streamed", "stream", "undo", "freeze"];

/// The highest resident memory of a scenario.
#[derive(Debug, Clone)]
pub struct Memory {
    pub scenario: &'static str,
    pub mib: f64,
    pub changed_rows: i64,
}

/// Runs all scenarios.
pub fn all(stage: &Stage) -> Result<Vec<Memory>, BenchError> {
    let url = stage.fresh()?;
    let mut found = Vec::new();
    for scenario in SCENARIOS {
        let output = Command::new(std::env::current_exe()?).args([CHILD, &url, scenario]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut numbers = text.split_whitespace().map(str::parse::<i64>);
        let (Some(Ok(kib)), Some(Ok(changed_rows))) = (numbers.next(), numbers.next()) else {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(BenchError::new(format!("memory of {scenario}: {said}")));
        };
        let memory = Memory { scenario, mib: kib as f64 / 1_024.0, changed_rows };
        eprintln!("memory of {scenario}: {:.1} MiB for {changed_rows} rows", memory.mib);
        found.push(memory);
    }
    Ok(found)
}

/// The child's part, if this process is one: runs one scenario, prints its own peak.
pub fn child(words: &[String]) -> Option<Result<(), BenchError>> {
    let [word, url, scenario] = words else { return None };
    (word == CHILD).then(|| run(url, scenario))
}

fn run(url: &str, scenario: &str) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = Work { name: "repair", statement: REPAIR, images: true, mode: Some(Mode::Stream), ..Work::default() };
    let other = SPARSE.replace("= 7", "= 9");
    let lap = match scenario {
        "undo" => runtime.block_on(lap::undo(url, "repair", &|| None))?,
        _ => {
            let work = match scenario {
                "freeze" => Work { name: "repair frozen", mode: Some(Mode::Freeze), ..stream },
                "sparse" => Work { name: scenario, statement: SPARSE, mode: None, ..stream },
                "sparse, streamed" => Work { name: scenario, statement: &other, ..stream },
                _ => stream,
            };
            runtime.block_on(lap::mend(url, work, &PlanOptions::default(), &|| None))?.0
        }
    };
    println!("{} {}", peak_kib()?, lap.rows);
    Ok(())
}

/// `VmHWM` of this process.
fn peak_kib() -> Result<i64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let number = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok());
    number.ok_or_else(|| BenchError::new("the kernel does not tell VmHWM"))
}
