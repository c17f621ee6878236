//! A change that goes tenant by tenant: its plan, a tenant that fails, one that is paused.

use crate::transcript::Shell;

const BY: [&str; 4] = ["--tenant-column", "country", "--tenant-canary", "NO"];

#[test]
fn a_plan_by_tenants_shows_them_in_their_order() {
    let mut shell = Shell::open("tenants");
    shell.psql("create index on users (country, id)");
    shell.psql("delete from users where country = 'SE' and id > 300");
    shell.pgmend(&[&["plan", "fix.sql"], BY.as_slice()].concat());
    shell.pgmend(&["plan", "fix.sql", "--tenant-column", "county"]);
    shell.pgmend(&["plan", "fix.sql", "--tenants", "NO"]);
    shell.pgmend(&["plan", "-c", "update users set country = 'NO' where country = 'SE'", "--tenant-column", "country"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn one_tenant_that_fails_or_is_paused_stops_nobody_else() {
    let mut shell = Shell::open("tenants");
    shell.pgmend(&["init"]);
    shell.psql("create index on users (country, id)");
    shell.psql("alter table users add constraint not_yet check (country <> 'SE' or role <> 'member' or id % 4 <> 0)");
    let by = ["--tenant-column", "country", "--plain", "country"];
    let run = [&["run", "fix.sql", "--execute"], by.as_slice()].concat();
    shell.pgmend(&[run.as_slice(), &["--stop-after-batches", "1"]].concat());
    shell.pgmend(&["pause", "fix", "--tenant", "NO", "--reason", "they are importing"]);
    shell.pgmend(&run);
    shell.pgmend(&["status", "fix"]);
    shell.pgmend(&["resume", "fix", "--tenant", "NO"]);
    shell.pgmend(&["resume", "fix", "--tenant", "DK"]);
    shell.psql("alter table users drop constraint not_yet");
    shell.pgmend(&run);
    shell.pgmend(&["status", "fix"]);
    insta::assert_snapshot!(shell.transcript());
}
