//! Encrypted images through a crash: at each boundary of their keys and of the encryption of a change set, and by a
//! SIGKILL between batches. Nothing is plain afterwards, and the identity puts every row back.

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use pgmend::Identities;

use super::stage::{DELETE, FREEZE, FROZEN_DELETE, STREAM, Shape, Stage};
use super::text;
use super::worker::Worker;

/// Passed by every run with images of its own, once a process.
pub const KEPT: &str = "image_key_kept";
/// Passed at the end of a run with a change set.
pub const ENCRYPTED: [&str; 3] = ["encryption_begun", "range_encrypted", "change_set_encrypted"];

fn staged(shape: Shape) -> Stage {
    let identity = Identity::generate();
    let mut stage = Stage::new(shape, 40, 8);
    stage.sql().run("create schema crypto; create extension pgcrypto schema crypto").expect("pgcrypto");
    stage.file.images.recipient = Some(identity.to_public().to_string());
    stage.identity = Some(Identities::parse(identity.to_string().expose_secret()).expect("an identity"));
    stage
}

/// Every row is changed once, and put back by the identity; no table of the control schema has a column of values
/// before that or after it.
fn holds(stage: &Stage) -> Result<(), String> {
    nothing_is_plain(stage)?;
    stage.check()?;
    nothing_is_plain(stage)
}

fn nothing_is_plain(stage: &Stage) -> Result<(), String> {
    let plain = "select string_agg(attrelid::regclass || '.' || attname, ', ') from pg_attribute a join pg_class c on c.oid = attrelid \
                 where c.relnamespace = 'pgmend'::regnamespace and relname ~ '^(image|change_set|encrypting)_' \
                 and attname ~ '^(before|after)_' and not attisdropped";
    match stage.sql().value(plain).map_err(text)? {
        Some(plain) => Err(format!("plain: {plain}")),
        None => Ok(()),
    }
}

fn survives(shape: Shape, points: &[&str]) {
    let stage = staged(shape);
    let mut failures = Vec::new();
    for point in points {
        let survived = stage
            .reset()
            .and_then(|()| Worker::start(&stage.errand(), Some(point)).aborted())
            .and_then(|()| stage.go_on())
            .and_then(|()| holds(&stage));
        if let Err(failure) = survived {
            failures.push(format!("{point}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", shape.name, failures.join("\n"));
}

#[test]
fn an_encrypted_stream_survives_an_abort_and_is_undone() {
    survives(STREAM, &[KEPT, "batch_applied:3", "batch_committed:2", "before_finish"]);
}

#[test]
fn an_encrypted_delete_survives_an_abort_and_is_undone() {
    survives(DELETE, &[KEPT, "batch_applied:2"]);
}

#[test]
fn the_encryption_of_a_change_set_survives_an_abort_and_is_undone() {
    survives(FREEZE, &["batch_committed:2", ENCRYPTED[0], ENCRYPTED[1], ENCRYPTED[2]]);
    survives(FROZEN_DELETE, &ENCRYPTED);
}

#[test]
fn a_killed_worker_leaves_images_that_its_successor_and_the_undo_can_use() {
    let mut stage = staged(STREAM);
    let row = stage.hold(108);
    let mut worker = stage.worker();
    assert!(worker.wait_for_batches(2), "{:?}", worker.heard);
    worker.kill();
    drop(row);
    stage.go_on().expect("the rest of the run");
    let keys = stage.sql().value("select count(*) from pgmend.image_key").expect("it answers");
    assert_eq!(keys.as_deref(), Some("2"));
    holds(&stage).expect("every row as it should be, and as before");
}
