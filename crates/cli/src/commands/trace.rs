//! `pgmend trace TABLE KEY…`.

use pgmend_core::exit;

use crate::Done;
use crate::args::Trace;
use crate::identity_file;
use crate::render::trace;
use crate::shell::Shell;

/// Every run that touched the row.
pub async fn main(shell: &Shell, args: &Trace) -> Done {
    let identity = args.identity.as_deref().map(identity_file::read).transpose()?;
    let touches = shell.engine().await?.trace(&args.table, &args.key, args.show_values, identity.as_ref()).await?;
    shell.show(&touches, |paint| trace::text(&args.table, &args.key, &touches, paint))?;
    Ok(exit::DONE)
}
