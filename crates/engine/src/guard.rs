//! Guardrails: environments and their policy, approvals, broken glass, reviews. What is asked of a plan is decided
//! by the database (`002_guardrails.sql`); this carries questions there and answers back.

pub(crate) mod way_out;

use pgmend_core::environment::{Arrived, Environment};
use pgmend_core::id::RunId;
use pgmend_core::job::Job;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::run::RunState;
use pgmend_core::table::quote_ident;
use pgmend_pg::guardrails::Arrival;
pub use pgmend_pg::guardrails::{Guardrail, ReviewItem, StoredApproval};
use pgmend_pg::roles::Part;
use pgmend_pg::{PgError, Session};

use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::Planned;
use crate::report::{CheckedEnvironment, Demanded};

/// An environment by its name in `pgmend.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// What the file says of it.
    pub environment: Environment,
}

impl Engine {
    /// Connects to an environment, and refuses a database that is not what the environment says.
    pub async fn connect_to(database_url: Option<&str>, named: Named) -> Result<Self, Error> {
        let mut engine = Engine::connect(database_url).await?;
        let mismatches = mismatches(&engine.session, &named).await;
        let mismatches = mismatches.map_err(|error| unasked_canary(error, &named, &engine.here.session_user))?;
        if !mismatches.is_empty() {
            let message = format!("this is not environment {}: {}", named.name, mismatches.join("; "));
            let help = "correct the connection, or what pgmend.toml expects";
            return Err(Refusal::new(Code::WrongEnvironment, message, help).into());
        }
        engine.environment = Some(named);
        Ok(engine)
    }

    /// Environments that must be named before anything is written to their databases; for a caller that names none. The
    /// database itself insists on that once it has the environment's policy; until then this is what does.
    pub fn protect(&mut self, environments: Vec<Named>) {
        self.protected = environments;
    }

    async fn refuse_protected(&self) -> Result<(), Error> {
        if self.protected.is_empty() {
            return Ok(());
        }
        let Arrival { host, database, system_identifier, canary } = self.session.arrived(None).await?;
        let arrived = Arrived { host, database, system_identifier, canary };
        let Some(named) = self.protected.iter().find(|named| named.environment.is_at(&arrived)) else { return Ok(()) };
        let message = format!("this database is environment {}, which is protected and was not named", named.name);
        Err(Refusal::new(Code::EnvironmentNotNamed, message, format!("add --env {}", named.name)).into())
    }

    /// Makes the environment's policy that of this database. Only the owner of the control schema may.
    pub async fn install_policy(&mut self) -> Result<bool, Error> {
        let Some(named) = &self.environment else { return Ok(false) };
        let (name, policy) = (named.name.clone(), named.environment.policy.clone());
        if self.session.policy().await?.is_some_and(|(was, body)| was == name && body == policy) {
            return Ok(false);
        }
        self.session.set_policy(&name, &policy).await?;
        Ok(true)
    }

    /// Refuses to write where the database names its environment and the caller did not, or means another
    /// policy than the one in force.
    pub(crate) async fn refuse_unnamed_environment(&self) -> Result<(), Error> {
        let Some((name, policy)) = self.session.policy().await? else {
            return match &self.environment {
                None => self.refuse_protected().await,
                Some(named) if named.environment.policy != pgmend_core::policy::Policy::default() => {
                    let message = format!("the policy of environment {} is not installed in this database", named.name);
                    let help = format!("let the owner of schema pgmend type: pgmend init --env {}", named.name);
                    Err(Refusal::new(Code::Guardrail, message, help).into())
                }
                Some(_) => Ok(()),
            };
        };
        match &self.environment {
            None => {
                let message = format!("this database is environment {name}, which was not named");
                Err(Refusal::new(Code::EnvironmentNotNamed, message, format!("add --env {name}")).into())
            }
            Some(named) if named.name != name => {
                let message = format!("this database is environment {name}, not {}", named.name);
                Err(Refusal::new(Code::WrongEnvironment, message, "check the connection of the environment").into())
            }
            Some(named) if named.environment.policy != policy => {
                let message = format!("the policy of {name} in pgmend.toml is not the one in the database");
                let help = format!(
                    "get the newest pgmend.toml, or let the owner of schema pgmend type: pgmend init --env {name}"
                );
                Err(Refusal::new(Code::Guardrail, message, help).into())
            }
            Some(_) => Ok(()),
        }
    }

    /// What the policy asks of a stored plan, and whether it is met.
    pub async fn guardrails(&self, planned: &Planned) -> Result<Vec<Guardrail>, Error> {
        Ok(self.session.guardrails(planned.plan.plan_id).await?)
    }

    /// Approvals and vetoes of a stored plan.
    pub async fn approvals(&self, planned: &Planned) -> Result<Vec<StoredApproval>, Error> {
        Ok(self.session.approvals(planned.plan.plan_id).await?)
    }

    /// Says yes to a plan as it was shown.
    pub async fn approve(&mut self, planned: &Planned, reason: &str) -> Result<(), Error> {
        self.verdict(planned, "approved", reason).await
    }

    /// Says no: nobody runs the plan until the veto is taken back.
    pub async fn veto(&mut self, planned: &Planned, reason: &str) -> Result<(), Error> {
        self.verdict(planned, "vetoed", reason).await
    }

    async fn verdict(&mut self, planned: &Planned, verdict: &str, reason: &str) -> Result<(), Error> {
        let reason = given(reason)?;
        let said = self.session.approve(planned.plan.plan_id, &planned.digest, verdict, reason).await;
        self.for_approvers(said).await
    }

    /// Takes this login's yes or no back; tells whether a run under way is stopped by it.
    pub async fn revoke(&mut self, planned: &Planned, reason: &str) -> Result<bool, Error> {
        let reason = given(reason)?;
        let revoked = self.session.revoke_approval(planned.plan.plan_id, reason).await;
        self.for_approvers(revoked).await
    }

    /// Lets another login run a plan without its approvals, for some minutes.
    pub async fn let_break_glass(
        &mut self,
        planned: &Planned,
        to: &str,
        reason: &str,
        ticket: &str,
        minutes: u32,
    ) -> Result<String, Error> {
        let reason = given(reason)?;
        let plan = planned.plan.plan_id;
        let token = self.session.grant_break_glass(plan, &planned.digest, to, reason, ticket, minutes).await;
        self.for_approvers(token).await
    }

    /// The server says 42501 to a role that may not.
    async fn for_approvers<T>(&self, answer: Result<T, PgError>) -> Result<T, Error> {
        match answer {
            Err(error) if error.sqlstate == "42501" => {
                // A role that may not even read the control schema gets the usual name.
                let role = self.session.group_role(Part::Approver).await;
                let role = role.unwrap_or_else(|_| Part::Approver.usual_role().to_owned());
                let help = format!(
                    "let one of them type the same from their own login; the owner of schema pgmend adds members: grant {} to …",
                    quote_ident(&role)
                );
                Err(Refusal::new(Code::Privilege, format!("only members of {role} may do this"), help).into())
            }
            answer => Ok(answer?),
        }
    }

    /// Whether this login has leave to run the plan without its approvals.
    pub async fn may_break_glass(&self, planned: &Planned) -> Result<bool, Error> {
        Ok(self.session.may_break_glass(planned.plan.plan_id).await?)
    }

    /// Reviews that wait for somebody; none without a control schema.
    pub async fn open_reviews(&self) -> Result<Vec<ReviewItem>, Error> {
        Ok(self.session.open_reviews().await?)
    }

    /// Closes the review of a run, by another role than the one that started it.
    pub async fn close_review(&mut self, run: &str, note: &str) -> Result<(), Error> {
        self.need_control_schema().await?;
        let note = given(note)?;
        let run = self.meant_run(run).await?;
        let closed = self.session.close_review(run.run_id, note).await;
        self.for_approvers(closed).await
    }

    /// The run that made a job's change in this database, if one succeeded and was not undone.
    pub async fn succeeded_run_of(&self, job: &Job) -> Result<Option<RunId>, Error> {
        self.need_control_schema().await?;
        for run in self.session.find_runs(&job.name).await? {
            if run.kind == "undo" || run.state != RunState::Succeeded || run.undone_by.is_some() {
                continue;
            }
            let plan = self.session.plan_of(run.plan_id).await?.plan;
            if plan.statement == job.statement.trim() && plan.params == job.params {
                return Ok(Some(run.run_id));
            }
        }
        Ok(None)
    }

    /// The environment as the ledger remembers it: its name, and what of it was compared with the connection.
    pub(crate) fn checked_environment(&self) -> Option<CheckedEnvironment> {
        let Named { name, environment } = self.environment.as_ref()?;
        let compared = [
            ("host", environment.host.is_some()),
            ("database", environment.database.is_some()),
            ("system_identifier", environment.system_identifier.is_some()),
            ("canary", environment.canary.is_some()),
        ];
        let compared = compared.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_owned()).collect();
        Some(CheckedEnvironment { name: name.clone(), compared })
    }

    /// The flag that names the environment, with its leading space; empty where none was named.
    pub(crate) fn environment_flag(&self) -> String {
        self.environment.as_ref().map_or(String::new(), |named| format!(" --env {}", named.name))
    }

    /// What a start needs beyond the plan itself, refused with what to type next: by whom, on which plan. Gives what
    /// was demanded.
    pub(crate) async fn refuse_unmet(&self, planned: &Planned) -> Result<Vec<Demanded>, Error> {
        let all = self.guardrails(planned).await?;
        let demanded = |g: &Guardrail| Demanded { rule: g.rule.clone(), demanded: g.demanded.clone(), met: g.met };
        let demanded: Vec<Demanded> = all.iter().map(demanded).collect();
        let open: Vec<Guardrail> = all.into_iter().filter(|g| !g.met).collect();
        if open.is_empty() {
            return Ok(demanded);
        }
        let message = open.iter().map(|g| format!("{}: {} demanded, {} found", g.rule, g.demanded, g.found));
        let message = message.collect::<Vec<_>>().join("; ");
        let id = planned.plan.plan_id;
        let environment = self.environment_flag();
        let approval = way_out::approval(&open, id, &environment);
        let of_the_job = open.iter().any(|g| !way_out::is_by_people(g) && g.rule != "hours");
        if of_the_job {
            return Err(Refusal::new(Code::Guardrail, message, way_out::of_the_job(&open)).into());
        }
        let by_people = open.iter().any(way_out::is_by_people);
        if open.iter().any(|g| g.rule == "hours") {
            let help = match by_people {
                true => format!("type the same command within the hours; until then {approval}"),
                false => {
                    "type the same command within the hours, or add --until-done to it, which waits for them".to_owned()
                }
            };
            return Err(Refusal::new(Code::OutsideHours, message, help).into());
        }
        if self.may_break_glass(planned).await? {
            return Ok(demanded);
        }
        Err(Refusal::new(Code::ApprovalMissing, message, approval).into())
    }
}

/// A login that may not ask the canary cannot be told from one that is elsewhere.
fn unasked_canary(error: PgError, named: &Named, login: &str) -> Error {
    match &named.environment.canary {
        Some(canary) if error.sqlstate == "42501" => {
            let message = format!("the canary of environment {} cannot be asked: {}", named.name, error.message);
            let help = format!(
                "every login that uses the environment asks it `{}`: let the owner of what that reads type: grant select on … to {}",
                canary.query,
                quote_ident(login)
            );
            Refusal::new(Code::Privilege, message, help).into()
        }
        Some(_) | None => error.into(),
    }
}

/// In what the database is not the environment.
pub(crate) async fn mismatches(session: &Session, named: &Named) -> Result<Vec<String>, PgError> {
    let canary = named.environment.canary.as_ref().map(|c| c.query.as_str());
    let Arrival { host, database, system_identifier, canary } = session.arrived(canary).await?;
    Ok(named.environment.mismatches(&Arrived { host, database, system_identifier, canary }))
}

fn given(reason: &str) -> Result<&str, Refusal> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(Refusal::new(Code::BadJob, "the reason is empty", "say why, in a sentence: --reason \"…\""));
    }
    Ok(reason)
}
