//! Who may run what, and who can prove it: enforced by the database, tried with plain SQL as each role, and through
//! the engine.

mod approvals;
mod glass;
mod hours;
mod job_role;
mod ledger;
mod policy;
mod pruned;
mod roles;
mod stories;
mod wishes;

use pgmend::guard::Named;
use pgmend::{Code, Engine, Error, Job, JobFile, Observer, PlanOptions, Planned, RunOptions};
use pgmend_core::environment::Environment;
use pgmend_core::policy::Policy;
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

    /// Locks a row until the session goes, and lets the job wait for it: its run stays under way whatever a busy machine makes
    /// of it.
    fn hold(&self, job: &mut Job, id: u32) -> Sql {
        (job.file.limits.lock_timeout_ms, job.file.limits.statement_timeout_ms) = (60_000, Some(60_000));
        let mut other = self.db.sql().expect("a session");
        other.run(&format!("begin; select from account where id = {id} for update")).expect("a lock");
        other
    }

    /// Waits until the run waits for the row of [`Self::hold`].
    async fn until_held(&self) {
        let waiting =
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        let mut sql = self.db.sql().expect("a session");
        for _ in 0..3_000 {
            if sql.value(waiting).expect("an answer").as_deref() != Some("0") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("it does not come to the row within a minute");
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
