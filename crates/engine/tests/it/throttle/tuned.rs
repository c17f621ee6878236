//! Limits of signals changed on a live run.

use pgmend::{Code, Engine, Error, Tuning};
use pgmend_core::throttle::{Limit, LimitAsked};

use super::stage::{Stage, block_on, job};

/// A number that a test moves.
const LOAD: &str = "[[throttle.sql]]\nname = \"load\"\nquery = \"select n from load\"\nenter = 10\nleave = 5\npoll_s = 0.1\nstale_s = 10\n";

fn limits(typed: &[&str]) -> Tuning {
    let limits = typed.iter().map(|text| LimitAsked::read(text).expect("a limit")).collect();
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
        // As far below as the plan's own 5 of 10, where it is not typed.
        let status = engine.tune("relabel", &limits(&["load=15"]), "a guess").await.expect("a change");
        assert_eq!(status[0].limits[0].limit, Limit { signal: "load".into(), enter: 15.0, leave: 7.5 });
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
    let entry = "select body || actor from pgmend.ledger where fact = 'limit_tuned' order by entry_no desc limit 1";
    let entry = stage.sql.value(entry).expect("it answers");
    let entry = entry.expect("an entry");
    for part in [r#""signal" : "load""#, r#""to" : 20"#, r#""why" : "only a report""#] {
        assert!(entry.contains(part), "{part} in {entry}");
    }
}

#[test]
fn a_limit_that_is_taken_back_holds_the_run_again() {
    let mut stage = Stage::new();
    stage.sql.run("create table load (n int not null); insert into load values (14)").expect("some load");
    // Forty seconds, in which the change is taken back.
    stage.slow_by(2.0);
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
    stage.quick();
    stage.sql.run("update load set n = 1").expect("it is quiet");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}
