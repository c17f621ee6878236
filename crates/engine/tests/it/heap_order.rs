//! A change set in the order of the table's pages, where the key has another and the table is large for the server.

use pgmend::{Engine, Job, Mode, Observer, PlanOptions, RunOptions, UndoOptions};
use pgmend_testkit::{Database, Server, ServerOptions, Sql};

const ROWS: i64 = 2_000;
const CHANGE: &str = "update item set note = upper(note) where n % 10 <> 0";

/// A server with so little cache that a table of a few megabytes is large.
fn small_server() -> Server {
    ServerOptions::new().setting("shared_buffers", "1MB").start().expect("a server starts")
}

fn table(db: &Database) -> Sql {
    let mut sql = db.sql().expect("a session");
    sql.run(&format!(
        "create table item (id uuid primary key, n int not null, note text not null, filler text, seen int default 0);
         insert into item select md5(i::text)::uuid, i, 'note ' || i, repeat('x', 1000) from generate_series(1, {ROWS}) i"
    ))
    .expect("the table");
    sql.run("vacuum analyze item").expect("statistics");
    sql
}

fn job(mode: Mode) -> Job {
    let mut job = Job::from_statement("heap", CHANGE);
    job.file.mode = Some(mode);
    job.file.limits.batch_rows = Some(100);
    job
}

fn number(sql: &mut Sql, query: &str) -> i64 {
    sql.value(query).expect("an answer").and_then(|text| text.parse().ok()).expect("a number")
}

const CONTENT: &str = "select count(*) || ' ' || sum(hashtextextended(row(id, n, note, filler)::text, 0)) from item";

#[tokio::test(flavor = "multi_thread")]
async fn each_page_of_a_large_table_in_another_order_is_written_by_one_batch() {
    let server = small_server();
    let db = Database::create(&server, "heap").expect("a database");
    let mut sql = table(&db);
    let before = sql.value(CONTENT).expect("an answer");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");

    let streamed = engine.plan(&job(Mode::Stream), &PlanOptions::default()).await.expect("a plan").plan;
    assert!(streamed.findings.iter().any(|f| f.check == "scattered_key"), "{:?}", streamed.findings);
    let plan = engine.plan(&job(Mode::Freeze), &PlanOptions::default()).await.expect("a plan").plan;
    let change_set = plan.change_set.as_ref().expect("a change set");
    assert!(change_set.in_heap_order);
    assert_eq!(change_set.rows, ROWS * 9 / 10);
    let split = format!(
        "select count(*) from (select (t.ctid::text::point)[0] from {} s join item t on t.id = s.key_id \
         group by 1 having count(distinct (s.n - 1) / 100) > 1) as page",
        change_set.relation.sql()
    );
    let batches = change_set.rows / 100;
    let pages = number(&mut sql, &split);
    assert!(pages < batches, "{pages} pages are written by several of {batches} batches");

    // Meanwhile rows move to other pages, one is changed and one is gone.
    sql.run("update item set seen = 1 where n % 7 = 0").expect("rows move");
    sql.run("vacuum full item").expect("all rows move");
    sql.run("update item set note = 'mine' where n = 1; delete from item where n = 2").expect("others' changes");
    let id = plan.plan_id.to_string();
    let outcome = engine.run_plan(&id, &RunOptions::default(), &mut Observer::silent()).await.expect("the run");
    assert_eq!((outcome.changed_rows, outcome.conflict_rows), (ROWS * 9 / 10 - 2, 2));
    let wrong = "select count(*) from item where note <> case when n % 10 <> 0 and n > 1 then upper('note ' || n) \
                 when n = 1 then 'mine' else 'note ' || n end";
    assert_eq!(number(&mut sql, wrong), 0);

    let undo = engine.plan_undo("heap", &UndoOptions::default()).await.expect("a plan of the undo");
    let id = undo.plan.plan_id.to_string();
    let undone = engine.run_plan(&id, &RunOptions::default(), &mut Observer::silent()).await.expect("the undo");
    assert_eq!((undone.changed_rows, undone.conflict_rows), (ROWS * 9 / 10 - 2, 0));
    sql.run(
        "update item set note = 'note 1' where n = 1;
         insert into item select md5('2')::uuid, 2, 'note 2', repeat('x', 1000)",
    )
    .expect("as before");
    assert_eq!(sql.value(CONTENT).expect("an answer"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_follows_the_pages_or_a_table_that_fits_the_cache_is_taken_in_key_order() {
    let db = Database::create(Server::shared(), "heap_fits").expect("a database");
    let _sql = table(&db);
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");
    let plan = engine.plan(&job(Mode::Freeze), &PlanOptions::default()).await.expect("a plan").plan;
    assert!(!plan.change_set.expect("a change set").in_heap_order);

    let server = small_server();
    let db = Database::create(&server, "heap_follows").expect("a database");
    table(&db).run("create unique index by_n on item (n); analyze item").expect("another key");
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");
    let by_n = |mode| {
        let mut job = job(mode);
        job.file.key = Some(vec!["n".into()]);
        job
    };
    let plan = engine.plan(&by_n(Mode::Freeze), &PlanOptions::default()).await.expect("a plan").plan;
    assert!(!plan.change_set.expect("a change set").in_heap_order);
    let plan = engine.plan(&by_n(Mode::Stream), &PlanOptions::default()).await.expect("a plan").plan;
    assert!(plan.findings.iter().all(|f| f.check != "scattered_key"), "{:?}", plan.findings);
}
