//! Undo, trace, report, prune.

use crate::transcript::Shell;

fn repaired(hint: &str) -> Shell {
    let mut shell = Shell::open(hint);
    shell.pgmend(&["run", "fix.sql", "--name", "fix-roles", "--batch-rows", "50", "--execute"]);
    shell.transcript();
    shell
}

#[test]
fn an_undo_restores_what_nobody_changed_since() {
    let mut shell = repaired("undo");
    shell.psql("update users set role = 'boss' where id = 4");
    shell.psql("delete from users where id = 8");
    shell.psql("update users set role = 'memeber' where id = 12");
    shell.pgmend(&["undo", "fix-roles"]);
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    let left = "select count(*) from users where role = 'memeber'";
    assert_eq!(shell.sql().value(left).unwrap().as_deref(), Some("148"));
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn an_undo_can_be_undone_and_the_change_undone_again() {
    let mut shell = repaired("undoundo");
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    shell.transcript();
    let undo = shell.sql().value("select run_id from pgmend.run where kind = 'undo'").unwrap().unwrap_or_default();
    shell.pgmend(&["undo", &undo, "--execute"]);
    assert_eq!(shell.sql().value("select count(*) from users where role = 'memeber'").unwrap().as_deref(), Some("0"));
    shell.pgmend(&["list"]);
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    assert_eq!(shell.sql().value("select count(*) from users where role = 'memeber'").unwrap().as_deref(), Some("150"));
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn an_undo_that_was_stopped_is_told_as_an_undo_by_whatever_goes_on_with_it() {
    let mut shell = repaired("undostop");
    shell.pgmend(&["undo", "fix-roles", "--execute", "--rows-max", "50"]);
    shell.transcript();
    let undo = shell.sql().value("select run_id from pgmend.run where kind = 'undo'").unwrap().unwrap_or_default();
    shell.pgmend(&["resume", &undo]);
    let said = shell.transcript();
    assert!(said.contains("undo of fix-roles: 150 rows restored"), "{said}");
    assert!(said.contains("# take this undo back") && !said.contains("pgmend undo fix-roles"), "{said}");
}

#[test]
fn an_undo_that_was_stopped_goes_on_without_another_plan_when_it_is_typed_again() {
    let mut shell = repaired("undoagain");
    shell.pgmend(&["undo", "fix-roles", "--execute", "--rows-max", "50"]);
    shell.transcript();
    let plans = "select count(*) from pgmend.plan";
    let planned = shell.sql().value(plans).unwrap();
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    let said = shell.transcript();
    assert!(said.contains("undo of fix-roles: 150 rows restored"), "{said}");
    assert_eq!(shell.sql().value(plans).unwrap(), planned);
    assert_eq!(shell.sql().value("select count(*) from pgmend.run where kind = 'undo'").unwrap().as_deref(), Some("1"));
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    assert!(shell.transcript().contains("already undone"));
}

#[test]
fn an_undo_of_some_rows_that_was_stopped_is_not_mistaken_for_one_of_all() {
    let mut shell = repaired("undosome");
    shell.pgmend(&["undo", "fix-roles", "--where", "country = 'NO'", "--execute", "--rows-max", "1"]);
    shell.transcript();
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    let said = shell.transcript();
    assert_eq!(
        shell.sql().value("select count(*) from users where role = 'memeber'").unwrap().as_deref(),
        Some("150"),
        "{said}"
    );
}

#[test]
fn some_rows_are_undone_by_a_predicate() {
    let mut shell = repaired("where");
    shell.pgmend(&["undo", "fix-roles", "--where", "contry = 'NO'"]);
    shell.pgmend(&["undo", "fix-roles", "--where", "country = 'NO'"]);
    shell.pgmend(&["undo", "fix-roles", "--where", "country = 'NO'", "--execute"]);
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    assert_eq!(shell.sql().value("select count(*) from users where role = 'memeber'").unwrap().as_deref(), Some("150"));
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn deleted_rows_come_back_and_inserted_ones_go() {
    let mut shell = Shell::open("whole");
    shell.pgmend(&["run", "-c", "delete from session where id <= 20", "--execute"]);
    shell.pgmend(&["undo", "delete-session"]);
    shell.pgmend(&["undo", "delete-session", "--execute"]);
    shell.pgmend(&[
        "run",
        "-c",
        "insert into session values (601, 1, '2024-05-05'), (602, 2, '2024-05-06')",
        "--execute",
    ]);
    shell.psql("update session set began_on = '2025-01-01' where id = 602");
    shell.pgmend(&["undo", "insert-session", "--execute"]);
    assert_eq!(shell.sql().value("select count(*) from session").unwrap().as_deref(), Some("601"));
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn a_row_tells_its_story_also_after_its_images_are_pruned() {
    let mut shell = repaired("trace");
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    shell.transcript();
    shell.pgmend(&["trace", "users", "4"]);
    shell.pgmend(&["trace", "users", "5"]);
    shell.pgmend(&["trace", "users", "id=x"]);
    shell.pgmend(&["prune"]);
    shell.pgmend(&["prune", "--older-than", "0"]);
    shell.pgmend(&["prune", "--older-than", "0", "--execute"]);
    shell.pgmend(&["trace", "users", "4"]);
    shell.pgmend(&["undo", "fix-roles"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn a_report_is_the_paper_trail() {
    let mut shell = repaired("report");
    shell.psql("update users set role = 'boss' where id = 4");
    shell.pgmend(&["undo", "fix-roles", "--execute"]);
    shell.transcript();
    shell.pgmend(&["report", "fix-roles"]);
    let undo = shell.sql().value("select run_id from pgmend.run where kind = 'undo'").unwrap().unwrap_or_default();
    shell.pgmend(&["report", &undo]);
    insta::assert_snapshot!(shell.transcript());
}
