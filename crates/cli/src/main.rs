//! The `pgmend` command: reads arguments, drives the engine, renders its answers, exits with a
//! public code. Decides nothing about data; that is the library's business.

mod args;
mod commands;
mod demo;
mod environment;
mod failure;
mod identity_file;
mod job_file;
mod log;
mod progress;
mod render;
mod scaffold;
mod shell;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let mut shell = shell::Shell::new(&cli.global).starting_at(cli.command.job());
    let log = shell.open_log(&cli.global);
    // Two workers: heartbeats and signals go on while the main thread waits for a person to answer.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match (log, runtime) {
        (Err(failure), _) => Err(failure),
        (Ok(()), Ok(runtime)) => runtime.block_on(commands::dispatch(&shell, cli.command)),
        (Ok(()), Err(source)) => Err(failure::Failure::io("start the runtime", &source)),
    };
    ExitCode::from(done.unwrap_or_else(|failure| {
        shell.fail(&failure);
        failure.exit_code()
    }))
}

/// What every command gives back: its exit code, or why it stopped.
type Done = Result<u8, failure::Failure>;
