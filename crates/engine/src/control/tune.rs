//! Another pace for a live run, from any machine. The database keeps the change with who and why, and lets it expire;
//! whoever drives the run hears of it within a second.

use pgmend_core::limits::BATCH_ROWS_CEILING;
use pgmend_core::pace::{Pace, Setting};
use pgmend_core::plan::Plan;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::throttle::{Limit, LimitAsked, Signal};
use pgmend_pg::pace::{Driving, Tuned, TunedLimit};
use pgmend_pg::store::StoredRun;
use serde::Serialize;

use super::wish::said;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::Status;

/// What to change of a live run's pace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuning {
    /// Each setting with its value; 0 switches rate and rest off, `None` goes back to what the run was started with.
    pub changes: Vec<(Setting, Option<f64>)>,
    /// Other limits of its signals.
    pub limits: Vec<LimitAsked>,
    /// Go back to the plan's limits, but for those above.
    pub reset_limits: bool,
    /// Minutes for which that counts; `None` pins it to the end of the run.
    pub minutes: Option<u32>,
}

/// What governs a run now.
#[derive(Debug, Clone, Serialize)]
pub struct InForce {
    /// The pace that it was started with, and what people changed of it.
    pub pace: Pace,
    /// What people changed of the pace.
    pub tuned: Vec<Tuned>,
    /// Every signal that it reads.
    pub signals: Vec<SignalInForce>,
}

/// A signal with the limits that count now.
#[derive(Debug, Clone, Serialize)]
pub struct SignalInForce {
    /// The signal with its limits.
    #[serde(flatten)]
    pub signal: Signal,
    /// Who changed them, if anybody did.
    pub tuned: Option<TunedLimit>,
}

impl Engine {
    /// Changes the pace of a run that has not ended.
    pub async fn tune(&mut self, run: &str, tuning: &Tuning, reason: &str) -> Result<Vec<Status>, Error> {
        self.refuse_standby()?;
        let reason = said(reason)?;
        let run = self.unfinished(run).await?;
        if tuning.changes.is_empty() && tuning.limits.is_empty() && !tuning.reset_limits {
            let help = "say what: --rate, --nice, --batch-rows, --limit or --reset";
            return Err(Refusal::new(Code::PaceBounds, "nothing is asked for", help).into());
        }
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        let policy = self.session.policy().await?.and_then(|(_, policy)| policy.batch_rows_max);
        let most = policy.unwrap_or(BATCH_ROWS_CEILING).min(plan.limits.rows_per_transaction_max);
        for (setting, value) in &tuning.changes {
            if let Some(value) = value {
                setting.check(*value, most)?;
            }
        }
        let (signals, environment) = (self.signals_in(&plan)?, self.environment.as_ref());
        let environment = environment.map(|named| &named.environment.throttle);
        let limits: Vec<Limit> = tuning.limits.iter().map(|asked| asked.settle(&signals)).collect::<Result<_, _>>()?;
        limits.iter().try_for_each(|limit| limit.check(environment))?;
        if plan.one_transaction && !tuning.changes.is_empty() {
            let message = format!("run {} has all its rows in one transaction, which has no pace", run.run_id);
            return Err(Refusal::new(Code::WrongState, message, "pause or cancel it instead").into());
        }
        if !tuning.changes.is_empty() {
            self.session.tune(run.run_id, &tuning.changes, tuning.minutes, reason).await?;
        }
        let mut back = Vec::new();
        if tuning.reset_limits {
            let now = self.session.wanted(run.run_id).await?.limits.into_iter().map(|tuned| tuned.limit.signal);
            back = now.filter(|signal| limits.iter().all(|limit| limit.signal != *signal)).collect();
        }
        if !limits.is_empty() || !back.is_empty() {
            self.session.tune_limits(run.run_id, &limits, &back, tuning.minutes, reason).await?;
        }
        self.status(Some(&run.run_id.to_string())).await
    }

    /// The pace and the limits that govern a run now.
    pub async fn in_force(&mut self, run: &str) -> Result<InForce, Error> {
        self.need_control_schema().await?;
        let run = self.meant_run(run).await?;
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        let signals = self.signals_in(&plan)?;
        let (pace, tuned, _) = self.pace_of(&run, &plan.pace).await?;
        let limits = if run.state.ended() { Vec::new() } else { self.session.wanted(run.run_id).await?.limits };
        let environment = self.environment.as_ref().map(|named| &named.environment.throttle);
        let signals = signals.into_iter().map(|signal| {
            let Some(tuned) = limits.iter().find(|tuned| tuned.limit.signal == signal.name) else {
                return SignalInForce { signal, tuned: None };
            };
            let Limit { enter, leave, .. } = tuned.limit.clone().within(environment);
            SignalInForce { signal: Signal { enter: Some(enter), leave, ..signal }, tuned: Some(tuned.clone()) }
        });
        let changes = tuned.iter().map(|change| (change.setting, change.value));
        Ok(InForce { pace: pace.tuned(changes), signals: signals.collect(), tuned })
    }

    /// The signals that a run of a plan holds for in this environment.
    fn signals_in(&self, plan: &Plan) -> Result<Vec<Signal>, Error> {
        let throttle = self.throttle_within(plan.throttle.clone())?;
        Ok(crate::throttle::signals_of(&Plan { throttle, ..plan.clone() }))
    }

    /// The pace of a run that has not ended: as it was started, and as people have changed it.
    pub(super) async fn pace_of(&self, run: &StoredRun, planned: &Pace) -> Result<(Pace, Vec<Tuned>, Driving), Error> {
        if run.state.ended() {
            return Ok((planned.clone(), Vec::new(), Driving::default()));
        }
        let driving = self.session.driving(run.run_id).await?;
        // With several drivers, the one that waits longest tells what is waited for.
        let longest = |a: &Driving, b: &Driving| a.waits_s.unwrap_or(0.0).total_cmp(&b.waits_s.unwrap_or(0.0));
        let driving = driving.into_iter().max_by(longest);
        let pace = driving.as_ref().map_or_else(|| planned.clone(), |driving| driving.pace.clone());
        let tuned = self.session.wanted(run.run_id).await?.tuned;
        Ok((pace, tuned, driving.unwrap_or_default()))
    }
}
