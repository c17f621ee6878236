//! Limits of signals changed on a live run.

use pgmend::{Code, Engine, Error, Tuning};
use pgmend_core::throttle::Limit;

use super::stage::{Stage, block_on, job};

/// A number that a test moves.
const LOAD: &str =
    "[[throttle.sql]]\nname = \"load\"\nquery = \"select n from load\"\nenter = 10\nleave = 5\npoll_s = 0.1\n";

fn limits(typed: &[&str]) -> Tuning {
    let limits = typed.iter().map(|text| Limit::read(text).expect("a limit")).collect();
    Tuning { limits, minutes: Some(60), ..Tuning::default() }
}

#[test]
fn a_run_that_holds_goes_on_at_a_limit_that_a_person_has_raised_and_the_ledger_says_who() {
    let mut stage = Stage::new();
    stage.sql.run("create table load (n int not null); insert into load values (14)").expect("some load");
    let mut running = stage.start(job(LOAD));
    assert!(running.held().contains("load 14"), "it holds");
    block_on(async {
        let mut engine = Engine::connect(Some(&stage.db.url())).await.expect("a connection");
        let refused = engine.tune("relabel", &limits(&["nobody=5"]), "why not").await;
        assert!(matches!(&refused, Err(Error::Refused(refusal)) if refusal.code == Code::PaceBounds), "{refused:?}");
        let status = engine.tune("relabel", &limits(&["load=20/15"]), "only a report").await.expect("a change");
        assert_eq!(status[0].limits.len(), 1);
        assert_eq!(status[0].limits[0].limit, Limit { signal: "load".into(), enter: 20.0, leave: 15.0 });
        let now = engine.in_force("relabel").await.expect("what counts");
        let load = now.signals.iter().find(|signal| signal.signal.name == "load").expect("it is read");
        assert_eq!((load.signal.enter, load.signal.leave, load.tuned.is_some()), (Some(20.0), 15.0, true));
        assert!(now.signals.iter().any(|signal| signal.signal.name == "replay_lag" && signal.tuned.is_none()));
    });
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
    let entry =
        stage.sql.value("select body || actor from pgmend.ledger where fact = 'limit_tuned'").expect("it answers");
    let entry = entry.expect("an entry");
    for part in [r#""signal" : "load""#, r#""to" : 20"#, r#""why" : "only a report""#] {
        assert!(entry.contains(part), "{part} in {entry}");
    }
}

#[test]
fn a_limit_that_is_taken_back_holds_the_run_again() {
    let mut stage = Stage::new();
    stage.sql.run("create table load (n int not null); insert into load values (14)").expect("some load");
    stage
        .sql
        .run(
            "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.5); return null; end';
             create trigger slow after update on item for each row when (new.id % 100 = 0) execute function slow()",
        )
        .expect("batches that last");
    let mut running = stage.start(job(LOAD));
    running.held();
    let tune = |tuning: Tuning| {
        block_on(async {
            let mut engine = Engine::connect(Some(&stage.db.url())).await.expect("a connection");
            engine.tune("relabel", &tuning, "a test").await.expect("a change");
        });
    };
    tune(limits(&["load=20/15"]));
    running.released();
    tune(Tuning { reset_limits: true, minutes: Some(60), ..Tuning::default() });
    assert!(running.held().contains("load 14"), "the plan's limit counts again");
    stage.sql.run("update load set n = 1").expect("it is quiet");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}
