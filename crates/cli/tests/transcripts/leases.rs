//! One run, several processes: who drives it is told while that process lives, and taken over from when it does not.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::transcript::Shell;

/// 150 rows, each for a part of a second: it drives for long after the second command was refused.
const SLOW: &str = "
    create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.15); return new; end';
    create trigger slow before update on users for each row execute function slow()";
const LINE: &[&str] = &["run", "fix.sql", "--batch-rows", "5", "--lease-seconds", "12", "--execute"];
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_live_holder_is_named_and_a_dead_one_is_waited_out() {
    let mut shell = Shell::open("lease");
    shell.sql().run(SLOW).expect("the trigger is created");
    let mut first = shell
        .command(LINE)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary under test was built by cargo");
    wait_until(&shell, "select coalesce(max(batch_no), 0) > 1 from pgmend.batch");
    let holder = format!("process {} of alice@", first.id());

    let status = shell.pgmend(&["status"]);
    let shown = String::from_utf8_lossy(&status.stdout);
    assert!(shown.contains(&format!("doing           {holder}")), "{shown}");
    assert!(shown.contains("drives it: ") && shown.contains(" rows of 150 planned changed in "), "{shown}");
    let (_, next) = shown.split_once("NEXT\n").expect("there is something to type");
    let typed: Vec<&str> = next.lines().map(|line| line.split_whitespace().nth(1).unwrap_or_default()).collect();
    assert_eq!(typed, ["pause", "tune"], "{next}");

    let second = shell.pgmend(LINE);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("is being driven by {holder}")), "{said}");
    assert!(said.contains(" rows changed in ") && said.contains("pgmend status "), "{said}");

    first.kill().expect("it runs");
    first.wait().expect("it was killed");
    let third = shell.pgmend(LINE);
    let said = String::from_utf8_lossy(&third.stderr);
    assert_eq!(third.status.code(), Some(0), "{said}");
    let countdown = said.lines().filter(|line| line.starts_with("event=waiting_for_lease ")).count();
    assert!(countdown >= 2 && said.contains("resumed=true"), "{said}");
    let images = format!("select count(*) = 150 and count(distinct key_id) = 150 from pgmend.{}", image_table(&shell));
    assert_eq!(shell.sql().value(&images).expect("it answers").as_deref(), Some("t"));
}

fn image_table(shell: &Shell) -> String {
    let name = shell.sql().value("select image_table from pgmend.run").expect("it answers");
    name.expect("the run keeps images")
}

fn wait_until(shell: &Shell, holds: &str) {
    let deadline = Instant::now() + PATIENCE;
    // While nothing is installed yet, the question itself is an error.
    while !shell.sql().value(holds).is_ok_and(|answer| answer.as_deref() == Some("t")) {
        assert!(Instant::now() < deadline, "not within a minute: {holds}");
        sleep(Duration::from_millis(50));
    }
}
