//! Whether the plan tells the truth: predicted rows and duration beside the run's.

use pgmend::{Mode, PlanOptions};

use crate::arguments::Arguments;
use crate::error::BenchError;
use crate::lap::{self, Work};
use crate::stage::{REPAIR, SPARSE, Stage};

/// Batches that the plan rehearses.
const REHEARSED: u32 = 3;

/// One prediction and what came.
#[derive(Debug, Clone)]
pub struct Forecast {
    pub name: String,
    pub planned_rows: i64,
    pub changed_rows: i64,
    /// The middle of the predicted range.
    pub planned_s: f64,
    pub took_s: f64,
    pub basis: String,
}

/// Stream, freeze and sparse, with and without a fixed batch size.
pub fn all(stage: &Stage, arguments: &Arguments) -> Result<Vec<Forecast>, BenchError> {
    let cases =
        [("stream", REPAIR, Some(Mode::Stream)), ("freeze", REPAIR, Some(Mode::Freeze)), ("sparse", SPARSE, None)];
    let mut forecasts = Vec::new();
    for (name, statement, mode) in cases {
        for batch_rows in [None, Some(5_000)] {
            if !arguments.wants(name) {
                continue;
            }
            let url = stage.fresh()?;
            let work = Work { name, statement, images: true, mode, batch_rows, workers: None };
            let options = PlanOptions { rehearse: REHEARSED, ..PlanOptions::default() };
            let (lap, plan) = stage.runtime()?.block_on(lap::mend(&url, work, &options, &|| None))?;
            let (low, high) = plan.estimates.duration_s;
            let size = batch_rows.map_or("adaptive".to_owned(), |rows| format!("{rows} rows a batch"));
            let forecast = Forecast {
                name: format!("{name}, {size}"),
                planned_rows: plan.counts.changed_rows.value,
                changed_rows: lap.rows,
                planned_s: (low * high).sqrt(),
                took_s: lap.seconds,
                basis: plan.estimates.duration_basis,
            };
            eprintln!(
                "forecast {}: {:.1} s planned, {:.1} s taken",
                forecast.name, forecast.planned_s, forecast.took_s
            );
            forecasts.push(forecast);
        }
    }
    Ok(forecasts)
}
