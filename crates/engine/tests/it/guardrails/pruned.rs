//! Keys of pruned images: `trace` answers to whoever may read the row, and nobody else can try a guess.

use pgmend::Code;

use super::{Bank, approvals, job, refusal, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_of_a_pruned_key_is_answered_only_to_those_who_may_read_the_row() {
    let mut bank = Bank::new(approvals(0)).await;
    let mut owner = bank.db.sql().expect("a session");
    owner
        .run(&format!(
            "create table guest (email text primary key, n int not null);
             insert into guest select 'wyvern' || i || '@example.org', i from generate_series(1, 20) i;
             grant select, update on guest to {}",
            bank.runner
        ))
        .expect("the table");
    let mut runner = bank.as_role(&bank.runner).await;
    let run_id =
        run(&mut runner, &job("add", "update guest set n = n + 5 where n > 10"), None).await.expect("a run").run_id;
    let pruned = bank.owner.prune(Some(0), true).await.expect("a prune");
    assert!(!pruned.is_empty() && pruned.iter().all(|table| table.dropped), "{pruned:?}");

    // An observer may read the digests: the plain one of a key that was touched is not among them.
    let mut sql = bank.sql_as(&bank.observer);
    assert_eq!(sql.value("select count(*) from pgmend.touched_key").expect("a count").as_deref(), Some("10"));
    let plain = "sha256(convert_to(array['wyvern11@example.org']::text, 'UTF8'))";
    let guess = format!("select count(*) from pgmend.touched_key where key_digest = {plain}");
    assert_eq!(sql.value(&guess).expect("a count").as_deref(), Some("0"));
    let asked = format!("select * from pgmend.runs_touching('guest'::regclass, {plain}, '{{}}')");
    let error = format!("{:?}", sql.run(&asked).expect_err("a guess"));
    assert!(error.contains("PM310"), "{error}");
    // It is the HMAC of that digest, into which an upgrade turns the digests of older versions.
    let keyed = format!(
        "select count(*) from pgmend.touched_key, pgmend.hmac_pads() as pad
          where key_digest = sha256(pad.outer_pad || sha256(pad.inner_pad || {plain}))"
    );
    assert_eq!(owner.value(&keyed).expect("a count").as_deref(), Some("1"));

    let key = ["wyvern11@example.org".to_owned()];
    let mut observer = bank.as_role(&bank.observer).await;
    let (code, said) = refusal(observer.trace("guest", &key, false, None).await);
    assert!(code == Code::Privilege && said.contains("grant select on \"public\".\"guest\" to"), "{said}");
    owner.run(&format!("grant select on guest to {}", bank.observer)).expect("a grant");
    for engine in [&mut observer, &mut runner] {
        let touches = engine.trace("guest", &key, false, None).await.expect("a trace");
        assert_eq!(touches.iter().map(|t| (t.run_id, t.pruned)).collect::<Vec<_>>(), [(run_id, true)]);
        let other = ["wyvern1@example.org".to_owned()];
        assert!(engine.trace("guest", &other, false, None).await.expect("a trace").is_empty());
    }
}
