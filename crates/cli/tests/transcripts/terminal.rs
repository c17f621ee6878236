//! On a terminal: the question of a small fix, and the bar. `script` lends the terminal; where it is missing, the
//! tests say so and pass.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::transcript::Shell;

/// Runs pgmend on a terminal, types `answer`, and gives what was on the screen, every state of a line that is drawn again as a line.
fn on_a_terminal(shell: &Shell, line: &str, answer: &str) -> Option<(String, Option<i32>)> {
    let pgmend = env!("CARGO_BIN_EXE_pgmend");
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &format!("stty cols 120; {pgmend} {line}"), "/dev/null"]);
    command.current_dir(shell.folder.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("DATABASE_URL", shell.database.url()).env("USER", "alice").env("NO_COLOR", "1").env("TERM", "xterm");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: there is no `script` to lend a terminal");
        return None;
    };
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin.write_all(answer.as_bytes()).expect("script reads it");
    let output = child.wait_with_output().expect("it ends");
    drop(stdin);
    let escapes = regex::Regex::new(r"\x1b\[[0-9;?]*[A-Za-z]").expect("an expression");
    let text = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n").replace('\r', "\n");
    Some((escapes.replace_all(&text, "").into_owned(), output.status.code()))
}

const THREE: &str = r#"run -c "update users set note = 'called' where id in (4, 8, 15)" --expect 3"#;

fn called(shell: &Shell) -> Option<String> {
    shell.sql().value("select count(*) from users where note = 'called'").expect("it answers")
}

#[test]
fn the_number_commits_and_anything_else_does_not() {
    let shell = Shell::open("asked");
    let Some((shown, code)) = on_a_terminal(&shell, THREE, "yes\n") else { return };
    assert!(shown.contains("Type the number of rows to commit (3): "), "{shown}");
    assert!(shown.contains("note 4  → called"), "the person sees the values that they change: {shown}");
    assert!(shown.contains("DECLINED: nothing was written"), "{shown}");
    assert_eq!((code, called(&shell).as_deref()), (Some(6), Some("0")));

    let Some((shown, code)) = on_a_terminal(&shell, THREE, "3\n") else { return };
    assert!(shown.contains("DONE update-users: 3 rows changed in 1 batch"), "{shown}");
    assert_eq!((code, called(&shell).as_deref()), (Some(0), Some("3")));
    let trail = "select count(*) from pgmend.ledger where fact in ('run_started', 'run_succeeded')";
    assert_eq!(shell.sql().value(trail).expect("it answers").as_deref(), Some("2"));
}

#[test]
fn another_number_of_rows_is_not_even_asked_about() {
    let shell = Shell::open("other");
    let Some((shown, code)) = on_a_terminal(&shell, &THREE.replace("--expect 3", "--expect 4"), "4\n") else { return };
    assert!(!shown.contains("Type the number"), "{shown}");
    assert!(shown.contains("3 rows would change, 4 expected; nothing was written"), "{shown}");
    assert_eq!((code, called(&shell).as_deref()), (Some(3), Some("0")));
}

#[test]
fn a_run_draws_a_bar() {
    let shell = Shell::open("bar");
    let trigger =
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.01); return new; end';
                   create trigger slow before update on users for each row execute function slow()";
    shell.sql().run(trigger).expect("the trigger is created");
    let line = "run fix.sql --batch-rows 10 --execute";
    let Some((shown, code)) = on_a_terminal(&shell, line, "") else { return };
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("of 150 rows ·") && shown.contains(" · batch 10"), "{shown}");
    assert!(shown.contains("DONE fix: 150 rows changed in 15 batches"), "{shown}");
    assert!(!shown.contains("event="), "lines for pipes stay on pipes: {shown}");
}
