//! `pgmend ledger verify|checkpoint|export`.

use std::io::Write as _;
use std::path::Path;

use pgmend::chain::LedgerCheckpoint;
use pgmend::{Code, Refusal};
use pgmend_core::exit;

use crate::Done;
use crate::args::Ledger;
use crate::failure::Failure;
use crate::shell::{Shell, print};

/// Verifies, remembers or exports the audit trail.
pub async fn main(shell: &Shell, args: &Ledger) -> Done {
    let mut engine = shell.engine().await?;
    match args {
        Ledger::Verify { against } => {
            let against = against.as_deref().map(read).transpose()?;
            let verdict = engine.verify_ledger(against.as_ref()).await?;
            shell.show(&verdict, |paint| match verdict.faults.as_slice() {
                [] => format!("intact: {} entries in {} chains\n", verdict.entries, verdict.chains),
                faults => faults.iter().map(|fault| format!("{}\n", paint.red(fault))).collect(),
            })?;
            if verdict.faults.is_empty() {
                return Ok(exit::DONE);
            }
            let message = format!("{} faults in the ledger", verdict.faults.len());
            Err(Refusal::new(Code::LedgerBroken, message, "keep the database as it is: pgmend explain PM608").into())
        }
        Ledger::Checkpoint => {
            let checkpoint = engine.ledger_checkpoint().await?;
            let json = serde_json::to_string_pretty(&checkpoint)
                .map_err(|e| Failure::Io { message: format!("cannot print the checkpoint: {e}") })?;
            print(&format!("{json}\n"))?;
            Ok(exit::DONE)
        }
        Ledger::Export => {
            let mut stdout = std::io::stdout().lock();
            let mut gone = false;
            let exported = engine
                .export_ledger(|entry| {
                    let line = serde_json::to_string(entry)?;
                    let written = writeln!(stdout, "{line}");
                    gone = written.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
                    written
                })
                .await;
            // A reader that has seen enough (`| head`) is no failure.
            if gone {
                return Ok(exit::DONE);
            }
            exported?;
            Ok(exit::DONE)
        }
    }
}

fn read(file: &Path) -> Result<LedgerCheckpoint, Refusal> {
    let bad = |why: String| {
        let message = format!("`{}` is no checkpoint: {why}", file.display());
        Refusal::new(Code::BadJob, message, "name a file made by `pgmend ledger checkpoint`")
    };
    let text = std::fs::read_to_string(file).map_err(|e| bad(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| bad(e.to_string()))
}
