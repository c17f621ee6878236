//! A failover to a standby that never received the primary's last batches.

use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

use pgmend::{Event, Observer};
use pgmend_testkit::{Server, Standby};

use super::network::succeeded;
use super::stage::{DELETE, FREEZE, HALVED, STREAM, Shape, Stage};
use super::{block_on, run};

/// The batch after which the standby has heard nothing more, and the one after which the primary dies.
const LAST_RECEIVED: i64 = 12;
const LAST_WRITTEN: i64 = 40;
/// The last batch of those that vanish unseen.
const UNSEEN: i64 = 17;
/// For so long the standby answers, but is one: longer than a worker trusts a lease that was not renewed.
const BEFORE_PROMOTION: Duration = Duration::from_millis(2_500);

#[test]
fn a_streamed_run_makes_the_batches_again_that_a_failover_lost() {
    survives_failover(STREAM);
}

#[test]
fn a_run_in_halves_makes_the_batches_again_that_a_failover_lost() {
    survives_failover(HALVED);
}

#[test]
fn a_frozen_run_makes_the_batches_again_that_a_failover_lost() {
    survives_failover(FREEZE);
}

fn survives_failover(shape: Shape) {
    let primary = Arc::new(Server::start().expect("a server starts"));
    let stage = Stage::on(&primary, shape, 200, 2);
    let standby = Arc::new(Mutex::new(None));
    let (dying, heir) = (Arc::clone(&primary), Arc::clone(&standby));
    let again = Arc::new(Mutex::new(Vec::new()));
    let numbers = Arc::clone(&again);
    let mut observer = Observer::new(move |event| {
        let Event::Batch { batch_no, .. } = event else { return };
        numbers.lock().expect("nobody panics holding it").push(*batch_no);
        let mut heir = heir.lock().expect("nobody panics holding it");
        if *batch_no == LAST_RECEIVED && heir.is_none() {
            *heir = Some(Arc::new(Standby::copy(&dying).expect("a copy is made")));
        }
        if *batch_no == LAST_WRITTEN && dying.pid().is_some() {
            dying.stop_immediate().expect("the primary dies");
            let heir = Arc::clone(heir.as_ref().expect("there is a copy by now"));
            thread::spawn(move || {
                heir.start().expect("the copy starts");
                sleep(BEFORE_PROMOTION);
                heir.promote().expect("the copy is promoted");
            });
        }
    });
    let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
    succeeded(ended).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    let numbers = again.lock().expect("nobody panics holding it");
    let twice = numbers.iter().filter(|n| **n == LAST_WRITTEN).count();
    assert_eq!(twice, 2, "batch {LAST_WRITTEN} was lost and had to be made again: {numbers:?}");
}

/// Behind a pooler a failover looks like nothing at all: the session stays, and the last batches are gone. The
/// batch itself has to notice that its predecessor is not there.
#[test]
fn a_run_whose_last_batches_vanish_unseen_makes_them_again() {
    for shape in [STREAM, HALVED, FREEZE, DELETE] {
        let stage = Stage::new(shape, 60, 2);
        let mut sql = stage.sql();
        let (mut numbers, images) = (Vec::new(), Arc::new(Mutex::new(String::new())));
        let again = Arc::new(Mutex::new(0));
        let lost = Arc::clone(&again);
        let mut observer = Observer::new(move |event| {
            let Event::Batch { batch_no, .. } = event else { return };
            numbers.push(*batch_no);
            let mut images = images.lock().expect("nobody panics holding it");
            if numbers == (1..=LAST_RECEIVED).collect::<Vec<_>>() {
                let table = "select coalesce('pgmend.' || image_table, 'plain.entry') from pgmend.run";
                *images = sql.value(table).expect("it answers").expect("there is a run");
                let copy = format!(
                    "create schema standby; create table standby.account as table account;
                     create table standby.images as table {images}"
                );
                sql.run(&copy).expect("it is copied");
            }
            if numbers == (1..=UNSEEN).collect::<Vec<_>>() {
                let restore = format!(
                    "begin; delete from account; insert into account table standby.account;
                     delete from {images}; insert into {images} overriding system value table standby.images;
                     delete from pgmend.batch where batch_no > {LAST_RECEIVED}; commit"
                );
                sql.run(&restore).expect("it is the superuser");
            }
            *lost.lock().expect("nobody panics holding it") +=
                i64::from(numbers.iter().filter(|n| *n == batch_no).count() == 2);
        });
        let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
        succeeded(ended).and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        let again = *again.lock().expect("nobody panics holding it");
        assert_eq!(again, UNSEEN - LAST_RECEIVED, "{}: the lost batches were to be made again", shape.name);
    }
}
