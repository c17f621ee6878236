//! Fault points: a pgmend that kills itself at a named step.
//!
//! The engine names its points and reads [`FAULT_VARIABLE`]; here is the tests' side.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

/// `name` or `name:nth`: the process aborts when it reaches the point for the nth time.
pub const FAULT_VARIABLE: &str = "PGMEND_FAULT";

/// SIGABRT and SIGKILL, by which a fault point may end the process.
const DEADLY: [i32; 2] = [6, 9];

/// How a command with a fault point ended.
#[derive(Debug)]
pub struct Faulted {
    /// Its status and what it wrote.
    pub output: Output,
}

impl Faulted {
    /// Whether the point was reached: the process was killed, rather than ending by itself.
    pub fn reached(&self) -> bool {
        self.output.status.signal().is_some_and(|signal| DEADLY.contains(&signal))
    }
}

/// Runs `command` to its end with this fault point set, and collects what it wrote.
pub fn run_with_fault(command: &mut Command, point: &str) -> io::Result<Faulted> {
    let output = command.env(FAULT_VARIABLE, point).output()?;
    Ok(Faulted { output })
}

/// The points in a list with one name a line; empty lines and `#` lines are comments.
pub fn points_in(list: &str) -> Vec<&str> {
    let lines = list.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn a_process_that_kills_itself_at_its_point_has_reached_it() {
        let script = "test \"$PGMEND_FAULT\" = commit:2 && kill -KILL $$";
        let faulted = run_with_fault(&mut shell(script), "commit:2").expect("sh runs");
        assert!(faulted.reached(), "{faulted:?}");
    }

    #[test]
    fn a_process_that_fails_by_itself_has_not_reached_its_point() {
        let faulted = run_with_fault(&mut shell("exit 1"), "commit").expect("sh runs");
        assert!(!faulted.reached(), "{faulted:?}");
    }

    #[test]
    fn a_list_of_points_may_have_comments() {
        assert_eq!(points_in("# batch\nbefore-commit\n\n  after-commit\n"), ["before-commit", "after-commit"]);
    }
}
