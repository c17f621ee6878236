//! The ledger, and what the report tells from it.

use pgmend::chain::LedgerCheckpoint;
use pgmend::{Observer, UndoOptions};
use pgmend_core::policy::Policy;

use super::{Bank, CHANGE, approvals, job, plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_shows_every_kind_of_tampering() {
    let mut bank = Bank::new(Policy::default()).await;
    let mut raise = job("raise", CHANGE);
    raise.facts.insert("commit".into(), "3f9a0c1 dirty".into());
    let run_id = run(&mut bank.owner, &raise, None).await.expect("the run").run_id;
    let intact = bank.owner.verify_ledger(None).await.expect("a verdict");
    assert!(intact.faults.is_empty() && intact.entries >= 2, "{intact:?}");
    let checkpoint = bank.owner.ledger_checkpoint().await.expect("a checkpoint");
    let read: LedgerCheckpoint =
        serde_json::from_str(&serde_json::to_string(&checkpoint).expect("JSON")).expect("the same back");
    assert!(bank.owner.verify_ledger(Some(&read)).await.expect("a verdict").faults.is_empty());

    let mut sql = bank.db.sql().expect("a session");
    sql.run(
        "alter table pgmend.ledger disable trigger ledger_is_append_only; create table kept as table pgmend.ledger;
             create table kept_head as table pgmend.ledger_head",
    )
    .expect("an owner with bad intentions");
    let rehash = "update pgmend.ledger set body = '{\"forged\":1}', hash = encode(sha256(convert_to(concat_ws(E'\\n', '', 1, fact, \
                  actor, to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), '{\"forged\":1}'), 'UTF8')), 'hex') \
                  where entry_no = 1; delete from pgmend.ledger where entry_no > 1; \
                  update pgmend.ledger_head h set entry_no = 1, hash = (select hash from pgmend.ledger l where l.run_id = h.run_id)";
    for (tampering, inside) in [
        ("update pgmend.ledger set body = '{\"x\":1}' where entry_no = 1", true),
        ("update pgmend.ledger set actor = 'mallory' where entry_no = 1", true),
        ("update pgmend.ledger set recorded_at = recorded_at - interval '1 day' where entry_no = 2", true),
        ("delete from pgmend.ledger where entry_no = 1", true),
        ("delete from pgmend.ledger where entry_no = (select max(entry_no) from pgmend.ledger)", true),
        (
            "update pgmend.ledger set entry_no = 3 - entry_no + 100; update pgmend.ledger set entry_no = entry_no - 100",
            true,
        ),
        ("delete from pgmend.ledger; delete from pgmend.ledger_head", true),
        (rehash, false),
    ] {
        sql.run(tampering).expect(tampering);
        let faults = bank.owner.verify_ledger(None).await.expect("a verdict").faults;
        assert_eq!(!faults.is_empty(), inside, "{tampering}: {faults:?}");
        let faults = bank.owner.verify_ledger(Some(&read)).await.expect("a verdict").faults;
        assert!(faults.iter().any(|fault| fault.contains(&run_id.to_string())), "{tampering}: {faults:?}");
        sql.run(
            "delete from pgmend.ledger; insert into pgmend.ledger table kept;
                 delete from pgmend.ledger_head; insert into pgmend.ledger_head table kept_head",
        )
        .expect("as it was");
    }
    let mut lines = Vec::new();
    let exported = bank.owner.export_ledger(|entry| {
        lines.push(serde_json::to_string(entry).map_err(std::io::Error::other)?);
        Ok(())
    });
    assert_eq!(exported.await.expect("the export"), lines.len());
    for part in ["\"fact\":\"run_started\"", "3f9a0c1 dirty", "role", env!("CARGO_PKG_VERSION"), "client"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_tells_who_said_yes_what_was_demanded_and_where_the_run_stopped() {
    let mut bank = Bank::new(Policy { undo: true, ..approvals(1) }).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "compared ten rows").await.expect("an approval");
    run(&mut runner, &job, Some(1)).await.expect("a batch");
    approver.pause("raise", "checkout is slow").await.expect("a pause");
    approver.unpause("raise").await.expect("its end");
    run(&mut runner, &job, None).await.expect("the rest");
    let report = bank.owner.report("raise").await.expect("the report");
    let trail = &report.trail;
    assert_eq!((trail.approvals.len(), trail.approvals[0].approver.as_str()), (1, bank.approver.as_str()));
    assert_eq!(trail.approvals[0].reason, "compared ten rows");
    let rules: Vec<(&str, bool)> = trail.guardrails.iter().map(|g| (g.rule.as_str(), g.met)).collect();
    assert_eq!(rules, [("approvals", true), ("undo", true)]);
    assert_eq!(trail.environment.as_ref().map(|e| e.name.as_str()), Some("bank"));
    let stops: Vec<_> = trail.stops.iter().map(|s| (s.what.as_str(), s.who.as_str(), s.until.is_some())).collect();
    let (runner_name, approver_name) = (bank.runner.as_str(), bank.approver.as_str());
    assert_eq!(stops, [("run paused", runner_name, true), ("pause asked", approver_name, true)]);
    assert!(report.events.iter().any(|event| event.fact == "plan approved"), "{:?}", report.events);
    let page = report.markdown();
    for part in ["## Approvals", "## Guardrails when it started", "## Pauses, holds and stops", "checkout is slow"] {
        assert!(page.contains(part), "{part}: {page}");
    }

    Box::pin(runner.undo("raise", &UndoOptions::default(), &mut Observer::silent())).await.expect("the undo");
    let undo = bank.owner.list().await.expect("the list")[0].run_id.to_string();
    let report = bank.owner.report(&undo).await.expect("the report");
    assert_eq!(report.trail.covered_by, Some(report.undo_of.expect("an undo")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_tells_who_broke_the_glass_and_what_the_review_found() {
    let mut bank = Bank::new(approvals(2)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.let_break_glass(&planned, &bank.runner, "outage", "OPS-1", 10).await.expect("leave");
    run(&mut runner, &job, None).await.expect("the run");
    let open = bank.owner.report("raise").await.expect("the report");
    let glass = open.trail.glass.as_ref().expect("broken glass");
    assert_eq!((&glass.granted_by, &glass.granted_to), (&bank.approver, &bank.runner));
    assert_eq!(open.trail.review.as_ref().map(|r| r.closed.is_none()), Some(true));
    assert_eq!(open.trail.guardrails.iter().map(|g| g.met).collect::<Vec<_>>(), [false]);
    approver.close_review("raise", "balances compared").await.expect("the review");
    let page = bank.owner.report("raise").await.expect("the report").markdown();
    assert!(page.contains("outage (OPS-1)") && page.contains(": balances compared."), "{page}");
}
