//! The commands, one module each. A command asks the engine, shows the answer, gives an exit code.

mod completions;
mod explain;
mod fix;
mod init;
mod list;
mod new;
mod plan;
mod prune;
mod report;
mod run;
mod status;
mod trace;
mod undo;

use crate::Done;
use crate::args::Command;
use crate::shell::Shell;

/// Does what was typed.
pub async fn dispatch(shell: &Shell, command: Command) -> Done {
    match command {
        Command::Init => init::main(shell).await,
        Command::New(args) => new::main(shell, &args),
        Command::Plan(args) => plan::main(shell, &args).await,
        Command::Run(args) => run::main(shell, &args).await,
        Command::Status(args) => status::main(shell, &args).await,
        Command::List => list::main(shell).await,
        Command::Undo(args) => undo::main(shell, &args).await,
        Command::Report(args) => report::main(shell, &args).await,
        Command::Trace(args) => trace::main(shell, &args).await,
        Command::Prune(args) => prune::main(shell, &args).await,
        Command::Explain(args) => explain::main(shell, &args),
        Command::Demo(args) => crate::demo::main(&args),
        Command::Completions(args) => completions::main(&args),
    }
}
