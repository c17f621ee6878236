//! A run that dies while it vacuums its target.

use super::stage::{FREEZE, STREAM, Stage};
use super::worker::{Said, Worker};

/// The vacuum is in the control schema, and has not begun.
pub const VACUUMED: &str = "vacuum_begun";

/// Enough rows for a vacuum: three quarters of them change.
const ROWS: u32 = 3_000;

fn stage(shape: super::stage::Shape) -> Stage {
    let mut stage = Stage::new(shape, ROWS, 200);
    stage.file.limits.vacuum_every = Some("30%".parse().expect("a share"));
    stage
}

fn outcomes(stage: &Stage) -> String {
    let sql = "select coalesce(string_agg(outcome, ' ' order by vacuum_no), '') from pgmend.vacuum";
    stage.sql().value(sql).expect("it answers").unwrap_or_default()
}

#[test]
fn a_run_that_is_aborted_as_its_vacuum_begins_goes_on_and_vacuums_then() {
    for shape in [STREAM, FREEZE] {
        let stage = stage(shape);
        Worker::start(&stage.errand(), Some(VACUUMED)).aborted().expect("the point is reached");
        stage.go_on().and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        assert!(outcomes(&stage).starts_with("lost done"), "{}: {}", shape.name, outcomes(&stage));
    }
}

#[test]
fn a_run_that_is_killed_while_it_vacuums_goes_on() {
    let stage = stage(STREAM);
    let database = stage.sql().value("select quote_ident(current_database())").expect("a name").expect("a name");
    let slow = format!(
        "alter database {database} set vacuum_cost_limit = 1; alter database {database} set vacuum_cost_delay = '100ms'"
    );
    stage.sql().run(&slow).expect("a slow vacuum");
    let mut worker = stage.worker();
    assert!(worker.wait_for(|said| said.is_event("vacuuming")), "{:?}", worker.heard);
    worker.kill();
    stage.sql().run(&format!("alter database {database} reset all")).expect("vacuums are fast again");
    // The server ends the dead worker's vacuum by itself, within seconds; until then another one is passed over.
    stage.expire_leases().expect("the lease has run out");
    let (_, said) = stage.worker().end();
    assert!(said.as_ref().is_some_and(Said::succeeded), "{said:?}");
    stage.check().expect("nothing is lost or doubled");
    assert!(outcomes(&stage).starts_with("lost "), "{}", outcomes(&stage));
}
