//! `pgmend status [RUN|JOB]`.

use pgmend_core::exit;

use crate::Done;
use crate::args::Status;
use crate::render::{dead_letters, status};
use crate::shell::Shell;

/// What runs do now. A single run also lists its conflicts.
pub async fn main(shell: &Shell, args: &Status) -> Done {
    let mut engine = shell.engine().await?;
    let mut runs = engine.status(args.run.as_deref()).await?;
    for line in runs.iter_mut().flat_map(|run| &mut run.next) {
        *line = shell.line(line);
    }
    shell.show(&runs, |paint| status::status(&runs, paint))?;
    let reviews = engine.open_reviews().await?;
    shell.tell(|_| super::review::lines(&reviews, shell))?;
    if let [run] = runs.as_slice()
        && run.conflict_rows > 0
        && !shell.json()
    {
        let conflicts = engine.conflicts(&run.summary.run_id.to_string()).await?;
        shell.tell(|paint| status::conflicts(&conflicts, paint))?;
    }
    if let [run] = runs.as_slice()
        && run.dead_rows > 0
        && !shell.json()
    {
        let letters = engine.dead_letters(&run.summary.run_id.to_string(), false).await?;
        shell.tell(|paint| dead_letters::open(&letters, paint))?;
    }
    Ok(exit::DONE)
}
