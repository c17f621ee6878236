//! What a plan shows, and to whom.

use crate::transcript::Shell;

#[test]
fn a_new_database_is_planned_without_a_control_schema() {
    let mut shell = Shell::open("plan");
    shell.pgmend(&["plan", "fix.sql"]);
    shell.pgmend(&["status"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn a_job_folder_is_made_filled_in_and_planned() {
    let mut shell = Shell::open("folder");
    shell.pgmend(&["init"]);
    shell.pgmend(&["init"]);
    shell.pgmend(&["new", "fix-roles"]);
    shell.pgmend(&["plan", "fix-roles"]);
    shell.write("fix-roles/change.sql", "update users set role = :role, note = upper(note) where country = :country");
    let job = "goal = \"one role\"\nticket = \"OPS-1\"\nplain = [\"role\"]\n\n[params]\nrole = { type = \"text\", value = \"member\" }\n\
               country = { type = \"text\" }\n";
    shell.write("fix-roles/job.toml", job);
    shell.pgmend(&["plan", "fix-roles"]);
    shell.pgmend(&["plan", "fix-roles", "--param", "country=NO", "--by", "role"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn counts_are_broken_down_and_masked_groups_say_how_to_see_them() {
    let mut shell = Shell::open("by");
    shell.pgmend(&["plan", "fix.sql", "--by", "country"]);
    shell.pgmend(&["plan", "fix.sql", "--by", "country", "--plain", "country"]);
    shell.pgmend(&["plan", "fix.sql", "--by", "county"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn a_rehearsal_shows_what_batches_did() {
    let mut shell = Shell::open("rehearse");
    shell.psql("create table audit (user_id bigint)");
    shell.psql(
        "create function audited() returns trigger language plpgsql as 'begin insert into audit values (new.id); return new; end'",
    );
    shell.psql("create trigger audited after update on users for each row execute function audited()");
    shell.pgmend(&["plan", "fix.sql", "--rehearse", "2"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn deletes_and_inserts_are_planned_by_whole_rows() {
    let mut shell = Shell::open("whole");
    shell.pgmend(&["init"]);
    shell.pgmend(&["plan", "-c", "delete from users where id > :last", "--param", "last=590"]);
    shell.pgmend(&["plan", "-c", "delete from session where began_on < '2024-01-20'", "--plain", "began_on"]);
    shell.pgmend(&[
        "plan",
        "-c",
        "insert into users (id, email, role, country) values (600, 'a@b.c', 'member', 'NO'), (601, 'd@e.f', 'member', 'NO') on conflict (id) do nothing",
    ]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn nothing_to_change_is_said_loudly() {
    let mut shell = Shell::open("nothing");
    shell.pgmend(&["plan", "-c", "update users set role = 'member' where role = 'membr'"]);
    shell.pgmend(&["run", "-c", "update users set role = 'member' where role = 'member'", "--execute"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn what_is_refused_says_why_and_what_to_type() {
    let mut shell = Shell::open("refused");
    for statement in [
        "update users set role = 'x' where id in (4, 8",
        "update user set role = 'x'",
        "update users set rolle = 'x'",
        "update users set role = 'x' where id = :id",
        "update users set role = 'x'; update users set note = 'y'",
        "merge into users using session s on s.user_id = users.id when matched then delete",
        "vacuum users",
        "update users u set note = s.began_on::text from (select 4 as user_id, began_on from session) s where s.user_id = u.id",
    ] {
        shell.pgmend(&["plan", "-c", statement]);
    }
    shell.pgmend(&["plan", "no-such-job"]);
    shell.pgmend(&["run", "fix.sql", "--batch-rows", "0", "--execute"]);
    insta::assert_snapshot!(shell.transcript());
}

#[test]
fn a_plan_for_programs_holds_the_same() {
    let mut shell = Shell::open("json");
    shell.pgmend(&["init"]);
    let output = shell.pgmend(&["plan", "fix.sql", "--by", "role", "--output", "json"]);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    assert!(output.stderr.is_empty());
    assert_eq!(plan["plan"]["counts"]["changed_rows"], serde_json::json!({ "value": 150, "certainty": "exact" }));
    assert_eq!(
        plan["plan"]["groups"][1][0],
        serde_json::json!({ "value": "memeber", "changed_rows": 150, "matched_rows": 150 })
    );
    assert_eq!(plan["stored"], true);
    let next = format!("pgmend run {} --execute", plan["plan"]["plan_id"].as_str().unwrap_or_default());
    assert_eq!(plan["next"], serde_json::json!([next]));
}

#[test]
fn a_stored_plan_is_shown_again_by_its_id_and_no_flag_changes_it() {
    let mut shell = Shell::open("again");
    shell.pgmend(&["init"]);
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let planned = text(&shell.pgmend(&["plan", "fix.sql"]));
    let id = planned.lines().find_map(|line| line.trim().strip_prefix("pgmend run ")?.strip_suffix(" --execute"));
    let id = id.expect("a line to type").to_owned();
    for typed in [id.as_str(), &id[id.len() - 8..]] {
        let again = shell.pgmend(&["plan", typed]);
        assert_eq!(again.status.code(), Some(0));
        let page = |text: &str| text.split("SIGNALS").next().unwrap_or_default().to_owned();
        assert_eq!(page(&text(&again)), page(&planned));
    }
    let other = shell.pgmend(&["plan", &id, "--batch-rows", "3"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("which no flag can change"));
    let none = shell.pgmend(&["plan", "01a20000-0000-7000-8000-000000000000"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no plan 01a20000"));
}

#[test]
fn a_role_that_may_only_read_can_plan_but_not_run() {
    let mut shell = Shell::open("reader");
    let reader = shell.database.create_role("reader", "").expect("a role is created");
    shell.sql().run(&format!("grant select on users to {reader}")).expect("the right is granted");
    shell.pgmend(&["init"]);
    shell.sql().run(&format!("grant pgmend_runner to {reader}")).expect("the role is granted");
    shell.connect_as(shell.database.url_for(&reader));
    shell.pgmend(&["plan", "fix.sql"]);
    shell.pgmend(&["run", "fix.sql", "--execute"]);
    shell.pgmend(&["plan", "-c", "update users set role = 'x' where id in (select user_id from session)"]);
    assert_eq!(shell.sql().value("select count(*) from users where role = 'memeber'").unwrap().as_deref(), Some("150"));
    insta::assert_snapshot!(shell.transcript().replace(&reader, "reader"));
}

#[test]
fn a_role_in_the_url_is_honoured() {
    let mut shell = Shell::open("role");
    let owner = shell.database.create_role("owner", "").expect("a role is created");
    let alice = shell.database.create_role("alice", "").expect("a role is created");
    shell.sql().run(&format!(
        "grant {owner} to {alice}; create schema app authorization {owner}; grant create on database {} to {alice};
         create table app.item (id int primary key, name text); insert into app.item select n, 'x' from generate_series(1, 9) n;
         alter table app.item owner to {owner}",
        shell.database.name()
    ))
    .expect("the schema is created");
    let url = shell.database.url_for(&alice);
    shell.connect_as(url.clone());
    shell.pgmend(&["plan", "-c", "update app.item set name = 'y'"]);
    let separator = if url.contains('?') { '&' } else { '?' };
    shell.connect_as(format!("{url}{separator}options=-c%20role%3D{owner}%20-c%20search_path%3Dapp"));
    shell.pgmend(&["run", "-c", "update item set name = 'y'", "--name", "items", "--execute"]);
    shell.pgmend(&["undo", "items", "--execute"]);
    let transcript = shell.transcript().replace(&owner, "app_owner").replace(&alice, "alice");
    insta::assert_snapshot!(transcript);
}
