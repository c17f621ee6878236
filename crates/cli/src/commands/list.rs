//! `pgmend list`.

use pgmend_core::exit;

use crate::Done;
use crate::render::status;
use crate::shell::Shell;

/// All runs.
pub async fn main(shell: &Shell) -> Done {
    let runs = shell.engine().await?.list().await?;
    shell.show(&runs, |_| status::list(&runs))?;
    Ok(exit::DONE)
}
