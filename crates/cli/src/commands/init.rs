//! `pgmend init`.

use pgmend::NamedRoles;
use pgmend_core::exit;

use crate::Done;
use crate::args::Init;
use crate::render::outcome;
use crate::shell::Shell;

/// Installs or upgrades the control schema.
pub async fn main(shell: &Shell, args: Init) -> Done {
    let mut engine = shell.engine().await?;
    let named = NamedRoles { runner: args.runner_role, approver: args.approver_role, observer: args.observer_role };
    let done = engine.init_for(&named).await?;
    let policy = engine.install_policy().await?;
    shell.show(&done, |paint| outcome::initialised(&done, paint))?;
    if let (true, Some(named)) = (policy, shell.environment()?) {
        shell.tell(|_| format!("  policy          of {} is in force in this database\n", named.name))?;
    }
    Ok(exit::DONE)
}
