//! Allowed hours: no batch begins outside them.

use pgmend::guard::Named;
use pgmend::{Code, Engine, RunState};
use pgmend_core::environment::Environment;
use pgmend_core::policy::{Hours, Policy, Window};

use super::{Bank, CHANGE, job, refusal, run};

#[tokio::test(flavor = "multi_thread")]
async fn no_batch_begins_outside_the_hours() {
    let day = |bank: &Bank, offset: i32| {
        let sql = format!("select to_char((now() at time zone 'UTC') + {offset} * interval '1 day', 'YYYY-MM-DD')");
        bank.db.sql().expect("a session").value(&sql).expect("a day").expect("a value")
    };
    let mut bank = Bank::new(Policy::default()).await;
    run(&mut bank.owner, &job("raise", CHANGE), Some(2)).await.expect("two batches");
    let dark = format!("{}..{}", day(&bank, -1), day(&bank, 1));
    let hours = Hours { zone: "UTC".into(), windows: Vec::new(), blackout: vec![dark] };
    let environment =
        Environment { policy: Policy { hours: Some(hours), ..Policy::default() }, ..Environment::default() };
    let named = Named { name: "bank".into(), environment };
    bank.owner = Engine::connect_to(Some(&bank.db.url()), named).await.expect("the owner");
    bank.owner.install_policy().await.expect("the policy");

    let paused = run(&mut bank.owner, &job("raise", CHANGE), None).await.expect("a pause");
    let RunState::Paused { reason } = paused.state else { panic!("{:?}", paused.state) };
    assert!(reason.starts_with("outside the allowed hours, which begin again at "), "{reason}");
    let (code, said) = refusal(run(&mut bank.owner, &job("other", "delete from account where id > 90"), None).await);
    assert_eq!(code, Code::OutsideHours, "{said}");
}

#[test]
fn windows_last_into_the_next_day_follow_the_zone_and_leave_blackouts_out() {
    let bank = tokio::runtime::Runtime::new().expect("a runtime").block_on(Bank::new(Policy::default()));
    let mut sql = bank.db.sql().expect("a session");
    sql.run("set timezone = 'UTC'").expect("a zone");
    let hours = Hours {
        zone: "Europe/Berlin".into(),
        windows: vec![Window { days: vec!["fri".into(), "sat".into()], from: "22:00".into(), to: "05:00".into() }],
        blackout: vec!["2026-12-26..2026-12-27".into()],
    };
    let hours = serde_json::to_string(&hours).expect("JSON");
    for (at, opens, closes) in [
        // Friday, before and within, and the early Saturday that belongs to it; Berlin is an hour ahead in winter.
        ("2026-11-20 12:00", "2026-11-20 21:00", "2026-11-21 04:00"),
        ("2026-11-20 23:30", "2026-11-20 21:00", "2026-11-21 04:00"),
        ("2026-11-21 03:59", "2026-11-20 21:00", "2026-11-21 04:00"),
        ("2026-11-21 04:00", "2026-11-21 21:00", "2026-11-22 04:00"),
        // Two hours ahead in summer.
        ("2026-07-03 19:00", "2026-07-03 20:00", "2026-07-04 03:00"),
        // Christmas: the night to Saturday is cut off at midnight, the next one is gone.
        ("2026-12-25 22:00", "2026-12-25 21:00", "2026-12-25 23:00"),
        ("2026-12-25 23:00", "2027-01-01 21:00", "2027-01-02 04:00"),
    ] {
        let query = format!(
            "select to_char(opens_at, 'YYYY-MM-DD HH24:MI') || ' ' || to_char(closes_at, 'YYYY-MM-DD HH24:MI') \
             from pgmend.window_at('{hours}', '{at}+00')"
        );
        assert_eq!(sql.value(&query).expect("a window").as_deref(), Some(format!("{opens} {closes}").as_str()), "{at}");
    }
}
