//! pgmend: change data in a live PostgreSQL database as if it were a reviewed, resumable, reversible
//! deploy.
//!
//! ```no_run
//! # async fn example() -> Result<(), pgmend::Error> {
//! use pgmend::{Engine, Job, PlanOptions, RunOptions};
//!
//! let mut engine = Engine::connect(Some("postgresql:///shop")).await?;
//! let job = Job::from_statement("fix-roles", "update users set role = 'member' where role = 'memeber'");
//! let planned = engine.plan(&job, &PlanOptions::default()).await?;
//! println!("{} rows would change", planned.plan.counts.changed_rows.value);
//! let outcome = engine.run(&job, &RunOptions::default(), &mut pgmend::Observer::silent()).await?;
//! println!("{} rows changed", outcome.changed_rows);
//! # Ok(()) }
//! ```

pub mod chain;
pub mod control;
pub mod dead_letters;
pub mod error;
pub mod fix;
pub mod guard;
pub mod log;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod report;
pub mod run;
pub mod trace;
pub mod undo;

mod encryption;
mod engine;
mod throttle;
mod tokens;

pub use control::{InForce, SignalInForce, Tuning};
pub use encryption::Identities;
pub use engine::Engine;
pub use error::Error;
pub use outcome::*;
pub use pgmend_core::{
    finding::{Finding, Severity},
    id::{PlanId, RunId},
    job::{Job, JobFile, Mode},
    pace::{Pace, Setting, Span},
    plan::{Certainty, ChangeKind, Figure, Plan},
    refusal::{Code, Refusal},
    run::RunState,
};
pub use pgmend_pg::roles::NamedRoles;
pub use progress::{Event, Observer};
pub use throttle::survey::SurveyedSignal;
