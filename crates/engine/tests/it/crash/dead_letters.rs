//! Rows that the change cannot take: set aside in the transaction of the others' checkpoint, never lost, never chased,
//! tried again when they are mended, and put back by the undo like the rest.

use pgmend::{Engine, Job, Observer, Outcome, Retried, RunOptions, RunState};
use pgmend_core::dead_letters::DeadLetters;

use super::network::succeeded;
use super::stage::{
    BARE, DELETE, FREEZE, FROZEN_DELETE, HALVED, HALVED_BARE, INSERT, STREAM, SWEEP, Shape, Stage, UPSERT,
};
use super::worker::{Errand, Worker};
use super::{block_on, each, run};

/// Passed by a batch whose rows are tried one by one, before it is committed.
pub const SET_ASIDE: &str = "rows_set_aside";
/// Passed by a batch of dead letters tried again, before it is committed.
pub const RETRIED: &str = "letters_retried";

/// Rows that the obstacle stands before, where the statement reaches them: the second of all, two neighbours.
const BAD: &str = "(6, 120, 123)";

/// A table with three bad rows, as long as there is a row in `here`, and beside it what the run is to make of it.
fn stage(shape: Shape) -> Stage {
    let mut stage = Stage::new(shape, 60, 20);
    stage.file.dead_letters = DeadLetters { rows_max: Some(5), share_max: None };
    obstacle(&stage);
    stage
}

fn obstacle(stage: &Stage) {
    stage
        .sql()
        .run(&format!(
            "create table here (is_it int); insert into here values (1);
             create function obstacle() returns trigger language plpgsql as $$ begin
                 if exists (select from here) then raise exception 'in the way' using errcode = '23514'; end if;
                 return coalesce(new, old); end $$;
             create trigger obstacle before update on account for each row when (old.id in {BAD}) execute function obstacle();
             create trigger obstacle_delete before delete on account for each row when (old.id in {BAD}) execute function obstacle();
             create trigger obstacle_insert before insert on entry for each row when (new.amount in (200, 4000)) execute function obstacle();
             create schema partly;
             create table partly.account as select * from plain.account where id not in {BAD}
                 union all select * from before.account where id in {BAD};
             create table partly.entry as select * from plain.entry where amount not in (200, 4000)"
        ))
        .expect("the obstacle is there");
}

fn mend(stage: &Stage) {
    stage.sql().run("truncate here").expect("the rows are mended");
}

fn go(stage: &Stage) -> Outcome {
    block_on(run(&stage.database.url(), &stage.errand().job(), &mut Observer::silent())).expect("it ends")
}

fn retry(stage: &Stage) -> Result<Retried, pgmend::Error> {
    block_on(async {
        let mut engine = Box::pin(Engine::connect(Some(&stage.database.url()))).await?;
        Box::pin(engine.retry_dead_letters(&stage.errand().job, &mut Observer::silent())).await
    })
}

/// `key: state` of each letter.
fn letters(stage: &Stage) -> String {
    let sql = "select coalesce(string_agg(concat(d.key[1], ' ', d.state, ' ', d.attempts), ', ' order by letter_no), '') from pgmend.dead_letter d";
    stage.sql().value(sql).expect("it answers").unwrap_or_default()
}

fn sets_aside(shape: Shape, bad: i64) {
    let stage = stage(shape);
    let done = go(&stage);
    assert_eq!((&done.state, done.dead_rows), (&RunState::Succeeded, bad), "{}: {done:?}", shape.name);
    stage.equal_to("partly").unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));

    let again = retry(&stage).expect("it can be tried");
    assert_eq!((again.changed_rows, again.open_rows), (0, bad), "{}: nothing is mended yet", shape.name);
    stage.equal_to("partly").unwrap_or_else(|failure| panic!("{}, tried in vain: {failure}", shape.name));
    mend(&stage);
    let again = retry(&stage).expect("it can be tried");
    assert_eq!((again.changed_rows, again.open_rows), (bad, 0), "{}: {}", shape.name, letters(&stage));
    stage.equal_to("plain").unwrap_or_else(|failure| panic!("{}, retried: {failure}", shape.name));
    if shape.images {
        stage.undo().unwrap_or_else(|failure| panic!("{}, undone: {failure}", shape.name));
        let refused = retry(&stage).expect("nothing is open");
        assert_eq!(refused, Retried { run_id: Some(done.run_id), ..Retried::default() });
    }
}

#[test]
fn a_streamed_update_sets_bad_rows_aside_and_takes_them_once_they_are_mended() {
    each(&[STREAM, BARE, HALVED, HALVED_BARE], |shape| sets_aside(shape, 3));
}

/// Several workers, one limit: each partition sets its own rows aside, and what was set aside is the run's.
#[test]
fn several_workers_set_bad_rows_aside_together() {
    for shape in [STREAM, FREEZE] {
        let mut stage = stage(shape);
        stage.file.limits.workers = Some(3);
        let done = go(&stage);
        assert_eq!((&done.state, done.dead_rows), (&RunState::Succeeded, 3), "{}: {done:?}", shape.name);
        stage.equal_to("partly").unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        mend(&stage);
        let again = retry(&stage).expect("it can be tried");
        assert_eq!((again.changed_rows, again.open_rows), (3, 0), "{}", letters(&stage));
        stage
            .equal_to("plain")
            .and_then(|()| stage.undo())
            .unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

#[test]
fn a_frozen_update_sets_bad_rows_aside_and_takes_them_once_they_are_mended() {
    sets_aside(FREEZE, 3);
}

#[test]
fn a_delete_sets_bad_rows_aside_and_takes_them_once_they_are_mended() {
    each(&[DELETE, FROZEN_DELETE], |shape| sets_aside(shape, 3));
}

#[test]
fn an_insert_sets_bad_rows_aside_and_takes_them_once_they_are_mended() {
    sets_aside(INSERT, 2);
    sets_aside(UPSERT, 2);
}

#[test]
fn an_undo_leaves_rows_alone_that_were_set_aside() {
    for shape in [STREAM, FREEZE, DELETE] {
        let stage = stage(shape);
        assert_eq!(go(&stage).dead_rows, 3);
        mend(&stage);
        stage.undo().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        let refused = retry(&stage).expect_err("the change is not wanted any more");
        assert!(refused.to_string().contains("PM723"), "{refused}");
    }
}

#[test]
fn a_process_killed_while_it_sets_rows_aside_loses_and_doubles_nothing() {
    for shape in [STREAM, FREEZE, DELETE] {
        for nth in [1, 2] {
            let (stage, point) = (stage(shape), format!("{SET_ASIDE}:{nth}"));
            Worker::start(&stage.errand(), Some(&point)).aborted().expect("the point is reached");
            let early = stage.sql().value("select count(*) from pgmend.dead_letter").expect("it answers");
            let total = stage.sql().value("select coalesce(sum(dead_rows), 0) from pgmend.batch").expect("it answers");
            assert_eq!(early, total, "{point}: a letter without its batch");
            stage.go_on().unwrap_or_else(|failure| panic!("{}, {point}: {failure}", shape.name));
            stage.equal_to("partly").unwrap_or_else(|failure| panic!("{}, {point}: {failure}", shape.name));
            assert_eq!(letters(&stage).matches("open 1").count(), 3, "{}", letters(&stage));
        }
    }
}

#[test]
fn a_process_killed_while_it_tries_letters_again_takes_each_once() {
    for shape in [STREAM, FREEZE] {
        let stage = stage(shape);
        assert_eq!(go(&stage).dead_rows, 3);
        mend(&stage);
        let errand = Errand { retry: true, ..stage.errand() };
        Worker::start(&errand, Some(RETRIED)).aborted().expect("the point is reached");
        stage.equal_to("partly").unwrap_or_else(|failure| panic!("{}, killed: {failure}", shape.name));
        stage.expire_leases().expect("the lease has run out");
        assert_eq!(retry(&stage).expect("it can be tried").changed_rows, 3);
        stage
            .equal_to("plain")
            .and_then(|()| stage.undo())
            .unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

/// An error that only the commit would raise is told apart row by row too.
#[test]
fn a_row_that_breaks_a_deferred_constraint_of_another_table_is_set_aside() {
    let stage = stage(STREAM);
    mend(&stage);
    stage
        .sql()
        .run(&format!(
            "create table known (id int primary key); insert into known select id from account where id not in {BAD};
             create table note (id int references known deferrable initially deferred);
             create function take_note() returns trigger language plpgsql as $$ begin
                insert into note values (new.id); return null; end $$;
             create trigger take_note after update on account for each row execute function take_note()"
        ))
        .expect("the trigger is created");
    let done = go(&stage);
    assert_eq!((&done.state, done.dead_rows), (&RunState::Succeeded, 3), "{done:?}");
    stage.equal_to("partly").expect("the good rows are changed");
}

#[test]
fn one_row_too_many_fails_the_run_and_a_larger_limit_goes_on() {
    for shape in [STREAM, FREEZE] {
        let mut stage = stage(shape);
        stage.file.dead_letters.rows_max = Some(2);
        let stopped = go(&stage);
        let RunState::Failed { failure } = &stopped.state else { panic!("{stopped:?}") };
        assert!(failure.contains("PM721") && failure.contains("2 may be set aside"), "{failure}");
        stage.file.dead_letters.rows_max = Some(3);
        let done = go(&stage);
        assert_eq!((&done.state, done.dead_rows, done.resumed), (&RunState::Succeeded, 3, true), "{done:?}");
        stage.equal_to("partly").unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        let told = "select body from pgmend.ledger where fact = 'run_resumed'";
        let told = stage.sql().value(told).expect("it answers").unwrap_or_default();
        assert!(told.contains("\"dead_letters_max\":3"), "the ledger must tell of the larger limit: {told}");
    }
}

/// Who is called at night has the run's id, and perhaps not its job file.
#[test]
fn a_larger_limit_needs_the_run_alone_and_is_refused_where_no_row_is_set_aside() {
    let resume = |stage: &Stage, run: &str, rows: i64| {
        let limit = DeadLetters { rows_max: Some(rows), share_max: None };
        let options = RunOptions { dead_letters: Some(limit), ..RunOptions::default() };
        block_on(async {
            let mut engine = Box::pin(Engine::connect(Some(&stage.database.url()))).await?;
            Box::pin(engine.resume_with(run, &options, &mut Observer::silent())).await
        })
    };
    let mut stage = stage(STREAM);
    stage.file.dead_letters.rows_max = Some(2);
    let stopped = go(&stage);
    let id = stopped.run_id.to_string();
    let RunState::Failed { failure } = &stopped.state else { panic!("{stopped:?}") };
    assert!(failure.contains(&format!("pgmend resume {id} --dead-letters N")), "{failure}");
    let done = resume(&stage, &id, 3).expect("it goes on");
    assert_eq!((&done.state, done.dead_rows), (&RunState::Succeeded, 3), "{done:?}");
    stage.equal_to("partly").unwrap_or_else(|failure| panic!("{failure}"));

    let exact = self::stage(STREAM);
    let mut job = exact.errand().job();
    (job.file.dead_letters, job.file.expect_rows) = (DeadLetters::default(), Some(45));
    let stopped = block_on(run(&exact.database.url(), &job, &mut Observer::silent())).expect("it ends");
    let refused = resume(&exact, &stopped.run_id.to_string(), 3).expect_err("its rows are counted");
    assert!(refused.to_string().contains("sets no row aside: the exact number"), "{refused}");
}

#[test]
fn a_share_of_the_planned_rows_is_a_limit_too() {
    let mut stage = stage(STREAM);
    // 45 rows match: a twentieth allows two.
    stage.file.dead_letters = DeadLetters { rows_max: None, share_max: Some(0.05) };
    let stopped = go(&stage);
    assert!(
        matches!(&stopped.state, RunState::Failed { failure } if failure.contains("2 may be set aside")),
        "{stopped:?}"
    );
}

#[test]
fn a_run_without_leave_to_set_rows_aside_fails_and_names_the_option() {
    let mut stage = stage(STREAM);
    stage.file.dead_letters = DeadLetters::default();
    let stopped = go(&stage);
    assert!(
        matches!(&stopped.state, RunState::Failed { failure } if failure.contains("--dead-letters")),
        "{stopped:?}"
    );
    assert_eq!(letters(&stage), "");
}

#[test]
fn a_statement_that_no_row_can_take_is_stopped_before_anything_is_set_aside() {
    for mode in [STREAM, FREEZE] {
        let mut stage = stage(Shape { statement: "update account set balance = balance + 5 where grp <> 3", ..mode });
        stage.file.dead_letters.rows_max = Some(1_000);
        stage.sql().run("alter table account add constraint never check (balance % 10 = 0)").expect("it holds so far");
        mend(&stage);
        let stopped = go(&stage);
        assert!(matches!(&stopped.state, RunState::Failed { failure } if failure.contains("PM722")), "{stopped:?}");
        assert_eq!((stopped.changed_rows, stopped.dead_rows, letters(&stage).as_str()), (0, 0, ""));
    }
}

/// A predicate that fails is no row's fault: the row may not even match.
#[test]
fn an_error_of_the_predicate_sets_no_row_aside() {
    let statement = "update account set balance = balance + 5 where 100 / (id - 60) > -1000";
    let database = pgmend_testkit::Database::create(pgmend_testkit::Server::shared(), "dead").expect("a database");
    let mut sql = database.sql().expect("a session");
    sql.run("create table account (id int primary key, balance bigint not null); insert into account select n, 0 from generate_series(1, 50) n")
        .expect("the table");
    let mut job = Job::from_statement("predicate", statement);
    job.file.dead_letters.rows_max = Some(10);
    job.file.limits.batch_rows = Some(8);
    let url = database.url();
    block_on(async {
        let mut engine = Box::pin(Engine::connect(Some(&url))).await.expect("a connection");
        Box::pin(engine.plan(&job, &pgmend::PlanOptions::default())).await.expect("no row divides by zero yet");
    });
    sql.run("insert into account values (60, 0)").expect("now one does");
    let stopped = block_on(run(&url, &job, &mut Observer::silent()));
    let letters = sql.value("select count(*) from pgmend.dead_letter").expect("it answers");
    assert_eq!(letters.as_deref(), Some("0"));
    let failed = match &stopped {
        Ok(outcome) => matches!(&outcome.state, RunState::Failed { failure } if failure.contains("22012")),
        Err(error) => error.to_string().contains("division"),
    };
    assert!(failed, "{stopped:?}");
}

#[test]
fn a_sweep_takes_rows_that_came_to_match_and_leaves_dead_letters_alone() {
    let mut stage = Stage::new(SWEEP, 60, 20);
    stage.file.dead_letters = DeadLetters { rows_max: Some(5), share_max: None };
    obstacle(&stage);
    let slice = Errand { stop_after: Some(3), ..stage.errand() };
    let said = Worker::start(&slice, None).end().1;
    assert!(said.as_ref().is_some_and(|said| said.ended_as("paused")), "{said:?}");
    // Behind the cursor; the first bad row is there too.
    stage
        .sql()
        .run(
            "insert into account select n, 0, n from unnest(array[1, 2, 4, 5]) n;
             insert into partly.account select n, 3, n + 5, 0 from unnest(array[1, 2, 4, 5]) n",
        )
        .expect("rows arrive");
    let done = go(&stage);
    assert_eq!((done.dead_rows, done.residual_rows), (3, Some(0)), "{done:?}");
    succeeded(Ok(done)).and_then(|()| stage.equal_to("partly")).expect("every other row is changed once");
    assert_eq!(letters(&stage), "6 open 1, 120 open 1, 123 open 1");
    let passes = stage.sql().value("select max(pass) from pgmend.batch").expect("it answers");
    assert_eq!(passes.as_deref(), Some("1"), "the rows were to be swept, once");
}

#[test]
fn a_letter_whose_row_is_gone_is_passed_over() {
    let stage = stage(STREAM);
    assert_eq!(go(&stage).dead_rows, 3);
    stage.sql().run("truncate here; delete from account where id = 120").expect("a writer");
    let again = retry(&stage).expect("it can be tried");
    assert_eq!((again.changed_rows, again.passed_over_rows, again.open_rows), (2, 1, 0));
    assert_eq!(letters(&stage), "6 changed 2, 120 passed_over 2, 123 changed 2");
}
