//! The throttle: decides from health measures whether a run goes on, and how fast. Pure: readings and times come in
//! as values. `pg::health` reads, `engine::throttle` asks and waits.
//!
//! Two layers. Hard limits hold a run between two batches: each signal has a limit to enter a hold and a lower one to
//! leave it. The smooth [`controller`] stretches the time between batches before a limit is met, and [`company`] gives room to
//! an application that works beside, whether a limit is near or not. A signal that
//! cannot be read any more is over its limit, unless it declares otherwise.

pub mod company;
pub mod controller;
pub mod definition;
pub mod gauge;
pub mod ladder;
pub mod lag;
pub mod limit;
pub mod rate;
pub mod signal;

pub use company::{Company, Manners, glimpse};
pub use controller::{Controller, REST_MIN};
pub use definition::Throttle;
pub use gauge::{Board, Reading, Reason, Verdict};
pub use ladder::{Ladder, Rung};
pub use limit::{Limit, LimitAsked};
pub use signal::{Builtin, OnLoss, Signal, Source, Unit};
