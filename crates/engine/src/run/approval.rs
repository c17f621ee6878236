//! Waiting for the approvals of a plan, where somebody else gives them.

use std::time::Duration;

use pgmend_core::refusal::{Code, Refusal};

use super::interruption::wait_or_stop;
use super::nights::{Waited, wait_ended};
use crate::engine::Engine;
use crate::error::Error;
use crate::guard::way_out;
use crate::outcome::Planned;
use crate::progress::{Event, Observer, Stop};

/// How often the approvals are counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a plan stands.
enum Standing {
    /// Nothing is missing that a person could still say.
    Met,
    /// An approver has to type this; the plan is fresh for so many seconds yet.
    Missing { what: String, left_s: f64 },
}

impl Engine {
    /// Waits until a stored plan has the approvals that the policy demands, for as long as it may start a run. Says what
    /// an approver has to type. A veto, a stale plan and whatever no approval mends end the wait.
    pub async fn wait_for_approval(&mut self, planned: &Planned, observer: &mut Observer) -> Result<(), Error> {
        let mut told = String::new();
        loop {
            let standing = match self.standing(planned).await {
                Err(error @ Error::Database { .. }) if super::nights::is_without_access(&error) => {
                    match self.wait_for_access(&error, None, observer).await? {
                        Waited::Over => continue,
                        Waited::Stopped => return Err(wait_ended("an approval")),
                    }
                }
                standing => standing?,
            };
            let Standing::Missing { what, left_s } = standing else { return Ok(()) };
            if what != told {
                observer.tell(&Event::Waiting { what: what.clone(), wait_s: left_s });
                told = what;
            }
            wait_or_stop(observer.stop_receiver(), LOOK_EVERY).await;
            if observer.stop() != Stop::None {
                return Err(wait_ended("an approval"));
            }
        }
    }

    async fn standing(&self, planned: &Planned) -> Result<Standing, Error> {
        let id = planned.plan.plan_id;
        let open: Vec<_> = self.guardrails(planned).await?.into_iter().filter(|g| !g.met).collect();
        if let Some(veto) = open.iter().find(|g| g.rule == "veto") {
            let help = format!(
                "ask them why; the veto counts until they take it back: pgmend approve {id}{} --revoke --reason \"…\"",
                self.environment_flag()
            );
            return Err(Refusal::new(Code::ApprovalMissing, format!("plan {id} was {}", veto.found), help).into());
        }
        // What no approval mends is said now, rather than after hours of waiting. The hours come by themselves.
        if open.iter().any(|g| g.rule != "approvals" && g.rule != "hours") {
            self.refuse_unmet(planned).await?;
        }
        let missing = open.iter().find(|g| g.rule == "approvals");
        let Some(missing) = missing else { return Ok(Standing::Met) };
        if self.session.plan_of(id).await?.run.is_some() || self.may_break_glass(planned).await? {
            return Ok(Standing::Met);
        }
        let left_s = self.session.plan_left_s(id).await?;
        if left_s <= 0.0 {
            let message =
                format!("plan {id} expired before its approvals came ({} of {})", missing.found, missing.demanded);
            return Err(Refusal::new(Code::StalePlan, message, "plan again, and ask for the approvals again").into());
        }
        let environment = self.environment_flag();
        let what = format!(
            "approvals: {} demanded, {} found; {}",
            missing.demanded,
            missing.found,
            way_out::approval(&open, id, &environment)
        );
        Ok(Standing::Missing { what, left_s })
    }
}
