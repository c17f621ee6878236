//! Batches whose end is found by counting keys, where nearly every row matches.

use std::sync::{Arc, Mutex};

use pgmend::{Engine, Event, Job, Observer, PlanOptions, RunOptions};
use pgmend_testkit::{Database, Server, Sql};

const ROWS: i64 = 60_000;
const CHANGE: &str = "update item set seen = seen + 1 where wanted";

/// Rows of which those that the condition names are not wanted.
fn table(db: &Database, unwanted: &str) -> Sql {
    let mut sql = db.sql().expect("a session");
    sql.run(&format!(
        "create table item (id int primary key, wanted bool not null, seen int not null default 0);
         insert into item select i, not ({unwanted}) from generate_series(1, {ROWS}) i"
    ))
    .expect("the table");
    sql.run("vacuum analyze item").expect("statistics");
    sql
}

/// Runs the change; gives what each batch changed, and how many rows it was to have.
async fn batches(db: &Database, in_halves: bool) -> Vec<(i64, u32)> {
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");
    let mut job = Job::from_statement("density", CHANGE);
    job.file.limits.in_halves = Some(in_halves);
    // The end of a batch is read ahead, with the commit before: its size was told by the one before that.
    let seen = Arc::new(Mutex::new((Vec::new(), [500, 500])));
    let told = Arc::clone(&seen);
    let mut observer = Observer::new(move |event| {
        if let Event::Batch { rows, next_batch_rows, .. } = event {
            let mut told = told.lock().expect("nobody panicked");
            let [wanted, next] = told.1;
            told.0.push((*rows, wanted));
            told.1 = [next, *next_batch_rows];
        }
    });
    let plan = engine.plan(&job, &PlanOptions::default()).await.expect("a plan").plan;
    assert_eq!(plan.counts.scanned_rows.value, ROWS);
    let done = engine.run(&job, &RunOptions::default(), &mut observer).await.expect("it goes");
    assert_eq!(done.residual_rows, Some(0));
    let seen = seen.lock().expect("nobody panicked");
    seen.0.clone()
}

fn number(sql: &mut Sql, query: &str) -> i64 {
    sql.value(query).expect("an answer").and_then(|text| text.parse().ok()).expect("a number")
}

const NOT_ONCE: &str = "select count(*) from item where seen <> case when wanted then 1 else 0 end";

#[tokio::test(flavor = "multi_thread")]
async fn where_nearly_all_rows_match_a_batch_is_as_many_keys_and_every_row_is_changed_once() {
    let server = Server::shared();
    let db = Database::create(server, "density").expect("a database");
    let mut sql = table(&db, "i % 20 = 0");
    let batches = batches(&db, false).await;
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
    let (last, before) = batches.split_last().expect("batches");
    assert!(last.0 <= i64::from(last.1));
    for (rows, keys) in before {
        // One in twenty of the keys does not match.
        let most = i64::from(keys - keys / 20 + 1);
        assert!(*rows <= most && *rows >= most - 2, "{rows} rows of {keys} keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_without_a_match_costs_no_empty_batch() {
    for in_halves in [false, true] {
        let server = Server::shared();
        let db = Database::create(server, "density_hole").expect("a database");
        let mut sql = table(&db, "i between 2001 and 7900");
        let batches = batches(&db, in_halves).await;
        assert_eq!(number(&mut sql, NOT_ONCE), 0);
        assert!(batches.iter().all(|(rows, _)| *rows > 0), "{batches:?}");
        let empty = "select count(*) from pgmend.batch where changed_rows = 0";
        assert_eq!(number(&mut sql, empty), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_many_rows_do_not_match_a_batch_is_as_many_rows() {
    let server = Server::shared();
    let db = Database::create(server, "density_sparse").expect("a database");
    let mut sql = table(&db, "i % 2 = 0");
    let batches = batches(&db, false).await;
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
    let (_, before) = batches.split_last().expect("batches");
    assert!(before.iter().all(|(rows, wanted)| *rows == i64::from(*wanted)), "{batches:?}");
}
