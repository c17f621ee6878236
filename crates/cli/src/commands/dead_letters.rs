//! `pgmend dead-letters RUN [--export FILE] [--retry [--execute]]`.

use std::io::Write as _;
use std::path::Path;

use pgmend::DeadLetter;
use pgmend_core::exit;
use pgmend_core::mask::TEXT_MASKED;

use super::run::Driving;
use crate::Done;
use crate::args::DeadLetters;
use crate::failure::Failure;
use crate::identity_file;
use crate::render::dead_letters;
use crate::shell::{Shell, quoted};

/// Lists, exports or tries again the rows that a run has set aside.
pub async fn main(shell: &Shell, args: &DeadLetters) -> Done {
    let identity = args.identity.as_deref().map(identity_file::read).transpose()?;
    let mut engine = shell.engine().await?;
    shell.show_errors(&mut engine, args.show_values);
    if args.retry && args.execute {
        let driving = Driving::begin(shell)?;
        let (progress, mut observer) = (driving.progress, driving.observer);
        let ended = engine.retry_dead_letters_with(&args.run, identity.as_ref(), &mut observer).await;
        progress.finish();
        let retried = ended?;
        let next = [shell.line(&format!("pgmend dead-letters {}", quoted(&args.run)))];
        shell.show(&retried, |paint| dead_letters::retried(&retried, &next, paint))?;
        let open = retried.open_rows + retried.conflict_rows > 0;
        return Ok(if open { exit::FINISHED_WITH_EXCEPTIONS } else { exit::DONE });
    }
    let letters = engine.dead_letters(&args.run, args.show_values).await?;
    if let Some(file) = &args.export {
        export(file, &letters)?;
    }
    let open: Vec<&DeadLetter> = letters.iter().filter(|letter| letter.state == "open").collect();
    let opened = match &args.identity {
        Some(file) => format!(" --identity {}", quoted(&file.display().to_string())),
        None => engine.retry_flag(&args.run).await?.to_owned(),
    };
    let line = |flags: &str| shell.line(&format!("pgmend dead-letters {} --retry{opened} {flags}", quoted(&args.run)));
    let retry = (!open.is_empty()).then(|| line("--execute"));
    let masked = open.iter().any(|letter| letter.message.contains(TEXT_MASKED));
    let shown = masked.then(|| format!("{}  # the same, showing the masked text", line("--show-values --execute")));
    let next: Vec<String> = retry.into_iter().chain(shown).collect();
    shell.show(&letters, |paint| dead_letters::list(&letters, args.export.as_deref(), &next, paint))?;
    Ok(exit::DONE)
}

/// One JSON object a line. A file that is there already is not overwritten: it may be somebody's worklist.
fn export(file: &Path, letters: &[DeadLetter]) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::io(&format!("write {}", file.display()), &e);
    let mut out = std::fs::File::options().write(true).create_new(true).open(file).map_err(failed)?;
    for letter in letters {
        let line = serde_json::to_string(letter)
            .map_err(|e| Failure::Io { message: format!("cannot write a dead letter as JSON: {e}") })?;
        writeln!(out, "{line}").map_err(failed)?;
    }
    out.flush().map_err(failed)
}
