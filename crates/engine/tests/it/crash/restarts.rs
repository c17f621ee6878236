//! A PostgreSQL that crashes in the middle of a run and comes back.

use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::Duration;

use pgmend::{Event, Observer};
use pgmend_testkit::Server;

use super::network::{succeeded, wait_for_lock};
use super::stage::{FREEZE, STREAM, Stage};
use super::{block_on, run};

/// For so long the server is away.
const AWAY: Duration = Duration::from_millis(700);

#[test]
fn a_run_goes_on_when_the_server_is_back_from_a_crash() {
    let server = Arc::new(Server::start().expect("a server starts"));
    for shape in [STREAM, FREEZE] {
        let stage = Stage::on(&server, shape, 400, 2);
        let mut observer = Observer::new(crashes_after([20, 120], &server));
        let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
        succeeded(ended).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_run_whose_batch_dies_with_the_server_makes_it_again() {
    let server = Server::start().expect("a server starts");
    let mut stage = Stage::on(&server, STREAM, 40, 8);
    stage.file.limits.lock_timeout_ms = 20_000;
    let mut other = stage.sql();
    other.run("begin; select from account where id = 60 for update").expect("the row is locked");
    thread::scope(|scope| {
        let running =
            scope.spawn(|| block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent())));
        wait_for_lock(&stage);
        crash(&server);
        succeeded(running.join().expect("it does not panic")).expect("the run ends");
    });
    stage.check().expect("nothing is lost or doubled");
}

#[test]
fn a_worker_killed_while_the_server_is_away_leaves_a_run_that_goes_on() {
    let server = Server::start().expect("a server starts");
    let mut stage = Stage::on(&server, STREAM, 400, 2);
    // The run is still under way when the server stops; the lock goes with it.
    let _row = stage.hold(600);
    let mut worker = stage.worker();
    assert!(worker.wait_for_batches(20), "{:?}", worker.heard);
    server.stop_immediate().expect("the server stops");
    assert!(worker.wait_for(|said| said.is_event("retrying")), "{:?}", worker.heard);
    worker.kill();
    server.start_again().expect("the server starts again");
    stage.go_on().expect("the run ends");
    stage.check().expect("nothing is lost or doubled");
}

/// Crashes the server after these batches, once after each: the crash may take such a batch along, which is then made again.
pub fn crashes_after(batches: [i64; 2], server: &Arc<Server>) -> impl FnMut(&Event) + Send + 'static {
    let (mut due, server) = (Vec::from(batches), Arc::clone(server));
    move |event| {
        if let Event::Batch { batch_no, .. } = event
            && let Some(at) = due.iter().position(|due| due == batch_no)
        {
            due.remove(at);
            crash_beside(&server);
        }
    }
}

/// Crashes the server before the run can get any further, and lets it come back beside the run.
fn crash_beside(server: &Arc<Server>) {
    server.stop_immediate().expect("the server stops");
    let server = Arc::clone(server);
    thread::spawn(move || {
        sleep(AWAY);
        server.start_again().expect("the server starts again");
    });
}

fn crash(server: &Server) {
    server.stop_immediate().expect("the server stops");
    sleep(AWAY);
    server.start_again().expect("the server starts again");
}
