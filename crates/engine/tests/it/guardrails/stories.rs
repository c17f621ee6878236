//! A row's story is told to whoever only reads: who, when, by which run, and what, masked by the database.

use pgmend::{Code, Engine, Job, Observer, PlanOptions, UndoOptions};
use pgmend_core::job::Mode;
use pgmend_core::mask::is_masked;

use super::{Bank, approvals, job, refusal, run};

/// `guest`, which the observer has no right to: a mail address, an enum, a reference, a note.
async fn bank_with_guests() -> Bank {
    let bank = Bank::new(approvals(0)).await;
    let mut owner = bank.db.sql().expect("a session");
    owner
        .run(&format!(
            "create type mood as enum ('calm', 'cross');
             create table guest (
                 id int primary key, email text unique not null, mood mood not null default 'calm', tier text,
                 account int references account, visits int not null, gone boolean not null default false);
             insert into guest select i, 'wyvern' || i || '@example.org', 'calm', 'gold', i, i from generate_series(1, 20) i;
             create table mail (email text primary key, n int not null);
             insert into mail select email, id from guest;
             grant select, update, insert, delete on guest, mail to {}",
            bank.runner
        ))
        .expect("the table");
    bank
}

/// The story as an observer reads it: column, before, after, and in front of each run its kind.
async fn told(engine: &mut Engine, key: &str) -> Vec<Vec<(String, String, String)>> {
    let touches = engine.trace("guest", &[key.to_owned()], false, None).await.expect("a trace");
    let text = |value: Option<String>| value.unwrap_or_else(|| "NULL".to_owned());
    touches.into_iter().map(|t| t.columns.into_iter().map(|(c, b, a)| (c, text(b), text(a))).collect()).collect()
}

const WRITE: &str = "update guest set email = upper(email), mood = 'cross', tier = 'silver', account = account + 1, visits = visits + 100, gone = true
                      where id > 10 and id < 20";

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_reads_who_changed_a_row_when_and_what_with_masked_values() {
    let bank = bank_with_guests().await;
    let mut runner = bank.as_role(&bank.runner).await;
    let streamed = run(&mut runner, &job("stream", WRITE), None).await.expect("a run").run_id;
    let frozen: Job = {
        let mut job = job("freeze", "update guest set tier = 'bronze' where id in (11, 12)");
        job.file.mode = Some(Mode::Freeze);
        job
    };
    run(&mut runner, &frozen, None).await.expect("a run");
    runner.undo("freeze", &UndoOptions::default(), &mut Observer::silent()).await.expect("an undo");
    run(&mut runner, &job("mail", "update mail set n = n + 5"), None).await.expect("a run");
    let deletes = job("sweep", "delete from guest where id = 11");
    run(&mut runner, &deletes, None).await.expect("a run");

    let mut observer = bank.as_role(&bank.observer).await;
    let error = bank.sql_as(&bank.observer).run("select * from guest");
    assert!(format!("{:?}", error.expect_err("not theirs")).contains("42501"));
    let story = told(&mut observer, "11").await;
    let kinds: Vec<usize> = story.iter().map(Vec::len).collect();
    assert_eq!(kinds, [6, 1, 1, 7], "{story:?}");
    let first = |name: &str| story[0].iter().find(|(c, ..)| c == name).map(|(_, b, a)| (b.as_str(), a.as_str()));
    assert_eq!(first("mood"), Some(("calm", "cross")));
    assert_eq!(first("gone"), Some(("false", "true")));
    assert_eq!(first("account"), Some(("11", "12")), "a reference is a key of another table");
    for (name, after) in [("email", None), ("tier", Some("silver")), ("visits", None)] {
        let (before, now) = first(name).expect("a column");
        assert!(is_masked(before) && before != now, "{name}: {story:?}");
        assert!(after.map_or(is_masked(now), |constant| now == constant), "{name}: {story:?}");
    }
    // Tokens are those of every page of this database, and a runner reads what the observer does, unless values are asked for.
    let of_runner = told(&mut runner, "11").await;
    assert_eq!(story, of_runner);
    let touches = observer.trace("guest", &["12".into()], false, None).await.expect("a trace");
    assert_eq!((touches[0].run_id, touches[0].changed_by.as_str()), (streamed, bank.runner.as_str()));
    assert!(told(&mut observer, "20").await.is_empty() && told(&mut observer, "5").await.is_empty());
    let (code, said) = refusal(observer.trace("guest", &["11".into()], true, None).await);
    assert!(code == Code::Privilege && said.contains("may not read pgmend.image"), "{said}");
    // A key that could be guessed is no question for those who may not read the row.
    let (code, said) = refusal(observer.trace("mail", &["wyvern11@example.org".into()], false, None).await);
    assert!(code == Code::Privilege && said.contains("confirm a guess"), "{said}");
    let guess = format!("select * from pgmend.masked_images('{streamed}', '{{2}}', '{{WYVERN11@EXAMPLE.ORG}}')");
    let error = format!("{:?}", bank.sql_as(&bank.observer).run(&guess).expect_err("a guess"));
    assert!(error.contains("PM310"), "{error}");

    bank.owner_prunes().await;
    let touches = observer.trace("guest", &["11".into()], false, None).await.expect("integers are plain");
    assert!(touches.len() == 4 && touches.iter().all(|t| t.pruned), "{touches:?}");
}

impl Bank {
    async fn owner_prunes(&self) {
        let mut owner = Engine::connect(Some(&self.db.url())).await.expect("the owner");
        let pruned = owner.prune(Some(0), true).await.expect("a prune");
        assert!(!pruned.is_empty() && pruned.iter().all(|table| table.dropped), "{pruned:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_cannot_have_the_images_of_another_told_as_those_of_its_own_run() {
    let bank = bank_with_guests().await;
    let mut runner = bank.as_role(&bank.runner).await;
    let theirs = run(&mut runner, &job("theirs", WRITE), None).await.expect("a run").run_id;
    let mut owner = bank.db.sql().expect("a session");
    let colleague = bank.db.create_role("colleague", "in role pgmend_runner").expect("a role");
    owner.run(&format!("grant select, update on guest to {colleague}")).expect("a grant");
    let mut other = bank.as_role(&colleague).await;
    let mut shown = job("mine", "update guest set email = email || '.', tier = 'x', visits = 0 where id = 1");
    shown.file.plain = vec!["email".into(), "tier".into(), "visits".into()];
    let mine = run(&mut other, &shown, None).await.expect("a run").run_id;
    // As if the colleague had named the other's table when it started its run.
    let swapped = format!(
        "update pgmend.run set image_table = (select image_table from pgmend.run where run_id = '{theirs}') where run_id = '{mine}'"
    );
    owner.run(&swapped).expect("a swap");
    let asked = format!("select * from pgmend.masked_images('{mine}', '{{1}}', '{{11}}')");
    let error = format!("{:?}", bank.sql_as(&colleague).run(&asked).expect_err("not its own"));
    assert!(error.contains("PM501"), "{error}");
    let asked = format!("select before from pgmend.masked_images('{theirs}', '{{1}}', '{{11}}')");
    let seen = bank.sql_as(&colleague).value(&asked).expect("masked").expect("a row");
    assert!(!seen.contains("wyvern"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobodys_cast_is_executed_in_the_rights_of_the_schemas_owner() {
    let bank = bank_with_guests().await;
    let app = bank.db.create_role("app", "").expect("a role");
    let mut owner = bank.db.sql().expect("a session");
    owner.run(&format!("grant create on schema public to {app}; grant {app} to {}", bank.runner)).expect("rights");
    bank.sql_as(&app)
        .run(&format!(
            "create type shade as enum ('light', 'dark');
             create function betray(shade) returns text language plpgsql as $$
             begin
                 if current_user = 'postgres' then raise exception 'executed as the owner'; end if;
                 return case $1 when 'dark' then 'dark' else 'light' end;
             end $$;
             create cast (shade as text) with function betray(shade);
             create table lamp (shade shade, id int, lit text, primary key (shade, id));
             insert into lamp select 'dark', i, 'x' from generate_series(1, 5) i;
             grant select, update on lamp to {}",
            bank.runner
        ))
        .expect("the table");
    let mut runner = bank.as_role(&bank.runner).await;
    let change = job("light", "update lamp set lit = 'on', shade = 'light' where id > 3");
    runner.plan(&change, &PlanOptions::default()).await.expect("a plan");
    let done = run(&mut runner, &change, None).await.expect("a run");
    assert_eq!((done.state, done.changed_rows), (pgmend_core::run::RunState::Succeeded, 2));
    let run_id = owner.value("select run_id::text from pgmend.run where job = 'light'").expect("a run").expect("an id");
    let asked = format!("select before, after from pgmend.masked_images('{run_id}', '{{1,2}}', '{{dark,4}}')");
    let seen = bank.sql_as(&bank.runner).run(&asked).expect("masked");
    assert!(format!("{seen:?}").contains("dark"), "{seen:?}");
    bank.owner_prunes().await;
}
