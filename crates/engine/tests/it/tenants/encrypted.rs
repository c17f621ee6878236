//! Tenants whose images are encrypted: the same order, the same result, and nothing to read afterwards.

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use pgmend::{Identities, RunState, UndoOptions};

use super::*;

/// Values that only rows have.
const SECRET: &str = "griffin";

impl Stage {
    /// The stage with notes that must not stay behind.
    async fn secret() -> Self {
        let mut stage = Self::new().await;
        stage
            .sql
            .run(&format!(
                "create extension pgcrypto;
                 update item set note = '{SECRET}' || id where id % 3 = 0;
                 truncate plain.item;
                 insert into plain.item select * from item"
            ))
            .expect("the notes");
        stage
    }

    /// Tables of images and change sets in which the value stands.
    fn readable(&mut self) -> i64 {
        let tables = "select relname from pg_class where relnamespace = 'pgmend'::regnamespace and relkind = 'r' \
                      and (relname like 'image\\_2%' or relname like 'change\\_set\\_%')";
        let tables = self.sql.run(tables).expect("the tables");
        assert!(!tables.is_empty());
        let mut readable = 0;
        for table in tables.into_iter().flatten().flatten() {
            readable += self.number(&format!("select count(*) from pgmend.{table} t where t::text like '%{SECRET}%'"));
        }
        readable
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_go_one_by_one_with_encrypted_images_and_come_back_with_the_identity() {
    let noted = "update item set note = note || '.', n = n + 5 where kind <> 'kept'";
    let identity = Identity::generate();
    for (statement, workers) in [(noted, 1), (noted, 3), (MEND, 3), (DELETE, 1)] {
        let mut stage = Stage::secret().await;
        let before = stage.text("select md5(string_agg(i::text, '' order by id)) from item i");
        let mut job = job(statement, None);
        job.file.limits.workers = Some(workers);
        job.file.images.recipient = Some(identity.to_public().to_string());
        // Cut off in the middle, and gone on with: another process has another key.
        let first = RunOptions { stop_after_batches: Some(3), ..RunOptions::default() };
        let _cut = stage.with(&job, &first).await.expect("a slice");
        let done = stage.run(&job).await;
        assert_eq!(done.state, RunState::Succeeded, "{statement}");
        stage.check(statement);
        assert_eq!(stage.number("select count(*) from pgmend.partition where state = 'done'"), 7, "{statement}");
        assert_eq!(stage.readable(), 0, "{statement}: nothing is left to read");
        // A worker takes its key along from tenant to tenant; another process or worker has its own, and so
        // has one that forgot it after an error.
        let keys = stage.number("select count(*) from pgmend.image_key");
        assert!(workers > 1 || keys < 7, "{statement}: {keys} keys");

        let (code, _) =
            refusal(Box::pin(stage.engine.undo("tenants", &UndoOptions::default(), &mut Observer::silent())).await);
        assert_eq!(code, Code::IdentityMissing);
        let opened = || Identities::parse(identity.to_string().expose_secret()).expect("an identity");
        if statement != DELETE {
            let one = UndoOptions {
                predicate: Some("tenant_id = 3".into()),
                identity: Some(opened()),
                ..UndoOptions::default()
            };
            let undone = Box::pin(stage.engine.undo("tenants", &one, &mut Observer::silent())).await.expect("an undo");
            assert_eq!((&undone.state, undone.conflict_rows), (&RunState::Succeeded, 0));
            let back =
                "select count(*) from item i join plain.item p using (id) where i is distinct from p and p.tenant_id";
            assert!(stage.number(&format!("{back} = 3")) > 0, "{statement}: tenant 3 is as it was");
            assert_eq!(stage.number(&format!("{back} is distinct from 3")), 0, "{statement}: the others are not");
        }
        let all = UndoOptions { identity: Some(opened()), ..UndoOptions::default() };
        let rest = Box::pin(stage.engine.undo("tenants", &all, &mut Observer::silent())).await.expect("an undo");
        assert_eq!(rest.state, RunState::Succeeded, "{statement}");
        assert_eq!(stage.text("select md5(string_agg(i::text, '' order by id)) from item i"), before, "{statement}");
        assert_eq!(stage.readable(), 0, "{statement}: nor after the undo");
    }
}
