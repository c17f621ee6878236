//! `pgmend list`.

use pgmend_core::exit;

use crate::Done;
use crate::render::status;
use crate::shell::Shell;

/// All runs.
pub async fn main(shell: &Shell) -> Done {
    let mut engine = shell.engine().await?;
    let runs = engine.list().await?;
    shell.show(&runs, |_| status::list(&runs))?;
    let reviews = engine.open_reviews().await?;
    shell.tell(|_| super::review::lines(&reviews, shell))?;
    Ok(exit::DONE)
}
