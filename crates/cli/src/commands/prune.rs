//! `pgmend prune [--execute]`.

use pgmend_core::exit;

use crate::Done;
use crate::args::Prune;
use crate::render::prune;
use crate::shell::Shell;

/// Old images and change sets: shown, or dropped.
pub async fn main(shell: &Shell, args: &Prune) -> Done {
    let found = shell.engine().await?.prune(args.older_than, args.execute).await?;
    let age = args.older_than.map(|days| format!(" --older-than {days}")).unwrap_or_default();
    let next = [shell.line(&format!("pgmend prune{age} --execute"))];
    shell.show(&found, |paint| prune::text(&found, args.execute, &next, paint))?;
    Ok(exit::DONE)
}
