//! What the control plane tells: list, status, conflicts, report, trace and prune; the manual fix and the plan that
//! a run is going to use.

use pgmend::{
    Code, Engine, Error, Event, Job, JobFile, Mode, Observer, Outcome, PlanOptions, RunOptions, RunState, UndoOptions,
};
use pgmend_testkit::{Database, Server, Sql};

/// A database with the control schema and a table of 100 rows.
struct Stage {
    engine: Engine,
    sql: Sql,
    db: Database,
}

impl Stage {
    async fn new() -> Self {
        let db = Database::create(Server::shared(), "control").expect("a database");
        let mut sql = db.sql().expect("a session");
        sql.run(
            "create table item (id int primary key, code text unique not null, label text);
             insert into item select i, 'c' || i, 'old' from generate_series(1, 100) i",
        )
        .expect("the table");
        let mut engine = Engine::connect(Some(&db.url())).await.expect("a connection");
        engine.init().await.expect("the control schema");
        Self { engine, sql, db }
    }

    async fn run(&mut self, job: &Job) -> pgmend::Outcome {
        Box::pin(self.engine.run(job, &RunOptions::default(), &mut Observer::silent())).await.expect("a run")
    }

    async fn slice(&mut self, job: &Job, batches: u64) -> pgmend::Outcome {
        let options = RunOptions { stop_after_batches: Some(batches), ..RunOptions::default() };
        Box::pin(self.engine.run(job, &options, &mut Observer::silent())).await.expect("a slice")
    }
}

fn job(name: &str, statement: &str) -> Job {
    let mut file = JobFile::default();
    file.limits.batch_rows = Some(10);
    file.limits.lease_seconds = 3;
    Job { file, ..Job::from_statement(name, statement) }
}

fn frozen(name: &str, statement: &str) -> Job {
    let mut job = job(name, statement);
    job.file.mode = Some(Mode::Freeze);
    job
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    match result {
        Err(Error::Refused(refusal)) => (refusal.code, format!("{}; {}", refusal.message, refusal.help)),
        other => panic!("not refused: {other:?}"),
    }
}

const RELABEL: &str = "update item set label = 'new' where label = 'old'";

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_says_why_and_how_to_go_on() {
    let mut stage = Stage::new().await;
    let paused = stage.slice(&job("relabel", RELABEL), 3).await;
    let all = stage.engine.status(None).await.expect("the status");
    let [status] = all.as_slice() else { panic!("one unfinished run: {all:?}") };
    assert_eq!((status.summary.run_id, status.summary.changed_rows, status.batches), (paused.run_id, 30, 3));
    assert_eq!(status.reason.as_deref(), Some("stopped after 3 batches, as asked"));
    assert_eq!(
        status.doing,
        "is paused after batch 3; 30 rows changed in 3 batches so far; nobody drives it, it can be resumed"
    );
    assert_eq!(status.next[0], format!("pgmend run {} --execute", paused.run_id));
    assert_eq!(status.holder, None);

    stage.run(&job("relabel", RELABEL)).await;
    assert!(stage.engine.status(None).await.expect("the status").is_empty());
    let done = stage.engine.status(Some("relabel")).await.expect("the status");
    assert_eq!(done[0].next, ["pgmend undo relabel --execute", "pgmend report relabel"]);
    assert_eq!(refusal(stage.engine.status(Some("nobody")).await).0, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_drives_any_more_tells_its_holder_and_its_lease() {
    let mut stage = Stage::new().await;
    let run = stage.slice(&job("relabel", RELABEL), 1).await.run_id;
    // As a killed process leaves it: running, with a lease of ten minutes that nobody renews.
    let orphan = |left: &str| {
        format!(
            "update pgmend.run set state = 'running', reason = null where run_id = '{run}';
             update pgmend.lease set holder = 'process 7 of alice@db', heartbeat_at = clock_timestamp() + {left} - interval '600 s',
                    expires_at = clock_timestamp() + {left} where run_id = '{run}'"
        )
    };
    // It may be some seconds later by the time that it is told.
    let seconds =
        |doing: &str, before: &str| -> Option<i32> { doing.split_once(before)?.1.split_once(" s")?.0.parse().ok() };
    stage.sql.run(&orphan("interval '100 s'")).expect("an orphan");
    let silent = stage.engine.status(None).await.expect("the status").remove(0);
    let for_s = seconds(&silent.doing, "process 7 of alice@db has not been heard from for ");
    assert!(for_s.is_some_and(|s| (500..=530).contains(&s)), "{}", silent.doing);
    let left_s = seconds(&silent.doing, "its lease runs out in ");
    assert!(left_s.is_some_and(|s| (70..=100).contains(&s)), "{}", silent.doing);

    stage.sql.run(&orphan("interval '-100 s'")).expect("an orphan");
    let dead = stage.engine.status(None).await.expect("the status").remove(0);
    assert!(dead.doing.starts_with("process 7 of alice@db is gone: its lease ran out 1"), "{}", dead.doing);
    let since_s = seconds(&dead.doing, "its lease ran out ");
    assert!(since_s.is_some_and(|s| (100..=130).contains(&s)) && dead.doing.contains(" s ago"), "{}", dead.doing);
    assert_eq!(dead.next[0], format!("pgmend run {run} --execute"));
    assert!(dead.lease_left_s.is_some_and(|left| left < -99.0));
}

/// A run of its own connection. It waits for a lock as long as anybody here looks for that.
fn relabelling(url: String) -> tokio::task::JoinHandle<Result<Outcome, Error>> {
    tokio::spawn(async move {
        let mut engine = Engine::connect(Some(&url)).await?;
        let mut job = job("relabel", RELABEL);
        (job.file.limits.lock_timeout_ms, job.file.limits.statement_timeout_ms) = (60_000, Some(60_000));
        engine.run(&job, &RunOptions::default(), &mut Observer::silent()).await
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_a_lock_names_who_holds_it() {
    let mut stage = Stage::new().await;
    let mut holder = stage.db.sql().expect("a session");
    holder.run("begin; update item set code = code where id = 55").expect("a lock");
    let running = relabelling(stage.db.url());
    let mut doing = String::new();
    for _ in 0..160 {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        doing = stage.engine.status(None).await.expect("the status").first().map_or(String::new(), |s| s.doing.clone());
        if doing.contains("waits for a lock") {
            break;
        }
    }
    holder.run("rollback").expect("the lock goes");
    let outcome = running.await.expect("the run's task").expect("the run");
    assert!(doing.contains(&format!("waits for a lock that pid {} ", holder.backend_pid())), "{doing}");
    assert!(doing.contains("last: begin; update item set code = code where id = ?)"), "its shape, no value: {doing}");
    assert_eq!(outcome.changed_rows, 100);
}

/// Typed late or at another server, the same pid may be somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn the_line_that_ends_a_blocker_ends_that_session_and_no_other() {
    let mut stage = Stage::new().await;
    let mut holder = stage.db.sql().expect("a session");
    holder.run("begin; update item set code = code where id = 55").expect("a lock");
    let running = relabelling(stage.db.url());
    let mut line = None;
    for _ in 0..160 {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        let next = stage.engine.status(None).await.expect("the status").pop().map_or(Vec::new(), |run| run.next);
        line = next.into_iter().find(|line| line.starts_with("psql -c "));
        if line.is_some() {
            break;
        }
    }
    let line = line.expect("a line that ends the session");
    let sql = line.split('"').nth(1).expect("a statement in quotes").to_owned();
    let later = sql.replace("backend_start = '20", "backend_start = '19");
    assert_eq!(stage.sql.value(&later).expect("it answers"), None, "another session of that pid: {later}");
    assert_eq!(stage.sql.value(&sql).expect("it answers").as_deref(), Some("t"), "{sql}");
    assert!(holder.run("commit").is_err(), "it is gone");
    assert_eq!(running.await.expect("the run's task").expect("the run").changed_rows, 100);
}

/// Counting takes a minute, a freeze half an hour: neither is to go on for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_plan_asks_the_server_ends_soon_after_pgmend_does() {
    let mut stage = Stage::new().await;
    let url = stage.db.url();
    let planning = tokio::spawn(async move {
        let mut engine = Engine::connect(Some(&url)).await.expect("a connection");
        let slow = "update item set label = 'x' where (select count(*) from generate_series(1, 100000000 + id)) > 0";
        engine.plan(&job("slow", slow), &PlanOptions::default()).await
    });
    let counting = "select count(*) > 0 from pg_stat_activity where datname = current_database() and state = 'active' \
                    and query like '%generate_series%' and pid <> pg_backend_pid()";
    let mut patience = 60;
    while stage.sql.value(counting).expect("it answers").as_deref() != Some("t") {
        patience -= 1;
        assert!(patience > 0, "it counts");
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    planning.abort();
    let mut patience = 80;
    while stage.sql.value(counting).expect("it answers").as_deref() == Some("t") {
        patience -= 1;
        assert!(patience > 0, "it counts for nobody");
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_gives_up_waiting_for_a_lock_says_who_was_in_the_way() {
    let mut stage = Stage::new().await;
    let mut holder = stage.db.sql().expect("a session");
    holder.run("begin; update item set code = code where id = 55").expect("a lock");
    let events = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = std::sync::Arc::clone(&events);
    let mut observer = Observer::new(move |event| {
        if let pgmend::Event::Retrying { blocked_by: Some(who), .. } = event {
            kept.lock().expect("nobody panics here").push(who.clone());
        }
    });
    // One row, so that a batch cannot be made smaller to get past it.
    let mut one = job("one", "update item set label = 'new' where id = 55");
    one.file.limits.batch_rows = Some(1);
    let outcome = Box::pin(stage.engine.run(&one, &RunOptions::default(), &mut observer)).await.expect("a run");
    let pgmend::RunState::Paused { reason } = &outcome.state else { panic!("not paused: {outcome:?}") };
    let who = format!("in the way: pid {} (", holder.backend_pid());
    assert!(reason.contains(&who) && reason.contains("where id = ?"), "{reason}");
    assert!(!events.lock().expect("nobody panics here").is_empty(), "a retry names it too");
    holder.run("rollback").expect("the lock goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_newest_first_and_knows_what_is_undone() {
    let mut stage = Stage::new().await;
    let first = stage.run(&job("relabel", RELABEL)).await;
    let undo = stage.engine.undo("relabel", &UndoOptions::default(), &mut Observer::silent()).await.expect("an undo");
    let list = stage.engine.list().await.expect("the list");
    let listed: Vec<_> = list.iter().map(|r| (r.run_id, r.kind.as_str(), r.changed_rows, r.undone_by)).collect();
    assert_eq!(listed, [(undo.run_id, "undo", 100, None), (first.run_id, "update", 100, Some(undo.run_id))]);
    let status = stage.engine.status(Some("relabel")).await.expect("the status");
    assert_eq!(status[0].next, ["pgmend report relabel"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_listed_by_key_and_left_out_of_a_rows_story() {
    let mut stage = Stage::new().await;
    let job = frozen("relabel", RELABEL);
    let planned = stage.engine.plan(&job, &PlanOptions::default()).await.expect("a plan");
    stage.sql.run("update item set label = 'mine' where id = 42").expect("somebody's change");
    let id = planned.plan.plan_id.to_string();
    let outcome = stage.engine.run_plan(&id, &RunOptions::default(), &mut Observer::silent()).await.expect("a run");
    assert_eq!((outcome.changed_rows, outcome.conflict_rows), (99, 1));

    let conflicts = stage.engine.conflicts(&outcome.run_id.to_string()).await.expect("the conflicts");
    assert_eq!(conflicts.iter().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["id=42"]);
    let trace = |touches: Vec<pgmend::Touch>| touches.into_iter().map(|t| (t.kind, t.columns)).collect::<Vec<_>>();
    assert_eq!(trace(stage.engine.trace("item", &["42".into()], true, None).await.expect("a trace")), []);
    let changed = stage.engine.trace("item", &["43".into()], false, None).await.expect("a trace");
    assert_eq!(
        trace(changed),
        [("update".to_owned(), vec![("label".to_owned(), Some("old".to_owned()), Some("new".to_owned()))])]
    );

    stage.engine.prune(Some(0), true).await.expect("a prune");
    assert!(stage.engine.trace("item", &["42".into()], false, None).await.expect("a trace").is_empty());
    assert_eq!(stage.engine.trace("item", &["43".into()], false, None).await.expect("a trace").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_tells_every_run_that_touched_it_until_its_images_are_pruned() {
    let mut stage = Stage::new().await;
    stage.run(&job("relabel", RELABEL)).await;
    stage.engine.undo("relabel", &UndoOptions::default(), &mut Observer::silent()).await.expect("an undo");
    stage.run(&job("move", "update item set id = id + 1000 where id = 7")).await;
    stage.run(&job("delete", "delete from item where id = 1007")).await;

    let kinds = |touches: &[pgmend::Touch]| touches.iter().map(|t| t.kind.clone()).collect::<Vec<_>>();
    let old = stage.engine.trace("item", &["7".into()], false, None).await.expect("a trace");
    assert_eq!(kinds(&old), ["update", "undo", "update"]);
    assert_eq!(old[2].columns, [("id".to_owned(), Some("7".to_owned()), Some("1007".to_owned()))]);
    let new = stage.engine.trace("item", &["1007".into()], false, None).await.expect("a trace");
    assert_eq!(kinds(&new), ["update", "delete"]);
    let code = new[1].columns.iter().find(|(name, _, _)| name == "code").expect("the column");
    assert!(code.1.as_deref().is_some_and(pgmend_core::mask::is_masked) && code.2.is_none(), "{code:?}");
    let shown = stage.engine.trace("public.item", &["1007".into()], true, None).await.expect("a trace");
    assert!(shown[1].columns.contains(&("code".to_owned(), Some("c7".to_owned()), None)));

    stage.engine.prune(Some(0), true).await.expect("a prune");
    let pruned = stage.engine.trace("item", &["8".into()], true, None).await.expect("a trace");
    assert_eq!(kinds(&pruned), ["update", "undo"], "{pruned:?}");
    assert!(pruned.iter().all(|t| t.pruned && t.columns.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_found_by_any_of_its_keys() {
    let mut stage = Stage::new().await;
    stage
        .sql
        .run("alter table item add legacy int unique not null generated always as (id + 1) stored")
        .expect("a key");
    stage.run(&job("relabel", "update item set label = 'new' where id = 7")).await;
    for (key, touches) in [("7", 1), ("c7", 1), ("code=c7", 1), ("legacy=8", 1), ("8", 0), ("code=c8", 0), ("id=7", 1)]
    {
        let told = stage.engine.trace("item", &[key.into()], false, None).await.expect("a trace");
        assert_eq!(told.len(), touches, "{key}");
    }
    let (code, text) = refusal(stage.engine.trace("item", &["legacy=x".into()], false, None).await);
    assert!(code == Code::Parameter && text.contains("legacy (integer)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_fit_the_table_is_refused_with_its_columns() {
    let mut stage = Stage::new().await;
    let (code, text) = refusal(stage.engine.trace("item", &["1".into(), "2".into()], false, None).await);
    assert!(code == Code::Parameter && text.contains("in this order: id; or code"), "{text}");
    stage.sql.run("alter table item drop constraint item_code_key").expect("one key is left");
    let (code, text) = refusal(stage.engine.trace("item", &["seven".into()], false, None).await);
    assert!(code == Code::Parameter && text.contains("id (integer)") && !text.contains("seven"), "{text}");
    assert_eq!(refusal(stage.engine.trace("nothing", &["1".into()], false, None).await).0, Code::NoSuchTable);
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_spares_what_is_unfinished_and_what_is_being_undone() {
    let mut stage = Stage::new().await;
    let unfinished = stage.slice(&job("unfinished", "update item set code = upper(code)"), 2).await;
    stage.run(&job("relabel", RELABEL)).await;
    stage
        .engine
        .plan(&frozen("planned", "update item set label = 'x'"), &PlanOptions::default())
        .await
        .expect("a plan");
    assert!(stage.engine.prune(None, true).await.expect("a prune").is_empty(), "nothing is older than the retention");

    let found = stage.engine.prune(Some(0), false).await.expect("a prune");
    assert_eq!(found.iter().map(|p| (p.job.as_str(), p.dropped)).collect::<Vec<_>>(), [("relabel", false)]);

    // An undo that has begun needs the images until it has ended.
    let undo = stage.engine.plan_undo("relabel", &UndoOptions::default()).await.expect("a plan of the undo").plan;
    let slice = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    let half =
        stage.engine.run_plan(&undo.plan_id.to_string(), &slice, &mut Observer::silent()).await.expect("half an undo");
    let spared = stage.engine.prune(Some(0), true).await.expect("a prune");
    assert!(spared.is_empty(), "{half:?} {spared:?}");
    stage.engine.resume(&half.run_id.to_string(), &mut Observer::silent()).await.expect("the rest");

    let dropped = stage.engine.prune(Some(0), true).await.expect("a prune");
    assert_eq!(dropped.iter().filter(|p| p.dropped).count(), 2, "{dropped:?}");
    let (code, _) =
        refusal(stage.engine.undo(&half.run_id.to_string(), &UndoOptions::default(), &mut Observer::silent()).await);
    assert_eq!(code, Code::Irreversible);
    let rest = stage.engine.resume(&unfinished.run_id.to_string(), &mut Observer::silent()).await.expect("the rest");
    assert_eq!(rest.changed_rows, 100);

    // The change set of a plan that expired unused goes as well.
    stage.sql.run("update pgmend.plan set expires_at = clock_timestamp() where job = 'planned'").expect("time passes");
    let dropped = stage.engine.prune(None, true).await.expect("a prune");
    assert_eq!(dropped.iter().map(|p| (p.job.as_str(), p.dropped)).collect::<Vec<_>>(), [("planned", true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_holds_plan_and_outcome_side_by_side_and_masks_parameters() {
    let mut stage = Stage::new().await;
    let mut wanted = job("relabel", "update item set label = :to where id <= :most");
    wanted.file.goal = Some("labels of 2026".into());
    wanted.params = [("most", "int", "60"), ("to", "text", "secret")]
        .map(|(name, type_sql, value)| pgmend_core::job::BoundParam {
            name: name.into(),
            type_sql: type_sql.into(),
            value: value.into(),
        })
        .to_vec();
    stage.slice(&wanted, 2).await;
    let paused = stage.engine.report("relabel").await.expect("a report");
    assert_eq!((paused.state.as_str(), paused.changed_rows), ("paused", 20));
    stage.run(&wanted).await;

    let report = stage.engine.report("relabel").await.expect("a report");
    assert_eq!(
        (report.changed_rows, report.counts.changed_rows.value, report.ledger.as_str()),
        (60, 60, "intact, 4 entries")
    );
    let facts: Vec<&str> = report.events.iter().map(|e| e.fact.as_str()).collect();
    assert_eq!(facts, ["run started", "run paused", "run resumed", "run succeeded"]);
    let page = report.markdown();
    for part in [
        "labels of 2026",
        "| rows changed | 60 | 60 |",
        "| most | int | 60 |",
        "pgmend undo relabel --execute",
        "select * from pgmend.image_",
    ] {
        assert!(page.contains(part), "{part} is not in:\n{page}");
    }
    assert!(!page.contains("secret"), "{page}");

    let forgery = "alter table pgmend.ledger disable trigger ledger_is_append_only; \
                   update pgmend.ledger set body = '{}' where entry_no = 2";
    stage.sql.run(forgery).expect("an owner with bad intentions");
    let forged = stage.engine.report("relabel").await.expect("a report");
    assert!(forged.ledger.starts_with("BROKEN at entry 2"), "{}", forged.ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_uses_the_plan_that_prepare_showed() {
    let mut stage = Stage::new().await;
    let job = job("relabel", RELABEL);
    let options = RunOptions::default();
    let shown = stage.engine.prepare(&job, &options).await.expect("a plan").expect("no run is under way");
    let again = stage.engine.prepare(&job, &options).await.expect("a plan").expect("no run is under way");
    assert_eq!(shown.plan.plan_id, again.plan.plan_id);
    let slice = RunOptions { stop_after_batches: Some(1), ..RunOptions::default() };
    let run = stage.engine.run(&job, &slice, &mut Observer::silent()).await.expect("a run");
    assert_eq!(run.plan_id, shown.plan.plan_id);
    assert!(stage.engine.prepare(&job, &options).await.expect("no plan").is_none(), "the unfinished run is resumed");
    stage.run(&job).await;
    assert_eq!(refusal(stage.engine.prepare(&job, &options).await).0, Code::AlreadyDone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_no_rows_is_not_used_once_rows_have_come() {
    let mut stage = Stage::new().await;
    let job = job("relabel", "update item set label = 'new' where label = 'later'");
    let nothing = stage.engine.prepare(&job, &RunOptions::default()).await.expect("a plan").expect("a plan");
    assert!(nothing.plan.changes_nothing());
    stage.sql.run("update item set label = 'later' where id <= 5").expect("rows come");
    let some = stage.engine.prepare(&job, &RunOptions::default()).await.expect("a plan").expect("a plan");
    assert_eq!(some.plan.counts.changed_rows.value, 5);
    assert_eq!(stage.run(&job).await.plan_id, some.plan.plan_id);
}

fn fix(statement: &str, rows: i64) -> Job {
    let mut job = Job::from_statement("fix", statement);
    job.file.expect_rows = Some(rows);
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fix_commits_the_rows_that_were_shown_or_none() {
    let mut stage = Stage::new().await;
    let three = fix("update item set label = 'fixed' where id in (1, 2, 3)", 3);
    let quiet = &mut Observer::silent();
    assert_eq!(refusal(stage.engine.fix(&three, true, &mut |_| false, quiet).await).0, Code::Expectation);
    let done = stage.engine.fix(&three, true, &mut |plan| plan.samples.len() == 3, quiet).await.expect("a fix");
    assert_eq!((done.changed_rows, done.batches, done.state), (3, 1, RunState::Succeeded));
    assert_eq!(stage.engine.report("fix").await.expect("a report").conflict_rows, 0);

    let two = fix("update item set label = 'two' where id in (1, 2, 3)", 2);
    assert_eq!(refusal(stage.engine.fix(&two, true, &mut |_| true, quiet).await).0, Code::Expectation);

    // Somebody changes one of the rows while the person reads.
    let url = stage.db.url();
    let mut meanwhile = |_: &pgmend::Plan| {
        let mut other = Sql::connect(&url).expect("a session");
        other.run("update item set label = 'mine' where id = 2").expect("somebody's change");
        true
    };
    let late = fix("update item set label = 'late' where id in (1, 2, 3)", 3);
    let (code, text) = refusal(stage.engine.fix(&late, true, &mut meanwhile, quiet).await);
    assert!(code == Code::Expectation && text.contains("nothing was written"), "{text}");
    let untouched = "select count(*) from item where label = 'late'";
    assert_eq!(stage.sql.value(untouched).expect("a count").as_deref(), Some("0"));
    let again =
        stage.engine.fix(&late, true, &mut |_| true, quiet).await.expect("the fix, on the rows as they are now");
    assert_eq!(again.changed_rows, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fix_can_be_made_again_by_hand_and_be_undone() {
    let mut stage = Stage::new().await;
    let one = fix("update item set label = 'fixed' where id = 1", 1);
    for _ in 0..2 {
        let events = std::sync::Arc::new(std::sync::Mutex::new(0));
        let heard = events.clone();
        let mut observer = Observer::new(move |event| {
            if matches!(event, Event::Batch { .. }) {
                *heard.lock().expect("nobody panicked") += 1;
            }
        });
        let done = stage.engine.fix(&one, true, &mut |_| true, &mut observer).await.expect("a fix");
        assert_eq!((done.changed_rows, *events.lock().expect("nobody panicked")), (1, 1));
        let undone = stage.engine.undo("fix", &UndoOptions::default(), &mut Observer::silent()).await.expect("an undo");
        assert_eq!(undone.changed_rows, 1);
    }
    let label = stage.sql.value("select label from item where id = 1").expect("the label");
    assert_eq!(label.as_deref(), Some("old"));
}
