//! Who may run what, and who can prove it: enforced by the database, tried with plain SQL as each role, and through
//! the engine.

use pgmend::chain::LedgerCheckpoint;
use pgmend::guard::Named;
use pgmend::{Code, Engine, Error, Job, JobFile, Observer, PlanOptions, Planned, RunOptions, RunState, UndoOptions};
use pgmend_core::environment::{Canary, Environment};
use pgmend_core::policy::{Hours, More, Policy, Window};
use pgmend_testkit::{Database, Server, Sql};

/// A database whose owner, runners, approvers and observer are different logins.
struct Bank {
    db: Database,
    owner: Engine,
    runner: String,
    approver: String,
    second_approver: String,
    observer: String,
}

const CHANGE: &str = "update account set balance = balance + 5 where balance < 50";

impl Bank {
    async fn new(policy: Policy) -> Self {
        let db = Database::create(Server::shared(), "bank").expect("a database");
        let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
        engine.init().await.expect("the control schema");
        let login = |hint: &str, group: &str| {
            let name = db.create_role(hint, "").expect("a role");
            db.sql().expect("a session").run(&format!("grant {group} to {name}")).expect("a grant");
            name
        };
        let runner = login("runner", "pgmend_runner");
        let (approver, second_approver) = (login("approver", "pgmend_approver"), login("second", "pgmend_approver"));
        let observer = login("observer", "pgmend_observer");
        let mut sql = db.sql().expect("a session");
        sql.run(&format!(
            "create table account (id int primary key, balance numeric not null);
             insert into account select i, i from generate_series(1, 100) i;
             grant select, update, delete on account to {runner}, {approver}"
        ))
        .expect("the table");
        let environment = Environment { policy, ..Environment::default() };
        let owner = Engine::connect_to(Some(&db.url()), Named { name: "bank".into(), environment }).await;
        let mut bank = Self { owner: owner.expect("the owner"), db, runner, approver, second_approver, observer };
        bank.owner.install_policy().await.expect("the policy");
        bank
    }

    async fn as_role(&self, role: &str) -> Engine {
        let environment = Environment { policy: self.policy().await, ..Environment::default() };
        let named = Named { name: "bank".into(), environment };
        Engine::connect_to(Some(&self.db.url_for(role)), named).await.expect("a connection")
    }

    async fn policy(&self) -> Policy {
        let mut sql = self.db.sql().expect("a session");
        let body =
            sql.value("select body::text from pgmend.policy order by policy_no desc limit 1").expect("the policy");
        serde_json::from_str(&body.expect("a policy")).expect("JSON")
    }

    fn sql_as(&self, role: &str) -> Sql {
        Sql::connect(&self.db.url_for(role)).expect("a session")
    }

    fn total(&self) -> String {
        self.db.sql().expect("a session").value("select sum(balance) from account").expect("a sum").expect("a value")
    }
}

fn job(name: &str, statement: &str) -> Job {
    let mut file = JobFile::default();
    file.limits.batch_rows = Some(10);
    file.limits.lease_seconds = 3;
    Job { file, ..Job::from_statement(name, statement) }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    match result {
        Err(Error::Refused(refusal)) => (refusal.code, format!("{}; {}", refusal.message, refusal.help)),
        other => panic!("not refused: {other:?}"),
    }
}

async fn run(engine: &mut Engine, job: &Job, batches: Option<u64>) -> Result<pgmend::Outcome, Error> {
    let options = RunOptions { stop_after_batches: batches, ..RunOptions::default() };
    Box::pin(engine.run(job, &options, &mut Observer::silent())).await
}

async fn plan(engine: &mut Engine, job: &Job) -> Planned {
    Box::pin(engine.plan(job, &PlanOptions::default())).await.expect("a plan")
}

fn approvals(n: u32) -> Policy {
    Policy { approvals: Some(n), ..Policy::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_approvals_by_others_than_its_planner_and_they_cover_its_undo() {
    let bank = Bank::new(approvals(2)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert_eq!(code, Code::ApprovalMissing);
    assert!(
        said.contains("approvals: 2 (2 for every run) demanded, 0 found; an approver types: pgmend approve "),
        "{said}"
    );
    assert_eq!(bank.total(), "5050");

    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "checked the sample").await.expect("an approval");
    approver.approve(&planned, "twice is once").await.expect("an approval");
    assert_eq!(refusal(run(&mut runner, &job, None).await).0, Code::ApprovalMissing);
    let mut second = bank.as_role(&bank.second_approver).await;
    second.approve(&planned, "agreed").await.expect("an approval");

    // A newer plan of the same job has no approvals: the approved one is used all the same.
    plan(&mut runner, &job).await;
    let outcome = run(&mut runner, &job, None).await.expect("the run");
    assert_eq!((outcome.state, outcome.plan_id, outcome.changed_rows), (RunState::Succeeded, planned.plan.plan_id, 49));

    let undone =
        Box::pin(runner.undo("raise", &UndoOptions::default(), &mut Observer::silent())).await.expect("the undo");
    assert_eq!((undone.changed_rows, bank.total().as_str()), (49, "5050"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_plans_a_change_cannot_approve_it() {
    let bank = Bank::new(approvals(1)).await;
    let mut sql = bank.db.sql().expect("a session");
    sql.run(&format!("grant pgmend_runner to {}", bank.approver)).expect("a grant");
    let mut both = bank.as_role(&bank.approver).await;
    let job = job("raise", CHANGE);
    let planned = plan(&mut both, &job).await;
    let (code, said) = refusal(both.approve(&planned, "I am sure").await);
    assert_eq!(code, Code::SameRole, "{said}");
    // Nor a plan of the same change that somebody else made after them.
    let mut runner = bank.as_role(&bank.runner).await;
    let planned = plan(&mut runner, &job).await;
    assert_eq!(refusal(both.approve(&planned, "I am sure").await).0, Code::SameRole);
    let (code, said) = refusal(runner.approve(&planned, "me too").await);
    assert_eq!(code, Code::Privilege, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_veto_stops_and_a_revoked_approval_pauses_a_run_under_way() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    let mut second = bank.as_role(&bank.second_approver).await;
    second.veto(&planned, "not on a Friday").await.expect("a veto");
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert_eq!(code, Code::ApprovalMissing);
    assert!(said.contains("vetoed by"), "{said}");
    second.revoke(&planned, "it is Monday").await.expect("a change of mind");

    run(&mut runner, &job, Some(2)).await.expect("two batches");
    assert!(approver.revoke(&planned, "wrong rows").await.expect("a revocation"), "a run is under way");
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert_eq!(code, Code::WrongState);
    assert!(said.contains("took the approval back: wrong rows"), "{said}");
    // Nor by lifting the pause.
    let (code, _) = refusal(Box::pin(runner.resume("raise", &mut Observer::silent())).await);
    assert_eq!(code, Code::ApprovalMissing);
    assert_eq!(bank.total(), "5150");
}

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
        }
    }
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
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert_eq!(code, Code::Guardrail);
    for part in [
        "ticket: like ^OPS-[0-9]+$ demanded, none found",
        "owner: named demanded, none found",
        "goal: a sentence demanded, none found",
        "commit: clean demanded, none found",
        "batch: at most 5 rows demanded, 10 rows found",
        "requires: done in staging demanded, not done there found",
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

#[tokio::test(flavor = "multi_thread")]
async fn each_role_can_do_its_part_only_whatever_it_types() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    let run_id = run(&mut runner, &job, Some(2)).await.expect("two batches").run_id;
    let mut owner = bank.db.sql().expect("a session");
    let image = owner.value("select image_table from pgmend.run").expect("a name").expect("a table");
    let (plan_id, digest) = (planned.plan.plan_id, &planned.digest);
    owner
        .run("update pgmend.lease set expires_at = 'infinity', holder_role = 'postgres'")
        .expect("somebody else's lease");

    let runner_may_not = [
        format!("select pgmend.approve('{plan_id}', '{digest}', 'approved', 'me')"),
        format!("select pgmend.append_ledger('{run_id}', 'run_succeeded', '{{}}')"),
        format!("select pgmend.grant_break_glass('{plan_id}', '{digest}', 'x', 'r', 't', 10)"),
        format!("insert into pgmend.ledger values ('{run_id}', 99, 'x', '{{}}', 'x', 'x', now())"),
        "update pgmend.ledger set body = '{}'".into(),
        "delete from pgmend.ledger".into(),
        "truncate pgmend.ledger".into(),
        "update pgmend.policy set body = '{}'".into(),
        "select pgmend.set_policy('bank', '{}')".into(),
        "insert into pgmend.policy (environment, body) values ('bank', '{}')".into(),
        "update pgmend.lease set fence = fence + 1".into(),
        "update pgmend.batch set changed_total = 0".into(),
        "delete from pgmend.control".into(),
        "update pgmend.plan set digest = 'x'".into(),
        "create table pgmend.mine (i int)".into(),
        "create function pgmend.mine() returns int language sql as 'select 1'".into(),
        format!("alter table pgmend.{image} add column x int"),
        format!("drop table pgmend.{image}"),
        format!("update pgmend.{image} set batch_no = 0"),
        format!("delete from pgmend.{image}"),
        format!("truncate pgmend.{image}"),
        format!(
            "select pgmend.begin_batch('{run_id}', 0, 1, 3, 0, '{{}}', (select system_identifier::text from pg_control_system()))"
        ),
        format!(
            "select pgmend.change_state('{run_id}', 1, '{{running,paused}}', 'succeeded', null, 0, 0, '{{}}', 'x', '{{}}')"
        ),
        format!("select pgmend.record_fact('{run_id}', 1, 'run_swept', '{{}}')"),
        format!("select pgmend.end_batch('{run_id}', 0, 1, 1000000, null, 0, 0, 0)"),
        format!("select pgmend.record_conflict('{run_id}', 1, 1, '{{1}}', 'not true')"),
        format!("insert into pgmend.conflict values ('{run_id}', 1, 1, '{{1}}', 'x', now())"),
        format!("insert into pgmend.batch (run_id, partition_no, batch_no, fence, cursor_to) values ('{run_id}', 0, 99, 1, '{{}}')"),
        "select secret from pgmend.token_key".into(),
        "update pgmend.group_role set role = session_user".into(),
        "update pgmend.run set state = 'succeeded'".into(),
        "insert into pgmend.approval (plan_id, digest, verdict, reason, approver, effective_role, expires_at) \
         select plan_id, digest, 'approved', 'me', 'x', 'x', 'infinity' from pgmend.plan"
            .into(),
        "select pgmend.create_image_table('mine', false, '{}', '{}', '{}', '{}', session_user, '')".into(),
        format!("select pgmend.prune_image_table('{image}', null, 1)"),
        "alter function pgmend.window_at(jsonb, timestamptz) volatile".into(),
        "create trigger mine before insert on pgmend.batch for each row execute function suppress_redundant_updates_trigger()"
            .into(),
    ];
    let mut sql = bank.sql_as(&bank.runner);
    for forbidden in &runner_may_not {
        let error = sql.run(forbidden).map(|rows| format!("{rows:?}")).expect_err(forbidden);
        let error = format!("{error:?}");
        let refused = ["42501", "PM505", "PM520", "PM404"].iter().any(|code| error.contains(code));
        assert!(refused, "{forbidden}: {error}");
    }
    assert_eq!(owner.value("select sum(changed_rows) from pgmend.batch").expect("a sum").as_deref(), Some("20"));
    // Images of somebody else's run, also for another member of the group.
    let colleague = bank.db.create_role("colleague", "in role pgmend_runner").expect("a role");
    let mut other = bank.sql_as(&colleague);
    for forbidden in [
        format!("insert into pgmend.{image} (batch_no, op) values (1, 'U')"),
        format!("select * from pgmend.{image}"),
        format!("drop table pgmend.{image}"),
    ] {
        let error = format!("{:?}", other.run(&forbidden).expect_err(&forbidden));
        assert!(error.contains("42501"), "{forbidden}: {error}");
    }
    // What answers instead of raising must not have acted.
    assert_eq!(
        sql.value(&format!("select pgmend.heartbeat('{run_id}', 0, 1, 999)")).expect("an answer").as_deref(),
        Some("f")
    );
    sql.run(&format!("select pgmend.release_lease('{run_id}', 0, 1)")).expect("an answer");
    assert_eq!(owner.value("select expires_at from pgmend.lease").expect("a lease").as_deref(), Some("infinity"));

    let mut sql = bank.sql_as(&bank.observer);
    sql.run("select * from pgmend.run, pgmend.ledger").expect("an observer reads");
    let observer_may_not = [
        format!("select * from pgmend.{image}"),
        format!("select pgmend.ask('{run_id}', 'pause', 'x')"),
        format!(
            "select pgmend.store_plan('{plan_id}', 'j', 'update', 's', 'd', 1, null, null, '{{}}', null, 'x', now())"
        ),
        format!("select pgmend.approve('{plan_id}', '{digest}', 'approved', 'me')"),
    ];
    let all = runner_may_not.iter().chain(&observer_may_not);
    for forbidden in all.filter(|sql| !sql.contains("record_fact")) {
        let error = format!("{:?}", sql.run(forbidden).expect_err(forbidden));
        assert!(error.contains("42501"), "{forbidden}: {error}");
    }
    let mut sql = bank.sql_as(&bank.approver);
    sql.run("select * from pgmend.run, pgmend.ledger").expect("an approver reads");
    let no_runner = [
        format!("select * from pgmend.{image}"),
        format!(
            "select pgmend.store_plan('{plan_id}', 'j', 'update', 's', 'd', 1, null, null, '{{}}', null, 'x', now())"
        ),
        format!(
            "select pgmend.start_run('{run_id}', '{plan_id}', '{digest}', 't', now(), null, 1, null, 'x', 'c', null, '{{}}')"
        ),
        format!("select * from pgmend.acquire_lease('{run_id}', 0, 'me', 'me', 30)"),
        format!("select pgmend.heartbeat('{run_id}', 0, 1, 30)"),
        format!("select pgmend.append_ledger('{run_id}', 'plan_approved', '{{}}')"),
        "select pgmend.set_policy('bank', '{}')".into(),
        "update pgmend.approval set approver = 'somebody'".into(),
        "delete from pgmend.control".into(),
        "create table pgmend.mine (i int)".into(),
        "select secret from pgmend.token_key".into(),
    ];
    for forbidden in &no_runner {
        let error = format!("{:?}", sql.run(forbidden).expect_err(forbidden));
        assert!(error.contains("42501"), "{forbidden}: {error}");
    }
    // Not even the owner rewrites the ledger.
    for forbidden in ["update pgmend.ledger set body = '{}'", "delete from pgmend.ledger", "truncate pgmend.ledger"] {
        let error = format!("{:?}", owner.run(forbidden).expect_err(forbidden));
        assert!(error.contains("append-only"), "{forbidden}: {error}");
    }
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
    let mut job = job("raise", "update account set balance = balance + 5 where pg_sleep(0.01) is not null");
    job.file.trust_functions = vec!["pg_sleep".into()];
    job.file.limits.batch_rows = Some(5);
    let driving = tokio::spawn(async move { run(&mut driver, &job, None).await });
    let mut asked = Err(Error::Corrupt("not yet".into()));
    for _ in 0..600 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        asked = other.pause("raise", "enough for now").await;
        if asked.is_ok() {
            break;
        }
    }
    asked.expect("the wish");
    let outcome = driving.await.expect("no panic").expect("an outcome");
    assert_eq!(outcome.state, RunState::Paused { reason: "enough for now".into() });
    assert!(outcome.changed_rows < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_shows_every_kind_of_tampering() {
    let mut bank = Bank::new(Policy::default()).await;
    let run_id = run(&mut bank.owner, &job("raise", CHANGE), None).await.expect("the run").run_id;
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
    assert!(lines[0].contains("\"fact\":\"run_started\""), "{}", lines[0]);
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

#[tokio::test(flavor = "multi_thread")]
async fn existing_roles_stand_for_the_groups_by_name() {
    let db = Database::create(Server::shared(), "named").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create table account (id int primary key, balance numeric not null);
             insert into account select i, i from generate_series(1, 100) i",
    )
    .expect("the table");
    let [deploy, leads, staff] = ["deploy", "leads", "staff"].map(|hint| db.create_role(hint, "").expect("a role"));
    let mut owner = Engine::connect(Some(&db.url())).await.expect("a connection");
    let missing = pgmend::NamedRoles { runner: Some("Deploi".into()), ..pgmend::NamedRoles::default() };
    let (code, said) = refusal(owner.init_for(&missing).await);
    assert_eq!(code, Code::RoleMissing);
    assert!(said.contains("create role \"Deploi\" nologin"), "{said}");
    let named = pgmend::NamedRoles {
        runner: Some(deploy.clone()),
        approver: Some(leads.clone()),
        observer: Some(staff.clone()),
    };
    let done = owner.init_for(&named).await.expect("the control schema");
    assert_eq!(done.roles, [deploy.clone(), leads.clone(), staff.clone()]);
    // Remembered: the next `init` grants to the same.
    assert_eq!(owner.init().await.expect("again").roles, done.roles);

    sql.run(&format!("grant select, update on account to {deploy}")).expect("a grant");
    let mut runner = Engine::connect(Some(&db.url_for(&deploy))).await.expect("a connection");
    let planned = plan(&mut runner, &job("raise", CHANGE)).await;
    let (code, said) = refusal(runner.approve(&planned, "me").await);
    assert_eq!(code, Code::Privilege);
    assert!(said.contains(&format!("only members of {leads} may do this")), "{said}");
    let mut lead = Engine::connect(Some(&db.url_for(&leads))).await.expect("a connection");
    lead.approve(&planned, "fine").await.expect("an approval");
    let mut reader = Engine::connect(Some(&db.url_for(&staff))).await.expect("a connection");
    assert!(reader.list().await.expect("the list").is_empty());
    let outsiders = "select bool_or(has_schema_privilege(r, 'pgmend', 'usage'))
                       from unnest(array['pgmend_runner', 'pgmend_approver', 'pgmend_observer']) as r
                      where exists (select from pg_roles where rolname = r)";
    assert_ne!(sql.value(outsiders).expect("an answer").as_deref(), Some("t"), "only the named roles get in");
    // Another role takes over: the old one's rights are named, to be taken.
    let next = pgmend::NamedRoles { observer: Some(leads.clone()), ..pgmend::NamedRoles::default() };
    let notes = owner.init_for(&next).await.expect("another observer").notes;
    assert!(notes.iter().any(|n| n.contains(&format!("revoke all on schema pgmend from \"{staff}\""))), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_pauses_before_its_next_batch_when_an_approval_is_taken_back() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let mut job = job("raise", "update account set balance = balance + 5 where pg_sleep(0.01) is not null");
    job.file.trust_functions = vec!["pg_sleep".into()];
    job.file.limits.batch_rows = Some(2);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    let driven = job.clone();
    let driving = tokio::spawn(async move { (run(&mut runner, &driven, None).await, runner) });
    for _ in 0..600 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if bank.db.sql().expect("a session").value("select 1 from pgmend.batch limit 1").expect("an answer").is_some() {
            break;
        }
    }
    assert!(approver.revoke(&planned, "wrong month").await.expect("a revocation"), "a run is under way");
    let (outcome, mut runner) = driving.await.expect("no panic");
    let outcome = outcome.expect("an outcome");
    let RunState::Paused { reason } = &outcome.state else { panic!("{:?}", outcome.state) };
    assert!(reason.ends_with("took the approval back: wrong month"), "{reason}");
    assert!(outcome.changed_rows < 100, "{outcome:?}");

    // Going on needs a yes again; the line is told, and the yes can be given although the plan is in use.
    let (code, said) = refusal(Box::pin(runner.resume("raise", &mut Observer::silent())).await);
    let line = format!("an approver types: pgmend approve {} --env bank --reason", planned.plan.plan_id);
    assert!(code == Code::ApprovalMissing && said.contains(&line), "{said}");
    approver.approve(&planned, "it is the right month after all").await.expect("an approval again");
    let outcome = Box::pin(runner.resume("raise", &mut Observer::silent())).await.expect("the rest");
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, 100));
    assert_eq!(refusal(approver.approve(&planned, "late").await).0, Code::ConsumedPlan);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_many_nights_stays_approved_although_its_approval_and_its_plan_have_expired() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    run(&mut runner, &job, Some(1)).await.expect("the first night");
    let expire = "update pgmend.approval set expires_at = now() - interval '1 day'; \
                  update pgmend.plan set expires_at = now() - interval '1 day'";
    bank.db.sql().expect("a session").run(expire).expect("time passes");
    let outcome = run(&mut runner, &job, None).await.expect("the next night");
    assert_eq!((outcome.state, outcome.changed_rows), (RunState::Succeeded, 49));
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_die_with_a_plan_that_went_stale() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut approver) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.approver).await);
    let job = job("raise", CHANGE);
    let planned = plan(&mut runner, &job).await;
    approver.approve(&planned, "fine").await.expect("an approval");
    bank.db.sql().expect("a session").run("alter table account add column note text").expect("another definition");
    let mut runner = bank.as_role(&bank.runner).await;
    let id = planned.plan.plan_id.to_string();
    let by_id = Box::pin(runner.run_plan(&id, &RunOptions::default(), &mut Observer::silent())).await;
    assert_eq!(refusal(by_id).0, Code::StalePlan);
    let (code, said) = refusal(run(&mut runner, &job, None).await);
    assert!(code == Code::ApprovalMissing && !said.contains(&id), "a new plan, which nobody has approved: {said}");
    assert_eq!(bank.total(), "5050");
}
