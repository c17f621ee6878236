//! A disk that is full in earnest: of the database with all that pgmend keeps in it, and of the write-ahead log, whose
//! server then dies. What was committed stays, and the run goes on once there is room.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use pgmend::{Event, Outcome, RunState};
use pgmend_testkit::{Server, SmallDisk};

use super::block_on;
use super::network::{by_way_of, succeeded};
use super::stage::{DELETE, FREEZE, INSERT, STREAM, Shape, Stage, UNDO};
use super::worker::Worker;

/// Rows of a batch: more than fit into the room that the batch before it has left behind.
const BATCH_ROWS: u32 = 500;
const ROWS: u32 = 6_000;
/// The batch after which the disk is full.
const LAST: i64 = 3;
/// A database takes 8 MiB before anything is in it.
const DATABASE_MIB: u32 = 96;
/// Room for three files of the log and what recovery adds.
const LOG_MIB: u32 = 64;
/// For so long the log's disk stays full once the server is dead.
const FULL: Duration = Duration::from_millis(1_500);

/// A stage with its whole database on a disk of its own: the tables, pgmend's own and the images.
fn on_a_small_disk(server: &Server, shape: Shape) -> Option<(Arc<SmallDisk>, Stage)> {
    let disk = SmallDisk::mount(server, shape.name, DATABASE_MIB).expect("the disk is made");
    let Some(disk) = disk else {
        eprintln!("skipped: a small disk can be mounted by root only");
        return None;
    };
    let stage = Stage::on(server, shape, ROWS, BATCH_ROWS);
    let mut sql = server.sql("postgres").expect("the server is up");
    let (space, folder) = (shape.name, disk.folder().display());
    sql.run(&format!("create tablespace disk_{space} location '{folder}'")).expect("the server may write there");
    let moving = format!("alter database {} set tablespace disk_{space}", stage.database.name());
    // The sessions that made the tables may take a moment to go.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = sql.run(&moving) {
        assert!(Instant::now() < deadline, "{error}");
        sleep(Duration::from_millis(50));
    }
    Some((Arc::new(disk), stage))
}

#[test]
fn a_run_pauses_when_its_disk_is_full_and_goes_on_once_there_is_room() {
    let server = Server::start().expect("a server starts");
    for shape in [STREAM, FREEZE, DELETE, INSERT, UNDO] {
        let Some((disk, stage)) = on_a_small_disk(&server, shape) else { return };
        let filling = Arc::clone(&disk);
        let listen = move |event: &Event| {
            if matches!(event, Event::Batch { batch_no: LAST, .. }) {
                filling.fill().expect("the disk can be filled");
            }
        };
        let stopped = block_on(by_way_of(&stage.database.url(), &stage, listen)).map_err(|error| error.to_string());
        let stopped = stopped.unwrap_or_else(|error| panic!("{}: {error}", shape.name));
        told_what_to_do(&stopped, &stage);
        assert!(stopped.batches >= LAST && stopped.changed_rows < i64::from(ROWS) / 2, "{stopped:?}");
        // Nothing is lost while there is no room either, and trying again changes nothing.
        let again = block_on(by_way_of(&stage.database.url(), &stage, |_| ()));
        let again = again.unwrap_or_else(|error| panic!("{}: {error}", shape.name));
        told_what_to_do(&again, &stage);
        disk.free().expect("the ballast is there");
        let ended = block_on(by_way_of(&stage.database.url(), &stage, |_| ()));
        assert!(ended.as_ref().is_ok_and(|outcome| outcome.resumed), "{}: {ended:?}", shape.name);
        succeeded(ended).and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

fn told_what_to_do(stopped: &Outcome, stage: &Stage) {
    let name = stage.shape.name;
    let RunState::Paused { reason } = &stopped.state else { panic!("{name}: {stopped:?}") };
    for told in ["No space left on device", "53100", "free space on the server's disk"] {
        assert!(reason.contains(told), "{name}: {reason}");
    }
}

#[test]
fn a_worker_killed_while_the_disk_is_full_leaves_a_run_that_goes_on() {
    let server = Server::start().expect("a server starts");
    let Some((disk, mut stage)) = on_a_small_disk(&server, STREAM) else { return };
    // The disk is full before the run can get past this row.
    let row = stage.hold(9_000);
    let mut worker = stage.worker();
    assert!(worker.wait_for_batches(2), "{:?}", worker.heard);
    disk.fill().expect("the disk can be filled");
    worker.kill();
    drop(row);
    let (_, said) = Worker::start(&stage.errand(), None).end();
    assert!(said.is_some_and(|said| !said.succeeded()), "there was no room for the rest");
    disk.free().expect("the ballast is there");
    stage.go_on().and_then(|()| stage.check()).expect("nothing is lost or doubled");
}

/// A server that cannot write its log dies, and cannot come back before there is room.
#[test]
fn a_run_outlives_a_server_whose_log_has_no_room() {
    let server = Arc::new(Server::start().expect("a server starts"));
    for shape in [STREAM, FREEZE] {
        let stage = Stage::on(&server, shape, ROWS, BATCH_ROWS);
        let Some(disk) = move_log(&server, shape.name) else { return };
        let died = Arc::new(Mutex::new(false));
        let (dying, death) = (Arc::clone(&server), Arc::clone(&died));
        let listen = move |event: &Event| {
            if matches!(event, Event::Batch { batch_no: LAST, .. }) {
                disk.fill().expect("the disk can be filled");
                use_up_log(&dying);
                let log = dying.log().expect("the server has a log");
                assert!(log.contains("PANIC") && log.contains("No space left on device"), "{log}");
                *death.lock().expect("nobody panics holding it") = true;
                let (dying, disk) = (Arc::clone(&dying), Arc::clone(&disk));
                thread::spawn(move || {
                    sleep(FULL);
                    disk.free().expect("the ballast is there");
                    dying.restart().expect("the server starts again");
                });
            }
        };
        let ended = block_on(by_way_of(&stage.database.url(), &stage, listen));
        succeeded(ended).and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        assert!(*died.lock().expect("nobody panics holding it"), "the log's disk was never full");
    }
}

/// Moves the server's log to a small disk.
fn move_log(server: &Server, name: &str) -> Option<Arc<SmallDisk>> {
    let disk = SmallDisk::mount(server, &format!("log-{name}"), LOG_MIB).expect("the disk is made");
    let Some(disk) = disk else {
        eprintln!("skipped: a small disk can be mounted by root only");
        return None;
    };
    server.sql("postgres").and_then(|mut sql| sql.run("checkpoint")).expect("the server is up");
    server.stop_immediate().expect("the server stops");
    let (log, moved) = (server.data_folder().join("pg_wal"), disk.folder().join("pg_wal"));
    copy(&log, &moved);
    // The second time it is a link to the first disk.
    let removed = if log.is_symlink() { fs::remove_file(&log) } else { fs::remove_dir_all(&log) };
    removed.and_then(|()| symlink(&moved, &log)).expect("the log is moved");
    server.start_again().expect("the server starts again");
    Some(Arc::new(disk))
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(status.expect("`cp` is a program").success(), "{} was not copied", from.display());
}

/// Begins one file of the log after the other until there is no room for the next.
fn use_up_log(server: &Server) {
    for _ in 0..20 {
        let Ok(mut sql) = server.sql("postgres") else { return };
        // An empty file is not left for the next one.
        let written = sql.run("select pg_logical_emit_message(false, 'pgmend', 'full'), pg_switch_wal()");
        if written.is_err() {
            return;
        }
    }
    panic!("the log never filled its disk");
}
