//! Runs that outlast the allowed hours, or a time without access.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgmend::guard::Named;
use pgmend::progress::Stop;
use pgmend::{Code, Engine, Error, Event, Observer, Outcome, Pace, RunOptions, RunState, Setting, Tuning};
use pgmend_core::environment::Environment;
use pgmend_core::policy::{Hours, Policy, Window};
use tokio::task::JoinHandle;

use super::{PATIENCE, Stage, job, rate};

/// Milliseconds for a row where hours end: a batch takes a second, and the end is not missed for a moment's delay.
const ROW_MS: u32 = 200;
/// Seconds from now until the hours end: connecting, planning and the first batches fit in, also where each stalls.
const CLOSE_S: i32 = 12;
/// Seconds from now until they begin again: as much time for all that is looked at in between.
const OPEN_AGAIN_S: i32 = 24;

/// The hours of the next day, of which these stretches are open, in seconds from now.
fn hours(stage: &mut Stage, open: &[(i32, i32)]) -> Named {
    let mut clock = |seconds: i32| {
        let sql =
            format!("select to_char((clock_timestamp() at time zone 'UTC') + interval '{seconds} s', 'HH24:MI:SS')");
        stage.value(&sql)
    };
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].map(str::to_owned).to_vec();
    let windows =
        open.iter().map(|(from, to)| Window { days: days.clone(), from: clock(*from), to: clock(*to) }).collect();
    let hours = Hours { zone: "UTC".into(), windows, blackout: Vec::new() };
    let policy = Policy { hours: Some(hours), ..Policy::default() };
    Named { name: "night".into(), environment: Environment { policy, ..Environment::default() } }
}

/// Open now, closed soon, and open again.
fn two_windows(stage: &mut Stage) -> Named {
    hours(stage, &[(-60, CLOSE_S), (OPEN_AGAIN_S, 7_200)])
}

async fn install(stage: &Stage, named: &Named) {
    let mut owner = Engine::connect_to(Some(&stage.db.url()), named.clone()).await.expect("the owner");
    owner.install_policy().await.expect("the policy");
}

type Events = Arc<Mutex<Vec<Event>>>;

/// The pace of these runs: 20 seconds for all rows, longer than any first window here.
const RATE: u32 = 5;

/// Lets the rest of a run go as fast as it can: what it was to be slow for has been seen.
async fn quicken(stage: &mut Stage) {
    stage.sql.run("drop trigger slow on account").expect("it is there");
    let tuning = Tuning { changes: vec![(Setting::Rate, Some(0.0))], minutes: Some(60), ..Tuning::default() };
    stage.engine.tune("raise", &tuning, "it was seen").await.expect("a tuning");
}

/// Runs the job slowly enough for a few batches in a window of some seconds.
async fn begin(url: &str, named: Option<&Named>, until_done: bool) -> (Events, JoinHandle<Result<Outcome, Error>>) {
    begin_with(url, named, RunOptions { pace: rate(RATE), until_done, ..RunOptions::default() }).await
}

async fn begin_with(
    url: &str,
    named: Option<&Named>,
    options: RunOptions,
) -> (Events, JoinHandle<Result<Outcome, Error>>) {
    begin_stoppable(url, named, options, None).await
}

async fn begin_stoppable(
    url: &str,
    named: Option<&Named>,
    options: RunOptions,
    stop: Option<tokio::sync::watch::Receiver<Stop>>,
) -> (Events, JoinHandle<Result<Outcome, Error>>) {
    let events = Events::default();
    let kept = Arc::clone(&events);
    let engine = match named {
        Some(named) => Engine::connect_to(Some(url), named.clone()).await,
        None => Engine::connect(Some(url)).await,
    };
    let mut engine = engine.expect("a connection");
    let task = tokio::spawn(async move {
        let sink = move |event: &Event| kept.lock().expect("nobody panics here").push(event.clone());
        let mut observer = match stop {
            Some(stop) => Observer::with_stop(sink, stop),
            None => Observer::new(sink),
        };
        engine.run(&job(), &options, &mut observer).await
    });
    (events, task)
}

fn saw(events: &Events, wanted: impl Fn(&Event) -> bool) -> bool {
    events.lock().expect("nobody panics here").iter().any(wanted)
}

async fn until_it_waits_for_access(events: &Events) {
    let deadline = Instant::now() + PATIENCE;
    while !saw(events, |e| matches!(e, Event::Waiting { what, .. } if what.starts_with("access: "))) {
        assert!(Instant::now() < deadline, "it waits: {:?}", events.lock());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ended(task: JoinHandle<Result<Outcome, Error>>) -> Result<Outcome, Error> {
    tokio::time::timeout(PATIENCE, task).await.expect("it ends soon").expect("the task")
}

/// Seconds of the longest pause between two batches.
const GAP: &str = "select max(extract(epoch from gap))::float8::text from
                     (select begun_at - lag(begun_at) over (order by batch_no) as gap from pgmend.batch) as b";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_drains_before_its_hours_end_and_goes_on_in_the_next_ones_until_it_is_done() {
    let mut stage = Stage::new(ROW_MS).await;
    let named = two_windows(&mut stage);
    install(&stage, &named).await;
    let (events, task) = begin(&stage.db.url(), Some(&named), true).await;
    stage.wait_until("select count(*) = 1 from pgmend.run where state = 'paused'").await;
    let reason = stage.value("select reason from pgmend.run");
    assert!(reason.contains(" begin again at 2"), "{reason}");
    assert!(reason.contains(&format!("process {} of ", std::process::id())), "{reason}");
    // Given back after the state is recorded.
    stage.wait_until("select expires_at = '-infinity' from pgmend.lease").await;
    let connections =
        "select count(*) = 0 from pg_stat_activity where datname = current_database() and application_name = 'pgmend'
                        and pid <> pg_backend_pid() and backend_start > (select started_at from pgmend.run)";
    stage.wait_until(connections).await;
    quicken(&mut stage).await;

    let outcome = ended(task).await.expect("the run");
    assert_eq!((outcome.state, outcome.changed_rows, outcome.resumed), (RunState::Succeeded, 100, true));
    stage.assert_every_row_changed_once();
    assert!(saw(&events, |e| matches!(e, Event::Waiting { what, .. } if what.starts_with("the allowed hours"))));
    let gap: f64 = stage.value(GAP).parse().expect("seconds");
    assert!(gap >= f64::from(OPEN_AGAIN_S - CLOSE_S), "nothing began while the hours were closed: {gap}");
    let facts =
        stage.value("select string_agg(fact, ' ' order by entry_no) from pgmend.ledger where fact like 'run\\_%'");
    assert_eq!(facts, "run_started run_paused run_resumed run_succeeded");
}

/// The names of the events that tell where a run begins and ends, in their order.
fn course(events: &Events) -> String {
    let events = events.lock().expect("nobody panics here");
    let names = events.iter().filter_map(|event| {
        if let Event::Ended { state, .. } = event {
            return Some(state.as_str());
        }
        let waiting = matches!(event, Event::Waiting { .. }).then_some("waiting");
        matches!(event, Event::Started { .. }).then_some("started").or(waiting)
    });
    names.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workers_drain_before_their_hours_end_and_all_go_on_in_the_next_ones() {
    let mut stage = Stage::new(ROW_MS).await;
    let named = two_windows(&mut stage);
    install(&stage, &named).await;
    let options = RunOptions { pace: rate(RATE), until_done: true, workers: Some(2), ..RunOptions::default() };
    let (events, task) = begin_with(&stage.db.url(), Some(&named), options).await;
    stage.wait_until("select count(*) = 1 from pgmend.run where state = 'paused'").await;
    stage.wait_until("select bool_and(expires_at = '-infinity') from pgmend.lease").await;
    let reason = stage.value("select reason from pgmend.run");
    assert!(reason.contains(" begin again at 2") && reason.contains("goes on by itself"), "{reason}");
    quicken(&mut stage).await;

    let outcome = ended(task).await.expect("the run");
    assert_eq!((outcome.state, outcome.changed_rows, outcome.resumed), (RunState::Succeeded, 100, true));
    stage.assert_every_row_changed_once();
    assert_eq!(course(&events), "started paused waiting started succeeded", "one run, whatever its workers");
    let both = "select count(distinct owner) >= 2 from pgmend.lease where partition_no > 0";
    assert_eq!(stage.value(both), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_told_to_wait_a_run_pauses_at_the_end_of_its_hours_and_says_when_to_type_again() {
    // A machine that stalls just before the end lets the server refuse the next batch, whose words are others: then once more.
    for tries_left in (0..3).rev() {
        let mut stage = Stage::new(ROW_MS).await;
        let named = hours(&mut stage, &[(-60, CLOSE_S), (3_600, 7_200)]);
        install(&stage, &named).await;
        let (_, task) = begin(&stage.db.url(), Some(&named), false).await;
        let outcome = ended(task).await.expect("the run");
        let RunState::Paused { reason } = &outcome.state else { panic!("not paused: {outcome:?}") };
        assert!(reason.contains(" begin again at 2") && reason.contains("--until-done"), "{reason}");
        assert!(outcome.changed_rows > 0 && outcome.changed_rows < 100, "{outcome:?}");
        let late = format!(
            "select count(*) from pgmend.batch b, pgmend.policy p where b.begun_at >= p.set_at + interval '{CLOSE_S} s'"
        );
        assert_eq!(stage.value(&late), "0", "no batch begins after the end");
        if reason.contains("too soon for another batch; they begin again at 2") {
            return;
        }
        assert!(tries_left > 0, "it did not stop by itself: {reason}");
    }
}

/// What a process that waited says once it ends does not promise that it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_the_hours_ends_with_a_signal_or_with_the_time_of_the_command() {
    for signalled in [true, false] {
        let mut stage = Stage::new(ROW_MS).await;
        let (stop, stopped) = tokio::sync::watch::channel(Stop::None);
        let stop_after = (!signalled).then(|| "20s".parse().expect("seconds"));
        let pace = Pace { stop_after, ..rate(RATE) };
        let options = RunOptions { pace, until_done: true, ..RunOptions::default() };
        let (events, task) = begin_stoppable(&stage.db.url(), None, options, Some(stopped)).await;
        stage.wait_until("select count(*) >= 2 from pgmend.batch").await;
        let closed = hours(&mut stage, &[(3_600, 7_200)]);
        install(&stage, &closed).await;
        stage.wait_until("select count(*) = 1 from pgmend.run where state = 'paused'").await;
        assert!(stage.value("select reason from pgmend.run").contains("goes on by itself then"));
        if signalled {
            stop.send(Stop::AfterBatch).expect("somebody listens");
        }
        let outcome = ended(task).await.expect("the run");
        let RunState::Paused { reason } = &outcome.state else { panic!("not paused: {outcome:?}") };
        assert!(reason.contains(" begin again at 2") && reason.ends_with("or now with --until-done"), "{reason}");
        assert_eq!(&stage.value("select reason from pgmend.run"), reason);
        assert_eq!(stage.value("select bool_and(expires_at = '-infinity') from pgmend.lease"), "t");
        assert_eq!(course(&events), "started paused waiting");
        assert!(outcome.changed_rows > 0 && outcome.changed_rows < 100, "{outcome:?}");
        stage.sql.run("delete from pgmend.policy; drop trigger slow on account").expect("every hour is allowed");
        assert_eq!(stage.run(Pace::default()).await.changed_rows, 100);
        stage.assert_every_row_changed_once();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_begun_too_early_waits_for_its_hours_or_is_refused() {
    let mut stage = Stage::new(0).await;
    let named = hours(&mut stage, &[(3_600, 7_200)]);
    install(&stage, &named).await;
    let (_, task) = begin(&stage.db.url(), Some(&named), false).await;
    match ended(task).await {
        Err(Error::Refused(refusal)) => assert_eq!(refusal.code, Code::OutsideHours),
        other => panic!("not refused: {other:?}"),
    }
    let soon = hours(&mut stage, &[(CLOSE_S, 7_200)]);
    install(&stage, &soon).await;
    let options = RunOptions { until_done: true, ..RunOptions::default() };
    let (events, task) = begin_with(&stage.db.url(), Some(&soon), options).await;
    assert_eq!(ended(task).await.expect("the run").state, RunState::Succeeded);
    assert!(saw(&events, |e| matches!(e, Event::Waiting { .. })));
    stage.assert_every_row_changed_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_hours_can_be_given_up_and_its_waiter_hears_of_it() {
    let mut stage = Stage::new(ROW_MS).await;
    let named = two_windows(&mut stage);
    install(&stage, &named).await;
    let (_, task) = begin(&stage.db.url(), Some(&named), true).await;
    stage.wait_until("select count(*) = 1 from pgmend.run where state = 'paused'").await;
    let mut other = Engine::connect_to(Some(&stage.db.url()), named).await.expect("a connection");
    let status = other.cancel("raise", "wrong month", &mut Observer::silent()).await.expect("a cancellation");
    assert_eq!(status[0].summary.state, "cancelled");
    let outcome = ended(task).await.expect("the run");
    assert_eq!(outcome.state, RunState::Cancelled);
    assert!(outcome.changed_rows < 100);
}

/// Takes the login away, and ends its sessions; or gives it back.
fn admit(stage: &mut Stage, role: &str, admitted: bool) {
    let login = if admitted { "login" } else { "nologin" };
    let sql = format!(
        "alter role {role} {login}; select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}' and not {admitted}"
    );
    stage.sql.run(&sql).expect("an administrator");
}

fn runner(stage: &mut Stage) -> String {
    let role = stage.db.create_role("runner", "").expect("a role");
    stage
        .sql
        .run(&format!("grant pgmend_runner to {role}; grant select, update on account to {role}"))
        .expect("grants");
    role
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_not_admitted_any_more_is_waited_for_until_the_run_is_done() {
    let mut stage = Stage::new(20).await;
    let role = runner(&mut stage);
    let (events, task) = begin(&stage.db.url_for(&role), None, true).await;
    stage.wait_until("select count(*) >= 2 from pgmend.batch").await;
    admit(&mut stage, &role, false);
    until_it_waits_for_access(&events).await;
    assert_eq!(stage.value("select state from pgmend.run"), "running", "nobody could say otherwise");
    admit(&mut stage, &role, true);
    quicken(&mut stage).await;
    let outcome = ended(task).await.expect("the run");
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, 100));
    stage.assert_every_row_changed_once();
}

/// A run that lost its access has paused with this code, and goes on to its end once the role is admitted again.
async fn paused_and_goes_on(stage: &mut Stage, role: &str, error: &Error, code: Code) {
    assert_eq!(error.exit_code(), pgmend_core::exit::PAUSED, "{error}");
    let Error::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.code, code);
    admit(stage, role, true);
    let (_, task) = begin_with(&stage.db.url_for(role), None, RunOptions::default()).await;
    assert_eq!(ended(task).await.expect("the run").state, RunState::Succeeded);
    stage.assert_every_row_changed_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_not_admitted_any_more_pauses_a_run_and_never_fails_it() {
    let mut stage = Stage::new(20).await;
    let role = runner(&mut stage);
    let (_, task) = begin(&stage.db.url_for(&role), None, false).await;
    stage.wait_until("select count(*) >= 2 from pgmend.batch").await;
    admit(&mut stage, &role, false);
    let error = ended(task).await.expect_err("no access");
    paused_and_goes_on(&mut stage, &role, &error, Code::AccessLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_the_wait_for_access_has_paused_the_run_and_not_failed_it() {
    let mut stage = Stage::new(20).await;
    let role = runner(&mut stage);
    let (stop, stopped) = tokio::sync::watch::channel(Stop::None);
    let options = RunOptions { pace: rate(RATE), until_done: true, ..RunOptions::default() };
    let (events, task) = begin_stoppable(&stage.db.url_for(&role), None, options, Some(stopped)).await;
    stage.wait_until("select count(*) >= 2 from pgmend.batch").await;
    admit(&mut stage, &role, false);
    until_it_waits_for_access(&events).await;
    stop.send(Stop::AfterBatch).expect("somebody listens");
    let error = ended(task).await.expect_err("no access");
    paused_and_goes_on(&mut stage, &role, &error, Code::WaitEnded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_how_many_nights_it_takes_once_its_speed_was_measured() {
    let mut stage = Stage::new(20).await;
    // Two seconds of work at the least, in windows of a second and an hour that is far away.
    let named = hours(&mut stage, &[(-60, 1), (7_200, 10_800)]);
    install(&stage, &named).await;
    let mut engine = Engine::connect_to(Some(&stage.db.url()), named).await.expect("a connection");
    let plan = async |engine: &mut Engine, rehearse: u32| {
        let options = pgmend::PlanOptions { rehearse, ..pgmend::PlanOptions::default() };
        Box::pin(engine.plan(&job(), &options)).await.expect("a plan").plan
    };
    assert_eq!(plan(&mut engine, 0).await.nights, None, "nothing was measured");
    let nights = plan(&mut engine, 2).await.nights.expect("a rehearsal measures");
    assert_eq!(nights.basis, "measured by rehearsal");
    let (slow, fast) = nights.rows_per_hour;
    assert!(slow > 0 && slow < fast && slow < 180_000, "a row takes 20 ms and more: {nights:?}");
    let hours = nights.hours.expect("there are hours");
    assert!(hours.windows.0 >= 1 && hours.at.is_some() && hours.zone == "UTC", "{hours:?}");

    stage.sql.run("delete from pgmend.policy").expect("every hour is allowed");
    stage.run(pgmend::Pace { rows_max: Some(30), ..pgmend::Pace::default() }).await;
    let nights =
        Box::pin(stage.engine.plan(&job(), &pgmend::PlanOptions::default())).await.expect("a plan").plan.nights;
    let nights = nights.expect("a slice measures");
    assert_eq!((nights.basis.as_str(), nights.hours), ("measured by 30 rows that were changed", None));
}
