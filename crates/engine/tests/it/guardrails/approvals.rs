//! Approvals: by whom, how many, until when, and what becomes of a run when one is taken back.

use pgmend::{Code, Observer, RunOptions, RunState, UndoOptions};
use pgmend_core::policy::Policy;

use super::{Bank, CHANGE, approvals, job, plan, refusal, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_approvals_by_others_than_its_planner_and_they_cover_its_undo() {
    let bank = Bank::new(approvals(2)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert_eq!(code, Code::ApprovalMissing);
    assert!(
        said.contains("approvals: 2 (2 for every run) demanded, 0 found; 2 approvers type, each from a login of their own: pgmend approve "),
        "{said}"
    );
    assert_eq!(bank.total(), "5050");

    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "checked the sample").await.expect("an approval");
    approver.approve(&planned, "twice is once").await.expect("an approval");
    assert_eq!(refusal(run(&mut runner, &job, None).await).0, Code::ApprovalMissing);
    let mut second = bank.as_role(&bank.second_approver).await;
    second.approve(&planned, "agreed").await.expect("an approval");

    // A newer plan of the same job has no approvals: the approved one is used all the same.
    plan(&mut runner, &job).await;
    let outcome = run(&mut runner, &job, None).await.expect("the run");
    assert_eq!((outcome.state, outcome.plan_id, outcome.changed_rows), (RunState::Succeeded, planned.plan.plan_id, 49));

    let undone =
        Box::pin(runner.undo("raise", &UndoOptions::default(), &mut Observer::silent())).await.expect("the undo");
    assert_eq!((undone.changed_rows, bank.total().as_str()), (49, "5050"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_plans_a_change_cannot_approve_it() {
    let bank = Bank::new(approvals(1)).await;
    let mut sql = bank.db.sql().expect("a session");
    sql.run(&format!("grant pgmend_runner to {}", bank.approver)).expect("a grant");
    let mut both = bank.as_role(&bank.approver).await;
    let job = job("raise", CHANGE);
    let planned = plan(&mut both, &job).await;
    let (code, said) = refusal(both.approve(&planned, "I am sure").await);
    assert_eq!(code, Code::SameRole, "{said}");
    // Nor a plan of the same change that somebody else made after them.
    let mut runner = bank.as_role(&bank.runner).await;
    let planned = plan(&mut runner, &job).await;
    assert_eq!(refusal(both.approve(&planned, "I am sure").await).0, Code::SameRole);
    let (code, said) = refusal(runner.approve(&planned, "me too").await);
    assert_eq!(code, Code::Privilege, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_veto_stops_and_a_revoked_approval_pauses_a_run_under_way() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    let mut second = bank.as_role(&bank.second_approver).await;
    second.veto(&planned, "not on a Friday").await.expect("a veto");
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert_eq!(code, Code::ApprovalMissing);
    assert!(said.contains("vetoed by"), "{said}");
    second.revoke(&planned, "it is Monday").await.expect("a change of mind");

    run(&mut runner, &job, Some(2)).await.expect("two batches");
    assert!(approver.revoke(&planned, "wrong rows").await.expect("a revocation"), "a run is under way");
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert_eq!(code, Code::WrongState);
    assert!(said.contains("took the approval back: wrong rows"), "{said}");
    // Nor by lifting the pause.
    let (code, _) = refusal(Box::pin(runner.resume("raise", &mut Observer::silent())).await);
    assert_eq!(code, Code::ApprovalMissing);
    assert_eq!(bank.total(), "5150");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_pauses_before_its_next_batch_when_an_approval_is_taken_back() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let mut job = job("raise", "update account set balance = balance + 5");
    job.file.limits.batch_rows = Some(2);
    let row = bank.hold(&mut job, 50);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    let driven = job.clone();
    let driving = tokio::spawn(async move { (run(&mut runner, &driven, None).await, runner) });
    bank.until_held().await;
    assert!(approver.revoke(&planned, "wrong month").await.expect("a revocation"), "a run is under way");
    drop(row);
    let (outcome, mut runner) = driving.await.expect("no panic");
    let outcome = outcome.expect("an outcome");
    let RunState::Paused { reason } = &outcome.state else { panic!("{:?}", outcome.state) };
    assert!(reason.ends_with("took the approval back: wrong month"), "{reason}");
    assert_eq!(outcome.changed_rows, 50, "no batch after the one that was under way: {outcome:?}");

    // Going on needs a yes again, and whoever looks is told so; an observer, too.
    let plan_id = planned.plan.plan_id;
    assert_eq!(outcome.asked.and_then(|asked| asked.unapproved), Some(plan_id));
    for role in [&bank.runner, &bank.observer] {
        let next = bank.as_role(role).await.status(Some("raise")).await.expect("its status").remove(0).next;
        assert!(next[0].starts_with(&format!("pgmend approve {plan_id} --reason")), "{next:?}");
    }
    // The line is told, and the yes can be given although the plan is in use.
    let (code, said) = refusal(Box::pin(runner.resume("raise", &mut Observer::silent())).await);
    let line = format!("an approver types: pgmend approve {} --env bank --reason", planned.plan.plan_id);
    assert!(code == Code::ApprovalMissing && said.contains(&line), "{said}");
    approver.approve(&planned, "it is the right month after all").await.expect("an approval again");
    let next = approver.status(Some("raise")).await.expect("its status").remove(0).next;
    assert!(next[0].starts_with("pgmend resume "), "{next:?}");
    let outcome = Box::pin(runner.resume("raise", &mut Observer::silent())).await.expect("the rest");
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, 100));
    assert_eq!(refusal(approver.approve(&planned, "late").await).0, Code::ConsumedPlan);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_many_nights_stays_approved_although_its_approval_and_its_plan_have_expired() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    run(&mut runner, &job, Some(1)).await.expect("the first night");
    let expire = "update pgmend.approval set expires_at = now() - interval '1 day'; \
                  update pgmend.plan set expires_at = now() - interval '1 day'";
    bank.db.sql().expect("a session").run(expire).expect("time passes");
    let outcome = run(&mut runner, &job, None).await.expect("the next night");
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, 49));
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_die_with_a_plan_that_went_stale() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    bank.db.sql().expect("a session").run("alter table account add column note text").expect("another definition");
    let mut runner = bank.as_role(&bank.runner).await;
    let id = planned.plan.plan_id.to_string();
    let by_id = Box::pin(runner.run_plan(&id, &RunOptions::default(), &mut Observer::silent())).await;
    assert_eq!(refusal(by_id).0, Code::StalePlan);
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert!(code == Code::ApprovalMissing && !said.contains(&id), "a new plan, which nobody has approved: {said}");
    assert_eq!(bank.total(), "5050");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_approved_sets_no_more_rows_aside_than_its_plan_said() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let mut job = job("raise", CHANGE);
    let limit = |rows| pgmend_core::dead_letters::DeadLetters { rows_max: Some(rows), share_max: None };
    job.file.dead_letters = limit(2);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "two may fail").await.expect("an approval");
    let first = run(&mut runner, &job, Some(1)).await.expect("a slice");
    assert_eq!(first.changed_rows, 10);
    job.file.dead_letters = limit(3);
    let (code, said) = refusal(run(&mut runner, &job, Some(1)).await);
    assert_eq!(code, Code::UnapprovedDeadLetters, "{said}");
    assert!(said.contains("may set 2 rows aside") && said.contains("pgmend cancel "), "{said}");
    job.file.dead_letters = limit(1);
    let done = run(&mut runner, &job, None).await.expect("a stricter limit is nobody's business");
    assert_eq!(done.changed_rows, 49);
}

/// The database has the last word: a client that was started before approvals were demanded allows itself more.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_a_batch_that_sets_more_rows_aside_than_were_approved() {
    let bank = Bank::new(Policy::default()).await;
    let mut sql = bank.db.sql().expect("a session");
    sql.run("alter table account add constraint kept check (id not in (3, 13, 23) or balance = id)").expect("bad rows");
    let mut runner = bank.as_role(&bank.runner).await;
    let limit = |rows| pgmend_core::dead_letters::DeadLetters { rows_max: Some(rows), share_max: None };
    let mut job = job("raise", CHANGE);
    job.file.dead_letters = limit(2);
    run(&mut runner, &job, Some(1)).await.expect("a slice");
    let mut demanded = false;
    let mut observer = Observer::new(move |event| {
        if matches!(event, pgmend::Event::Started { .. }) && !std::mem::replace(&mut demanded, true) {
            sql.run(r#"select pgmend.set_policy('bank', '{"approvals": 1}')"#).expect("it is the owner");
        }
    });
    let mut laxer = job.clone();
    laxer.file.dead_letters = limit(50);
    let stopped = Box::pin(runner.run(&laxer, &RunOptions::default(), &mut observer)).await.expect("it stops");
    let RunState::Failed { failure } = &stopped.state else { panic!("not failed: {stopped:?}") };
    assert!(
        failure.contains("PM766") && failure.contains("lets 2 rows be set aside, and this batch makes it 3"),
        "{failure}"
    );
    assert_eq!((stopped.changed_rows, stopped.dead_rows, stopped.batches), (18, 2, 2), "{stopped:?}");

    let mut sql = bank.db.sql().expect("a session");
    sql.run("alter table account drop constraint kept").expect("the rows are mended");
    // With the policy of now.
    let mut runner = bank.as_role(&bank.runner).await;
    let done = run(&mut runner, &job, None).await.expect("it goes on as approved");
    assert_eq!((done.state, done.changed_rows, done.dead_rows), (RunState::Succeeded, 47, 2));
}
