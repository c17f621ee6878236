//! The demo, small, from start to end: it checks itself and ends with an error if anything is not as it must be.

use std::process::Command;

#[test]
fn the_demo_finds_everything_as_it_must_be() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_pgmend"));
    let output = demo.args(["demo", "--orders", "6000"]).output().expect("the command can be started");
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}\n{said}");
    let proofs = shown.lines().filter(|line| line.starts_with('✓')).count();
    assert_eq!(proofs, 9, "{shown}");
}

#[test]
fn a_demo_that_is_killed_takes_its_server_with_it() {
    for after in [0, 50, 400, 1500, 2500] {
        let parent = tempfile::tempdir().expect("there is a place for temporary folders");
        let mut demo = Command::new(env!("CARGO_BIN_EXE_pgmend"));
        let mut demo = demo.args(["demo", "--orders", "6000"]).env("TMPDIR", parent.path()).spawn().expect("it starts");
        let folders = || std::fs::read_dir(parent.path()).expect("the folder is there").count();
        wait_until(|| folders() > 0);
        // Later in each round: its folder is just there, it makes the cluster, it starts the server, it works.
        std::thread::sleep(std::time::Duration::from_millis(after));
        demo.kill().expect("it can be killed");
        demo.wait().expect("it was killed");
        wait_until(|| folders() == 0);
    }
}

#[test]
fn ctrl_c_ends_the_demo_and_leaves_nothing_behind() {
    let parent = tempfile::tempdir().expect("there is a place for temporary folders");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_pgmend"));
    let mut demo = demo.args(["demo", "--orders", "6000"]).env("TMPDIR", parent.path()).spawn().expect("it starts");
    let runs = || {
        Command::new("pgrep").args(["-P", &demo.id().to_string(), "pgmend"]).output().is_ok_and(|o| o.status.success())
    };
    // The signal comes while a pgmend of its own is at work; where there is no pgrep, whenever the folder is there.
    let started = || std::fs::read_dir(parent.path()).expect("the folder is there").count() > 0;
    wait_until(|| started() && (runs() || Command::new("pgrep").arg("--version").output().is_err()));
    let sent = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("there is a kill");
    assert!(sent.success());
    assert_eq!(demo.wait().expect("it ends").code(), Some(6));
    wait_until(|| !started());
}

fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "not within a minute");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
