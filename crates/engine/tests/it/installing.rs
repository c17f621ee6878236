//! Installing the control schema: who may read what is in it, and who is warned of it.

use pgmend::{Engine, Job, Observer, PlanOptions, RunOptions};
use pgmend_testkit::{Database, Server};

const USERS: &str = "create table users (id int primary key, role text not null); \
                     insert into users select i, 'memeber' from generate_series(1, 10) i";

fn job() -> Job {
    Job::from_statement("fix-roles", "update users set role = 'member' where role = 'memeber'")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_groups_read_the_record_but_no_images_also_after_a_second_init() {
    let db = Database::create(Server::shared(), "installing").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(USERS).expect("the table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.run(&job(), &RunOptions::default(), &mut Observer::silent()).await.expect("a run");
    engine.init().await.expect("the second init");
    let readable = "select string_agg(relname, ' ' order by relname) from pg_class
                     where relnamespace = 'pgmend'::regnamespace and relkind = 'r'
                       and has_any_column_privilege('pgmend_observer', oid, 'select')";
    let readable = sql.value(readable).expect("what observers read").unwrap_or_default();
    assert!(readable.contains("batch") && readable.contains("ledger"), "{readable}");
    // Image keys are the record's: what is kept of them opens nothing without the identity.
    let images = |table: &&str| table.starts_with("image_") && *table != "image_key";
    assert!(!readable.split(' ').any(|table| images(&table)), "{readable}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_for_all_tables_is_warned_of_before_its_subscribers_stop() {
    let db = Database::create(Server::shared(), "installing").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(USERS).expect("the table");
    sql.run("create publication everything for all tables").expect("the publication");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let planned = engine.plan(&job(), &PlanOptions::default()).await.expect("a plan");
    assert!(planned.plan.findings.iter().any(|f| f.check == "publication_of_all_tables"));
    let installed = engine.init().await.expect("the control schema");
    assert!(installed.notes.iter().any(|note| note.contains("everything")), "{:?}", installed.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_roles_is_told_what_a_dba_must_type() {
    // The group roles belong to the whole server: one of its own, where nobody has made them.
    let server = Server::start().expect("a server");
    let db = Database::create(&server, "managed").expect("a database");
    let owner = db.create_role("owner", "").expect("a role");
    let runner = db.create_role("runner", "").expect("a role");
    let mut sql = db.sql().expect("a session");
    sql.run(&format!("{USERS}; grant select, update on users to {runner}")).expect("the table");
    sql.run(&format!("grant create on database {} to {owner}", db.name())).expect("a grant");
    let mut engine = Engine::connect(Some(&db.url_for(&owner))).await.expect("a connection");
    let done = engine.init().await.expect("the control schema");
    assert!(done.roles.is_empty(), "{:?}", done.roles);
    let typed: Vec<String> =
        done.notes.iter().filter_map(|note| Some(note[note.find("create role ")?..].to_owned())).collect();
    assert_eq!(typed.len(), 3, "{:?}", done.notes);
    assert!(done.notes.iter().any(|note| note.contains("grant pgmend_runner to")), "{:?}", done.notes);

    // A DBA types exactly that; the owner types `init` again.
    for line in &typed {
        sql.run(line).expect(line);
    }
    let done = engine.init().await.expect("the grants");
    assert_eq!((done.roles.len(), done.notes.as_slice()), (3, [].as_slice()));
    sql.run(&format!("grant pgmend_runner to {runner}")).expect("the membership");
    let mut engine = Engine::connect(Some(&db.url_for(&runner))).await.expect("a connection");
    let outcome = engine.run(&job(), &RunOptions::default(), &mut Observer::silent()).await.expect("a run");
    assert_eq!(outcome.changed_rows, 10);
}
