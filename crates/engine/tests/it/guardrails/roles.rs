//! Roles: what each may do, tried with plain SQL, and existing roles that stand for the groups.

use std::collections::BTreeSet;

use pgmend::{Code, Engine, PlanOptions};
use pgmend_core::job::BoundParam;
use pgmend_testkit::{Database, Server, Sql};

use super::{Bank, CHANGE, approvals, job, plan, refusal, run};

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
            "select pgmend.begin_batch('{run_id}', 0, 1, 3, 0, '{{}}', null, (select system_identifier::text from pg_control_system()))"
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
        let refused = ["42501", "PM310", "PM505", "PM520", "PM404"].iter().any(|code| error.contains(code));
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
    sql.run("select job, state, fact from pgmend.run, pgmend.ledger").expect("an observer reads");
    let observer_may_not = [
        format!("select * from pgmend.{image}"),
        "select upper_bound from pgmend.run".into(),
        "select cursor_to from pgmend.batch".into(),
        "select key from pgmend.conflict".into(),
        "select key from pgmend.dead_letter".into(),
        "select lower, upper from pgmend.partition".into(),
        "select pgmend.token_of('guess', '', '')".into(),
        "select * from pgmend.hmac_pads()".into(),
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

/// Functions that a group may call beside those that all of them may.
const FOR_ALL: [&str; 15] = [
    "approvals_held",
    "approvals_required",
    "conflicts_of",
    "current_policy",
    "dead_letters_of",
    "guardrails",
    "is_encrypted",
    "is_planner",
    "masked_images",
    "ordinal_changed_at",
    "plan_body",
    "runs_touching",
    "upper_bound_of",
    "window_at",
    "windows",
];
const FOR_APPROVERS: [&str; 11] = [
    "approve",
    "ask",
    "ask_tenant",
    "close_review",
    "grant_break_glass",
    "lift",
    "lift_tenant",
    "revoke_approval",
    "token_secret",
    "tune",
    "tune_limits",
];
/// What only the owner and functions of the schema call.
const FOR_NOBODY: [&str; 23] = [
    "append_ledger",
    "condition_in_words",
    "encryption_of",
    "hmac_pads",
    "image_columns",
    "insist_on_guardrails",
    "is_plain_column",
    "keyed_signature",
    "meets",
    "plain_keys",
    "reads_run",
    "reads_values",
    "refuse_batch",
    "refuse_open_partition",
    "refuse_partition",
    "refuse_paused_tenant",
    "refuse_plain_change_set",
    "refuse_rewriting",
    "refuse_same_columns",
    "set_policy",
    "shown_key",
    "text_of_image",
    "token_of",
];

fn names(sql: &mut Sql, query: &str) -> BTreeSet<String> {
    sql.run(query).expect(query).into_iter().flatten().flatten().collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_group_holds_a_right_that_it_was_not_given_on_purpose() {
    let bank = Bank::new(approvals(1)).await;
    let mut runner = bank.as_role(&bank.runner).await;
    plan(&mut runner, &job("raise", CHANGE)).await;
    let mut sql = bank.db.sql().expect("a session");
    for role in [&bank.runner, &bank.approver, &bank.observer] {
        let writes = format!(
            "select c.relname || ' ' || p from pg_class c, unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p \
              where c.relnamespace = 'pgmend'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') \
                and (has_table_privilege('{role}', c.oid, p) or (p in ('insert', 'update', 'references') and has_any_column_privilege('{role}', c.oid, p)))"
        );
        assert_eq!(names(&mut sql, &writes), BTreeSet::new(), "{role} writes no table directly");
        let sequences = format!(
            "select c.relname from pg_sequence s join pg_class c on c.oid = s.seqrelid where c.relnamespace = 'pgmend'::regnamespace \
                and has_sequence_privilege('{role}', s.seqrelid, 'usage, select, update')"
        );
        assert_eq!(names(&mut sql, &sequences), BTreeSet::new(), "{role} moves no sequence");
        let makes = format!("select 'create' where has_schema_privilege('{role}', 'pgmend', 'create')");
        assert_eq!(names(&mut sql, &makes), BTreeSet::new(), "{role} makes nothing in the schema");
        let unread = format!(
            "select c.relname from pg_class c where c.relnamespace = 'pgmend'::regnamespace and c.relkind in ('r', 'p') \
                and not has_table_privilege('{role}', c.oid, 'select')"
        );
        let in_part = ["batch", "conflict", "dead_letter", "partition", "plan", "run"];
        let in_part = if *role == bank.observer { in_part.to_vec() } else { Vec::new() };
        let hidden = [vec!["token_key"], in_part].concat();
        assert_eq!(names(&mut sql, &unread), set(&hidden), "{role} reads the rest");
        let columns = format!(
            "select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid \
              where c.relnamespace = 'pgmend'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped \
                and c.relname <> 'token_key' and not has_column_privilege('{role}', c.oid, a.attnum, 'select')"
        );
        let hidden: &[&str] = match *role == bank.observer {
            true => &[
                "batch.cursor_to",
                "batch.first_half_to",
                "conflict.key",
                "dead_letter.key",
                "partition.lower",
                "partition.upper",
                "plan.body",
                "run.upper_bound",
            ],
            false => &[],
        };
        assert_eq!(names(&mut sql, &columns), set(hidden), "{role} reads every other column");
    }
    let callable = |role: &str| {
        format!(
            "select p.proname from pg_proc p where p.pronamespace = 'pgmend'::regnamespace and has_function_privilege('{role}', p.oid, 'execute')"
        )
    };
    let everything = names(&mut sql, "select proname from pg_proc where pronamespace = 'pgmend'::regnamespace");
    assert_eq!(names(&mut sql, &callable(&bank.observer)), set(&FOR_ALL));
    assert_eq!(names(&mut sql, &callable(&bank.approver)), &set(&FOR_ALL) | &set(&FOR_APPROVERS));
    let may = names(&mut sql, &callable(&bank.runner));
    for name in ["approve", "close_review", "grant_break_glass", "revoke_approval"].iter().chain(&FOR_NOBODY) {
        assert!(!may.contains(*name) && everything.contains(*name), "a runner may call {name}");
    }
    // And nobody else anything.
    let stranger = bank.db.create_role("stranger", "").expect("a role");
    assert_eq!(names(&mut sql, &callable(&stranger)), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_reads_no_value_of_a_parameter_that_is_not_plain() {
    let bank = Bank::new(approvals(1)).await;
    let (mut runner, mut observer) = (bank.as_role(&bank.runner).await, bank.as_role(&bank.observer).await);
    let mut job = job("raise", "update account set balance = balance + 5 where id > :least and 'wyvern' <> :name");
    let param = |name: &str, type_sql: &str, value: &str| BoundParam {
        name: name.into(),
        type_sql: type_sql.into(),
        value: value.into(),
    };
    job.params = vec![param("least", "int", "50"), param("name", "text", "griffin")];
    let planned = plan(&mut runner, &job).await;
    let id = planned.plan.plan_id.to_string();

    let mut sql = bank.sql_as(&bank.observer);
    let error = format!("{:?}", sql.run("select body from pgmend.plan").expect_err("the column is not theirs"));
    assert!(error.contains("42501"), "{error}");
    let seen = sql.value(&format!("select body from pgmend.plan_body('{id}')")).expect("a body").expect("a plan");
    assert!(!seen.contains("griffin") && seen.contains("wyvern"), "a constant of the statement is plain: {seen}");
    let loaded = observer.load_plan(&id).await.expect("an observer reads plans").plan;
    assert_eq!((loaded.params[0].value.as_str(), loaded.params[1].value.starts_with('‹')), ("50", true));
    for role in [&bank.runner, &bank.approver] {
        let loaded = bank.as_role(role).await.load_plan(&id).await.expect("the plan").plan;
        assert_eq!(loaded.params[1].value, "griffin", "{role} needs all that a run does and an approval is bound to");
    }

    // What is left for observers holds no digest that a guess could be tried against: they do not get the keys.
    assert!(!seen.contains("digest_key") && !planned.plan.digest_key.is_empty());
    let digests = "select plan_id::text, digest, signature from pgmend.plan";
    let row = sql.run(digests).expect("theirs to read").remove(0);
    let unkeyed = pgmend_core::plan::Plan { digest_key: Default::default(), ..planned.plan.clone() };
    assert_eq!(row[1].as_deref(), Some(planned.digest.as_str()));
    assert_ne!(row[1].as_deref(), Some(unkeyed.digest().0.as_str()));
    // Older versions kept signatures without a key: an upgrade makes of them what a plan of today has.
    let mut owner = bank.db.sql().expect("a session");
    let secret = owner.value("select secret from pgmend.token_key").expect("the key").expect("a key");
    let plain = pgmend_core::digest::Digest::of(&"what it covers");
    let keyed = pgmend_core::mask::TokenKey::from_secret(secret.as_bytes()).digest(&plain);
    let upgraded = owner.value(&format!("select pgmend.keyed_signature('{plain}')")).expect("a signature");
    assert_eq!(upgraded.as_deref(), Some(keyed.0.as_str()));
    let again = plan(&mut runner, &job).await;
    assert_eq!(again.plan.signature, planned.plan.signature, "the same change is known again");
    assert_ne!(again.digest, planned.digest, "and every plan has a key of its own");
    let for_programs = serde_json::to_string(&planned.plan.for_output()).expect("JSON");
    assert!(!for_programs.contains("digest_key") && !for_programs.contains("griffin"), "{for_programs}");
    // An observer may compute all but the key.
    let mut own = Engine::connect(Some(&bank.db.url_for(&bank.observer))).await.expect("a connection");
    owner.run(&format!("grant select, update on account to {}", bank.observer)).expect("a grant");
    let guessed = own.plan(&job, &PlanOptions { print_only: true, ..PlanOptions::default() }).await.expect("a plan");
    assert_ne!(guessed.plan.signature, planned.plan.signature);

    // Where values were shown on demand, they are not shown to those who did not ask.
    let options = PlanOptions { show_values: true, ..PlanOptions::default() };
    let shown = runner.plan(&job, &options).await.expect("a plan").plan;
    assert!(shown.samples.iter().any(|s| !s.columns.is_empty()));
    let seen = observer.load_plan(&shown.plan_id.to_string()).await.expect("the plan").plan;
    assert!(seen.samples.is_empty() && seen.transitions.is_empty() && seen.explain.is_empty());
    assert_eq!(seen.params[0].value, "‹masked›");
    assert_eq!(observer.status(None).await.expect("its status").len(), 0);
    // What they may not do is refused with who may.
    let (code, said) = refusal(observer.init().await);
    assert!(code == Code::Privilege && said.contains("the owner of schema pgmend does the rest"), "{said}");
}
