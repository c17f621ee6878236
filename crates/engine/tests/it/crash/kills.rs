//! SIGKILL at moments that nobody chose, over and over, until the run is done.

use std::thread::sleep;
use std::time::Duration;

use pgmend_testkit::Sql;

use super::stage::{
    BARE, DELETE, FREEZE, FROZEN_DELETE, HALVED, HALVED_BARE, INSERT, STREAM, Shape, Stage, UNDO, UNDO_DELETE,
    UNDO_FREEZE, UPSERT,
};

/// Kills of one run. Each lets a few batches pass; what is left is more than they are, and the last rows wait behind a
/// [`Gate`], so that the run cannot end before the last kill.
const KILLS: u32 = 15;
/// Batches that a worker may commit before it is killed: 0 to one less.
const BATCHES: u32 = 4;
/// Microseconds into the batch that follows.
const WITHIN_US: u32 = 4_000;
const ROWS: u32 = 260;
const BATCH_ROWS: u32 = 2;

#[test]
fn a_stream_killed_at_random_moments_changes_every_row_once() {
    killed(STREAM, 1);
}

#[test]
fn a_stream_in_halves_killed_at_random_moments_changes_every_row_once() {
    killed(HALVED, 11);
    killed(HALVED_BARE, 12);
}

#[test]
fn a_stream_without_images_killed_at_random_moments_changes_every_row_once() {
    killed(BARE, 2);
}

#[test]
fn a_frozen_update_killed_at_random_moments_changes_every_row_once() {
    killed(FREEZE, 3);
}

#[test]
fn a_delete_killed_at_random_moments_deletes_every_row_once() {
    killed(DELETE, 4);
    killed(FROZEN_DELETE, 8);
}

#[test]
fn inserts_killed_at_random_moments_insert_every_row_once() {
    killed(UPSERT, 5);
    killed(INSERT, 6);
}

#[test]
fn an_undo_killed_at_random_moments_restores_every_row_once() {
    killed(UNDO, 7);
    killed(UNDO_FREEZE, 9);
    killed(UNDO_DELETE, 10);
}

fn killed(shape: Shape, seed: u64) {
    let stage = Stage::new(shape, ROWS, BATCH_ROWS);
    let gate = Gate::shut(&stage);
    let mut moments = Moments(seed);
    for kill in 1..=KILLS {
        let mut worker = stage.worker();
        let batches = moments.below(BATCHES);
        // Before its first event a worker may be anywhere: planning, starting, taking the lease.
        let before_all = batches == 0 && kill % 2 == 0;
        let within = Duration::from_micros(u64::from(moments.below(WITHIN_US)));
        if before_all {
            sleep(within * 20);
        } else {
            assert!(worker.wait_for(|said| said.is_event("started")), "kill {kill}: {:?}", worker.heard);
            assert!(worker.gets_on(batches), "kill {kill}: {:?}", worker.heard);
            sleep(within);
        }
        worker.kill();
        stage.expire_leases().expect("the lease is there");
    }
    drop(gate);
    stage.go_on().expect("the run ends");
    stage.check().expect("nothing is lost or doubled");
    let fences = "select max(fence) from pgmend.lease";
    let fences: u32 = stage.sql().value(fences).ok().flatten().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(fences > KILLS / 2, "only {fences} workers came so far as to take the lease");
}

/// Keeps the last rows of a run from being changed, in whatever table they are, as long as it lives.
struct Gate {
    _held: Sql,
}

impl Gate {
    fn shut(stage: &Stage) -> Self {
        let (key, amount) = (3 * ROWS, 100 * ROWS);
        stage
            .sql()
            .run(&format!(
                "create function gate() returns trigger language plpgsql as $$ begin
                     perform pg_advisory_xact_lock_shared(260); return null; end $$;
                 create trigger gate after insert on account for each row when (new.id in (2 * {ROWS}, {key})) execute function gate();
                 create trigger gate_update after update on account for each row when (new.id = {key}) execute function gate();
                 create trigger gate_delete after delete on account for each row when (old.id = {key}) execute function gate();
                 create trigger gate after insert on entry for each row when (new.amount = {amount}) execute function gate()"
            ))
            .expect("the gate is made");
        let mut held = stage.sql();
        held.run("select pg_advisory_lock(260)").expect("it is shut");
        Self { _held: held }
    }
}

/// Numbers that look random and are the same each time (splitmix64).
pub struct Moments(pub u64);

impl Moments {
    /// A number from 0 to one less than `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let number = (mixed ^ (mixed >> 31)) % u64::from(bound.max(1));
        u32::try_from(number).expect("it is below a u32")
    }
}
