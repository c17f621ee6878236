//! `run -c … --expect N` without a terminal: the number is in the line, and `--execute` says yes.

use crate::transcript::Shell;

const THREE: &str = "update users set note = 'called' where id in (4, 8, 15)";

#[test]
fn exactly_the_expected_rows_are_committed_or_none() {
    let mut shell = Shell::open("expect");
    shell.pgmend(&["run", "-c", THREE, "--expect", "4", "--execute"]);
    assert_eq!(shell.sql().value("select count(*) from users where note = 'called'").unwrap().as_deref(), Some("0"));
    shell.pgmend(&["run", "-c", THREE, "--expect", "3", "--execute"]);
    assert_eq!(shell.sql().value("select count(*) from users where note = 'called'").unwrap().as_deref(), Some("3"));
    shell.pgmend(&["undo", "update-users", "--execute"]);
    insta::assert_snapshot!(shell.transcript());
}
