//! The commands, one module each. A command asks the engine, shows the answer, gives an exit code.

mod approve;
mod check;
mod completions;
mod dead_letters;
mod explain;
mod fix;
mod init;
mod ledger;
mod list;
mod man;
mod new;
mod plan;
mod prune;
mod report;
mod review;
mod run;
mod status;
mod trace;
mod undo;
mod wish;

use crate::Done;
use crate::args::Command;
use crate::shell::Shell;

/// Does what was typed.
pub async fn dispatch(shell: &Shell, command: Command) -> Done {
    match command {
        Command::Init(args) => init::main(shell, args).await,
        Command::New(args) => new::main(shell, &args),
        Command::Plan(args) => plan::main(shell, &args).await,
        Command::Run(args) => run::main(shell, &args).await,
        Command::Check(args) => check::main(shell, &args),
        Command::Approve(args) => approve::main(shell, &args).await,
        Command::BreakGlass(args) => approve::break_glass(shell, &args).await,
        Command::Review(args) => review::main(shell, &args).await,
        Command::Pause(args) => wish::pause(shell, &args).await,
        Command::Tune(args) => wish::tune(shell, &args).await,
        Command::Resume(args) => wish::resume(shell, &args).await,
        Command::Cancel(args) => wish::cancel(shell, &args).await,
        Command::Ledger(args) => ledger::main(shell, &args).await,
        Command::Status(args) => status::main(shell, &args).await,
        Command::List => list::main(shell).await,
        Command::Undo(args) => undo::main(shell, &args).await,
        Command::DeadLetters(args) => dead_letters::main(shell, &args).await,
        Command::Report(args) => report::main(shell, &args).await,
        Command::Trace(args) => trace::main(shell, &args).await,
        Command::Prune(args) => prune::main(shell, &args).await,
        Command::Explain(args) => explain::main(shell, &args),
        Command::Demo(args) => crate::demo::main(&args),
        Command::Completions(args) => completions::main(&args),
        Command::Man(args) => man::main(&args),
    }
}
