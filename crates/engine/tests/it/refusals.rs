//! Refusals: each code that a plan can give, with a statement that gets it. The pages of docs/errors speak of the same
//! cases. Codes of runs, undo and connections are met where those are tested.

use pgmend::{Code, Engine, Error, Job, JobFile, Observer, PlanOptions, RunOptions};
use pgmend_testkit::{Database, Server};

/// The tables that the statements meet.
const SCENE: &str = r#"
    create table users (id int primary key, name text, role text, since date);
    insert into users select i, 'user' || i, 'memeber' from generate_series(1, 20) i;
    create table import (user_id int, role text);
    insert into import values (17, 'member'), (17, 'admin');
    create table price (sku text primary key, amount numeric);
    create table offer (sku text, amount numeric);
    insert into offer values ('A', 10), ('A', 12);
    create function charge_fee(int) returns int language sql as 'select 1';
    create table item (id int primary key, place int unique deferrable);
    insert into item select i, i from generate_series(1, 20) i;
    create table audited (id int primary key);
    insert into audited select generate_series(1, 20);
    create function audit() returns trigger language plpgsql as 'begin return null; end';
    create trigger audit after delete on audited for each statement execute function audit();
    create table seat (id int primary key);
    insert into seat select generate_series(1, 20);
    create table label (path text[] primary key);
    insert into label values ('{a,b}');
    create table no_key (email text unique);
    create view member as select * from users;
    create table person (id int primary key);
    create table employee () inherits (person);
    create table ruled (id int primary key);
    create rule keep as on delete to ruled do instead nothing;
    create table named (name text collate "und-x-icu" primary key);
    update pg_collation set collversion = '1' where collname = 'und-x-icu';
"#;

/// Statements by the code that refuses them.
const CASES: [(Code, &str); 25] = [
    (Code::Empty, "-- nothing yet"),
    (Code::SeveralStatements, "delete from users; delete from seat"),
    (Code::NotAChange, "truncate users"),
    (Code::Syntax, "update users set role = 'member', where role = 'memeber'"),
    (Code::BareParameter, "delete from users where id < $1"),
    (Code::Parameter, "delete from users where id < :id"),
    (Code::CurrentOf, "update users set role = 'member' where current of c"),
    (Code::ServerRejects, "update users set since = 'soon'"),
    (
        Code::WritingCte,
        "with x as (delete from seat returning id) update users set role = 'x' where id in (select id from x)",
    ),
    (Code::VolatilePredicate, "delete from users where random() < 0.1"),
    (Code::SideEffects, "update users set id = charge_fee(id)"),
    (Code::AmbiguousSource, "update users u set role = i.role from import i where i.user_id = u.id"),
    (
        Code::DuplicateSource,
        "insert into price select sku, amount from offer on conflict (sku) do update set amount = excluded.amount",
    ),
    (Code::NotSplittable, "update item set place = place + 1"),
    (Code::StatementTrigger, "delete from audited"),
    (Code::KeyMoves, "update seat set id = id + 1"),
    (Code::CannotFreeze, "update label set path[2] = 'x'"),
    (Code::NoKey, "delete from no_key"),
    (Code::NoSuchTable, "delete from userz"),
    (Code::NotATable, "delete from member"),
    (Code::Inheritance, "delete from person"),
    (Code::CollationDrift, "delete from named"),
    (Code::Rules, "delete from ruled"),
    (Code::SystemTarget, "delete from pg_class"),
    (Code::SystemTarget, "delete from pgmend.batch"),
];

/// No transaction may hold as many rows as the tables above have.
fn job(statement: &str) -> Job {
    let mut file = JobFile::default();
    file.limits.rows_per_transaction_max = 10;
    Job { file, ..Job::from_statement("refused", statement) }
}

fn code(result: Result<impl Sized, Error>) -> Option<Code> {
    match result {
        Err(Error::Refused(refusal)) => {
            assert!(!refusal.help.is_empty(), "{} has no way out", refusal.message);
            Some(refusal.code)
        }
        Err(Error::Database { .. } | Error::Corrupt(_)) | Ok(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_refused_by_its_code_with_a_way_out_and_no_plan_is_stored() {
    let db = Database::create(Server::shared(), "refusals").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(SCENE).expect("the scene");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");
    for (expected, statement) in CASES {
        let planned = engine.plan(&job(statement), &PlanOptions::default()).await;
        assert_eq!(code(planned), Some(expected), "{statement}");
    }
    assert_eq!(sql.value("select count(*) from pgmend.plan").expect("plans").as_deref(), Some("0"));
    let left = "select count(*) from pg_class where relname like 'change\\_set\\_%'";
    assert_eq!(sql.value(left).expect("change sets").as_deref(), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_refused_what_it_may_not_do_or_not_see() {
    let db = Database::create(Server::shared(), "refusals").expect("a database");
    let mut sql = db.sql().expect("a session");
    let role = db.create_role("clerk", "").expect("a role");
    sql.run(&format!(
        "create table branch (id int primary key); alter table branch enable row level security;
         create policy own on branch for all to {role} using (id < 5); grant all on branch to {role};
         create table secret (id int primary key); create table shown (id int primary key); grant select on shown to {role}"
    ))
    .expect("the tables");
    let mut engine = Engine::connect(Some(&db.url_for(&role))).await.expect("a connection");
    let options = PlanOptions::default();
    assert_eq!(code(engine.plan(&job("delete from branch"), &options).await), Some(Code::RowSecurity));
    assert_eq!(code(engine.plan(&job("delete from secret"), &options).await), Some(Code::Privilege));
    let read_only = engine.plan(&job("delete from shown"), &options).await.expect("a plan needs no right to write");
    assert!(read_only.plan.findings.iter().any(|f| f.check == "no_write_privilege"), "{:?}", read_only.plan.findings);
    assert_eq!(code(engine.list().await), Some(Code::ControlSchema));
    sql.run(&format!("alter role {role} set session_replication_role = replica")).expect("the setting");
    let mut engine = Engine::connect(Some(&db.url_for(&role))).await.expect("a connection");
    assert_eq!(code(engine.plan(&job("delete from secret"), &options).await), Some(Code::ReplicationRole));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_columns_than_an_image_holds_are_refused() {
    let db = Database::create(Server::shared(), "refusals").expect("a database");
    let mut sql = db.sql().expect("a session");
    let columns = |text: fn(usize) -> String| (0..900).map(text).collect::<Vec<_>>().join(", ");
    let wide = columns(|i| format!("c{i} smallint default 0"));
    sql.run(&format!("create table wide (id int primary key, {wide}); insert into wide values (1)")).expect("a table");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let all = format!("update wide set {}", columns(|i| format!("c{i} = c{i} + 1")));
    assert_eq!(code(engine.plan(&job(&all), &PlanOptions::default()).await), Some(Code::TooManyColumns));
    let few = engine.plan(&job("update wide set c1 = 1, c899 = 2"), &PlanOptions::default()).await;
    assert_eq!(few.expect("a plan").plan.counts.changed_rows.value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_path_that_redefines_operators_or_functions_of_the_server_is_refused() {
    let db = Database::create(Server::shared(), "refusals").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create table t (id int primary key); insert into t select generate_series(1, 5);
         create schema s; create function s.under(int, int) returns bool language sql immutable as 'select $1 < $2';
         create operator s.> (leftarg = int, rightarg = int, function = s.under);
         create schema f; create function f.now() returns timestamptz language sql immutable as 'select ''-infinity''::timestamptz';
         create schema own; create function own.under(int, int) returns bool language sql immutable as 'select $1 < $2'",
    )
    .expect("the schemas");
    let mut plan = async |path: &str| {
        sql.run(&format!("alter database {} set search_path = {path}", db.name())).expect("the setting");
        let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
        code(engine.plan(&job("delete from t where id > 2"), &PlanOptions::default()).await)
    };
    assert_eq!(plan("s, pg_catalog, public").await, Some(Code::ShadowedCatalog));
    assert_eq!(plan("f, pg_catalog, public").await, Some(Code::ShadowedCatalog));
    assert_eq!(plan("pg_catalog, s, f, public").await, None);
    assert_eq!(plan("s, f, public").await, None);
    assert_eq!(plan("own, pg_catalog, public").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_one_transaction_is_never_larger_than_the_job_allows() {
    let db = Database::create(Server::shared(), "refusals").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(SCENE).expect("the scene");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let statement = "update item set place = place + 1 where id <= ";
    let ran = engine.run(&job(&format!("{statement} 11")), &RunOptions::default(), &mut Observer::silent()).await;
    assert_eq!(code(ran), Some(Code::NotSplittable));
    let narrow = job("update item set place = place + 100 where id <= 10");
    let outcome = engine.run(&narrow, &RunOptions::default(), &mut Observer::silent()).await.expect("a small one");
    assert_eq!((outcome.changed_rows, outcome.batches), (10, 1));
}

/// A cast that fails on one row of twenty fails the plain statement; with leave, that row alone is set aside.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_new_value_cannot_be_computed_is_refused_or_set_aside() {
    let db = Database::create(Server::shared(), "refusals").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create table reading (id int primary key, raw text, celsius numeric);
         insert into reading select i, case i when 7 then 'secret' else i::text end from generate_series(1, 20) i",
    )
    .expect("the scene");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    let mut job = Job::from_statement("parse", "update reading set celsius = raw::numeric");
    let refused = engine.plan(&job, &PlanOptions::default()).await;
    let Err(Error::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, Code::NotComputable);
    assert!(refusal.message.contains("22P02") && !refusal.message.contains("secret"), "{}", refusal.message);
    job.file.dead_letters.rows_max = Some(1);
    let plan = engine.plan(&job, &PlanOptions::default()).await.expect("a plan").plan;
    assert!(plan.findings.iter().any(|f| f.check == "not_computable" && !f.message.contains("secret")), "{plan:?}");
    let outcome = engine.run(&job, &RunOptions::default(), &mut Observer::silent()).await.expect("it ends");
    assert_eq!((plan.counts.matched_rows.value, outcome.changed_rows, outcome.dead_rows), (20, 19, 1));
    let right = "select count(*) from reading where celsius = id and id <> 7 or celsius is null and id = 7";
    assert_eq!(sql.value(right).expect("it answers").as_deref(), Some("20"));
}
