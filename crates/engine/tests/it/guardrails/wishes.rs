//! What people ask of a run: pause, resume, cancel.

use pgmend::{Code, Observer, RunState};
use pgmend_core::policy::Policy;

use super::{Bank, CHANGE, job, refusal, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_pauses_resumes_and_cancels_a_run() {
    let mut bank = Bank::new(Policy::default()).await;
    let job = job("raise", CHANGE);
    run(&mut bank.owner, &job, Some(1)).await.expect("a batch");
    let status = bank.owner.pause("raise", "the shop is slow").await.expect("a pause");
    assert!(status[0].next.iter().any(|line| line.starts_with("pgmend resume ")), "{:?}", status[0].next);
    let (code, said) = refusal(run(&mut bank.owner, &job, None).await);
    assert!(code == Code::WrongState && said.contains(": the shop is slow; type: pgmend resume "), "{said}");
    let outcome = Box::pin(bank.owner.resume("raise", &mut Observer::silent())).await.expect("the rest");
    assert_eq!((outcome.state, bank.total().as_str()), (RunState::Succeeded, "5295"));

    let other = self::job("lower", "update account set balance = balance - 5 where balance > 90");
    run(&mut bank.owner, &other, Some(1)).await.expect("a batch");
    bank.owner.cancel("lower", "not needed", &mut Observer::silent()).await.expect("the end");
    let listed = bank.owner.list().await.expect("the list");
    assert_eq!((listed[0].state.as_str(), bank.total().as_str()), ("cancelled", "5245"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_reaches_a_run_that_somebody_drives() {
    let bank = Bank::new(Policy::default()).await;
    let mut driver = bank.as_role(&bank.runner).await;
    let mut other = bank.as_role(&bank.runner).await;
    let mut job = job("raise", "update account set balance = balance + 5");
    job.file.limits.batch_rows = Some(5);
    let row = bank.hold(&mut job, 50);
    let driving = tokio::spawn(async move { run(&mut driver, &job, None).await });
    bank.until_held().await;
    other.pause("raise", "enough for now").await.expect("the wish");
    drop(row);
    let outcome = driving.await.expect("no panic").expect("an outcome");
    assert_eq!(outcome.state, RunState::Paused { reason: "enough for now".into() });
    assert_eq!(outcome.changed_rows, 50, "no batch after the one that was under way");
}
