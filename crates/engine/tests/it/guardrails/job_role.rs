//! The role that a job has the rights of: it needs what its own runs left alone, and gets nothing of others'.

use pgmend::guard::Named;
use pgmend::{Engine, Job, Observer, PlanOptions, UndoOptions};
use pgmend_core::environment::Environment;
use pgmend_core::job::Mode;

use super::{Bank, approvals, job, run};

impl Bank {
    /// The runner's login, with the rights of another role.
    async fn runner_as(&self, role: &str) -> Engine {
        let url = format!("{}?options=-c%20role%3D{role}", self.db.url_for(&self.runner));
        let environment = Environment { policy: self.policy().await, ..Environment::default() };
        Engine::connect_to(Some(&url), Named { name: "bank".into(), environment }).await.expect("a connection")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_job_reads_what_its_own_runs_left_alone_and_nothing_of_others() {
    let bank = Bank::new(approvals(0)).await;
    let app = bank.db.create_role("app", "").expect("a role");
    let mut owner = bank.db.sql().expect("a session");
    owner
        .run(&format!(
            "create table guest (email text primary key, n int not null, check (n <> 0 or email <> 'wyvern3@example.org'));
             insert into guest select 'wyvern' || i || '@example.org', i from generate_series(1, 20) i;
             alter table guest owner to {app};
             grant {app} to {}",
            bank.runner
        ))
        .expect("the table");
    let frozen = |name: &str, statement: &str| {
        let mut job = job(name, statement);
        job.file.mode = Some(Mode::Freeze);
        job
    };

    // A run with the rights of the application's role: one conflict; one row that fails, which the sweep leaves out.
    let mut engine = bank.runner_as(&app).await;
    let raise = frozen("raise", "update guest set n = n + 100 where n > 10");
    engine.plan(&raise, &PlanOptions::default()).await.expect("a plan");
    owner.run("update guest set n = 99 where n = 20").expect("somebody's change");
    let own = run(&mut engine, &raise, None).await.expect("a run");
    assert_eq!((own.changed_rows, own.conflict_rows), (9, 1));
    let mut empty: Job = job("empty", "update guest set n = 0 where n between 1 and 10");
    empty.file.dead_letters.rows_max = Some(5);
    let emptied = run(&mut engine, &empty, None).await.expect("a run");
    assert_eq!((emptied.changed_rows, emptied.dead_rows), (9, 1));
    // And one with the rights of the runner itself.
    let mut runner = bank.as_role(&bank.runner).await;
    let other = frozen("other", "update account set balance = balance + 5 where balance > 95");
    runner.plan(&other, &PlanOptions::default()).await.expect("a plan");
    owner.run("update account set balance = 0 where id = 100").expect("somebody's change");
    let other = run(&mut runner, &other, None).await.expect("a run");
    assert_eq!(other.conflict_rows, 1);

    let mut sql = bank.sql_as(&app);
    for forbidden in
        ["select key from pgmend.conflict", "select key from pgmend.dead_letter", "select n from pgmend.conflict"]
    {
        let error = format!("{:?}", sql.run(forbidden).expect_err(forbidden));
        assert!(error.contains("42501"), "{forbidden}: {error}");
    }
    let mut answers = |function: &str, run: &dyn std::fmt::Display| {
        sql.run(&format!("select * from pgmend.{function}('{run}')"))
            .map(|rows| rows.len())
            .map_err(|e| format!("{e:?}"))
    };
    assert_eq!(answers("ordinals_left_alone", &own.run_id), Ok(1));
    assert_eq!(answers("open_letter_keys", &emptied.run_id), Ok(1));
    for function in ["ordinals_left_alone", "open_letter_keys"] {
        let refused = answers(function, &other.run_id).expect_err("another role's run");
        assert!(refused.contains("PM310"), "{refused}");
    }
    // Whoever may only read is not let in by having the role's rights on nothing.
    let error = bank.sql_as(&bank.observer).run(&format!("select pgmend.open_letter_keys('{}')", emptied.run_id));
    assert!(format!("{:?}", error.expect_err("not theirs")).contains("42501"));

    // The undo leaves the conflict as somebody made it.
    engine.undo(&own.run_id.to_string(), &UndoOptions::default(), &mut Observer::silent()).await.expect("an undo");
    let rows = "select string_agg(n::text, ' ' order by length(email), email) from guest";
    assert_eq!(
        owner.value(rows).expect("the rows").as_deref(),
        Some("0 0 3 0 0 0 0 0 0 0 11 12 13 14 15 16 17 18 19 99")
    );
}
