//! What people ask of a run while it waits, and another pace for a live one.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use pgmend::{Code, Engine, Error, Event, Observer, RunOptions, RunState, Setting, Tuning};
use pgmend_testkit::Sql;

use super::{PATIENCE, SOON, Stage, job, nice, rate};

/// Milliseconds for a row: a batch of ten takes more than a second, and the rest after it minutes.
const ROW_MS: u32 = 150;
/// A run that rests for far longer than what ends its rest may take.
const RESTING: &str = "select count(*) = 1 from pgmend.driving where waits_until > clock_timestamp() + interval '90 s'";

fn tuning(setting: Setting, value: f64, minutes: Option<u32>) -> Tuning {
    Tuning { changes: vec![(setting, Some(value))], minutes, ..Tuning::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_ends_the_wait_for_the_pace() {
    let mut stage = Stage::new(ROW_MS).await;
    let run = stage.begin(nice(100.0)).await;
    stage.wait_until(RESTING).await;
    let status = stage.engine.status(None).await.expect("the status").remove(0);
    assert!(
        status.doing.contains(" s for the pace (rests 100 × the batch before); 10 rows changed"),
        "{}",
        status.doing
    );
    assert_eq!(status.pace.as_deref(), Some("rests 100 × each batch"));
    assert!(run.saw(|event| matches!(event, Event::Pacing { wait_s, .. } if *wait_s > 90.0)));

    let began = Instant::now();
    stage.engine.pause("raise", "checkout is slow").await.expect("a pause");
    let outcome = run.ended().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(outcome.state, RunState::Paused { reason: "checkout is slow".into() });
    assert_eq!(outcome.changed_rows, 10);
    let held =
        "select count(*)::text from pg_stat_activity where datname = current_database() and state like 'idle in%'";
    assert_eq!(stage.value(held), "0", "no transaction is left open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_ends_the_wait_for_the_pace() {
    let mut stage = Stage::new(ROW_MS).await;
    let run = stage.begin(nice(100.0)).await;
    stage.wait_until(RESTING).await;
    let began = Instant::now();
    stage.engine.cancel("raise", "wrong month", &mut Observer::silent()).await.expect("a cancellation");
    let outcome = run.ended().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Cancelled, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_ends_the_wait_between_two_attempts() {
    let mut stage = Stage::new(0).await;
    stage
        .sql
        .run(
            "create function busy() returns trigger language plpgsql as
                $$ begin raise exception using errcode = '40001'; end $$;
             create trigger busy before update on account for each row when (old.id = 25) execute function busy()",
        )
        .expect("a trigger");
    // By its fourth retry the pauses between two attempts are of a second and more. Asked for before such a pause begins:
    // whoever looks from elsewhere may come when the last attempt is over.
    let (url, attempts) = (stage.db.url(), Arc::new(Mutex::new(Vec::new())));
    let made = Arc::clone(&attempts);
    let mut observer = Observer::new(move |event| {
        let Event::Retrying { attempt, .. } = event else { return };
        made.lock().expect("nobody panics here").push(*attempt);
        if *attempt == 4 {
            let mut sql = Sql::connect(&url).expect("a session");
            sql.run("select pgmend.ask(run_id, 'pause', 'what is this') from pgmend.run").expect("a pause");
        }
    });
    let (job, options) = (job(), RunOptions::default());
    let run = Box::pin(stage.engine.run(&job, &options, &mut observer));
    let outcome = tokio::time::timeout(PATIENCE, run).await.expect("it ends soon").expect("a run");
    assert_eq!(outcome.state, RunState::Paused { reason: "what is this".into() });
    assert_eq!(outcome.changed_rows, 20);
    assert_eq!(*attempts.lock().expect("nobody panics here"), [1, 2, 3, 4], "no attempt after the pause");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pace_is_seen_by_a_run_that_waits_and_is_in_its_ledger() {
    let mut stage = Stage::new(0).await;
    // At a row a second it would take longer than anybody waits here.
    let run = stage.begin(rate(1)).await;
    stage.wait_until("select count(*) >= 2 from pgmend.batch").await;
    let told = stage.engine.status(None).await.expect("the status").remove(0);
    assert!(told.rows_per_s.is_some_and(|rate| rate < 1.2), "its rests are part of how fast it goes: {told:?}");
    let slow = stage.engine.tune("raise", &tuning(Setting::Nice, 0.5, Some(60)), "gently").await.expect("a tuning");
    assert_eq!(slow[0].pace.as_deref(), Some("at most 1 rows/s, rests 0.5 × each batch"), "what counts now");
    assert_eq!(stage.value("select max(changed_rows)::text from pgmend.batch"), "1", "no batch exceeds a second");
    let status =
        stage.engine.tune("raise", &tuning(Setting::Rate, 0.0, Some(60)), "all quiet").await.expect("a tuning");
    assert_eq!(status[0].pace.as_deref(), Some("rests 0.5 × each batch"));
    stage.engine.tune("raise", &tuning(Setting::Nice, 0.0, Some(60)), "all quiet").await.expect("a tuning");
    let status = stage.engine.status(Some("raise")).await.expect("the status");
    let Some(tuned) = status[0].tuned.iter().find(|change| change.setting == Setting::Rate) else {
        panic!("no change of the rate: {:?}", status[0].tuned)
    };
    assert_eq!((tuned.setting, tuned.value, tuned.reason.as_str()), (Setting::Rate, 0.0, "all quiet"));
    assert!(tuned.expires_at.is_some() && status[0].pace.as_deref() == Some("as fast as it goes"));
    let outcome = run.ended().await;
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, 100));
    stage.assert_every_row_changed_once();
    let entry = stage
        .value("select body || actor from pgmend.ledger where fact = 'pace_tuned' and body::text like '%\"rate\"%'");
    for part in [r#""setting" : "rate""#, r#""from" : 1"#, r#""to" : 0"#, r#""why" : "all quiet""#, r#""until" : "2"#] {
        assert!(entry.contains(part), "{part} in {entry}");
    }
    assert!(stage.engine.report("raise").await.expect("a report").ledger.starts_with("intact"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pace_expires_unless_it_is_pinned() {
    let mut stage = Stage::new(20).await;
    // Twelve seconds for all of it, so that the tuning is heard before the end; at a hundred times it would be minutes.
    let run = stage.begin(nice(5.0)).await;
    stage.wait_until("select count(*) >= 1 from pgmend.batch where changed_rows > 0").await;
    stage.engine.tune("raise", &tuning(Setting::Nice, 100.0, Some(1)), "slow").await.expect("a tuning");
    stage.engine.tune("raise", &tuning(Setting::BatchRows, 5.0, None), "small ones").await.expect("a tuning");
    stage
        .wait_until(
            "select count(*) = 1 from pgmend.driving
              where waits_for like '%rests 100 ×%' and waits_until > clock_timestamp() + interval '3 s'",
        )
        .await;
    let until = "select string_agg(setting || ' ' || (expires_at < clock_timestamp() + interval '61 s')::text, ', ' order by setting)
                   from pgmend.tuning";
    assert_eq!(stage.value(until), "batch_rows false, nice true");
    stage
        .sql
        .run("update pgmend.tuning set expires_at = clock_timestamp() where setting = 'nice'")
        .expect("time passes");
    assert_eq!(run.ended().await.changed_rows, 100);
    stage.assert_every_row_changed_once();
    assert_eq!(stage.value("select changed_rows::text from pgmend.batch order by batch_no desc limit 1"), "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tuning_passes_the_bounds_of_the_environment_whoever_asks_and_only_members_may() {
    let mut stage = Stage::new(0).await;
    stage.run(pgmend::Pace { rows_max: Some(10), ..pgmend::Pace::default() }).await;
    stage.sql.run("select pgmend.set_policy('shop', '{\"batch_rows_max\": 500}')").expect("a policy");
    let refused = |result: Result<Vec<pgmend::Status>, Error>| match result {
        Err(Error::Refused(refusal)) => (refusal.code, refusal.help),
        other => panic!("not refused: {other:?}"),
    };
    let too_many = tuning(Setting::BatchRows, 501.0, Some(5));
    let (code, help) = refused(stage.engine.tune("raise", &too_many, "faster").await);
    assert_eq!((code, help.as_str()), (Code::PaceBounds, "choose a whole number of 1 to 500"));
    assert_eq!(refused(stage.engine.tune("raise", &Tuning::default(), "why not").await).0, Code::PaceBounds);
    assert_eq!(refused(stage.engine.tune("raise", &tuning(Setting::Nice, 1.0, None), " ").await).0, Code::BadJob);

    // The database says the same to whoever asks it directly.
    let run = stage.value("select run_id::text from pgmend.run");
    let runner = stage.db.create_role("runner", "").expect("a role");
    let observer = stage.db.create_role("observer", "").expect("a role");
    stage.sql.run(&format!("grant pgmend_runner to {runner}; grant pgmend_observer to {observer}")).expect("grants");
    let asks = |role: &str, changes: &str, minutes: &str| {
        let mut sql = pgmend_testkit::Sql::connect(&stage.db.url_for(role)).expect("a session");
        sql.run(&format!("select pgmend.tune('{run}', '{changes}', {minutes}, 'why')")).map_err(|e| e.to_string())
    };
    for (changes, minutes) in [
        (r#"{"batch_rows": 501}"#, "5"),
        (r#"{"rate": -1}"#, "5"),
        (r#"{"nice": 101}"#, "5"),
        (r#"{"state": 1}"#, "5"),
        (r#"{"rate": 5}"#, "0"),
        ("{}", "5"),
    ] {
        let refused = asks(&runner, changes, minutes).expect_err("refused");
        assert!(
            refused.contains("PM711") || refused.contains("out of bounds") || refused.contains("tuned"),
            "{refused}"
        );
    }
    assert!(asks(&observer, r#"{"rate": 5}"#, "5").expect_err("refused").contains("permission denied"));
    asks(&runner, r#"{"rate": 5}"#, "5").expect("a runner may");
    let mut direct = pgmend_testkit::Sql::connect(&stage.db.url_for(&runner)).expect("a session");
    assert!(direct.run("update pgmend.tuning set value = 1").is_err(), "only through the function");
    stage.sql.run("delete from pgmend.policy").expect("no policy");
    stage.run(pgmend::Pace::default()).await;
    let ended = Engine::connect(Some(&stage.db.url())).await.expect("a connection");
    let mut ended = ended;
    assert_eq!(refused(ended.tune("raise", &tuning(Setting::Rate, 1.0, None), "late").await).0, Code::WrongState);
}
