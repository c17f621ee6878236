//! Aborts at every fault point that the engine names, for every kind of change.

use pgmend::run::FAULT_POINTS;

use super::stage::{BARE, DELETE, FREEZE, INSERT, STREAM, Shape, Stage, UNDO, UNDO_DELETE, UPSERT};
use super::worker::{Said, Worker};

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
fn a_frozen_update_survives_an_abort_at_every_point() {
    survives_all(FREEZE);
}

#[test]
fn a_delete_survives_an_abort_at_every_point() {
    survives_all(DELETE);
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

fn survives_all(shape: Shape) {
    let stage = Stage::new(shape, 40, 8);
    let mut failures = Vec::new();
    for point in FAULT_POINTS {
        let passages = if PER_BATCH.contains(&point) { 1..=3 } else { 1..=1 };
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
            if fault.starts_with("after_finish")
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
