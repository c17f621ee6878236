//! Aborts at every fault point that the engine names, for every kind of change.

use pgmend::Mode;
use pgmend::run::FAULT_POINTS;

use super::dead_letters::{RETRIED, SET_ASIDE};
use super::encryption::{ENCRYPTED, KEPT};
use super::partitions::DIVIDED;
use super::stage::{
    BARE, DELETE, FREEZE, FROZEN_DELETE, HALVED, INSERT, STREAM, Shape, Stage, UNDO, UNDO_DELETE, UNDO_UPSERT, UPSERT,
};
use super::sweeps::SWEPT;
use super::vacuums::VACUUMED;
use super::worker::{Errand, Said, Worker};

/// Points that every run passes.
const EACH: [&str; 8] = [
    "planned",
    "run_started",
    "lease_taken",
    "batch_applied",
    "batch_committed",
    "before_finish",
    "after_finish",
    "lease_released",
];
/// Runs that keep images of their own make a table for them.
const IMAGES: &str = "images_created";
const RESUMED: &str = "run_resumed";
const STOPPED: &str = "run_stopped";

/// Points that are passed once per batch, and so more often than once.
const PER_BATCH: [&str; 2] = ["batch_applied", "batch_committed"];

#[test]
fn a_stream_with_images_survives_an_abort_at_every_point() {
    survives_all(STREAM);
}

#[test]
fn a_stream_without_images_survives_an_abort_at_every_point() {
    survives_all(BARE);
}

#[test]
fn a_stream_in_halves_survives_an_abort_at_every_point() {
    survives_all(HALVED);
}

#[test]
fn a_frozen_update_survives_an_abort_at_every_point() {
    survives_all(FREEZE);
}

#[test]
fn a_delete_survives_an_abort_at_every_point() {
    survives_all(DELETE);
}

#[test]
fn a_frozen_delete_survives_an_abort_at_every_point() {
    survives_all(FROZEN_DELETE);
}

#[test]
fn an_insert_on_conflict_survives_an_abort_at_every_point() {
    survives_all(UPSERT);
}

#[test]
fn an_insert_survives_an_abort_at_every_point() {
    survives_all(INSERT);
}

#[test]
fn an_undo_survives_an_abort_at_every_point() {
    survives_all(UNDO);
}

#[test]
fn an_undo_of_a_delete_survives_an_abort_at_every_point() {
    survives_all(UNDO_DELETE);
}

#[test]
fn an_undo_of_an_insert_on_conflict_survives_an_abort_at_every_point() {
    survives_all(UNDO_UPSERT);
}

#[test]
fn a_resumed_run_survives_an_abort_as_it_goes_on() {
    for shape in [STREAM, FREEZE] {
        let stage = Stage::new(shape, 40, 8);
        stopped(&stage, None).expect("it stops");
        Worker::start(&stage.errand(), Some(RESUMED)).aborted().expect("the point is reached");
        stage.go_on().and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_stopped_run_survives_an_abort_once_it_has_said_so() {
    for shape in [STREAM, FREEZE] {
        let stage = Stage::new(shape, 40, 8);
        stopped(&stage, Some(STOPPED)).expect("the point is reached");
        let state = stage.sql().value("select state from pgmend.run").expect("it answers");
        assert_eq!(state.as_deref(), Some("paused"));
        stage.go_on().and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

/// Runs until it stops after two batches, or aborts at a point.
fn stopped(stage: &Stage, fault: Option<&str>) -> Result<(), String> {
    let worker = Worker::start(&Errand { stop_after: Some(2), ..stage.errand() }, fault);
    if fault.is_some() {
        return worker.aborted();
    }
    match worker.end().1 {
        Some(said) if said.ended_as("paused") => Ok(()),
        said => Err(format!("{said:?}")),
    }
}

/// The points of runs that are stopped, resumed and swept have tests of their own; all others are passed by each
/// run here, but for the images, which a frozen run has in its change set.
#[test]
fn every_point_of_the_engine_is_in_one_of_these_tests() {
    let mut tested: Vec<&str> =
        EACH.iter().copied().chain([IMAGES, RESUMED, STOPPED, SWEPT, SET_ASIDE, RETRIED, DIVIDED, VACUUMED]).collect();
    tested.extend([KEPT]);
    tested.extend(ENCRYPTED);
    let mut listed = FAULT_POINTS.to_vec();
    tested.sort_unstable();
    listed.sort_unstable();
    assert_eq!(tested, listed);
}

fn survives_all(shape: Shape) {
    let stage = Stage::new(shape, 40, 8);
    let mut failures = Vec::new();
    let images = (shape.images && shape.mode == Some(Mode::Stream) && !shape.undo).then_some(IMAGES);
    for point in EACH.into_iter().chain(images) {
        let passages = if PER_BATCH.contains(&point) { vec![1, 3] } else { vec![1] };
        for nth in passages {
            let fault = format!("{point}:{nth}");
            if let Err(failure) = survives(&stage, &fault) {
                failures.push(format!("{fault}: {failure}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", shape.name, failures.join("\n"));
}

fn survives(stage: &Stage, fault: &str) -> Result<(), String> {
    stage.reset()?;
    Worker::start(&stage.errand(), Some(fault)).aborted()?;
    stage.expire_leases()?;
    let (_, said) = stage.worker().end();
    match said {
        Some(said) if said.succeeded() => {}
        // It had succeeded, and only could not say so any more.
        Some(Said::Error(error))
            if ["after_finish", "lease_released"].iter().any(|point| fault.starts_with(point))
                && ["was made by", "already undone"].iter().any(|words| error.contains(words)) => {}
        said => return Err(format!("the rest of the run: {said:?}")),
    }
    stage.check()
}

#[test]
fn a_lease_left_by_an_abort_is_waited_out() {
    let stage = Stage::new(STREAM, 40, 8);
    Worker::start(&stage.errand(), Some("batch_committed:2")).aborted().expect("the point is reached");
    let mut worker = stage.worker();
    assert!(worker.wait_for(|said| said.is_event("waiting_for_lease")), "{:?}", worker.heard);
    let (_, said) = worker.end();
    assert!(said.as_ref().is_some_and(Said::succeeded), "{said:?}");
    stage.check().expect("nothing is lost or doubled");
}
