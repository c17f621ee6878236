//! Runs a command with a throwaway PostgreSQL, named by `PGMEND_TEST_SERVER`, and ends as the
//! command ends. The server goes away afterwards, also after Ctrl-C.

use std::process::{Command, ExitCode};

use pgmend_testkit::{SERVER_VARIABLE, Server};

/// The shell's own status for a command that cannot be started.
const CANNOT_RUN: u8 = 127;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: with-postgres COMMAND [ARGUMENT]...");
        return ExitCode::from(2);
    };
    let server = match Server::start() {
        Ok(server) => server,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let url = server.url("postgres", "postgres");
    match Command::new(&program).args(words).env(SERVER_VARIABLE, url).status() {
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("error: cannot run {}: {error}", program.display());
            ExitCode::from(CANNOT_RUN)
        }
    }
}
