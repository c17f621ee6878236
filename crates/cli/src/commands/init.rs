//! `pgmend init`.

use pgmend_core::exit;

use crate::Done;
use crate::render::outcome;
use crate::shell::Shell;

/// Installs or upgrades the control schema.
pub async fn main(shell: &Shell) -> Done {
    let mut engine = shell.engine().await?;
    let done = engine.init().await?;
    let policy = engine.install_policy().await?;
    shell.show(&done, |paint| outcome::initialised(&done, paint))?;
    if let (true, Some(named)) = (policy, shell.environment()?) {
        shell.tell(|_| format!("  policy           of {} is in force in this database\n", named.name))?;
    }
    Ok(exit::DONE)
}
