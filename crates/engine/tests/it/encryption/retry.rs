//! Dead letters of an encrypted change set, tried again with the identity.

use age::x25519::Identity;
use pgmend::{Code, Error, Mode, Observer, Retried, RunState};

use super::{Stage, identities, refusal};

impl Stage {
    async fn retry(&mut self, run: &str, identity: Option<&Identity>) -> Result<Retried, Error> {
        let own = identity.map(identities);
        Box::pin(self.engine.retry_dead_letters_with(run, own.as_ref(), &mut Observer::silent())).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_an_encrypted_change_set_are_retried_with_the_identity_and_not_without() {
    let mut stage = Stage::new().await;
    let before = stage.rows();
    stage
        .sql
        .run("alter table creature add constraint no_seven check (note is null or id not in (7, 22, 32) or note like 'griffin%')")
        .expect("a constraint");
    // A value for each row that only the change set has: it was computed once, from other rows.
    let statement = "update creature set note = 'among ' || (select count(*) from creature o where o.id < creature.id)";
    let mut job = stage.job(statement, Some(Mode::Freeze));
    job.file.dead_letters.rows_max = Some(5);
    let done = stage.run(&job).await;
    let run = done.run_id.to_string();
    assert_eq!((done.state, done.dead_rows), (RunState::Succeeded, 3));
    let flag = " --identity FILE";
    assert_eq!((done.retry_flag, stage.engine.retry_flag(&run).await.expect("its plan")), (flag, flag));
    let status = stage.engine.status(Some(&run)).await.expect("a status").remove(0);
    assert!(status.next.iter().any(|line| line.contains("--retry --identity FILE --execute")), "{:?}", status.next);
    stage.assert_nothing_is_plain();
    let (code, said) = refusal(stage.retry(&run, None).await);
    assert!(code == Code::EncryptedRows && said.contains("--identity FILE"), "{said}");
    let (code, _) = refusal(stage.retry(&run, Some(&Identity::generate())).await);
    assert_eq!(code, Code::WrongIdentity);

    // Not mended yet, but for one of them; then all.
    let own = stage.identity.clone();
    stage
        .sql
        .run("alter table creature drop constraint no_seven, add constraint no_seven check (id <> 7 or note like 'griffin%')")
        .expect("a constraint");
    // A row that somebody has changed since is a conflict, as in any batch.
    stage.sql.run("update creature set note = 'mine' where id = 32").expect("somebody else");
    let retried = stage.retry(&run, Some(&own)).await.expect("a retry");
    assert_eq!((retried.changed_rows, retried.conflict_rows, retried.open_rows), (1, 1, 1));
    stage.sql.run("alter table creature drop constraint no_seven").expect("no constraint");
    let retried = stage.retry(&run, Some(&own)).await.expect("a retry");
    assert_eq!((retried.changed_rows, retried.open_rows), (1, 0));
    let notes = stage.sql.run("select note from creature where id in (7, 22, 32) order by id").expect("rows");
    let notes: Vec<_> = notes.into_iter().flatten().flatten().collect();
    assert_eq!(notes, ["among 6", "among 21", "mine"]);
    stage.assert_nothing_is_plain();
    let left = "select count(*) from pg_class where relname like 'pgmend\\_decrypted%'";
    assert_eq!(stage.sql.value(left).expect("a count").as_deref(), Some("0"));

    // The undo puts them back with the rest.
    let undone = stage.undo(&run, Some(&own)).await.expect("an undo");
    assert_eq!((undone.changed_rows, undone.conflict_rows), (46, 0));
    let after = stage.rows();
    let differ: Vec<usize> = (1..=before.len()).filter(|id| after[id - 1] != before[id - 1]).collect();
    assert_eq!(differ, [32], "all but the row that somebody else has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_streamed_run_need_no_identity() {
    let mut stage = Stage::new().await;
    stage.sql.run("alter table creature add constraint no_seven check (id <> 7 or note <> 'x')").expect("a constraint");
    let mut job = stage.job("update creature set note = 'x'", Some(Mode::Stream));
    job.file.dead_letters.rows_max = Some(5);
    let done = stage.run(&job).await;
    let run = done.run_id.to_string();
    assert_eq!((done.dead_rows, done.retry_flag, done.identity_flag), (1, "", " --identity FILE"));
    assert_eq!(stage.engine.retry_flag(&run).await.expect("its plan"), "");
    stage.sql.run("alter table creature drop constraint no_seven").expect("no constraint");
    let retried = stage.retry(&run, None).await.expect("a retry");
    assert_eq!((retried.changed_rows, retried.open_rows), (1, 0));
}
