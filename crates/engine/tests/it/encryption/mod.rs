//! Images encrypted to a recipient: nothing in the control schema shows a value once the run has ended, and undo puts
//! every row back exactly with the identity, and not without it.

mod retry;
mod size;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use pgmend::guard::Named;
use pgmend::{
    Code, Engine, Error, Identities, Job, JobFile, Mode, Observer, Outcome, PlanOptions, RunOptions, RunState,
    UndoOptions,
};
use pgmend_core::environment::Environment;
use pgmend_core::policy::Policy;
use pgmend_testkit::{Database, Server, Sql};

/// In every planted value; `\x6772696666696e` is its bytes.
const PLANTED: [&str; 2] = ["griffin", "6772696666696e"];

/// Values whose text is not obvious, each kind at least once; NULLs among them.
const TABLES: &str = r#"
    create type mood as enum ('calm, "or" not', 'wild');
    create type pair as (name text, "at all" int);
    create domain short as text check (length(value) < 60);
    create table creature (
        id     int primary key,
        note   text,
        code   short,
        fixed  char(12),
        f8     double precision,
        f4     real,
        num    numeric,
        num2   numeric(12, 3),
        raw    bytea,
        list   text[],
        grid   int[],
        doc    json,
        docb   jsonb,
        feel   mood,
        part   pair,
        at     timestamptz,
        span   interval,
        flag   boolean,
        spot   point,
        ip     inet,
        bits   varbit,
        xid8   uuid,
        range  int4range,
        kept   text default 'griffin, kept'
    );
    insert into creature
    select i, case i % 5 when 0 then null when 1 then '' when 2 then 'griffin "' || i || '", (\\) ,' || chr(10) || chr(9) else 'griffin ' || i end,
           'griffin ' || i, 'griffin', case i % 4 when 0 then 'NaN' when 1 then '-0' when 2 then 'Infinity' else 1e-310 * i end,
           case i % 3 when 0 then '-0' else 0.1 * i end, case i % 3 when 0 then 'NaN' else 1.50 * i end, 12.340 * i,
           convert_to('griffin' || i, 'UTF8'), array['griffin', null, '', 'NULL', '{"a",\b}'], ('[2:3][-1:0]={{1,' || i || '},{3,4}}')::int[],
           ('{"b": "griffin",   "a": 1.00, "a": ' || i || '}')::json, jsonb_build_object('griffin', i), 'calm, "or" not', row('griffin, "x"', i)::pair,
           timestamptz '2026-03-29 01:59:59.999999+01' + make_interval(mins => i), make_interval(months => 1, days => -i, secs => 0.000001), i % 2 = 0,
           point(0.1, -0), '10.0.0.1/8', b'0110', gen_random_uuid(), int4range(i, null), 'griffin, kept'
      from generate_series(1, 47) i;
    create table news (id int primary key, note text);
    insert into news select i, 'news of a griffin ' || i from generate_series(40, 60) i;
    create schema crypto;
    create extension pgcrypto schema crypto;
"#;

struct Stage {
    engine: Engine,
    sql: Sql,
    db: Database,
    identity: Identity,
}

impl Stage {
    async fn new() -> Self {
        let db = Database::create(Server::shared(), "encryption").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run(TABLES).expect("the tables");
        let mut engine = Box::pin(Engine::connect(Some(&db.url()))).await.expect("a connection");
        engine.init().await.expect("the control schema");
        Self { engine, sql, db, identity: Identity::generate() }
    }

    fn recipient(&self) -> String {
        self.identity.to_public().to_string()
    }

    fn job(&self, statement: &str, mode: Option<Mode>) -> Job {
        let mut file = JobFile { mode, ..JobFile::default() };
        file.limits.batch_rows = Some(10);
        file.limits.lease_seconds = 3;
        file.images.recipient = Some(self.recipient());
        Job { file, ..Job::from_statement("creatures", statement) }
    }

    async fn run(&mut self, job: &Job) -> Outcome {
        let ran = Box::pin(self.engine.run(job, &RunOptions::default(), &mut Observer::silent())).await;
        ran.expect("a run")
    }

    /// The lines that `status` offers are to work as they are typed.
    async fn assert_undo_is_offered_with_an_identity(&mut self, run: &str) {
        let status = self.engine.status(Some(run)).await.expect("a status").remove(0);
        let line = status.next.iter().find(|line| line.starts_with("pgmend undo ")).expect("an undo is offered");
        assert!(line.contains(" --identity FILE --execute"), "{line}");
    }

    async fn undo(&mut self, run: &str, identity: Option<&Identity>) -> Result<Outcome, Error> {
        let options = UndoOptions { identity: identity.map(identities), ..UndoOptions::default() };
        Box::pin(self.engine.undo(run, &options, &mut Observer::silent())).await
    }

    /// Every row as the server prints it, in order.
    fn rows(&mut self) -> Vec<Option<String>> {
        let rows =
            self.sql.run("set extra_float_digits = 1; select c::text from creature c order by id").expect("rows");
        rows.into_iter().map(|row| row.into_iter().next().flatten()).collect()
    }

    /// All rows of all tables of the control schema, as text, but for the statements that people typed.
    fn kept(&mut self) -> String {
        let tables = "select format('select string_agg(t::text, '' '') from pgmend.%I t', relname) from pg_class \
                      where relnamespace = 'pgmend'::regnamespace and relkind = 'r'";
        let tables = self.sql.run(tables).expect("the tables");
        let mut all = String::new();
        for query in tables.into_iter().flatten().flatten() {
            all += &self.sql.value(&query).expect("its rows").unwrap_or_default();
        }
        all
    }

    fn assert_nothing_is_plain(&mut self) {
        let kept = self.kept();
        for planted in PLANTED {
            let at = kept.find(planted);
            let around = at.and_then(|at| kept.get(at.saturating_sub(200)..(at + 80).min(kept.len())));
            assert!(at.is_none(), "the control schema holds {planted}: {around:?}");
        }
    }
}

fn identities(identity: &Identity) -> Identities {
    Identities::parse(identity.to_string().expose_secret()).expect("an identity")
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    match result {
        Err(Error::Refused(refusal)) => (refusal.code, format!("{}; {}", refusal.message, refusal.help)),
        other => panic!("not refused: {other:?}"),
    }
}

const UPDATE: &str = "update creature set note = 'x' || note, code = 'new', fixed = 'n', f8 = f8 * 2, f4 = 1, num = 0, num2 = num2 + 1, \
    raw = raw || raw, list = list || 'y'::text, grid = null, doc = '{}', docb = docb || '{\"b\": 1}', feel = null, part = null, at = at + interval '1 hour', \
    span = span * 2, flag = not flag, spot = point(2, -0), ip = null, bits = null, xid8 = null, range = 'empty'";
const DELETE: &str = "delete from creature where id % 2 = 1";
const UPSERT: &str =
    "insert into creature (id, note) select id, note from news on conflict (id) do update set note = excluded.note";

/// Runs a change, undoes it with the identity and not without it, makes it again by an undo of the undo, and undoes that.
async fn goes_there_and_back(statement: &str, mode: Option<Mode>, more: &str) {
    let mut stage = Stage::new().await;
    stage.sql.run(more).expect("what else there is");
    let before = stage.rows();
    let job = stage.job(statement, mode);
    let done = stage.run(&job).await;
    assert_eq!(done.state, RunState::Succeeded, "{done:?}");
    stage.assert_nothing_is_plain();
    let after = stage.rows();
    assert_ne!(before, after);

    let run = done.run_id.to_string();
    let (code, said) = refusal(stage.undo(&run, None).await);
    assert_eq!(code, Code::IdentityMissing);
    assert!(said.contains(&stage.recipient()) && said.contains("--identity"), "{said}");
    let (code, said) = refusal(stage.undo(&run, Some(&Identity::generate())).await);
    assert_eq!(code, Code::WrongIdentity);
    assert!(said.contains(&stage.recipient()), "{said}");
    assert_eq!(stage.rows(), after, "a refusal changes nothing");
    stage.assert_undo_is_offered_with_an_identity(&run).await;

    let own = stage.identity.clone();
    let undone = stage.undo(&run, Some(&own)).await.expect("an undo");
    assert_eq!((undone.state, undone.conflict_rows), (RunState::Succeeded, 0), "{:?}", undone.verification);
    assert_eq!(stage.rows(), before);
    stage.assert_nothing_is_plain();

    let again = undone.run_id.to_string();
    stage.assert_undo_is_offered_with_an_identity(&again).await;
    assert_eq!(refusal(stage.undo(&again, None).await).0, Code::IdentityMissing);
    let redone = stage.undo(&again, Some(&own)).await.expect("an undo of the undo");
    assert_eq!((redone.state, redone.conflict_rows), (RunState::Succeeded, 0));
    assert_eq!(stage.rows(), after);
    stage.assert_nothing_is_plain();
    let back = stage.undo(&redone.run_id.to_string(), Some(&own)).await.expect("a third undo");
    assert_eq!(back.state, RunState::Succeeded);
    assert_eq!(stage.rows(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_stream_is_undone_exactly() {
    goes_there_and_back(UPDATE, Some(Mode::Stream), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_change_set_is_undone_exactly() {
    goes_there_and_back(UPDATE, Some(Mode::Freeze), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_delete_is_undone_exactly() {
    goes_there_and_back(DELETE, Some(Mode::Stream), "").await;
    goes_there_and_back(DELETE, Some(Mode::Freeze), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_insert_with_on_conflict_is_undone_exactly() {
    goes_there_and_back(UPSERT, None, "").await;
}

/// A trigger that decides what is stored: images of every column, saved by the change itself.
const TRIGGER: &str = "create function mark() returns trigger language plpgsql as $$ \
    begin new.kept := 'kept by a trigger ' || md5(new.note); return new; end $$; \
    create trigger mark before update on creature for each row execute function mark()";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_stores_is_encrypted_too() {
    let kinds = [(Mode::Stream, "update creature set flag = null"), (Mode::Freeze, "update creature set flag = null")];
    for (mode, statement) in kinds {
        let mut stage = Stage::new().await;
        stage.sql.run(TRIGGER).expect("a trigger");
        let job = stage.job(statement, Some(mode));
        let done = stage.run(&job).await;
        assert_eq!(done.state, RunState::Succeeded);
        let kept = stage.kept();
        assert!(!kept.contains("kept by a trigger") && !kept.contains("griffin"), "{mode:?}");
        let own = stage.identity.clone();
        let undone = stage.undo(&done.run_id.to_string(), Some(&own)).await.expect("an undo");
        assert_eq!((undone.changed_rows, undone.conflict_rows), (47, 0));
        let kept = stage.kept();
        assert!(!kept.contains("kept by a trigger") && !kept.contains("griffin"), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_of_a_run_has_its_key_and_undo_opens_them_all() {
    let mut stage = Stage::new().await;
    let before = stage.rows();
    let job = stage.job(UPDATE, Some(Mode::Stream));
    let slice = RunOptions { stop_after_batches: Some(2), ..RunOptions::default() };
    let paused = Box::pin(stage.engine.run(&job, &slice, &mut Observer::silent())).await.expect("a slice");
    assert_eq!(paused.changed_rows, 20);
    stage.assert_nothing_is_plain();
    let done = stage.run(&job).await;
    assert_eq!(done.state, RunState::Succeeded);
    let keys = stage.sql.value("select count(*) from pgmend.image_key").expect("it answers");
    assert_eq!(keys.as_deref(), Some("2"));
    let own = stage.identity.clone();
    stage.undo(&done.run_id.to_string(), Some(&own)).await.expect("an undo");
    assert_eq!(stage.rows(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_change_set_of_a_cancelled_run_is_encrypted_and_what_it_did_is_undone() {
    let mut stage = Stage::new().await;
    let before = stage.rows();
    let job = stage.job(UPDATE, Some(Mode::Freeze));
    let slice = RunOptions { stop_after_batches: Some(2), ..RunOptions::default() };
    let paused = Box::pin(stage.engine.run(&job, &slice, &mut Observer::silent())).await.expect("a slice");
    let run = paused.run_id.to_string();
    assert!(stage.kept().contains("griffin"), "the change set of a run that may go on is plain");
    Box::pin(stage.engine.cancel(&run, "no longer wanted", &mut Observer::silent())).await.expect("a cancellation");
    stage.assert_nothing_is_plain();
    let own = stage.identity.clone();
    let undone = stage.undo(&run, Some(&own)).await.expect("an undo");
    assert_eq!((undone.changed_rows, undone.conflict_rows), (20, 0));
    assert_eq!(stage.rows(), before);
    stage.assert_nothing_is_plain();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_can_be_read_by_hand_with_age_and_psql() {
    let mut stage = Stage::new().await;
    let before = stage.sql.value("select row(note, flag)::text from creature where id = 2").expect("a row");
    let job = stage.job("update creature set note = 'x', flag = null", Some(Mode::Stream));
    let done = stage.run(&job).await;
    assert_eq!(done.state, RunState::Succeeded);
    let kept = stage.sql.value("select encode(encrypted, 'hex') from pgmend.image_key").expect("a key").expect("one");
    let bytes: Vec<u8> =
        (0..kept.len()).step_by(2).map(|at| u8::from_str_radix(&kept[at..at + 2], 16).expect("hex")).collect();
    assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "an age file");
    let secret = String::from_utf8(age::decrypt(&stage.identity, &bytes).expect("it opens")).expect("text");
    let table = stage.sql.value("select image_table from pgmend.run").expect("a run").expect("a table");
    let read = format!("select crypto.pgp_sym_decrypt(encrypted, '{secret}') from pgmend.{table} where key_id = 2");
    let row = stage.sql.value(&read).expect("it decrypts").expect("a row");
    let before = before.expect("a row");
    assert!(row.starts_with(before.strip_suffix(')').expect("a composite")) && row.ends_with(",x,)"), "{row}");
    let wrong = read.replace(&secret, "another");
    assert!(stage.sql.value(&wrong).is_err(), "another key does not open it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_tells_values_only_to_the_identity() {
    let mut stage = Stage::new().await;
    for mode in [Mode::Stream, Mode::Freeze] {
        let statement = format!("update creature set note = 'seen by {}'", mode.name());
        let job = stage.job(&statement, Some(mode));
        stage.run(&job).await;
    }
    let key = ["3".to_owned()];
    let shut = Box::pin(stage.engine.trace("creature", &key, true, None)).await.expect("a trace");
    assert_eq!(shut.len(), 2);
    assert!(shut.iter().all(|t| t.columns.is_empty() && t.encrypted_to.as_deref() == Some(&stage.recipient())));
    let opened = Box::pin(stage.engine.trace("creature", &key, true, Some(&identities(&stage.identity)))).await;
    let columns: Vec<_> = opened.expect("a trace").into_iter().flat_map(|touch| touch.columns).collect();
    let text = |t: &str| Some(t.to_owned());
    assert_eq!(
        columns,
        [
            ("note".to_owned(), text("griffin 3"), text("seen by stream")),
            ("note".to_owned(), text("seen by stream"), text("seen by freeze")),
        ]
    );
    let other = identities(&Identity::generate());
    let (code, _) = refusal(Box::pin(stage.engine.trace("creature", &key, true, Some(&other))).await);
    assert_eq!(code, Code::WrongIdentity);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_pgcrypto_the_plan_is_refused_with_what_a_dba_types() {
    let mut stage = Stage::new().await;
    stage.sql.run("drop extension pgcrypto").expect("it goes");
    let job = stage.job(UPDATE, None);
    let (code, said) = refusal(Box::pin(stage.engine.plan(&job, &PlanOptions::default())).await);
    assert_eq!(code, Code::NoPgcrypto);
    assert!(said.contains("create extension pgcrypto"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_encrypt_is_told_so_by_the_plan() {
    let mut stage = Stage::new().await;
    let role = stage.db.create_role("runner", "").expect("a role");
    let grants = format!("grant pgmend_runner to {role}; grant select, update on creature to {role}");
    stage.sql.run(&grants).expect("its rights");
    let mut engine = Box::pin(Engine::connect(Some(&stage.db.url_for(&role)))).await.expect("a connection");
    let job = stage.job(UPDATE, None);
    let (code, said) = refusal(Box::pin(engine.plan(&job, &PlanOptions::default())).await);
    assert_eq!(code, Code::NoPgcrypto);
    assert!(said.contains("grant usage on schema crypto"), "{said}");
    // With the right it runs, and undoes, with no more than a runner has.
    stage.sql.run(&format!("grant usage on schema crypto to {role}")).expect("the right");
    let before = stage.rows();
    for mode in [Mode::Stream, Mode::Freeze] {
        let job = stage.job(UPDATE, Some(mode));
        let options = RunOptions { again: Some("another mode".into()), ..RunOptions::default() };
        let done = Box::pin(engine.run(&job, &options, &mut Observer::silent())).await.expect("a run");
        assert_eq!(done.state, RunState::Succeeded);
        stage.assert_nothing_is_plain();
        let options = UndoOptions { identity: Some(identities(&stage.identity)), ..UndoOptions::default() };
        let undone =
            Box::pin(engine.undo(&done.run_id.to_string(), &options, &mut Observer::silent())).await.expect("an undo");
        assert_eq!(undone.state, RunState::Succeeded);
        assert_eq!(stage.rows(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_where_the_server_would_log_the_key() {
    let mut stage = Stage::new().await;
    let job = stage.job(UPDATE, None);
    let name = stage.db.name().to_owned();
    stage.sql.run(&format!("alter database {name} set log_statement = 'all'")).expect("a setting");
    let mut engine = Box::pin(Engine::connect(Some(&stage.db.url()))).await.expect("a connection");
    let planned = Box::pin(engine.plan(&job, &PlanOptions::default())).await.expect("a plan");
    let finding = planned.plan.findings.iter().find(|f| f.check == "parameters_logged").expect("a finding");
    assert!(finding.message.contains("log_statement is all"), "{finding:?}");
    assert_eq!(planned.plan.images.recipient.map(|r| r.to_string()), Some(stage.recipient()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_row_is_never_restored() {
    let mut stage = Stage::new().await;
    let job = stage.job(UPDATE, Some(Mode::Stream));
    let done = stage.run(&job).await;
    let after = stage.rows();
    let table = stage.sql.value("select image_table from pgmend.run").expect("a run").expect("a table");
    let flip = format!(
        "update pgmend.{table} set encrypted = set_byte(encrypted, 60, get_byte(encrypted, 60) # 1) where key_id = 9"
    );
    stage.sql.run(&flip).expect("an altered row");
    let own = stage.identity.clone();
    let (code, said) = refusal(stage.undo(&done.run_id.to_string(), Some(&own)).await);
    assert_eq!(code, Code::UnreadableImages, "{said}");
    assert_eq!(stage.rows(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_keeps_no_key() {
    let mut stage = Stage::new().await;
    let job = stage.job(UPDATE, Some(Mode::Stream));
    let options = PlanOptions { rehearse: 2, ..PlanOptions::default() };
    let planned = Box::pin(stage.engine.plan(&job, &options)).await.expect("a plan");
    assert!(
        planned.plan.rehearsal.is_some_and(|r| r.batches.iter().any(|b| b.rows > 0)),
        "{:?}",
        planned.plan.findings
    );
    assert_eq!(stage.sql.value("select count(*) from pgmend.image_key").expect("it answers").as_deref(), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_demands_a_recipient_gives_it_to_every_plan() {
    let mut stage = Stage::new().await;
    let recipient = Some(stage.recipient());
    let environment = Environment { policy: Policy { recipient, ..Policy::default() }, ..Environment::default() };
    let named = Named { name: "zoo".into(), environment };
    stage.engine = Box::pin(Engine::connect_to(Some(&stage.db.url()), named)).await.expect("a connection");
    stage.engine.install_policy().await.expect("the policy");
    let mut job = stage.job(UPDATE, Some(Mode::Freeze));
    job.file.images.recipient = None;
    let done = stage.run(&job).await;
    assert_eq!(done.state, RunState::Succeeded);
    stage.assert_nothing_is_plain();
    job.file.images.recipient = Some(Identity::generate().to_public().to_string());
    let (code, said) = refusal(Box::pin(stage.engine.plan(&job, &PlanOptions::default())).await);
    assert_eq!(code, Code::Recipient);
    assert!(said.contains(&stage.recipient()), "{said}");
    // Whatever a client believes: a plan without it is not started.
    let plain = "update pgmend.plan set body = (body::jsonb #- '{images,recipient}')::text";
    stage.sql.run(plain).expect("a plan of another client");
    let met = "select met::text from pgmend.plan p cross join lateral pgmend.guardrails(p.plan_id) as g where g.rule = 'recipient'";
    assert_eq!(stage.sql.value(met).expect("it answers").as_deref(), Some("false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_succeeds_while_its_change_set_is_plain() {
    let mut stage = Stage::new().await;
    let job = stage.job(UPDATE, Some(Mode::Freeze));
    let slice = RunOptions { stop_after_batches: Some(2), ..RunOptions::default() };
    Box::pin(stage.engine.run(&job, &slice, &mut Observer::silent())).await.expect("a slice");
    let error = stage
        .sql
        .run("update pgmend.run set state = 'succeeded', reason = null, ended_at = now()")
        .expect_err("refused");
    assert!(error.to_string().contains("not encrypted"), "{error}");
}
