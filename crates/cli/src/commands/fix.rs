//! `pgmend run -c "…" --expect N`: the small fix by hand. Shows the rows, asks for their number,
//! commits exactly that many or nothing.

use std::io::Write as _;

use pgmend::{Certainty, Code, Job, Plan, Refusal};
use pgmend_core::exit;

use super::run::{Driving, end};
use crate::Done;
use crate::failure::Failure;
use crate::render;
use crate::render::figure;
use crate::shell::{Shell, print};
use crate::signals;

/// Why the engine was told not to commit.
enum No {
    /// The person typed something else than the number.
    Declined,
    /// The plan counted another number: there is nothing to ask.
    Counted(i64),
}

/// Plans, asks unless `--execute` says yes already, and commits in one transaction.
pub async fn main(shell: &Shell, job: &Job, expected: i64, execute: bool, show_values: bool) -> Done {
    let mut engine = shell.engine().await?;
    let (driving, stop) = Driving::deaf(shell);
    let (progress, mut observer) = (driving.progress, driving.observer);
    let mut no = None;
    let mut confirm = |plan: &Plan| {
        no = progress.aside(|| answer(shell, plan, expected, execute)).err();
        // Ctrl-C at the question must end the process: signals are handled only after the answer.
        if no.is_none() && signals::listen(stop.clone(), progress.clone()).is_err() {
            no = Some(No::Declined);
        }
        no.is_none()
    };
    // A person answers by the rows; a script's output may be kept for everybody to read.
    let show_values = show_values || shell.interactive();
    shell.show_errors(&mut engine, show_values);
    let ended = engine.fix(job, show_values, &mut confirm, &mut observer).await;
    progress.finish();
    match no {
        None => end(shell, &mut engine, &ended.map_err(Failure::about(job))?).await,
        Some(No::Counted(counted)) => Err(unexpected(counted, expected).into()),
        Some(No::Declined) => {
            shell.tell(|paint| format!("{}: nothing was written\n", paint.yellow("DECLINED")))?;
            Ok(exit::PAUSED)
        }
    }
}

/// Shows the rows, then asks. The engine counts again when it commits.
fn answer(shell: &Shell, plan: &Plan, expected: i64, execute: bool) -> Result<(), No> {
    shell.tell(|paint| render::plan::fix(plan, paint)).map_err(|_| No::Declined)?;
    let changed = plan.counts.changed_rows;
    if changed.certainty == Certainty::Exact && changed.value != expected {
        return Err(No::Counted(changed.value));
    }
    let yes = execute || asked(expected).unwrap_or(false);
    yes.then_some(()).ok_or(No::Declined)
}

fn unexpected(counted: i64, expected: i64) -> Refusal {
    let rows = figure::counted(counted, "row");
    let message = format!("{rows} would change, {} expected; nothing was written", figure::rows(expected));
    Refusal::new(Code::Expectation, message, "look at the rows above, then mend the predicate or the number")
}

/// Asks for the number. Anything else, the end of the input included, is a no.
fn asked(expected: i64) -> Result<bool, Failure> {
    let reading = |source: std::io::Error| Failure::io("read the answer", &source);
    print(&format!("Type the number of rows to commit ({expected}): "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(reading)?;
    if !answer.ends_with('\n') {
        std::io::stdout().write_all(b"\n").map_err(reading)?;
    }
    Ok(agrees(&answer, expected))
}

fn agrees(answer: &str, expected: i64) -> bool {
    answer.trim() == expected.to_string()
}

#[cfg(test)]
mod tests {
    use super::agrees;

    #[test]
    fn only_the_number_itself_is_a_yes() {
        assert!(agrees("3\n", 3));
        for no in ["", "\n", "y\n", "yes\n", "03\n", "4\n"] {
            assert!(!agrees(no, 3), "{no:?}");
        }
    }
}
