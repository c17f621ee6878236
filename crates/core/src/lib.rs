//! The domain of pgmend, pure: what a job, a plan, a run and a batch are, and every decision about
//! them. Nothing here does I/O, reads a clock, is async or holds SQL.

pub mod changed;
pub mod composite;
pub mod dead_letters;
pub mod density;
pub mod digest;
pub mod digits;
pub mod environment;
pub mod exit;
pub mod expect;
pub mod finding;
pub mod halving;
pub mod id;
pub mod job;
pub mod ledger;
pub mod limits;
pub mod mask;
pub mod moment;
pub mod nights;
pub mod pace;
pub mod plan;
pub mod policy;
pub mod recipient;
pub mod refusal;
pub mod retry;
pub mod run;
pub mod sizing;
pub mod table;
pub mod tenants;
pub mod throttle;
pub mod vacuum;
