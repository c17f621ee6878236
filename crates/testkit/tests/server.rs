//! A test server does what the other crates' tests rely on.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pgmend_testkit::{CONNECTION_LOST, Database, Server, ServerOptions};

#[test]
fn an_own_server_has_the_settings_that_tests_rely_on() {
    let server = ServerOptions::new().setting("work_mem", "5MB").start().expect("a server starts");
    let mut sql = server.sql("postgres").expect("it takes connections");
    for (name, value) in [
        ("fsync", "off"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "off"),
        ("max_connections", "100"),
        ("max_prepared_transactions", "5"),
        ("wal_level", "logical"),
        ("server_encoding", "UTF8"),
        ("work_mem", "5MB"),
    ] {
        let shown = sql.value(&format!("show {name}")).expect("the setting exists");
        assert_eq!(shown.as_deref(), Some(value), "{name}");
    }
}

#[test]
fn a_server_and_its_folder_are_gone_when_it_is_dropped() {
    let server = Server::start().expect("a server starts");
    let folder = server.data_folder().to_path_buf();
    assert!(folder.is_dir());
    let url = server.url("postgres", "postgres");
    drop(server);
    assert!(!folder.exists());
    assert!(pgmend_testkit::Sql::connect(&url).is_err());
}

#[test]
fn a_restart_keeps_the_port_and_what_was_committed() {
    let server = Server::start().expect("a server starts");
    let mut sql = server.sql("postgres").expect("it takes connections");
    sql.run("create table kept (id int); insert into kept values (1)").expect("it commits");
    let (port, pid) = (server.port(), server.pid());
    server.restart().expect("it comes back");
    let lost = sql.run("select 1").expect_err("the session did not survive");
    assert!(lost.sqlstate == CONNECTION_LOST || lost.sqlstate == "57P02", "{lost}");
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    let mut sql = server.sql("postgres").expect("it takes connections again");
    assert_eq!(sql.value("select count(*) from kept").expect("it is there").as_deref(), Some("1"));
}

#[test]
fn a_stopped_server_can_be_started_again() {
    let server = Server::start().expect("a server starts");
    server.stop_immediate().expect("it stops");
    assert_eq!(server.pid(), None);
    assert!(server.sql("postgres").is_err());
    server.start_again().expect("it starts");
    server.sql("postgres").expect("it takes connections");
}

/// Runs as a process of its own, and only for the test below.
#[test]
#[ignore = "a part of the test of a killed process"]
fn a_process_that_is_killed_while_it_has_a_server() {
    let server = Server::start().expect("a server starts");
    let url = server.url("postgres", "postgres");
    let note = std::env::var("PGMEND_TESTKIT_NOTE").expect("the outer test sets it");
    std::fs::write(note, format!("{url}\n{}", server.data_folder().display())).expect("a note");
    std::process::abort();
}

#[test]
fn a_server_goes_away_with_a_process_that_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let note = folder.path().join("note");
    let status = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--ignored", "--exact", "a_process_that_is_killed_while_it_has_a_server"])
        .env("PGMEND_TESTKIT_NOTE", &note)
        .output()
        .expect("the test runs")
        .status;
    assert!(!status.success());
    let note = std::fs::read_to_string(note).expect("the process had a server");
    let data_folder = std::path::Path::new(note.lines().nth(1).expect("two lines"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while data_folder.exists() && Instant::now() < deadline {
        sleep(Duration::from_millis(50));
    }
    assert!(!data_folder.exists(), "{}", data_folder.display());
}

#[test]
fn each_test_has_a_database_and_roles_of_its_own() {
    let server = Server::shared();
    let database = Database::create(server, "Own-Data").expect("a database");
    let other = Database::create(server, "Own-Data").expect("another");
    assert_ne!(database.name(), other.name());
    let role = database.create_role("reader", "connection limit 3").expect("a role");
    let mut sql = pgmend_testkit::Sql::connect(&database.url_for(&role)).expect("it logs in");
    let who = sql.run("select current_database(), session_user").expect("it answers");
    assert_eq!(who, [[Some(database.name().to_owned()), Some(role.clone())]]);

    let name = database.name().to_owned();
    drop(database);
    let left = format!(
        "select (select count(*) from pg_database where datname = '{name}')
              + (select count(*) from pg_roles where rolname = '{role}')"
    );
    let left = server.sql("postgres").and_then(|mut sql| sql.value(&left));
    assert_eq!(left.expect("it answers").as_deref(), Some("0"));
}

#[test]
fn the_shared_server_is_not_for_stopping_when_others_use_it() {
    let own = Server::start().expect("a server starts");
    let attached = Server::attach(&own.url("postgres", "postgres")).expect("it is there");
    assert_eq!(attached.version(), own.version());
    assert_eq!(attached.data_folder(), own.data_folder());
    let error = attached.stop_immediate().expect_err("it is not ours to stop");
    assert!(error.to_string().contains("Server::start()"), "{error}");
    own.sql("postgres").expect("it still runs");
}
