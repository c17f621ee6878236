//! Runs, from the first line typed to the end.

use crate::transcript::Shell;

/// The line of the issue: a bare file, flags, nothing installed before.
const LINE: &[&str] = &["run", "fix.sql", "--name", "fix-roles", "--batch-rows", "50", "--execute"];

#[test]
fn one_line_installs_runs_and_goes_on() {
    let mut shell = Shell::open("line");
    let stopped: Vec<&str> = LINE.iter().copied().chain(["--stop-after-batches", "2"]).collect();
    shell.pgmend(&stopped);
    shell.pgmend(&["status"]);
    shell.pgmend(LINE);
    shell.pgmend(LINE);
    shell.pgmend(&["status", "fix-roles"]);
    shell.pgmend(&["list"]);
    assert_eq!(shell.sql().value("select count(*) from users where role = 'memeber'").unwrap().as_deref(), Some("0"));
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn the_same_change_again_needs_a_reason() {
    let mut shell = Shell::open("again");
    shell.pgmend(LINE);
    shell.psql("update users set role = 'memeber' where id < 10");
    shell.pgmend(&["run", "fix.sql", "--name", "fix-roles", "--execute", "--again"]);
    shell.pgmend(&["run", "fix.sql", "--name", "fix-roles", "--execute", "--again", "--reason", "a second import"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn a_reviewed_plan_is_run_by_its_id_once() {
    let mut shell = Shell::open("planid");
    shell.pgmend(&["init"]);
    shell.pgmend(&["plan", "fix.sql"]);
    shell.transcript();
    let plan = shell.sql().value("select plan_id from pgmend.plan").unwrap().unwrap_or_default();
    shell.pgmend(&["run", &plan, "--execute"]);
    shell.pgmend(&["run", &plan, "--execute"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn a_plan_that_starts_no_run_any_more_offers_none() {
    let mut shell = Shell::open("over");
    shell.pgmend(&["init"]);
    shell.pgmend(&["plan", "fix.sql", "--batch-rows", "50"]);
    let plan = shell.sql().value("select plan_id from pgmend.plan").unwrap().unwrap_or_default();
    let next = |shell: &Shell| {
        let output =
            shell.command(&["run", &plan, "--output", "json"]).output().expect("the binary was built by cargo");
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
        let next =
            shown["next"].as_array().expect("lines").iter().map(|line| line.as_str().unwrap_or_default().to_owned());
        next.collect::<Vec<_>>().join("\n")
    };
    assert!(next(&shell).starts_with(&format!("pgmend run {plan} --execute")), "{}", next(&shell));
    shell.psql("update pgmend.plan set expires_at = now() - interval '1 minute'");
    assert_eq!(next(&shell), "plan the job again: this plan has expired");
    shell.psql("update pgmend.plan set expires_at = now() + interval '1 hour'");
    shell.pgmend(&["run", &plan, "--execute", "--stop-after-batches", "1"]);
    let run = shell.sql().value("select run_id from pgmend.run").unwrap().unwrap_or_default();
    let paused = next(&shell);
    assert!(
        paused.starts_with(&format!("pgmend status {run}")) && paused.contains("has not ended (paused)"),
        "{paused}"
    );
    shell.pgmend(&["run", &plan, "--execute"]);
    let ended = next(&shell);
    assert!(ended.starts_with(&format!("pgmend report {run}")) && ended.contains("which has succeeded"), "{ended}");
    assert!(!ended.contains("--execute"), "{ended}");
}

#[test]
fn a_plan_is_stale_once_the_table_has_changed() {
    let mut shell = Shell::open("stale");
    shell.pgmend(&["init"]);
    shell.pgmend(&["plan", "fix.sql"]);
    shell.transcript();
    let plan = shell.sql().value("select plan_id from pgmend.plan").unwrap().unwrap_or_default();
    shell.psql("alter table users add column phone text");
    shell.pgmend(&["run", &plan, "--execute"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn a_frozen_change_passes_over_rows_that_someone_changed() {
    let mut shell = Shell::open("frozen");
    shell.pgmend(&["init"]);
    let freeze = "update users set role = 'first' where id in (select id from users order by id limit 5)";
    shell.pgmend(&["plan", "-c", freeze, "--name", "first"]);
    let plan = shell.sql().value("select plan_id from pgmend.plan").unwrap().unwrap_or_default();
    shell.psql("update users set role = 'boss' where id = 3");
    shell.pgmend(&["run", &plan, "--execute"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn progress_for_programs_is_a_line_of_json_each() {
    let shell = Shell::open("events");
    let words = ["run", "fix.sql", "--batch-rows", "50", "--execute", "--output", "json"];
    let output = shell.command(&words).output().expect("the binary under test was built by cargo");
    assert!(output.status.success());
    let events: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    assert_eq!(events.first().map(|e| e["event"].clone()), Some("started".into()));
    assert!(events.iter().any(|e| e["event"] == "batch" && e["changed_rows"] == 150));
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    assert_eq!((outcome["changed_rows"].as_i64(), outcome["batches"].as_i64()), (Some(150), Some(3)));
}
