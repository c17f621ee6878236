//! Ctrl-C and SIGTERM, on the command itself: the first finishes the batch, the second cancels it, the third
//! leaves at once. Each time the same command goes on, and every row is changed once.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pgmend_core::exit;
use pgmend_testkit::{Database, FaultProxy, Server, Sql};
use tempfile::TempDir;

/// Rows are changed so slowly that a signal comes in the middle.
const TABLE: &str = "
    create table account (id int primary key, balance bigint not null);
    insert into account select n, 100 from generate_series(1, 120) n;
    create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.01); return new; end $$;
    create trigger slow before update on account for each row execute function slow();
";
const STATEMENT: &str = "update account set balance = balance + 5";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    database: Database,
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        let database = Database::create(Server::shared(), "signals").expect("a database is created");
        let folder = tempfile::tempdir().expect("there is a place for temporary folders");
        std::fs::write(folder.path().join("fix.sql"), STATEMENT).expect("the folder can be written");
        let stage = Self { database, folder };
        stage.sql().run(TABLE).expect("the table is created");
        stage
    }

    fn sql(&self) -> Sql {
        self.database.sql().expect("the server is up")
    }

    fn value(&self, query: &str) -> String {
        self.sql().value(query).expect("it answers").unwrap_or_default()
    }

    /// `pgmend run`, over this URL.
    fn run(&self, url: &str) -> Child {
        self.run_with(url, &[])
    }

    fn run_with(&self, url: &str, flags: &[&str]) -> Child {
        // Nothing but a signal ends a batch that waits for a row.
        let timeouts = ["--lock-timeout-ms", "60000", "--statement-timeout-ms", "60000"];
        let limits = ["--batch-rows", "2", "--lease-seconds", "3"];
        Command::new(env!("CARGO_BIN_EXE_pgmend"))
            .args(["run", "fix.sql", "--name", "fix", "--database-url", url, "--execute"])
            .args(timeouts)
            .args(limits)
            .args(flags)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test was built by cargo")
    }

    fn wait_until(&self, holds: &str) {
        let mut sql = self.sql();
        let deadline = Instant::now() + PATIENCE;
        // While nothing is installed yet, the question itself is an error.
        while !sql.value(holds).is_ok_and(|answer| answer.as_deref() == Some("t")) {
            assert!(Instant::now() < deadline, "not within a minute: {holds}");
            sleep(Duration::from_millis(10));
        }
    }

    /// The run as the database has it: its state and reason, and whether the lease was given back.
    fn stands(&self) -> String {
        self.value(
            "select concat_ws(' ', state, reason, case when expires_at = '-infinity' then 'free' else 'held' end)
               from pgmend.run join pgmend.lease using (run_id)",
        )
    }

    /// The same command again ends what a stopped one began.
    fn go_on(&self) {
        let ended = ended(self.run(&self.database.url()));
        assert_eq!(ended.status.code(), Some(exit::DONE.into()), "{ended:?}");
        assert_eq!(self.value("select count(*) || ' ' || sum(balance) from account"), "120 12600");
        assert_eq!(self.value("select count(*) from pgmend.run"), "1");
        assert_eq!(self.stands(), "succeeded free");
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.expect("`kill` is a program").success(), "SIG{name}");
}

/// Its end, and everything that it said.
fn ended(child: Child) -> Output {
    child.wait_with_output().expect("a child can be waited for")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_first_signal_finishes_the_batch_gives_the_lease_back_and_says_how_to_go_on() {
    for name in ["INT", "TERM"] {
        let stage = Stage::new();
        let child = stage.run(&stage.database.url());
        stage.wait_until("select count(*) > 4 from pgmend.batch");
        signal(&child, name);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(exit::PAUSED.into()), "{output:?}");
        let said = said(&output);
        for words in ["stopping after this batch", "stopped by a signal", "pgmend run"] {
            assert!(said.contains(words), "`{words}` in:\n{said}");
        }
        assert_eq!(stage.stands(), "paused stopped by a signal free", "SIG{name}");
        let changed = stage.value("select count(*) from account where balance = 105");
        assert_eq!(changed, stage.value("select max(changed_total) from pgmend.batch"), "the checkpoint tells");
        assert_ne!(changed, "120");
        stage.go_on();
    }
}

#[test]
fn the_second_signal_cancels_the_statement_and_nothing_of_its_batch_stays() {
    let stage = Stage::new();
    let mut other = stage.sql();
    other.run("begin; select from account where id = 20 for update").expect("the row is locked");
    let mut child = stage.run(&stage.database.url());
    let waits = "select count(*) > 0 from pg_stat_activity
                  where wait_event_type = 'Lock' and datname = current_database()";
    stage.wait_until(waits);
    signal(&child, "INT");
    sleep(Duration::from_millis(700));
    assert!(child.try_wait().expect("a child can be asked").is_none(), "the batch is waited for");
    signal(&child, "INT");
    let output = ended(child);
    assert_eq!(output.status.code(), Some(exit::PAUSED.into()), "{output:?}");
    assert!(said(&output).contains("cancelling the batch"), "{output:?}");
    assert_eq!(stage.stands(), "paused stopped by a second signal free");
    assert_eq!(stage.value("select max(id) from account where balance = 105"), "18");
    other.run("commit").expect("the lock is released");
    stage.go_on();
}

/// Sent at the begin of the last wait, which is of two seconds and more: without the signal the run would end after it. A
/// machine may stall for as long, but not each time, and who sits the wait out is never at once.
#[test]
fn a_signal_while_another_attempt_is_waited_for_stops_at_once() {
    let mut took = Vec::new();
    while took.len() < 5 {
        let elapsed = stops_while_it_waits_for_its_last_attempt();
        if elapsed.is_some_and(|elapsed| elapsed < Duration::from_secs(1)) {
            return;
        }
        took.push(elapsed);
    }
    panic!("never at once: {took:?}");
}

/// How long it took from the signal to the end; `None` where the run had ended before.
fn stops_while_it_waits_for_its_last_attempt() -> Option<Duration> {
    let stage = Stage::new();
    stage
        .sql()
        .run(
            "create function busy() returns trigger language plpgsql as
                $$ begin raise exception using errcode = '40001'; end $$;
              create trigger busy before update on account for each row when (old.id = 20) execute function busy()",
        )
        .expect("the trigger is created");
    let mut child = stage.run(&stage.database.url());
    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    said.find(|line| line.starts_with("event=retrying attempt=5 ")).expect("it tries again");
    signal(&child, "TERM");
    let began = Instant::now();
    // Until it has ended: there is nothing more to read then.
    let rest: Vec<String> = said.collect();
    let elapsed = began.elapsed();
    assert_eq!(ended(child).status.code(), Some(exit::PAUSED.into()), "{rest:?}");
    let stopped = stage.stands() == "paused stopped by a signal free";
    assert!(stopped || stage.stands().contains("40001"), "{} after {rest:?}", stage.stands());
    stage.sql().run("drop function busy() cascade").expect("the trigger is dropped");
    stage.go_on();
    stopped.then_some(elapsed)
}

#[test]
fn a_signal_while_the_pace_lets_a_run_rest_stops_at_once() {
    let stage = Stage::new();
    let takes = |seconds: &str| {
        let slow = format!("begin perform pg_sleep({seconds}); return new; end");
        let replaced = format!("create or replace function slow() returns trigger language plpgsql as $$ {slow} $$");
        stage.sql().run(&replaced).expect("the function is there");
    };
    takes("0.7");
    let child = stage.run_with(&stage.database.url(), &["--nice", "100"]);
    // A batch takes more than a second, so that the rest after it takes two minutes and more.
    stage.wait_until("select max(waits_until) > clock_timestamp() + interval '90 s' from pgmend.driving");
    signal(&child, "INT");
    let began = Instant::now();
    let output = ended(child);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    takes("0");
    assert_eq!(output.status.code(), Some(exit::PAUSED.into()), "{output:?}");
    assert!(
        said(&output).contains("event=pacing") && said(&output).contains("rests 100 × the batch before"),
        "{output:?}"
    );
    assert_eq!(stage.stands(), "paused stopped by a signal free");
    stage.go_on();
}

#[test]
fn the_third_signal_leaves_at_once_even_when_no_server_answers() {
    let stage = Stage::new();
    let proxy = FaultProxy::start(&stage.database.url()).expect("a proxy starts");
    let child = stage.run(&proxy.url());
    stage.wait_until("select count(*) > 4 from pgmend.batch");
    proxy.freeze();
    for _ in 0..3 {
        signal(&child, "INT");
        sleep(Duration::from_millis(200));
    }
    let output = ended(child);
    assert_eq!(output.status.code(), Some(exit::PAUSED.into()), "{output:?}");
    assert!(said(&output).contains("the same command goes on"), "{output:?}");
    drop(proxy);
    stage.go_on();
}
