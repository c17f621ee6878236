//! What people want of a run now, how fast its driver goes, and the hours in which it may: the rows of
//! `004_pace.sql`. Whether a change is allowed is decided by `pgmend.tune`.

use pgmend_core::id::{PlanId, RunId};
use pgmend_core::nights::Window;
use pgmend_core::pace::{Pace, Setting};
use pgmend_core::throttle::Limit;
use serde::{Deserialize, Serialize};

use crate::batch::Lease;
use crate::error::PgError;
use crate::guardrails::Wish;
use crate::session::{Session, Statement};
use crate::store::{from_json, number, text};

const WANTED: &str = include_str!("../sql/pace/wanted.sql");
const WINDOW: &str = include_str!("../sql/pace/window.sql");
const NEXT_WINDOW: &str = include_str!("../sql/pace/next_window.sql");
const DRIVING: &str = include_str!("../sql/pace/driving.sql");

/// What people want of a run at a moment.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Wanted {
    /// To pause it or to give it up.
    pub stop: Option<Wish>,
    /// Another pace than the one it was started with.
    pub tuned: Vec<Tuned>,
    /// Other limits of its signals than the plan's.
    #[serde(default)]
    pub limits: Vec<TunedLimit>,
}

/// A change of a live run's limits that counts now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TunedLimit {
    /// Of what, and to what.
    #[serde(flatten)]
    pub limit: Limit,
    /// Why.
    pub reason: String,
    /// Who.
    pub tuned_by: String,
    /// Until when, by the server's clock; `None` when it is pinned.
    pub expires_at: Option<String>,
}

/// A change of a live run's pace that counts now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// What was changed.
    pub setting: Setting,
    /// To what; 0 switches rate or rest off.
    pub value: f64,
    /// Why.
    pub reason: String,
    /// Who.
    pub tuned_by: String,
    /// Until when, by the server's clock; `None` when it is pinned.
    pub expires_at: Option<String>,
}

/// What the driver of a run says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Driving {
    /// The pace that it was started with.
    pub pace: Pace,
    /// What it waits for between two batches.
    pub waits_for: Option<String>,
    /// For how many more seconds.
    pub waits_s: Option<f64>,
}

/// A window of the policy in force.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Hours {
    /// Seconds until it opens, below zero when it is open; `None` when none opens within 400 days.
    pub opens_in_s: Option<f64>,
    /// Seconds until it closes.
    pub closes_in_s: Option<f64>,
    /// When it opens, local time of the zone.
    pub opens_at: Option<String>,
    /// When it closes, local time of the zone.
    pub closes_at: Option<String>,
    /// The time zone.
    pub zone: String,
}

impl Session {
    /// What people want of a run now.
    pub async fn wanted(&self, run: RunId) -> Result<Wanted, PgError> {
        let answer = self.run(&Statement::new("read what is wanted", WANTED, vec![run.to_string()])).await?;
        from_json(answer.rows.first().map_or(&[], Vec::as_slice), 0)
    }

    /// The open window or the next one; `None` where every hour is allowed.
    pub async fn hours(&self) -> Result<Option<Hours>, PgError> {
        let answer = self.run(&Statement::new("read the allowed hours", WINDOW, vec![])).await?;
        answer.rows.first().map(|row| from_json(row, 0)).transpose()
    }

    /// How long batches may begin now (0 seconds if not), and the window after this one; `None` where every hour is
    /// allowed.
    pub async fn next_hours(&self) -> Result<Option<Hours>, PgError> {
        let answer = self.run(&Statement::new("read the allowed hours", NEXT_WINDOW, vec![])).await?;
        answer.rows.first().map(|row| from_json(row, 0)).transpose()
    }

    /// What the drivers of a run say of themselves.
    pub async fn driving(&self, run: RunId) -> Result<Vec<Driving>, PgError> {
        let answer = self.run(&Statement::new("read the pace", DRIVING, vec![run.to_string()])).await?;
        from_json(answer.rows.first().map_or(&[], Vec::as_slice), 0)
    }

    /// Says how fast the run was told to go, and what it waits for, and for how many seconds.
    /// Lock:  one row. Index: `lease_fence`, `driving_pkey`.
    pub async fn announce(&self, lease: &Lease, pace: &Pace, waits: Option<(&str, f64)>) -> Result<(), PgError> {
        let sql = "select pgmend.announce($1::uuid, $2::int, $3::bigint, $4::jsonb, $5, $6::double precision)::text";
        let pace = serde_json::to_string(pace).map_err(|e| PgError::corrupt(format!("a pace does not write: {e}")))?;
        let params = vec![
            Some(lease.run.to_string()),
            Some(lease.partition_no.to_string()),
            Some(lease.fence.to_string()),
            Some(pace),
            waits.map(|(what, _)| what.to_owned()),
            waits.map(|(_, seconds)| seconds.to_string()),
        ];
        self.run(&Statement { doing: "say what the run waits for", sql: sql.into(), params }).await?;
        Ok(())
    }

    /// Changes the pace of a live run for some minutes, or to its end. `None` takes a change back.
    /// Lock:  one row for each setting. Index: `run_pkey`, `tuning_pkey`.
    pub async fn tune(
        &self,
        run: RunId,
        changes: &[(Setting, Option<f64>)],
        minutes: Option<u32>,
        reason: &str,
    ) -> Result<(), PgError> {
        let changes: serde_json::Map<String, serde_json::Value> =
            changes.iter().map(|(setting, value)| (setting.name().to_owned(), serde_json::json!(value))).collect();
        let params = vec![
            Some(run.to_string()),
            Some(serde_json::Value::Object(changes).to_string()),
            minutes.map(|minutes| minutes.to_string()),
            Some(reason.to_owned()),
        ];
        let sql = "select pgmend.tune($1::uuid, $2::jsonb, $3::int, $4)::text";
        self.run(&Statement { doing: "change the pace", sql: sql.into(), params }).await?;
        Ok(())
    }

    /// Changes where signals hold a live run, for some minutes or to its end; takes the changes of `reset` back.
    /// Lock:  one row for each signal. Index: `run_pkey`, `tuned_limit_pkey`.
    pub async fn tune_limits(
        &self,
        run: RunId,
        limits: &[Limit],
        reset: &[String],
        minutes: Option<u32>,
        reason: &str,
    ) -> Result<(), PgError> {
        let set = limits.iter().map(|limit| serde_json::json!(limit));
        let back = reset.iter().map(|signal| serde_json::json!({ "signal": signal }));
        let params = vec![
            Some(run.to_string()),
            Some(serde_json::Value::Array(set.chain(back).collect()).to_string()),
            minutes.map(|minutes| minutes.to_string()),
            Some(reason.to_owned()),
        ];
        let sql = "select pgmend.tune_limits($1::uuid, $2::jsonb, $3::int, $4)::text";
        self.run(&Statement { doing: "change the limits", sql: sql.into(), params }).await?;
        Ok(())
    }

    /// The windows of the policy in force within the next 400 days, in seconds from now; `None` where every hour is
    /// allowed.
    /// Lock:  none. Index: `policy_pkey`.
    pub async fn windows(&self) -> Result<Option<Vec<Window>>, PgError> {
        let sql = "select (select coalesce(json_agg(json_build_object( \
                                  'opens_s', greatest(extract(epoch from w.opens_at - now()), 0)::float8, \
                                  'closes_s', extract(epoch from w.closes_at - now())::float8) order by w.opens_at), '[]') \
                             from pgmend.windows(p.body -> 'hours', now(), 400) as w)::text \
                     from pgmend.current_policy() as p where p.body ? 'hours'";
        let answer = self.run(&Statement::new("read the allowed hours", sql, vec![])).await?;
        answer.rows.first().map(|row| from_json(row, 0)).transpose()
    }

    /// What the batches of a change's runs did so far: rows, and the milliseconds that they took.
    /// Lock:  none. Index: `run_signature`, `batch_pkey`.
    pub async fn measured(&self, signature: &str) -> Result<(i64, f64), PgError> {
        let sql = "select coalesce(sum(b.changed_rows), 0)::text, coalesce(sum(b.took_ms), 0)::text \
                     from pgmend.run r cross join lateral (select b.changed_rows, b.took_ms from pgmend.batch b \
                          where b.run_id = r.run_id order by b.batch_no desc limit 1000) as b where r.signature = $1";
        let answer = self.run(&Statement::new("read what batches took", sql, vec![signature.to_owned()])).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        let took = text(row, 1)?.parse().map_err(|_| PgError::corrupt("a time that does not read"))?;
        Ok((number(row, 0)?, took))
    }

    /// Seconds for which a plan may start a run yet; below zero when it has expired.
    /// Lock:  none. Index: `plan_pkey`.
    pub async fn plan_left_s(&self, plan: PlanId) -> Result<f64, PgError> {
        let sql = "select extract(epoch from expires_at - clock_timestamp())::float8::text from pgmend.plan where plan_id = $1::uuid";
        let answer = self.run(&Statement::new("read the plan's expiry", sql, vec![plan.to_string()])).await?;
        answer.scalar().and_then(|s| s.parse().ok()).ok_or_else(|| PgError::corrupt("a plan without an expiry"))
    }

    /// The moments so many seconds from now, in the policy's zone, and that zone.
    /// Lock:  none. Index: `policy_pkey`.
    pub async fn moments_in(&self, seconds: (f64, f64)) -> Result<(String, String, String), PgError> {
        let sql = "select to_char((now() + make_interval(secs => $1::double precision)) at time zone z.name, 'Dy YYYY-MM-DD HH24:MI'), \
                          to_char((now() + make_interval(secs => $2::double precision)) at time zone z.name, 'Dy YYYY-MM-DD HH24:MI'), \
                          z.name \
                     from (select coalesce((select p.body #>> '{hours,zone}' from pgmend.current_policy() as p), 'UTC') as name) as z";
        let params = vec![seconds.0.to_string(), seconds.1.to_string()];
        let answer = self.run(&Statement::new("read the calendar", sql, params)).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        Ok((text(row, 0)?, text(row, 1)?, text(row, 2)?))
    }
}
