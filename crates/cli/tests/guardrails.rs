//! Two people and a protected environment, through the command itself.

#![expect(clippy::panic, reason = "a failed expectation is a panic")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pgmend_testkit::{Database, Server};

/// A folder with `pgmend.toml` and a job, and a database that carries the policy.
struct Shop {
    db: Database,
    folder: tempfile::TempDir,
    planner: String,
    approver: String,
}

impl Shop {
    fn new(policy: &str) -> Self {
        let db = Database::create(Server::shared(), "shop").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run("create table users (id int primary key, role text not null);
                 insert into users select i, case when i % 3 = 0 then 'memeber' else 'member' end from generate_series(1, 300) i;
                 create table setting (value text); insert into setting values ('production')")
            .expect("the tables");
        let planner = db.create_role("planner", "").expect("a role");
        let approver = db.create_role("approver", "").expect("a role");
        sql.run(&format!(
            "grant select, update on users to {planner}; grant select on setting to {planner}, {approver}"
        ))
        .expect("grants");
        let folder = tempfile::tempdir().expect("a folder");
        let toml = format!(
            "[environments.production]\ndatabase_url = \"{}\"\nprotected = true\n\
             canary = {{ query = \"select value from setting\", equals = \"production\" }}\n\
             notify = [\"tee\", \"paged.json\"]\n[environments.production.policy]\n{policy}\n",
            db.url_for(&planner)
        );
        std::fs::write(folder.path().join("pgmend.toml"), toml).expect("pgmend.toml");
        let job = folder.path().join("jobs/fix-roles");
        std::fs::create_dir_all(&job).expect("a folder");
        std::fs::write(job.join("job.toml"), "ticket = \"OPS-7\"\n").expect("job.toml");
        std::fs::write(job.join("change.sql"), "update users set role = 'member' where role = 'memeber'")
            .expect("a job");
        let shop = Self { db, folder, planner, approver };
        let owner = shop.db.url();
        expect(&shop.typed(&["init", "--env", "production", "--database-url", &owner]), 0, "policy");
        let groups = format!("grant pgmend_runner to {}; grant pgmend_approver to {}", shop.planner, shop.approver);
        sql.run(&groups).expect("groups");
        shop
    }

    fn typed(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pgmend"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("DATABASE_URL")
            .output()
            .expect("pgmend runs")
    }

    /// Begins a command whose end is waited for later.
    fn begun(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_pgmend"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pgmend runs")
    }

    fn wait_until(&self, holds: &str) {
        let mut sql = self.db.sql().expect("a session");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !sql.value(holds).is_ok_and(|answer| answer.as_deref() == Some("t")) {
            assert!(Instant::now() < deadline, "not within a minute: {holds}");
            sleep(Duration::from_millis(20));
        }
    }

    fn plan_id(&self) -> String {
        let newest = "select plan_id from pgmend.plan order by planned_at desc limit 1";
        self.db.sql().expect("a session").value(newest).expect("a plan").expect("an id")
    }

    fn wrong_rows(&self) -> String {
        let count = "select count(*) from users where role = 'memeber'";
        self.db.sql().expect("a session").value(count).expect("a count").expect("a number")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The output, if the command ended with this code and said this.
fn expect(output: &Output, code: i32, said: &str) -> String {
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() != Some(code) || !all.contains(said) {
        panic!("exit {:?}, not {code} with `{said}`:\n{all}", output.status.code());
    }
    all
}

const RUN: [&str; 5] = ["run", "jobs/fix-roles", "--env", "production", "--execute"];

#[test]
fn a_planner_waits_for_an_approver_and_is_told_what_they_must_type() {
    let shop = Shop::new("approvals = 1\nticket = \"^OPS-[0-9]+$\"");
    expect(&shop.typed(&["check", "jobs/fix-roles", "--env", "production"]), 0, "is valid: update users");
    let said = expect(&shop.typed(&RUN), 4, "approvals: 1 (1 for every run) demanded, 0 found");
    let id = shop.plan_id();
    assert!(said.contains(&format!("an approver types: pgmend approve {id} --env production --reason")), "{said}");
    let approve = ["approve", &id, "--env", "production", "--reason", "looked at it"];
    expect(&shop.typed(&approve), 3, "only members of pgmend_approver may do this");
    let url = shop.db.url_for(&shop.approver);
    let as_approver: Vec<&str> = approve.into_iter().chain(["--database-url", &url]).collect();
    let said = expect(&shop.typed(&as_approver), 0, "approved; ");
    assert!(said.contains("memeber → member"), "the plan is shown before it is approved: {said}");
    expect(&shop.typed(&RUN), 0, "DONE fix-roles: 100 rows changed");
    assert_eq!(shop.wrong_rows(), "0");
}

#[test]
fn a_protected_environment_must_be_named_and_be_the_right_one() {
    let shop = Shop::new("");
    let url = shop.db.url_for(&shop.planner);
    expect(&shop.typed(&["run", "jobs/fix-roles", "--execute", "--database-url", &url]), 3, "add --env production");
    shop.db.sql().expect("a session").run("update setting set value = 'copy'").expect("another canary");
    expect(&shop.typed(&RUN), 3, "canary: expected production, found copy");
    expect(&shop.typed(&["plan", "jobs/fix-roles", "--env", "prod"]), 2, "pgmend.toml has production");
    assert_eq!(shop.wrong_rows(), "100");
}

#[test]
fn the_glass_is_broken_only_where_people_are_told() {
    let shop = Shop::new("approvals = 2");
    expect(&shop.typed(&RUN), 4, "approvals: 2");
    let (id, url) = (shop.plan_id(), shop.db.url_for(&shop.approver));
    let leave = [
        "break-glass",
        &id,
        "--to",
        &shop.planner,
        "--reason",
        "outage",
        "--ticket",
        "OPS-9",
        "--env",
        "production",
        "--database-url",
        &url,
    ];
    let toml = std::fs::read_to_string(shop.file("pgmend.toml")).expect("pgmend.toml");
    std::fs::write(shop.file("pgmend.toml"), toml.replace("notify = [\"tee\", \"paged.json\"]\n", ""))
        .expect("pgmend.toml");
    expect(&shop.typed(&leave), 3, "nobody would be told");
    std::fs::write(shop.file("pgmend.toml"), toml).expect("pgmend.toml");
    expect(&shop.typed(&leave), 0, "a review stays open");
    let paged = std::fs::read_to_string(shop.file("paged.json")).expect("people were told");
    assert!(paged.contains("\"event\":\"break_glass\"") && paged.contains("\"rows\":100"), "{paged}");
    expect(&shop.typed(&RUN), 0, "100 rows changed");
    expect(&shop.typed(&["list", "--env", "production"]), 0, "REVIEW  fix-roles since ");
    let close = ["review", "fix-roles", "--close", "rows compared", "--env", "production", "--database-url", &url];
    expect(&shop.typed(&close), 0, "is closed");
    let listed = expect(&shop.typed(&["list", "--env", "production"]), 0, "succeeded");
    assert!(!listed.contains("REVIEW"), "{listed}");
}

#[test]
fn a_ledger_that_was_rewritten_does_not_match_its_checkpoint() {
    let shop = Shop::new("");
    expect(&shop.typed(&RUN), 0, "100 rows changed");
    let checkpoint = shop.typed(&["ledger", "checkpoint", "--env", "production"]);
    let heads = shop.file("heads.json");
    std::fs::write(&heads, &checkpoint.stdout).expect("a checkpoint");
    let against = |heads: &Path| {
        shop.typed(&["ledger", "verify", "--env", "production", "--against", heads.to_str().expect("a path")])
    };
    expect(&against(&heads), 0, "intact: ");
    let mut sql = shop.db.sql().expect("a session");
    sql.run("alter table pgmend.ledger disable trigger all; delete from pgmend.ledger; delete from pgmend.ledger_head")
        .expect("an owner with bad intentions");
    expect(&against(&heads), 3, "lost entry");
    std::fs::write(&heads, "{}").expect("a file");
    expect(&against(&heads), 2, "is no checkpoint");
}

#[test]
fn a_job_is_checked_without_a_database() {
    let shop = Shop::new("goal = true\nowner = true\nbatch_rows_max = 100");
    let check = ["check", "jobs/fix-roles", "--env", "production"];
    let said = expect(&shop.typed(&check), 3, "an owner (`owner`)");
    assert!(said.contains("a goal in a sentence (`goal`)") && said.contains("at most 100 rows"), "{said}");
    std::fs::write(shop.file("jobs/fix-roles/change.sql"), "updat users").expect("a slip");
    expect(&shop.typed(&check), 3, "PM104");
}

/// The end of a command that was begun.
fn end(child: Child) -> Output {
    child.wait_with_output().expect("a child can be waited for")
}

const WAIT: [&str; 6] = ["run", "jobs/fix-roles", "--env", "production", "--execute", "--wait-approval"];

#[test]
fn a_run_that_waits_for_its_approval_says_what_to_type_and_goes_on_when_another_role_has_typed_it() {
    let shop = Shop::new("approvals = 1");
    let waiting = shop.begun(&WAIT);
    shop.wait_until("select count(*) = 1 from pgmend.plan");
    let (id, url) = (shop.plan_id(), shop.db.url_for(&shop.approver));
    sleep(Duration::from_millis(1_500));
    assert_eq!(shop.wrong_rows(), "100", "nothing is written before the approval");
    let approve = ["approve", &id, "--env", "production", "--reason", "looked at it", "--database-url", &url];
    expect(&shop.typed(&approve), 0, "approved; ");
    let said = expect(&end(waiting), 0, "DONE fix-roles: 100 rows changed");
    assert!(said.contains(&format!("an approver types: pgmend approve {id} --env production --reason")), "{said}");
    assert_eq!(shop.wrong_rows(), "0");
}

#[test]
fn the_wait_for_an_approval_ends_with_a_veto_with_ctrl_c_and_with_the_plan() {
    let shop = Shop::new("approvals = 1");
    let waiting = shop.begun(&WAIT);
    shop.wait_until("select count(*) = 1 from pgmend.plan");
    let (id, url) = (shop.plan_id(), shop.db.url_for(&shop.approver));
    let veto = ["approve", &id, "--veto", "--env", "production", "--reason", "not today", "--database-url", &url];
    expect(&shop.typed(&veto), 0, "vetoed");
    expect(&end(waiting), 4, "vetoed by");
    let revoke = ["approve", &id, "--revoke", "--env", "production", "--reason", "Monday", "--database-url", &url];
    expect(&shop.typed(&revoke), 0, "taken back");

    let looks = "select count(*) > 0 from pg_stat_activity where query like '%pgmend.guardrails%' and datname = current_database()
                  and pid <> pg_backend_pid()";
    let waiting = shop.begun(&WAIT);
    shop.wait_until(looks);
    sleep(Duration::from_millis(1_500));
    let interrupted = Command::new("kill").args(["-s", "INT", &waiting.id().to_string()]).status();
    assert!(interrupted.expect("`kill` is a program").success());
    expect(&end(waiting), 6, "type the same command to wait again");
    // Its own session, not that of the command before.
    shop.wait_until(&format!("select not looks from ({looks}) as l (looks)"));

    let stored = ["run", &id, "--env", "production", "--execute", "--wait-approval"];
    let waiting = shop.begun(&stored);
    shop.wait_until(looks);
    sleep(Duration::from_millis(1_500));
    let mut sql = shop.db.sql().expect("a session");
    sql.run("update pgmend.plan set expires_at = clock_timestamp()").expect("time passes");
    expect(&end(waiting), 3, "expired before its approvals came (0 of 1");
    assert_eq!(shop.wrong_rows(), "100");
}

#[test]
fn a_run_is_sliced_and_tuned_from_the_command_line() {
    let shop = Shop::new("batch_rows_max = 50000");
    // The limits are part of the job; the pace is of this command only.
    let run = |pace: [&'static str; 2]| RUN.into_iter().chain(["--batch-rows", "5"]).chain(pace).collect::<Vec<_>>();
    expect(&shop.typed(&run(["--rows-max", "7"])), 6, "stopped after 7 rows, as asked");
    assert_eq!(shop.wrong_rows(), "93");
    let slowly = shop.begun(&run(["--rate", "1/s"]));
    shop.wait_until("select max(changed_total) >= 9 from pgmend.batch");
    let url = shop.db.url_for(&shop.approver);
    let tune = |flags: &[&str]| {
        let typed = ["tune", "fix-roles", "--env", "production", "--reason", "all quiet", "--database-url", &url];
        shop.typed(&typed.iter().chain(flags).copied().collect::<Vec<_>>())
    };
    expect(&tune(&["--batch-rows", "50001"]), 2, "choose a whole number of 1 to 50000");
    expect(&tune(&[]), 2, "nothing is asked for");
    let said = expect(&tune(&["--rate", "0"]), 0, "tuned");
    assert!(said.contains("rate 0 until 2") && said.contains(": all quiet"), "{said}");
    assert!(said.contains("pace            as fast as it goes"), "what counts now: {said}");
    expect(&end(slowly), 0, "DONE fix-roles: 100 rows changed");
    expect(&shop.typed(&["ledger", "verify", "--env", "production"]), 0, "intact");
}
