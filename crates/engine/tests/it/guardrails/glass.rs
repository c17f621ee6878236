//! Broken glass: a run without its approvals, with leave of a second role, and reviewed afterwards.

use pgmend::{Code, Observer, RunOptions};

use super::{Bank, CHANGE, approvals, job, plan, refusal, run};

#[tokio::test(flavor = "multi_thread")]
async fn the_glass_is_broken_with_leave_of_a_second_role_and_leaves_a_review() {
    let bank = Bank::new(approvals(2)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    let own = approver.let_break_glass(&planned, &bank.approver, "outage", "OPS-1", 10).await;
    assert_eq!(refusal(own).0, Code::BreakGlass);
    let endless = approver.let_break_glass(&planned, &bank.runner, "outage", "OPS-1", 100_000).await;
    assert_eq!(refusal(endless).0, Code::BreakGlass);
    assert_eq!(
        refusal(runner.let_break_glass(&planned, &bank.observer, "outage", "OPS-1", 10).await).0,
        Code::Privilege
    );
    approver.let_break_glass(&planned, &bank.runner, "outage", "OPS-1", 10).await.expect("leave");

    let outcome = run(&mut runner, &job, None).await.expect("the run");
    assert_eq!(outcome.changed_rows, 49);
    let reviews = runner.open_reviews().await.expect("reviews");
    assert_eq!(reviews.len(), 1);
    assert!(reviews[0].why.ends_with(": outage (OPS-1)"), "{}", reviews[0].why);
    assert_eq!(refusal(runner.close_review("raise", "all good").await).0, Code::Privilege);
    approver.close_review("raise", "balances compared").await.expect("the review");
    assert!(runner.open_reviews().await.expect("reviews").is_empty());
    // The leave was for one run.
    let again = RunOptions { again: Some("once more".into()), ..RunOptions::default() };
    let second = Box::pin(runner.run(&job, &again, &mut Observer::silent())).await;
    assert_eq!(refusal(second).0, Code::ApprovalMissing);
}
