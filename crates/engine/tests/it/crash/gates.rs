//! Plans that may not run any more, and checkpoints in their order.

use pgmend::{Code, Engine, Error, Observer, Outcome, PlanOptions, RunOptions, RunState};

use super::block_on;
use super::stage::{FREEZE, STREAM, Stage};

async fn engine(stage: &Stage) -> Engine {
    let mut engine = Box::pin(Engine::connect(Some(&stage.database.url()))).await.expect("the server is up");
    engine.init().await.expect("the control schema is installed");
    engine
}

async fn plan(engine: &mut Engine, stage: &Stage) -> String {
    let planned = Box::pin(engine.plan(&stage.errand().job(), &PlanOptions::default())).await;
    planned.expect("it is planned").plan.plan_id.to_string()
}

async fn run_plan(engine: &mut Engine, plan_id: &str) -> Result<Outcome, Error> {
    Box::pin(engine.run_plan(plan_id, &RunOptions::default(), &mut Observer::silent())).await
}

fn refused(ended: Result<Outcome, Error>, code: Code) -> String {
    match ended {
        Err(Error::Refused(refusal)) if refusal.code == code => refusal.message,
        other => panic!("was to be refused with {code}: {other:?}"),
    }
}

#[test]
fn a_plan_is_used_once() {
    let stage = Stage::new(STREAM, 40, 8);
    block_on(async {
        let mut engine = engine(&stage).await;
        let plan_id = plan(&mut engine, &stage).await;
        run_plan(&mut engine, &plan_id).await.expect("the first time");
        let message = refused(run_plan(&mut engine, &plan_id).await, Code::ConsumedPlan);
        assert!(message.contains(&plan_id), "{message}");
    });
    stage.check().expect("it was applied once");
}

#[test]
fn a_plan_of_a_change_that_was_made_by_another_plan_is_refused() {
    let stage = Stage::new(STREAM, 40, 8);
    block_on(async {
        let mut engine = engine(&stage).await;
        let (one, two) = (plan(&mut engine, &stage).await, plan(&mut engine, &stage).await);
        run_plan(&mut engine, &one).await.expect("the first of them");
        refused(run_plan(&mut engine, &two).await, Code::AlreadyDone);
    });
    stage.check().expect("it was applied once");
}

#[test]
fn a_plan_from_before_an_alter_table_is_refused() {
    let changes = [
        "alter table account add column late int",
        "alter table account alter grp type bigint",
        "create index on account (grp)",
        "alter table account add check (balance > 0) not valid",
    ];
    for change in changes {
        let stage = Stage::new(STREAM, 40, 8);
        block_on(async {
            let mut engine = engine(&stage).await;
            let plan_id = plan(&mut engine, &stage).await;
            stage.sql().run(change).expect("the table is altered");
            let message = refused(run_plan(&mut engine, &plan_id).await, Code::StalePlan);
            assert!(message.contains("the definition of") && message.contains("account"), "{change}: {message}");
        });
        let changed = stage.sql().value("select count(*) from account where balance % 10 = 5").expect("it answers");
        assert_eq!(changed.as_deref(), Some("0"), "{change}");
    }
}

#[test]
fn a_plan_under_other_settings_is_refused_field_by_field() {
    let stage = Stage::new(STREAM, 40, 8);
    block_on(async {
        let plan_id = plan(&mut engine(&stage).await, &stage).await;
        let url = format!("{}?options=-c%20TimeZone%3DAsia/Tokyo%20-c%20DateStyle%3DSQL", stage.database.url());
        let mut other = Box::pin(Engine::connect(Some(&url))).await.expect("the server is up");
        let message = refused(run_plan(&mut other, &plan_id).await, Code::StalePlan);
        for field in ["TimeZone was UTC and is Asia/Tokyo", "DateStyle was ISO"] {
            assert!(message.contains(field), "{message}");
        }
    });
}

#[test]
fn an_expired_plan_is_refused_by_the_engine_and_by_the_database() {
    let stage = Stage::new(STREAM, 40, 8);
    block_on(async {
        let mut engine = engine(&stage).await;
        let plan_id = plan(&mut engine, &stage).await;
        stage.sql().run("update pgmend.plan set expires_at = now() - interval '1 s'").expect("it is the superuser");
        let message = refused(run_plan(&mut engine, &plan_id).await, Code::StalePlan);
        assert!(message.contains("expired"), "{message}");
        let start = format!(
            "select pgmend.start_run(gen_random_uuid(), plan_id, digest, '', now(), null, 0, null, 'postgres', '', null, '{{}}')
               from pgmend.plan where plan_id = '{plan_id}'"
        );
        let error = stage.sql().run(&start).expect_err("the database refuses too");
        assert_eq!(error.sqlstate, "PM502", "{error}");
    });
}

#[test]
fn an_altered_plan_and_an_altered_change_set_are_refused() {
    let stage = Stage::new(FREEZE, 40, 8);
    block_on(async {
        let mut engine = engine(&stage).await;
        let plan_id = plan(&mut engine, &stage).await;
        let set = stage.sql().value("select change_set from pgmend.plan").expect("it answers").expect("it has one");
        stage
            .sql()
            .run(&format!("update pgmend.{set} set after_balance = 0 where n = 3"))
            .expect("it is the superuser");
        let message = refused(run_plan(&mut engine, &plan_id).await, Code::StalePlan);
        assert!(message.contains(&set), "{message}");
        let alter = "update pgmend.plan set body = replace(body, '+ 5', '+ 6')";
        stage.sql().run(alter).expect("it is the superuser");
        let error = run_plan(&mut engine, &plan_id).await.expect_err("the body is not what was approved");
        assert!(error.to_string().contains("digest"), "{error}");
    });
}

/// A checkpoint sorted as text puts batch 9 after batch 13, and the run would go back to it.
#[test]
fn a_run_stopped_after_more_than_nine_batches_goes_on_from_the_last() {
    for shape in [STREAM, FREEZE] {
        let stage = Stage::new(shape, 60, 2);
        let job = stage.errand().job();
        block_on(async {
            let mut engine = engine(&stage).await;
            for stopped in [11_u64, 105] {
                let options = RunOptions { stop_after_batches: Some(stopped.min(11)), ..RunOptions::default() };
                let outcome = Box::pin(engine.run(&job, &options, &mut Observer::silent())).await.expect("it stops");
                assert!(matches!(outcome.state, RunState::Paused { .. }), "{:?}", outcome.state);
            }
            let outcome = Box::pin(engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await;
            assert_eq!(outcome.expect("it ends").state, RunState::Succeeded);
        });
        stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    }
}

/// Many nights may pass: what expires is the right to start.
#[test]
fn a_run_goes_on_after_its_plan_has_expired() {
    let stage = Stage::new(STREAM, 60, 2);
    let job = stage.errand().job();
    block_on(async {
        let mut engine = engine(&stage).await;
        let options = RunOptions { stop_after_batches: Some(3), ..RunOptions::default() };
        let stopped = Box::pin(engine.run(&job, &options, &mut Observer::silent())).await.expect("it stops");
        stage.sql().run("update pgmend.plan set expires_at = now() - interval '1 s'").expect("it is the superuser");
        let ended = Box::pin(engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await.expect("it ends");
        assert_eq!((ended.run_id, ended.resumed), (stopped.run_id, true));
    });
    stage.check().expect("nothing is lost or doubled");
}
