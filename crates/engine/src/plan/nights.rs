//! Rows an hour, nights and the end of a change, once its speed was measured: by a rehearsal, or by a slice of the
//! same change that has run.

use pgmend_core::nights::{Ends, Nights, Window, course, rows_per_s};
use pgmend_core::plan::Plan;

use crate::engine::Engine;
use crate::error::Error;

/// A slice says more than a rehearsal, but the rest of the table may differ from it.
const SLICE_SPREAD: f64 = 1.3;

impl Engine {
    /// What can be said of the nights of a plan; `None` where its speed was not measured. `installed` says whether
    /// there is a control schema, with a policy perhaps.
    pub(super) async fn nights(&self, plan: &Plan, installed: bool) -> Result<Option<Nights>, Error> {
        let rows = plan.counts.changed_rows.value;
        let (fast_s, slow_s) = plan.estimates.duration_s;
        let measured = if installed { self.session.measured(&plan.signature.0).await? } else { (0, 0.0) };
        let (fast, slow, basis) = match (&plan.rehearsal, measured) {
            (_, (done, took_ms)) if done > 0 => {
                let work_s = rows as f64 * took_ms / 1_000.0 / done as f64;
                (work_s / SLICE_SPREAD, work_s * SLICE_SPREAD, format!("measured by {done} rows that were changed"))
            }
            (Some(_), _) => (fast_s, slow_s, "measured by rehearsal".to_owned()),
            (None, _) => return Ok(None),
        };
        let speeds = (rows_per_s(rows, slow, &plan.pace), rows_per_s(rows, fast, &plan.pace));
        let (Some(slow), Some(fast)) = speeds else { return Ok(None) };
        let windows = if installed { self.session.windows().await? } else { None };
        let hours = match windows {
            None => None,
            Some(windows) => Some(self.ends(rows, (slow, fast), &windows).await?),
        };
        let hourly = |per_s: f64| (per_s * 3_600.0) as i64;
        Ok(Some(Nights { rows_per_hour: (hourly(slow), hourly(fast)), basis, hours }))
    }

    async fn ends(&self, rows: i64, (slow, fast): (f64, f64), windows: &[Window]) -> Result<Ends, Error> {
        let (slow, fast) = (course(rows, slow, Some(windows)), course(rows, fast, Some(windows)));
        let seconds = slow.ends_in_s.zip(fast.ends_in_s);
        let (slow_at, fast_at, zone) = self.session.moments_in(seconds.unwrap_or_default()).await?;
        Ok(Ends { windows: (slow.windows, fast.windows), at: seconds.map(|_| (slow_at, fast_at)), zone })
    }
}
