//! A stretch of keys in two batches: every other row first, and the others in the room that these left on their pages.

use pgmend::{Engine, Job, Mode, Observer, Outcome, Pace, PlanOptions, RunOptions, RunState, UndoOptions};
use pgmend_core::dead_letters::DeadLetters;
use pgmend_core::halving::{CHANGE_SET_HALF_ROWS, FIRST_BATCHES};
use pgmend_core::plan::RunSql;
use pgmend_testkit::{Database, Server, Sql};

/// More than what a plan thinks worth it.
const MANY: i64 = 60_000;
const CHANGE: &str = "update item set note = upper(note), seen = seen + 1";

fn table(db: &Database, rows: i64) -> Sql {
    let mut sql = db.sql().expect("a session");
    sql.run(&format!(
        "create table item (id int primary key, note text not null, filler text not null, seen int not null default 0);
         create index on item (filler);
         insert into item select i, 'note ' || i, md5(i::text) || md5((i + 1)::text), 0 from generate_series(1, {rows}) i"
    ))
    .expect("the table");
    sql.run("vacuum analyze item").expect("statistics");
    sql
}

fn job(change: &str) -> Job {
    Job::from_statement("halves", change)
}

/// Small batches, in halves whatever the plan thinks of it.
fn forced(change: &str, batch_rows: u32) -> Job {
    let mut job = job(change);
    job.file.limits.batch_rows = Some(batch_rows);
    job.file.limits.in_halves = Some(true);
    job
}

async fn engine(db: &Database) -> Engine {
    let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
    engine.init().await.expect("the control schema");
    engine
}

async fn in_halves(engine: &mut Engine, job: &Job) -> bool {
    let plan = engine.plan(job, &PlanOptions::default()).await.expect("a plan").plan;
    matches!(plan.sql, RunSql::Stream { halves: Some(_), .. })
}

async fn go(engine: &mut Engine, job: &Job, options: &RunOptions) -> Outcome {
    engine.run(job, options, &mut Observer::silent()).await.expect("it goes")
}

fn number(sql: &mut Sql, query: &str) -> i64 {
    sql.value(query).expect("an answer").and_then(|text| text.parse().ok()).expect("a number")
}

const NOT_ONCE: &str = "select count(*) from item where seen <> 1 or note <> upper('note ' || id)";
const PENDING: &str = "select count(*) from (select first_half_to from pgmend.batch order by batch_no desc limit 1) as b \
                       where first_half_to is not null";

#[tokio::test(flavor = "multi_thread")]
async fn changing_every_row_in_halves_grows_the_table_by_half_and_an_undo_restores_it() {
    let server = Server::start().expect("a server without others' snapshots");
    let db = Database::create(&server, "halves").expect("a database");
    let mut sql = table(&db, MANY);
    sql.run("alter table item set (autovacuum_enabled = false)").expect("nobody else makes room");
    let content = "select sum(hashtextextended(item::text, 0)) from item";
    let before = sql.value(content).expect("an answer");
    let size = number(&mut sql, "select pg_relation_size('item')");
    let index = number(&mut sql, "select pg_relation_size('item_filler_idx')");
    let mut engine = engine(&db).await;
    let done = go(&mut engine, &job(CHANGE), &RunOptions::default()).await;
    assert_eq!((done.changed_rows, done.residual_rows), (MANY, Some(0)));
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
    let halves = number(&mut sql, "select count(*) from pgmend.batch where first_half_to is not null");
    assert!(halves >= 3, "{halves} first halves");
    let grown = number(&mut sql, "select pg_relation_size('item')") as f64 / size as f64;
    assert!(grown < 1.75, "the table is {grown:.2} times as large");
    let entries = number(&mut sql, "select pg_relation_size('item_filler_idx')") as f64 / index as f64;
    assert!(entries < 1.75, "the index is {entries:.2} times as large");

    let undo = engine.plan_undo("halves", &UndoOptions::default()).await.expect("a plan of the undo").plan;
    let id = undo.plan_id.to_string();
    let undone = engine.run_plan(&id, &RunOptions::default(), &mut Observer::silent()).await.expect("the undo");
    assert_eq!((undone.changed_rows, undone.conflict_rows), (MANY, 0));
    assert_eq!(sql.value(content).expect("an answer"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_chooses_halves_only_where_they_gain_something() {
    let db = Database::create(Server::shared(), "halves_chosen").expect("a database");
    let mut sql = table(&db, MANY);
    let mut engine = engine(&db).await;
    assert!(in_halves(&mut engine, &job(CHANGE)).await, "all rows, no index on them");
    let off = |value| {
        let mut job = job(CHANGE);
        job.file.limits.in_halves = value;
        job
    };
    assert!(!in_halves(&mut engine, &off(Some(false))).await, "the job does not want them");
    let mut fixed = job(CHANGE);
    fixed.file.limits.batch_rows = Some(100);
    assert!(!in_halves(&mut engine, &fixed).await, "batches of just so many rows");
    assert!(!in_halves(&mut engine, &job("update item set seen = 1 where id <= 40000")).await, "too few rows");
    let sparse = job("update item set seen = 1 where id % 50 < 1 or id <= 1000");
    assert!(!in_halves(&mut engine, &sparse).await, "too few on a page");
    assert!(!in_halves(&mut engine, &job("update item set filler = upper(filler)")).await, "an index on the column");
    assert!(!in_halves(&mut engine, &job("delete from item")).await, "a delete leaves no new version");
    sql.run("create index on item (id) where seen > 5").expect("an index whose predicate reads the column");
    assert!(!in_halves(&mut engine, &job(CHANGE)).await);
    assert!(in_halves(&mut engine, &off(Some(true))).await, "the job insists, and it can be done");
    sql.run("create unique index on item (seen, id)").expect("a unique index on the column");
    assert!(!in_halves(&mut engine, &off(Some(true))).await, "rows may have to go in the order of the key");
    sql.run("drop index item_seen_id_idx, item_id_idx; cluster item using item_filler_idx; analyze item")
        .expect("elsewhere");
    assert!(!in_halves(&mut engine, &job(CHANGE)).await, "the rows of a page are far apart in the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_that_keeps_the_room_taken_ends_the_halves() {
    let server = Server::start().expect("a server of its own");
    let db = Database::create(&server, "halves_old").expect("a database");
    let mut sql = table(&db, MANY);
    let mut old = db.sql().expect("another session");
    old.run("begin isolation level repeatable read; select 1").expect("a snapshot");
    let mut engine = engine(&db).await;
    let done = go(&mut engine, &job(CHANGE), &RunOptions::default()).await;
    assert_eq!((done.state, done.changed_rows), (RunState::Succeeded, MANY));
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
    let halves = number(&mut sql, "select count(*) from pgmend.batch where first_half_to is not null");
    // All but the last of its batches leave the first half ahead.
    assert_eq!(halves, 2 * FIRST_BATCHES as i64 - 1, "one stretch in vain, and then whole ones");
    old.run("rollback").expect("it goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_beside_each_other_find_the_room_that_their_first_halves_left() {
    let server = Server::start().expect("a server without others' snapshots");
    let db = Database::create(&server, "halves_workers").expect("a database");
    let mut sql = table(&db, MANY);
    sql.run("alter table item set (autovacuum_enabled = false)").expect("nobody else makes room");
    let size = number(&mut sql, "select pg_relation_size('item')");
    let mut engine = engine(&db).await;
    let two = RunOptions { workers: Some(2), ..RunOptions::default() };
    let mut job = job(CHANGE);
    // So that a partition has some stretches.
    job.file.limits.rows_per_transaction_max = 500;
    let done = go(&mut engine, &job, &two).await;
    assert_eq!((done.state, done.changed_rows), (RunState::Succeeded, MANY));
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
    assert!(number(&mut sql, "select count(distinct partition_no) from pgmend.batch") > 1);
    let grown = number(&mut sql, "select pg_relation_size('item')") as f64 / size as f64;
    assert!(grown < 1.75, "the table is {grown:.2} times as large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_has_a_few_batches_and_is_stopped_and_resumed_after_any_of_them() {
    let db = Database::create(Server::shared(), "halves_long").expect("a database");
    let mut sql = table(&db, 6_000);
    let mut engine = engine(&db).await;
    // A half stops after each of its batches in turn.
    let mut batches = 0;
    let first = FIRST_BATCHES as u64;
    for stop_after in [first + 1, 1, 2, 3, first - 1, first, first + 2] {
        let some = RunOptions { stop_after_batches: Some(stop_after), ..RunOptions::default() };
        let stopped = go(&mut engine, &forced(CHANGE, 100), &some).await;
        assert!(matches!(stopped.state, RunState::Paused { .. }), "{stopped:?}");
        assert_eq!(number(&mut sql, "select count(*) from item where seen > 1"), 0);
        batches += stop_after;
        assert_eq!(number(&mut sql, "select count(*) from pgmend.batch"), batches as i64);
    }
    // The first command: a whole first half, and a batch of the second.
    let firsts = "select count(*) from pgmend.batch where cursor_to = '{}'";
    assert_eq!(number(&mut sql, firsts), first as i64);
    let same = format!(
        "select count(*) from pgmend.batch a, pgmend.batch b where a.batch_no = 1 and b.batch_no = {} \
         and a.first_half_to = b.cursor_to",
        first + 1
    );
    assert_eq!(number(&mut sql, &same), 1, "the second half has the same stretches");
    let done = go(&mut engine, &forced(CHANGE, 100), &RunOptions::default()).await;
    assert_eq!((done.state, done.changed_rows), (RunState::Succeeded, 6_000));
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
    let undone = engine.undo("halves", &UndoOptions::default(), &mut Observer::silent()).await.expect("the undo");
    assert_eq!((undone.changed_rows, undone.conflict_rows), (6_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_stops_between_two_halves_goes_on_with_the_second() {
    let db = Database::create(Server::shared(), "halves_stopped").expect("a database");
    let mut sql = table(&db, 500);
    let mut engine = engine(&db).await;
    let one_batch = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    let mut between = 0;
    for _ in 0..8 {
        let stopped = go(&mut engine, &forced(CHANGE, 20), &one_batch).await;
        assert!(matches!(stopped.state, RunState::Paused { .. }), "{stopped:?}");
        between += number(&mut sql, PENDING);
        let twice = number(&mut sql, "select count(*) from item where seen > 1");
        assert_eq!(twice, 0);
    }
    assert!(between >= 4, "{between}");
    // The last commands meet rows that are counted one by one, which no half does.
    let few = RunOptions { pace: Pace { rows_max: Some(7), ..Pace::default() }, ..RunOptions::default() };
    let before = number(&mut sql, "select sum(seen) from item");
    let stopped = go(&mut engine, &forced(CHANGE, 20), &RunOptions { ..one_batch.clone() }).await;
    assert_eq!(number(&mut sql, PENDING), 1, "{stopped:?}");
    let first = number(&mut sql, "select sum(seen) from item");
    let stopped = go(&mut engine, &forced(CHANGE, 20), &few).await;
    assert!(matches!(stopped.state, RunState::Paused { .. }), "{stopped:?}");
    let second = number(&mut sql, "select sum(seen) from item");
    assert!(first > before && second - first == 7, "{before}, {first}, {second}");
    let done = go(&mut engine, &forced(CHANGE, 20), &RunOptions::default()).await;
    assert_eq!((done.state, done.changed_rows), (RunState::Succeeded, 500));
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_either_half_is_set_aside_once_and_may_be_tried_between_two_halves() {
    let db = Database::create(Server::shared(), "halves_letters").expect("a database");
    let mut sql = table(&db, 400);
    let bad = "(3, 4, 5, 6, 7, 8)";
    sql.run(&format!("alter table item add constraint fine check (seen = 0 or id not in {bad})")).expect("bad rows");
    let mut job = forced(CHANGE, 40);
    job.file.dead_letters = DeadLetters { rows_max: Some(10), share_max: None };
    let mut engine = engine(&db).await;
    let halves = "select count(distinct id & 1) from item where id in (3, 4, 5, 6, 7, 8)";
    assert_eq!(number(&mut sql, halves), 2, "there are bad rows in both halves");
    let mut stopped = 0;
    while stopped < 40
        && number(&mut sql, "select case when to_regclass('pgmend.batch') is null then 0 else 1 end") == 1
    {
        let one_batch = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
        go(&mut engine, &job, &one_batch).await;
        stopped += 1;
        let letters = number(&mut sql, "select count(*) from pgmend.dead_letter");
        if letters == 6 && number(&mut sql, PENDING) == 1 {
            break;
        }
    }
    assert_eq!(number(&mut sql, PENDING), 1, "between two halves, after {stopped} batches");
    sql.run("alter table item drop constraint fine").expect("the rows are mended");
    let retried = engine.retry_dead_letters("halves", &mut Observer::silent()).await.expect("they are tried");
    assert_eq!((retried.changed_rows, retried.open_rows), (6, 0));
    assert_eq!(number(&mut sql, PENDING), 1, "the second half is still to come");
    let done = go(&mut engine, &job, &RunOptions::default()).await;
    assert_eq!((done.state, done.changed_rows, done.dead_rows), (RunState::Succeeded, 400, 0));
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_that_can_be_halved_and_of_several_columns_are_changed_once() {
    let db = Database::create(Server::shared(), "halves_keys").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create collation blind (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
         create domain code as varchar(40)",
    )
    .expect("a collation and a domain");
    let keys = [
        ("k smallint", "(i - 200)"),
        ("k smallint", "i * 2"),
        ("k int", "i * 2"),
        ("k bigint", "i * 2"),
        ("k bigint", "i * 1000000007::bigint"),
        ("k uuid", "md5(i::text)::uuid"),
        ("k text collate blind", "'Straße ' || i"),
        ("k code", "'c' || i"),
        ("k int, l text", "i / 10, 'l' || i"),
    ];
    let mut engine = engine(&db).await;
    for (columns, values) in keys {
        let names: Vec<&str> = columns.split(", ").filter_map(|c| c.split(' ').next()).collect();
        sql.run(&format!(
            "drop table if exists keyed; create table keyed ({columns}, n int not null default 0, primary key ({}));
             insert into keyed select {values}, 0 from generate_series(1, 300) i; analyze keyed",
            names.join(", ")
        ))
        .expect("the table");
        let mut job = forced("update keyed set n = n + 1", 7);
        job.name = format!("halves {columns} {values}");
        assert!(in_halves(&mut engine, &job).await, "{columns}");
        let done = go(&mut engine, &job, &RunOptions::default()).await;
        assert_eq!((done.state, done.changed_rows), (RunState::Succeeded, 300), "{columns}");
        assert_eq!(number(&mut sql, "select count(*) from keyed where n <> 1"), 0, "{columns}");
        let (largest, whole) = (
            format!("select max(changed_rows) from pgmend.batch where run_id = '{}'", done.run_id),
            format!("select count(*) from pgmend.batch where run_id = '{}' and first_half_to is not null", done.run_id),
        );
        assert!(number(&mut sql, &largest) <= 7, "{columns}");
        assert!(number(&mut sql, &whole) >= 3, "{columns}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn even_keys_come_first_where_every_other_one_is_even() {
    let db = Database::create(Server::shared(), "halves_told").expect("a database");
    let mut sql = db.sql().expect("a session");
    let mut engine = engine(&db).await;
    let keys = [
        ("int", "i", true),
        ("bigint", "i - 700", true),
        ("smallint", "i", true),
        ("int", "i * 2", false),
        ("bigint", "(i::bigint << 22) + 5", false),
        ("uuid", "md5(i::text)::uuid", false),
    ];
    for (column, values, told_by_parity) in keys {
        let table = format!(
            "drop table if exists keyed; create table keyed (k {column} primary key, n int not null default 0);
             insert into keyed select {values}, 0 from generate_series(1, 1500) i; analyze keyed"
        );
        sql.run(&table).expect("the table");
        let plan = engine.plan(&forced("update keyed set n = n + 1", 7), &PlanOptions::default()).await;
        let RunSql::Stream { halves: Some(halves), .. } = plan.expect("a plan").plan.sql else {
            panic!("{column} {values}: no halves");
        };
        let first = &halves.first.change.after;
        assert_eq!(first.contains("& 1"), told_by_parity, "{column} {values}: {first}");
        assert_eq!(first.contains("hash"), !told_by_parity, "{column} {values}: {first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_that_is_larger_than_a_transaction_may_be_is_made_smaller() {
    let db = Database::create(Server::shared(), "halves_limit").expect("a database");
    let mut sql = table(&db, 1_500);
    // Among the first rows of each stretch all are of the same half.
    sql.run("delete from item where id & 1 = 0 and id <= 1000").expect("a lopsided table");
    let rows = number(&mut sql, "select count(*) from item");
    let mut job = forced(CHANGE, 200);
    job.file.limits.rows_per_transaction_max = 200;
    let mut engine = engine(&db).await;
    let done = go(&mut engine, &job, &RunOptions::default()).await;
    assert_eq!((done.state, done.changed_rows), (RunState::Succeeded, rows));
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
    assert!(number(&mut sql, "select max(changed_rows) from pgmend.batch") <= 200);
}

/// The same change from a change set, whose order has the halves built in.
fn frozen(change: &str) -> Job {
    let mut job = job(change);
    job.file.mode = Some(Mode::Freeze);
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_set_in_halves_and_its_undo_grow_the_table_by_half_each() {
    let server = Server::start().expect("a server without others' snapshots");
    let db = Database::create(&server, "halves_frozen").expect("a database");
    // A whole stretch, and one of 17,001 rows.
    let rows = 2 * CHANGE_SET_HALF_ROWS + 17_001;
    let mut sql = table(&db, rows);
    sql.run("alter table item set (autovacuum_enabled = false)").expect("nobody else makes room");
    let content = "select sum(hashtextextended(item::text, 0)) from item";
    let before = sql.value(content).expect("an answer");
    let size = number(&mut sql, "select pg_relation_size('item')");
    let mut engine = engine(&db).await;
    let plan = engine.plan(&frozen(CHANGE), &PlanOptions::default()).await.expect("a plan").plan;
    let set = plan.change_set.expect("a change set");
    assert_eq!((set.rows, set.half_rows), (rows, Some(CHANGE_SET_HALF_ROWS)));
    let dense = format!("select max(n) - min(n) + 1 from {}", set.relation.sql());
    assert_eq!(number(&mut sql, &dense), rows);
    let firsts = format!("select string_agg(key_id::text, ' ' order by n) from {} where n in ", set.relation.sql());
    let keys = sql.value(&format!("{firsts} (1, 2, 50000, 50001, 100000, 100001, 108501, 108502, {rows})"));
    let keys = keys.expect("an answer").expect("keys");
    assert_eq!(keys, "1 3 99999 2 100000 100001 117001 100002 117000");
    let id = plan.plan_id.to_string();
    let done = engine.run_plan(&id, &RunOptions::default(), &mut Observer::silent()).await.expect("the run");
    assert_eq!((done.state, done.changed_rows, done.conflict_rows), (RunState::Succeeded, rows, 0));
    assert_eq!(number(&mut sql, NOT_ONCE), 0);
    let grown = number(&mut sql, "select pg_relation_size('item')") as f64 / size as f64;
    assert!(grown < 1.65, "the table is {grown:.2} times as large");

    let undo = engine.plan_undo("halves", &UndoOptions::default()).await.expect("a plan of the undo").plan;
    assert_eq!(undo.change_set.as_ref().and_then(|set| set.half_rows), Some(CHANGE_SET_HALF_ROWS));
    let id = undo.plan_id.to_string();
    let undone = engine.run_plan(&id, &RunOptions::default(), &mut Observer::silent()).await.expect("the undo");
    assert_eq!((undone.changed_rows, undone.conflict_rows), (rows, 0));
    assert_eq!(sql.value(content).expect("an answer"), before);
    let grown = number(&mut sql, "select pg_relation_size('item')") as f64 / size as f64;
    assert!(grown < 2.2, "the table is {grown:.2} times as large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_set_goes_in_halves_only_where_they_gain_something() {
    let db = Database::create(Server::shared(), "halves_frozen_chosen").expect("a database");
    let mut sql = table(&db, MANY);
    let mut engine = engine(&db).await;
    let mut halved = async |job: &Job| {
        let plan = engine.plan(job, &PlanOptions::default()).await.expect("a plan").plan;
        plan.change_set.expect("a change set").half_rows.is_some()
    };
    assert!(halved(&frozen(CHANGE)).await, "all rows, no index on them");
    let mut off = frozen(CHANGE);
    off.file.limits.in_halves = Some(false);
    assert!(!halved(&off).await, "the job does not want them");
    let mut fixed = frozen(CHANGE);
    fixed.file.limits.batch_rows = Some(100);
    assert!(!halved(&fixed).await, "batches of just so many rows");
    assert!(!halved(&frozen("update item set seen = 1 where id <= 40000")).await, "too few rows");
    assert!(!halved(&frozen("update item set filler = upper(filler)")).await, "an index on the column");
    assert!(!halved(&frozen("update item set id = id + 1000000")).await, "the key moves");
    assert!(!halved(&frozen("delete from item")).await, "a delete leaves no new version");
    sql.run("create unique index on item (seen, id)").expect("a unique index on the column");
    assert!(!halved(&frozen(CHANGE)).await, "rows may have to go in the order of the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_set_in_halves_stops_anywhere_and_leaves_conflicts_and_bad_rows_alone() {
    let db = Database::create(Server::shared(), "halves_frozen_odd").expect("a database");
    let mut sql = table(&db, 501);
    sql.run("alter table item add constraint fine check (seen = 0 or id not in (3, 4, 500))").expect("bad rows");
    let mut job = forced(CHANGE, 40);
    job.file.mode = Some(Mode::Freeze);
    job.file.dead_letters = DeadLetters { rows_max: Some(10), share_max: None };
    let mut engine = engine(&db).await;
    let plan = engine.plan(&job, &PlanOptions::default()).await.expect("a plan").plan;
    sql.run("update item set note = 'another' where id in (7, 8, 400)").expect("others are at work");
    let one_batch = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    let id = plan.plan_id.to_string();
    engine.run_plan(&id, &one_batch, &mut Observer::silent()).await.expect("the first batch");
    let done = go(&mut engine, &job, &RunOptions::default()).await;
    assert_eq!((done.state, done.changed_rows), (RunState::Succeeded, 495));
    assert_eq!((done.conflict_rows, done.dead_rows), (3, 3));
    let middle = "select count(*) from pgmend.batch where cursor_to = '{251}'";
    assert_eq!(number(&mut sql, middle), 1, "no batch has rows of both halves");
    let untouched = "select string_agg(id::text, ' ' order by id) from item where seen = 0";
    assert_eq!(sql.value(untouched).expect("an answer").as_deref(), Some("3 4 7 8 400 500"));
    assert_eq!(number(&mut sql, "select count(*) from item where seen > 1"), 0);
    let undone = engine.undo("halves", &UndoOptions::default(), &mut Observer::silent()).await.expect("the undo");
    assert_eq!((undone.changed_rows, undone.conflict_rows), (495, 0));
    assert_eq!(number(&mut sql, "select count(*) from item where seen > 0"), 0);
}
