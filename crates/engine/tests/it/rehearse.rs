//! Rehearsals against a real server: what they report, and that nothing stays behind.

use pgmend::{Engine, Finding, Job, Mode, Observer, Plan, PlanOptions, RunOptions};
use pgmend_testkit::{Database, Server, Sql};

struct Shop {
    database: Database,
    sql: Sql,
}

impl Shop {
    fn new(hint: &str, schema: &str) -> Self {
        let database = Database::create(Server::shared(), hint).expect("the shared server takes a database");
        let mut sql = database.sql().expect("the database takes a session");
        for statement in schema.split(";;") {
            sql.run(statement).expect("the schema of the test is right");
        }
        Self { database, sql }
    }

    fn value(&mut self, sql: &str) -> String {
        self.sql.value(sql).expect("the test's query is right").unwrap_or_default()
    }

    fn plan(&self, statement: &str, mode: Option<Mode>, batches: u32) -> Plan {
        let mut job = Job::from_statement("rehearsed", statement);
        job.file.mode = mode;
        let options = PlanOptions { rehearse: batches, ..PlanOptions::default() };
        on_runtime(async {
            let mut engine = Engine::connect(Some(&self.database.url())).await.expect("the engine connects");
            engine.plan(&job, &options).await.expect("the statement can be planned").plan
        })
    }
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts").block_on(work)
}

fn messages(plan: &Plan, check: &str) -> Vec<String> {
    let of_check = |finding: &&Finding| finding.check == check;
    plan.findings.iter().filter(of_check).map(|finding| finding.message.clone()).collect()
}

const USERS: &str = "create table users (id bigint primary key, role text not null, n int not null default 0);;
    insert into users select i, case when i % 2 = 0 then 'memeber' else 'member' end from generate_series(1, 20000) i;;
    analyze users";

const AUDITED: &str = "create table audit_log (id bigint generated always as identity, said text);;
    create function audit() returns trigger language plpgsql as
      $$ begin insert into audit_log (said) values (old.role); return null; end $$;;
    create trigger audit after update or delete on users for each row execute function audit()";

#[test]
fn a_trigger_that_writes_an_audit_table_is_reported_and_nothing_stays_behind() {
    for mode in [Mode::Stream, Mode::Freeze] {
        let mut shop = Shop::new("rehearse_audit", &format!("{USERS};;{AUDITED}"));
        let plan = shop.plan("update users set role = 'member' where role = 'memeber'", Some(mode), 4);
        let rehearsal = plan.rehearsal.clone().expect("it was rehearsed");
        let places: Vec<&str> = rehearsal.batches.iter().map(|b| b.place.as_str()).collect();
        assert_eq!(places, ["first", "last", "random", "densest"], "{mode:?}: {:?}", plan.findings);
        assert!(rehearsal.batches.iter().all(|b| b.rows > 0 && b.took_ms > 0.0 && b.wal_bytes > 0));
        let touched = |name: &str| rehearsal.touched.iter().find(|t| t.table == name).cloned().expect("it was touched");
        assert!(touched("users").named && touched("users").updated_rows > 0);
        assert!(!touched("audit_log").named);
        assert_eq!(touched("audit_log").inserted_rows, touched("users").updated_rows);
        assert_eq!(messages(&plan, "rehearsal_touched").len(), 1);
        assert!(!plan.reversible.0 && plan.reversible.1.starts_with("not fully undoable"), "{:?}", plan.reversible);
        assert_eq!(rehearsal.sequences, ["audit_log_id_seq"]);
        assert_eq!(messages(&plan, "rehearsal_sequence").len(), 1);
        assert!(rehearsal.locks.contains(&"users: RowExclusiveLock".to_owned()), "{:?}", rehearsal.locks);
        assert!(rehearsal.locks.contains(&"audit_log: RowExclusiveLock".to_owned()), "{:?}", rehearsal.locks);
        assert_eq!(plan.estimates.duration_basis, "measured by rehearsal");
        assert_eq!(shop.value("select count(*) from audit_log"), "0");
        assert_eq!(shop.value("select count(*) from users where role = 'memeber'"), "10000");
        assert_eq!(
            shop.value("select count(*) from pg_class where relname like 'pgmend%' or relpersistence = 't'"),
            "0"
        );
    }
}

#[test]
fn rows_that_a_cascade_deletes_are_reported() {
    let schema = format!(
        "{USERS};;create table session (user_id bigint references users on delete cascade);;
         insert into session select id from users;;create index on session (user_id)"
    );
    let mut shop = Shop::new("rehearse_cascade", &schema);
    let plan = shop.plan("delete from users where role = 'memeber'", None, 2);
    let rehearsal = plan.rehearsal.clone().expect("it was rehearsed");
    let deleted = |name: &str| rehearsal.touched.iter().find(|t| t.table == name).map_or(0, |t| t.deleted_rows);
    assert!(deleted("users") > 0, "{:?}", plan.findings);
    assert_eq!(deleted("users"), deleted("session"));
    assert_eq!(messages(&plan, "rehearsal_touched").len(), 1);
    assert_eq!(shop.value("select count(*) from session"), "20000");
}

#[test]
fn a_sequence_that_an_insert_moves_is_reported_as_moved() {
    let schema = format!("{USERS};;create table letter (id bigserial primary key, user_id bigint)");
    let mut shop = Shop::new("rehearse_sequence", &schema);
    let plan = shop.plan("insert into letter (user_id) select id from users", None, 2);
    let rehearsal = plan.rehearsal.clone().expect("it was rehearsed");
    assert_eq!(rehearsal.sequences, ["letter_id_seq"], "{:?}", plan.findings);
    assert!(rehearsal.batches.len() == 2 && rehearsal.batches[0].rows > 0, "{:?}", rehearsal.batches);
    assert_eq!(shop.value("select count(*) from letter"), "0");
}

#[test]
fn a_row_that_a_constraint_rejects_is_a_warning_and_the_plan_is_still_made() {
    for mode in [Mode::Stream, Mode::Freeze] {
        let schema = format!("{USERS};;alter table users add check (n <= 20000)");
        let shop = Shop::new("rehearse_check", &schema);
        let plan = shop.plan("update users set n = id + 1 where role = 'memeber'", Some(mode), 4);
        let failed = messages(&plan, "rehearsal_failed");
        assert_eq!(failed.len(), 1, "{mode:?}: {failed:?}");
        assert!(failed[0].contains("`last`") && failed[0].contains("23514"), "{failed:?}");
        let places: Vec<String> = plan.rehearsal.into_iter().flat_map(|r| r.batches).map(|b| b.place).collect();
        assert!(places.contains(&"first".to_owned()) && !places.contains(&"last".to_owned()), "{places:?}");
    }
}

#[test]
fn a_constraint_that_is_checked_at_commit_is_checked_in_the_rehearsal() {
    let schema =
        format!("{USERS};;alter table users add referrer bigint references users deferrable initially deferred");
    let shop = Shop::new("rehearse_deferred", &schema);
    let plan = shop.plan("update users set referrer = 1000000 where role = 'memeber'", None, 1);
    let failed = messages(&plan, "rehearsal_failed");
    assert!(failed.len() == 1 && failed[0].contains("23503"), "{failed:?}");
}

#[test]
fn a_locked_row_is_waited_for_no_longer_than_a_batch_would() {
    let shop = Shop::new("rehearse_lock", USERS);
    let mut other = shop.database.sql().expect("the database takes a session");
    other.run("begin").expect("a transaction begins");
    other.run("select from users where id = 2 for update").expect("the row is locked");
    let plan = shop.plan("update users set role = 'member' where role = 'memeber'", Some(Mode::Stream), 2);
    let failed = messages(&plan, "rehearsal_failed");
    assert!(failed.len() == 1 && failed[0].contains("`first`") && failed[0].contains("55P03"), "{failed:?}");
    assert_eq!(plan.rehearsal.map(|r| r.batches.len()), Some(1));
}

#[test]
fn a_trigger_that_notifies_is_an_effect_outside() {
    let schema = format!(
        "{USERS};;create function tell() returns trigger language plpgsql as
           $$ begin perform pg_notify('changed', new.id::text); return new; end $$;;
         create trigger tell after update on users for each row execute function tell()"
    );
    let shop = Shop::new("rehearse_notify", &schema);
    let plan = shop.plan("update users set role = 'member' where role = 'memeber'", None, 1);
    let outside = messages(&plan, "outside_effects");
    assert!(outside.len() == 1 && outside[0].contains("NOTIFY") && outside[0].contains("tell"), "{outside:?}");
    assert!(plan.rehearsal.is_some());
}

#[test]
fn a_function_in_an_untrusted_language_is_not_rehearsed() {
    let schema = format!(
        "{USERS};;create function far() returns int language c strict as '$libdir/plpgsql', 'plpgsql_call_handler';;
         create function call_far() returns trigger language plpgsql as
           $$ begin if new.n < -1 then perform far(); end if; return new; end $$;;
         create trigger call_far after update on users for each row execute function call_far()"
    );
    let shop = Shop::new("rehearse_untrusted", &schema);
    let plan = shop.plan("update users set role = 'member' where role = 'memeber'", None, 1);
    assert_eq!(messages(&plan, "outside_effects").len(), 1, "{:?}", plan.findings);
    assert_eq!(messages(&plan, "not_rehearsed").len(), 1);
    assert!(plan.rehearsal.is_none());
}

#[test]
fn a_table_smaller_than_a_batch_is_rehearsed() {
    let shop = Shop::new(
        "rehearse_small",
        "create table t (a int, b text, n int, primary key (a, b));;insert into t select i, 'x', 0 from generate_series(1, 3) i",
    );
    for mode in [Mode::Stream, Mode::Freeze] {
        let plan = shop.plan("update t set n = 1", Some(mode), 4);
        let rehearsal = plan.rehearsal.expect("it was rehearsed");
        assert!(
            !rehearsal.batches.is_empty() && rehearsal.batches.iter().all(|b| b.rows > 0),
            "{mode:?}: {:?}",
            plan.findings
        );
    }
}

/// Timing is measured elsewhere and never asserted in a test: this prints for whoever asks with --no-capture.
#[test]
fn the_predicted_duration_is_printed_beside_the_actual_one() {
    for mode in [Mode::Stream, Mode::Freeze] {
        let shop = Shop::new("rehearse_duration", USERS);
        let mut job = Job::from_statement("duration", "update users set n = n + 1");
        job.file.mode = Some(mode);
        let options =
            RunOptions { plan: PlanOptions { rehearse: 4, ..PlanOptions::default() }, ..RunOptions::default() };
        let (low, high, actual) = on_runtime(async {
            let mut engine = Engine::connect(Some(&shop.database.url())).await.expect("the engine connects");
            engine.init().await.expect("the control schema is installed");
            let plan = engine.plan(&job, &options.plan).await.expect("the statement can be planned").plan;
            let outcome = engine.run(&job, &options, &mut Observer::silent()).await.expect("the run ends");
            assert_eq!(outcome.changed_rows, 20_000);
            (plan.estimates.duration_s.0, plan.estimates.duration_s.1, outcome.duration_s)
        });
        println!("{mode:?}: predicted {low:.2} to {high:.2} s, took {actual:.2} s");
    }
}
