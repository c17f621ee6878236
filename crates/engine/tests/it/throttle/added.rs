//! Signals that a job brings: flag file and custom SQL; a signal that is lost; the ladder.

use pgmend::guard::Named;
use pgmend::{Code, Engine, Error, Event, PlanOptions, RunState};
use pgmend_core::environment::Environments;

use super::stage::{RELABEL, Stage, job, until};

const LEVEL: &str = "[[throttle.sql]]\nname = \"queue\"\nunit = \"messages\"\nquery = \"select n from level\"\n\
                     enter = 100\nleave = 10\npoll_s = 0.1\nstale_s = 10\n";

fn level(stage: &mut Stage, n: &str) {
    stage.sql.run(&format!("update level set n = {n}")).expect("the level");
}

fn with_level(n: i64) -> Stage {
    let mut stage = Stage::new();
    stage.sql.run(&format!("create table level as select {n}::numeric as n")).expect("the level");
    stage
}

#[test]
fn a_flag_file_holds_a_run_until_it_is_gone() {
    let mut stage = Stage::new();
    let folder = tempfile::tempdir().expect("a folder");
    let flag = folder.path().join("hold");
    std::fs::write(&flag, "").expect("the flag");
    let mut running = stage.start(job(&format!("[throttle]\nflag_files = [{:?}]", flag.display().to_string())));
    assert_eq!(running.held(), format!("the file {} is there", flag.display()));
    assert_eq!(stage.changed(), 0);
    std::fs::remove_file(&flag).expect("the flag is ours");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn a_number_of_the_job_holds_at_one_limit_and_goes_on_at_another_and_is_told_everywhere() {
    let mut stage = with_level(5_000);
    let mut running = stage.start(job(LEVEL));
    running.held_as("queue 5000 messages ≥ 100");
    until("the database knows", || !stage.status().holds.is_empty());
    let status = stage.status();
    assert_eq!(status.summary.state, "running");
    assert!(status.doing.contains("queue 5000 messages ≥ 100; it goes on by itself"), "{}", status.doing);
    assert!(status.next.iter().any(|line| line.starts_with("pgmend pause ")), "{:?}", status.next);
    level(&mut stage, "50");
    let between = running.wait_for(
        "new value",
        |event| matches!(event, Event::Holding { reasons, .. } if reasons[0].value == Some(50.0)),
    );
    let Event::Holding { reasons, .. } = between else { panic!("{between:?}") };
    assert_eq!(reasons[0].text, "queue 50 messages, goes on at 10");
    assert_eq!(stage.changed(), 0);
    level(&mut stage, "10");
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
    let report = super::stage::block_on(async {
        let mut engine = Engine::connect(Some(&stage.db.url())).await.expect("a connection");
        engine.report("relabel").await.expect("a report")
    });
    let hold = report.holds.iter().find(|hold| hold.signal == "queue").expect("the hold");
    assert!(hold.held_s > 0.0 && hold.holds == 1, "{hold:?}");
    assert!(report.markdown().contains("## Holds"), "{}", report.markdown());
}

#[test]
fn a_signal_that_cannot_be_read_any_more_is_over_its_limit_until_it_can() {
    let mut stage = with_level(0);
    stage.slow();
    let mut running = stage.start(job(&LEVEL.replace("stale_s = 10", "stale_s = 2")));
    running.batches(2);
    stage.sql.run("alter table level rename to gone").expect("the level goes");
    // A sampler that is late holds the run too, and does not know of the level.
    running.wait_for("loss of the level", |event| {
        matches!(event, Event::Holding { reasons, .. } if reasons.len() == 1
            && reasons[0].text.starts_with("queue was not read for") && reasons[0].text.contains("level"))
    });
    stage.sql.run("alter table gone rename to level").expect("the level is back");
    stage.quick();
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn a_hold_that_lasts_too_long_gives_its_connection_back_and_then_stops_resumable() {
    let mut stage = with_level(5_000);
    // Seconds between the rungs, so that each is seen.
    let mut running = stage.start(job(&format!("[throttle]\nrelease_after_s = 8\nhold_max_s = 20\n{LEVEL}")));
    running.held();
    // Those of a run that holds: one that stops lets them go one by one.
    let sessions =
        "select count(*) from pg_stat_activity where application_name = 'pgmend' and datname = current_database()
                       and (select state from pgmend.run) = 'running'";
    until("three connections", || stage.number(sessions) >= 3);
    until("the working connection is given back", || stage.number(sessions) == 2);
    let stopped = running.end();
    let RunState::Paused { reason } = &stopped.state else { panic!("{stopped:?}") };
    let held_s = reason.strip_prefix("held for ").and_then(|r| r.strip_suffix(" s: queue 5000 messages ≥ 100"));
    assert!(held_s.is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s >= 20)), "{reason}");
    assert_eq!(stage.number("select count(*) from pgmend.hold where since_at is not null"), 0);
    level(&mut stage, "0");
    let outcome = stage.start(job(&format!("[throttle]\nhold_max_s = 4\n{LEVEL}"))).end();
    assert!(outcome.resumed);
    stage.check(&outcome);
}

#[test]
fn a_run_that_holds_can_be_paused_from_elsewhere() {
    let mut stage = with_level(5_000);
    let mut running = stage.start(job(LEVEL));
    running.held();
    let paused = super::stage::block_on(async {
        let mut engine = Engine::connect(Some(&stage.db.url())).await.expect("a connection");
        engine.pause("relabel", "lunch").await.expect("a pause")
    });
    assert!(paused[0].doing.contains("lunch"), "{}", paused[0].doing);
    let stopped = running.end();
    assert!(matches!(&stopped.state, RunState::Paused { reason } if reason.contains("lunch")), "{stopped:?}");
    assert_eq!(stage.changed(), 0);
}

#[test]
fn an_environment_bounds_the_throttle_of_every_job() {
    let stage = Stage::new();
    let text = "[environments.production.throttle.signal.replay_lag]\nenter = 5\nleave = 2\n";
    let environment = Environments::parse(text).expect("a file").named("production").expect("it is there").clone();
    let named = Named { name: "production".into(), environment };
    super::stage::block_on(async {
        let mut engine = Engine::connect_to(Some(&stage.db.url()), named).await.expect("a connection");
        let options = PlanOptions::default();
        let off = job("[throttle.signal.replay_lag]\noff = \"in a hurry\"\n");
        let Err(Error::Refused(refusal)) = Box::pin(engine.plan(&off, &options)).await else { panic!("not refused") };
        assert_eq!(refusal.code, Code::Throttle);
        let lax = job("[throttle.signal.replay_lag]\nenter = 60\nleave = 30\n");
        let planned = Box::pin(engine.plan(&lax, &options)).await.expect("a plan");
        let lag = planned.signals.iter().find(|s| s.signal.name == "replay_lag").expect("it is listed");
        assert_eq!((lag.signal.enter, lag.signal.leave), (Some(5.0), 2.0));
    });
}

#[test]
fn a_change_of_few_rows_is_not_throttled_unless_somebody_asks_for_it() {
    let mut stage = Stage::new();
    let few = pgmend::Job::from_statement("few", RELABEL.to_owned() + " and id <= 3");
    let outcome = stage.start(few).end();
    assert_eq!((outcome.changed_rows, stage.changed()), (3, 3));
    assert_eq!(stage.number("select count(*) from pgmend.hold"), 0);
}
