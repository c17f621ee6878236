//! The pass at the end of a run over rows that came to match behind its cursor, broken off at its boundaries.

use std::sync::Arc;

use pgmend::{Engine, Event, Observer, RunOptions};
use pgmend_testkit::{Cut, FaultProxy};

use super::block_on;
use super::network::succeeded;
use super::stage::{SWEEP, Stage};
use super::worker::{Errand, Said, Worker};

/// The sweep is in the ledger, and none of its batches is there.
pub const SWEPT: &str = "sweep_begun";
/// Batches of the first pass before rows arrive, and after.
const BEFORE: u64 = 5;
const AFTER: u32 = 10;

/// A run stopped in the middle, with four rows that came to match behind its cursor: two batches of a sweep.
fn stopped_with_arrivals() -> Stage {
    let mut stage = Stage::new(SWEEP, 40, 2);
    let first = Worker::start(&Errand { stop_after: Some(BEFORE), ..stage.errand() }, None).end().1;
    assert!(first.as_ref().is_some_and(|said| said.ended_as("paused")), "{first:?}");
    stage
        .sql()
        .run(
            "insert into account select n, 0, n from unnest(array[1, 2, 4, 5]) n;
             insert into before.account select n, 0, n, 0 from unnest(array[1, 2, 4, 5]) n;
             insert into plain.account select n, 3, n + 5 from unnest(array[1, 2, 4, 5]) n",
        )
        .expect("rows arrive");
    stage.arrived = 4;
    stage
}

#[test]
fn a_sweep_survives_an_abort_at_each_of_its_boundaries() {
    let (first, second) = (AFTER + 1, AFTER + 2);
    let faults = [
        "before_finish:1".to_owned(),
        SWEPT.to_owned(),
        format!("batch_applied:{first}"),
        format!("batch_committed:{first}"),
        format!("batch_applied:{second}"),
        format!("batch_committed:{second}"),
        "before_finish:2".to_owned(),
    ];
    for fault in faults {
        let stage = stopped_with_arrivals();
        Worker::start(&stage.errand(), Some(&fault)).aborted().unwrap_or_else(|failure| panic!("{fault}: {failure}"));
        stage.go_on().and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{fault}: {failure}"));
        let passes = stage.sql().value("select max(pass) from pgmend.batch").expect("it answers");
        assert_eq!(passes.as_deref(), Some("1"), "{fault}: the rows were to be swept");
    }
}

#[test]
fn a_sweep_whose_commits_or_answers_are_lost_changes_every_row_once() {
    let cuts = [
        (Cut::BeforeCommit, AFTER + 1),
        (Cut::AfterCommit, AFTER + 1),
        (Cut::AfterCommit, AFTER + 2),
        (Cut::BeforeStatement("pgmend.record_fact".to_owned()), 1),
    ];
    for (cut, nth) in cuts {
        let stage = stopped_with_arrivals();
        let proxy = Arc::new(FaultProxy::start(&stage.database.url()).expect("a proxy starts"));
        let (cutting, which) = (Arc::clone(&proxy), cut.clone());
        let mut observer = Observer::new(move |event| {
            if let Event::Started { .. } = event {
                cutting.cut_at(which.clone(), nth);
            }
        });
        let ended = block_on(async {
            let mut engine = Box::pin(Engine::connect(Some(&proxy.url()))).await?;
            Box::pin(engine.run(&stage.errand().job(), &RunOptions::default(), &mut observer)).await
        });
        assert_eq!(proxy.cuts(), 1, "{cut:?} {nth}: {ended:?}");
        succeeded(ended).and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{cut:?} {nth}: {failure}"));
    }
}

#[test]
fn a_sweep_killed_with_its_rows_locked_changes_every_row_once() {
    let stage = stopped_with_arrivals();
    let mut other = stage.sql();
    other.run("begin; select from account where id = 4 for update").expect("a row is locked");
    let mut worker = Worker::start(&stage.errand(), None);
    assert!(worker.wait_for_batches(AFTER + 1), "{:?}", worker.heard);
    assert!(!worker.heard.iter().any(Said::succeeded));
    worker.kill();
    other.run("commit").expect("the lock is released");
    stage.go_on().and_then(|()| stage.check()).expect("nothing is lost or doubled");
}
