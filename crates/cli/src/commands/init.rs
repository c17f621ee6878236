//! `pgmend init`.

use pgmend_core::exit;

use crate::Done;
use crate::render::outcome;
use crate::shell::Shell;

/// Installs or upgrades the control schema.
pub async fn main(shell: &Shell) -> Done {
    let done = shell.engine().await?.init().await?;
    shell.show(&done, |paint| outcome::initialised(&done, paint))?;
    Ok(exit::DONE)
}
