//! `pgmend man [COMMAND]`.

use clap::CommandFactory as _;
use pgmend_core::exit;
use pgmend_core::refusal::{Code, Refusal};

use crate::Done;
use crate::args::{Cli, Man};
use crate::shell;

/// Prints a manual page, in roff.
pub fn main(args: &Man) -> Done {
    let mut all = Cli::command();
    // Options of every command are then part of each page.
    all.build();
    let command = match &args.command {
        None => Some(&all),
        Some(name) => all.get_subcommands().find(|command| command.get_name() == name),
    };
    let Some(command) = command else {
        let name = args.command.as_deref().unwrap_or_default();
        let refusal = Refusal::new(Code::NotFound, format!("there is no command `{name}`"), "type: pgmend --help");
        return Err(refusal.into());
    };
    let title = command.get_display_name().unwrap_or("pgmend").replace(' ', "-");
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(title).render(&mut page).expect("writing to memory does not fail");
    shell::print(&String::from_utf8_lossy(&page))?;
    Ok(exit::DONE)
}
