//! `pgmend completions SHELL`.

use clap::CommandFactory as _;
use pgmend_core::exit;

use crate::Done;
use crate::args::{Cli, Completions};
use crate::shell;

/// Prints the completions of a shell.
pub fn main(args: &Completions) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pgmend", &mut script);
    shell::print(&String::from_utf8_lossy(&script))?;
    Ok(exit::DONE)
}
