//! What an environment demands: more approvals by what a plan does, and what it asks of a job.

use pgmend::guard::Named;
use pgmend::{Code, Engine, Job, Observer, RunOptions};
use pgmend_core::environment::{Canary, Environment};
use pgmend_core::policy::{More, Policy};
use pgmend_testkit::{Database, Server};

use super::{Bank, CHANGE, approvals, job, plan, refusal, run};

#[tokio::test(flavor = "multi_thread")]
async fn more_approvals_are_needed_by_rows_share_table_column_kind_and_irreversibility() {
    let more = |approvals| More { approvals, ..More::default() };
    let rules = [
        (More { rows_min: Some(49), ..more(2) }, More { rows_min: Some(50), ..more(2) }),
        (More { share_min: Some(0.49), ..more(2) }, More { share_min: Some(0.5), ..more(2) }),
        (
            More { tables: Some(vec!["public.account".into()]), ..more(2) },
            More { tables: Some(vec!["public.accounts".into()]), ..more(2) },
        ),
        (
            More { columns: Some(vec!["public.account.balance".into()]), ..more(2) },
            More { columns: Some(vec!["public.account.id".into()]), ..more(2) },
        ),
        (
            More { kinds: Some(vec!["update".into()]), ..more(2) },
            More { kinds: Some(vec!["delete".into()]), ..more(2) },
        ),
        (More { irreversible: Some(false), ..more(2) }, More { irreversible: Some(true), ..more(2) }),
    ];
    let mut bank = Bank::new(Policy::default()).await;
    let mut said = Vec::new();
    for (meets, misses) in rules {
        for (rule, needed) in [(meets, true), (misses, false)] {
            let policy = Policy { more: vec![rule.clone()], ..Policy::default() };
            let environment = Environment { policy, ..Environment::default() };
            let named = Named { name: "bank".into(), environment };
            bank.owner = Engine::connect_to(Some(&bank.db.url()), named).await.expect("the owner");
            bank.owner.install_policy().await.expect("the policy");
            let planned = plan(&mut bank.owner, &job("raise", CHANGE)).await;
            let guardrails = bank.owner.guardrails(&planned).await.expect("guardrails");
            assert_eq!(!guardrails.is_empty(), needed, "{rule:?}: {guardrails:?}");
            said.extend(guardrails.into_iter().map(|g| g.demanded));
        }
    }
    let words = [
        "2 (2 for 49 rows or more)",
        "2 (2 for 49 % of the table or more)",
        "2 (2 for table public.account)",
        "2 (2 for column public.account.balance)",
        "2 (2 for update)",
        "2 (2 for what can be undone)",
    ];
    assert_eq!(said, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_asks_of_a_job_is_refused_with_what_was_found() {
    let policy = Policy {
        ticket: Some("^OPS-[0-9]+$".into()),
        owner: true,
        goal: true,
        batch_rows_max: Some(5),
        clean_commit: true,
        undo: true,
        requires: Some("staging".into()),
        ..Policy::default()
    };
    let bank = Bank::new(policy).await;
    let mut runner = bank.as_role(&bank.runner).await;
    let mut job = job("raise", CHANGE);
    // Blank lines are none.
    (job.file.owner, job.file.goal) = (Some(String::new()), Some("  ".into()));
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert_eq!(code, Code::Guardrail);
    for part in [
        "ticket: like ^OPS-[0-9]+$ demanded, none found",
        "owner: named demanded, none found",
        "goal: a sentence demanded, none found",
        "commit: clean demanded, none found",
        "batch: at most 5 rows demanded, 10 rows found",
        "requires: done in staging demanded, not done there found",
        "write into the job file: goal = \"…\", owner = \"…\", ticket = \"…\" like ^OPS-[0-9]+$, batch_rows = 5 or less under [limits]",
        "commit the job's folder in git; run the job there first: --env staging --execute; then plan again",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    job.file.ticket = Some("OPS-7".into());
    job.file.owner = Some("payments".into());
    job.file.goal = Some("pay what is owed".into());
    job.file.limits.batch_rows = Some(5);
    job.facts.insert("commit".into(), "3f9a0c1 dirty".into());
    job.facts.insert("done in staging".into(), "run 1".into());
    let (_, said) = refusal(run(&mut runner, &job, None).await);
    assert!(said.starts_with("commit: clean demanded, 3f9a0c1 dirty found;"), "{said}");
    job.facts.insert("commit".into(), "3f9a0c1".into());
    assert_eq!(run(&mut runner, &job, None).await.expect("the run").changed_rows, 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_the_named_environment_is_refused() {
    let bank = Bank::new(approvals(1)).await;
    let mut nameless = Engine::connect(Some(&bank.db.url_for(&bank.runner))).await.expect("a connection");
    let (code, said) = refusal(run(&mut nameless, &job("raise", CHANGE), None).await);
    assert_eq!((code, said.ends_with("add --env bank")), (Code::EnvironmentNotNamed, true), "{said}");
    let url = bank.db.url();
    let connect = |name: &str, environment: Environment| {
        let (named, url) = (Named { name: name.into(), environment }, url.clone());
        async move { Engine::connect_to(Some(&url), named).await.map(|_| ()) }
    };
    let canary = Canary { query: "select count(*) from account".into(), equals: "7".into() };
    let wrong = Environment { database: Some("vault".into()), canary: Some(canary), ..Environment::default() };
    let (code, said) = refusal(connect("bank", wrong).await);
    assert_eq!(code, Code::WrongEnvironment);
    assert!(
        said.contains("database: expected vault, found ") && said.contains("canary: expected 7, found 100"),
        "{said}"
    );
    // Who may not ask the canary is told whom to ask for the right to.
    let asked = Environment {
        canary: Some(Canary { query: "select count(*) from account".into(), equals: "100".into() }),
        ..Environment::default()
    };
    let named = Named { name: "bank".into(), environment: asked };
    let (code, said) = refusal(Engine::connect_to(Some(&bank.db.url_for(&bank.observer)), named).await.map(|_| ()));
    assert!(code == Code::Privilege && said.contains(&format!("grant select on … to \"{}\"", bank.observer)), "{said}");
    let writing = Canary { query: "delete from account returning id".into(), equals: "7".into() };
    assert!(connect("bank", Environment { canary: Some(writing), ..Environment::default() }).await.is_err());
    assert_eq!(bank.total(), "5050");

    let named = Named { name: "vault".into(), environment: Environment::default() };
    let mut elsewhere = Engine::connect_to(Some(&url), named).await.expect("a connection");
    assert_eq!(refusal(run(&mut elsewhere, &job("raise", CHANGE), None).await).0, Code::WrongEnvironment);
    let named = Named { name: "bank".into(), environment: Environment::default() };
    let mut laxer = Engine::connect_to(Some(&url), named).await.expect("a connection");
    let (code, said) = refusal(run(&mut laxer, &job("raise", CHANGE), None).await);
    assert_eq!(code, Code::Guardrail, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_a_protected_environment_is_known_before_it_has_the_policy() {
    let db = Database::create(Server::shared(), "protected").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run("create table account (id int primary key, balance int); insert into account values (1, 10)")
        .expect("a row");
    let cluster = "select system_identifier::text from pg_control_system()";
    let system_identifier = sql.value(cluster).expect("an answer");
    let database = sql.value("select current_database()").expect("an answer");
    let there = Environment { system_identifier, database, protected: true, ..Environment::default() };
    let elsewhere = Environment { system_identifier: Some("7".into()), ..there.clone() };
    let nowhere = Environment { protected: true, ..Environment::default() };
    let named = |name: &str, environment: &Environment| Named { name: name.into(), environment: environment.clone() };
    let change = Job::from_statement("raise", "update account set balance = balance + 1");

    let mut nameless = Engine::connect(Some(&db.url())).await.expect("a connection");
    nameless.protect(vec![named("other", &elsewhere), named("unknown", &nowhere), named("bank", &there)]);
    let (code, said) = refusal(nameless.run(&change, &RunOptions::default(), &mut Observer::silent()).await);
    assert_eq!((code, said.ends_with("add --env bank")), (Code::EnvironmentNotNamed, true), "{said}");
    assert_eq!(sql.value("select balance from account").expect("an answer").as_deref(), Some("10"));

    nameless.protect(vec![named("other", &elsewhere), named("unknown", &nowhere)]);
    nameless.run(&change, &RunOptions::default(), &mut Observer::silent()).await.expect("none of these");
    let mut by_name = Engine::connect_to(Some(&db.url()), named("bank", &there)).await.expect("it is there");
    let again = RunOptions { again: Some("once more".into()), ..RunOptions::default() };
    by_name.run(&change, &again, &mut Observer::silent()).await.expect("it was named");
    assert_eq!(sql.value("select balance from account").expect("an answer").as_deref(), Some("12"));
}
