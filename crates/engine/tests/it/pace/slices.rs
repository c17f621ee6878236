//! Slices of a run: so many rows, or so much time, and the rest another day. Every row is changed once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgmend::{Event, JobFile, Mode, Observer, Pace, RunOptions, RunState, UndoOptions};

use super::{Stage, job, nice, rate};

fn rows(most: u64) -> Pace {
    Pace { rows_max: Some(most), ..Pace::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_stops_after_so_many_rows_and_goes_on_from_there() {
    for mode in [Mode::Stream, Mode::Freeze] {
        let mut stage = Stage::new(0).await;
        let mut job = job();
        job.file.mode = Some(mode);
        for (most, changed, state) in [
            (35, 35, "stopped after 35 rows, as asked"),
            (1, 36, "stopped after 1 rows, as asked"),
            (14, 50, "stopped after 14 rows, as asked"),
        ] {
            let options = RunOptions { pace: rows(most), ..RunOptions::default() };
            let outcome = Box::pin(stage.engine.run(&job, &options, &mut Observer::silent())).await.expect("a slice");
            assert_eq!((outcome.changed_rows, outcome.state), (changed, RunState::Paused { reason: state.into() }));
        }
        // The job's own slice; exactly what is left ends the run.
        job.file.pace = rows(50);
        let last =
            Box::pin(stage.engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await.expect("the rest");
        assert_eq!((last.changed_rows, last.state), (100, RunState::Succeeded));
        stage.assert_every_row_changed_once();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_has_no_more_batches_than_its_rows_need() {
    for mode in [Mode::Stream, Mode::Freeze] {
        let mut stage = Stage::new(0).await;
        let mut job = job();
        job.file.mode = Some(mode);
        let options = RunOptions { pace: rows(35), ..RunOptions::default() };
        let outcome = Box::pin(stage.engine.run(&job, &options, &mut Observer::silent())).await.expect("a slice");
        assert_eq!((outcome.changed_rows, outcome.batches), (35, 4), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_slice_are_those_of_all_its_workers() {
    let mut stage = Stage::new(2).await;
    let mut job = job();
    job.file.limits.workers = Some(3);
    for (most, changed) in [(45, 45), (1, 46), (7, 53), (17, 70), (2, 72), (5, 77)] {
        let options = RunOptions { pace: rows(most), ..RunOptions::default() };
        let outcome = Box::pin(stage.engine.run(&job, &options, &mut Observer::silent())).await.expect("a slice");
        let reason = format!("stopped after {most} rows, as asked");
        assert_eq!((outcome.changed_rows, &outcome.state), (changed, &RunState::Paused { reason }), "{outcome:?}");
    }
    assert_eq!(stage.value("select count(distinct partition_no) > 1 from pgmend.batch"), "t");
    let last =
        Box::pin(stage.engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await.expect("the rest");
    assert_eq!((last.changed_rows, last.state), (100, RunState::Succeeded));
    stage.assert_every_row_changed_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_batches_of_a_slice_are_those_of_all_its_workers() {
    let mut stage = Stage::new(2).await;
    let mut job = job();
    job.file.limits.workers = Some(3);
    for (most, all) in [(1, 1), (2, 3), (4, 7)] {
        let options = RunOptions { stop_after_batches: Some(most), ..RunOptions::default() };
        let outcome = Box::pin(stage.engine.run(&job, &options, &mut Observer::silent())).await.expect("a slice");
        assert_eq!(outcome.batches, all, "{outcome:?}");
    }
    assert_eq!(stage.value("select count(*) from pgmend.batch"), "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_several_workers_set_the_row_aside_that_fails_and_no_other() {
    let mut stage = Stage::new(1).await;
    stage.sql.run("alter table account add check (id <> 34 or balance = 100)").expect("a constraint");
    let mut job = job();
    job.file.limits.workers = Some(3);
    job.file.dead_letters.rows_max = Some(5);
    let mut changed = 0;
    for most in [13, 7, 20, 5, 3, 11, 4] {
        let options = RunOptions { pace: rows(most), ..RunOptions::default() };
        let slice = Box::pin(stage.engine.run(&job, &options, &mut Observer::silent())).await.expect("a slice");
        changed += i64::try_from(most).expect("few");
        assert_eq!(slice.changed_rows, changed, "{slice:?}");
    }
    let rest = Box::pin(stage.engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await;
    let rest = rest.expect("the rest");
    assert_eq!((rest.changed_rows, rest.dead_rows), (99, 1), "{rest:?}");
    assert_eq!(stage.value("select string_agg(id::text, ',') from account where balance = 100"), "34");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_in_slices_passes_over_the_row_that_fails_and_no_other() {
    let mut stage = Stage::new(0).await;
    let run_id = stage.run(Pace::default()).await.run_id.to_string();
    stage.sql.run("alter table account add check (id <> 34 or balance <> 100) not valid").expect("a constraint");
    let mut restored = 0;
    for most in [13, 7, 13, 1, 5, 3, 11] {
        let run = RunOptions { pace: rows(most), ..RunOptions::default() };
        let options = UndoOptions { run, ..UndoOptions::default() };
        let slice = Box::pin(stage.engine.undo(&run_id, &options, &mut Observer::silent())).await.expect("a slice");
        restored += i64::try_from(most).expect("few");
        assert_eq!(slice.changed_rows, restored, "{slice:?}");
    }
    let rest = Box::pin(stage.engine.undo(&run_id, &UndoOptions::default(), &mut Observer::silent())).await;
    let rest = rest.expect("the rest");
    assert_eq!((rest.changed_rows, rest.conflict_rows, rest.state), (99, 1, RunState::Succeeded));
    assert_eq!(stage.value("select string_agg(id::text, ',') from account where balance = 105"), "34");
}

/// The batch that records a row as a conflict is one of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_batch_by_batch_makes_one_at_a_time() {
    let mut stage = Stage::new(0).await;
    let run_id = stage.run(Pace::default()).await.run_id.to_string();
    stage.sql.run("alter table account add check (id <> 34 or balance <> 100) not valid").expect("a constraint");
    let options = UndoOptions {
        run: RunOptions { stop_after_batches: Some(1), ..RunOptions::default() },
        ..UndoOptions::default()
    };
    for batches in 1..=20 {
        let slice = Box::pin(stage.engine.undo(&run_id, &options, &mut Observer::silent())).await.expect("a slice");
        assert_eq!(slice.batches, batches, "{slice:?}");
        if slice.changed_rows + slice.conflict_rows == 100 {
            assert_eq!(slice.conflict_rows, 1);
            return;
        }
    }
    panic!("no end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_slice_does_not_begin_anew_with_each_partition() {
    let mut stage = Stage::new(50).await;
    let mut job = job();
    job.file.limits.workers = Some(2);
    let pace = Pace { stop_after: Some("1s".parse().expect("a second")), ..Pace::default() };
    let options = RunOptions { pace, ..RunOptions::default() };
    let outcome = Box::pin(stage.engine.run(&job, &options, &mut Observer::silent())).await.expect("a slice");
    assert_eq!(outcome.state, RunState::Paused { reason: "stopped after 1s, as asked".into() });
    // Two workers make 40 rows a second at most, and each ends the batch that it has begun.
    assert!(outcome.changed_rows < 90, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_stops_after_so_much_time_and_goes_on_from_there() {
    let mut stage = Stage::new(0).await;
    let pace = Pace { stop_after: Some("1s".parse().expect("a second")), ..rate(10) };
    let began = Instant::now();
    let outcome = stage.run(pace).await;
    assert_eq!(outcome.state, RunState::Paused { reason: "stopped after 1s, as asked".into() });
    assert!(began.elapsed() >= Duration::from_secs(1) && outcome.changed_rows < 100, "{outcome:?}");
    assert_eq!(stage.run(Pace::default()).await.changed_rows, 100);
    stage.assert_every_row_changed_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_to_its_rate_over_all_batches() {
    let mut stage = Stage::new(0).await;
    let began = Instant::now();
    assert_eq!(stage.run(rate(40)).await.changed_rows, 100);
    // A second's worth at once, the rest at the rate: a lower bound, which no slow machine breaks.
    assert!(began.elapsed() >= Duration::from_millis(1_400), "{:?}", began.elapsed());
    let fastest = "select coalesce(max(n), 0) from (select sum(changed_rows) over (order by begun_at
                     range between interval '990 ms' preceding and current row) as n from pgmend.batch) as second";
    let fastest: i64 = stage.value(fastest).parse().expect("a number");
    assert!(fastest <= 80, "a bucket of 40 and 40 in a second, not {fastest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pace_of_the_job_is_in_its_plan_and_a_flag_goes_before_it() {
    let mut stage = Stage::new(0).await;
    let mut job = job();
    job.file.pace = rows(20);
    let planned = Box::pin(stage.engine.plan(&job, &pgmend::PlanOptions::default())).await.expect("a plan").plan;
    assert_eq!(planned.pace.rows_max, Some(20));
    let id = planned.plan_id.to_string();
    let slice = Box::pin(stage.engine.run_plan(&id, &RunOptions::default(), &mut Observer::silent())).await;
    assert_eq!(slice.expect("a slice").changed_rows, 20);
    let options = RunOptions { pace: rows(30), ..RunOptions::default() };
    let slice = Box::pin(stage.engine.run_plan(&id, &options, &mut Observer::silent())).await;
    assert_eq!(slice.expect("a slice").changed_rows, 50);
    job.file.pace = rows(10);
    let slice = Box::pin(stage.engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await;
    assert_eq!(slice.expect("a slice").changed_rows, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fix_of_a_known_number_of_rows_is_not_refused_by_its_pace() {
    let mut stage = Stage::new(0).await;
    let mut job = job();
    job.file.limits.batch_rows = Some(100);
    job.file.expect_rows = Some(100);
    let options = RunOptions { pace: rate(60), ..RunOptions::default() };
    let outcome = Box::pin(stage.engine.run(&job, &options, &mut Observer::silent())).await.expect("a run");
    assert_eq!((outcome.state, outcome.changed_rows, outcome.batches), (RunState::Succeeded, 100, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_does_not_outlast_the_time_of_a_command() {
    let mut stage = Stage::new(0).await;
    let folder = tempfile::tempdir().expect("a folder");
    let flag = folder.path().join("hold");
    std::fs::write(&flag, "").expect("a flag");
    let mut job = job();
    job.file.throttle = JobFile::parse(&format!("[throttle]\nflag_files = [{:?}]", flag.display().to_string()))
        .expect("a job")
        .throttle;
    job.file.pace.stop_after = Some("2s".parse().expect("two seconds"));
    let held =
        Box::pin(stage.engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await.expect("a slice");
    assert_eq!(held.state, RunState::Paused { reason: "stopped after 2s, as asked".into() });
    std::fs::remove_file(&flag).expect("the flag");
    // The rest has all the time that it takes.
    job.file.pace.stop_after = None;
    let rest =
        Box::pin(stage.engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await.expect("the rest");
    assert_eq!((rest.state, rest.changed_rows), (RunState::Succeeded, 100));
    stage.assert_every_row_changed_once();
}

/// The batches themselves say when they began: each took 50 ms at least, and four times as much is rested in turns of a
/// second and more. Where a batch takes longer, a rest is due sooner, and a stall between two batches is rest as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_works_and_rests_in_turns_and_rests_as_many_times_as_long_as_it_worked() {
    let mut stage = Stage::new(5).await;
    let run = stage.begin(nice(4.0)).await;
    let events = Arc::clone(&run.events);
    assert_eq!(run.ended().await.changed_rows, 100);
    let turns = "select (count(*) filter (where rests) >= 1) || ' '
                        || (max(begun_at) filter (where rests) - min(begun_at)
                            >= (max(batch_no) filter (where rests) - 1) * interval '250 ms')
                   from (select batch_no, begun_at,
                                begun_at - lag(begun_at) over (order by batch_no) >= interval '1 s' as rests
                           from pgmend.batch where changed_rows > 0) b";
    assert_eq!(stage.value(turns), "true true");
    // No rest of a second before a quarter of a second's work.
    let earned: f64 = stage.value("select sum(took_ms) * 4 / 1000 from pgmend.batch").parse().expect("seconds");
    let events = events.lock().expect("nobody panics here");
    let rests = events.iter().filter(|event| matches!(event, Event::Pacing { wait_s, .. } if *wait_s >= 1.0)).count();
    assert!(rests as f64 <= earned, "{rests} rests for {earned} s: {events:?}");
    drop(events);
    stage.assert_every_row_changed_once();
}
