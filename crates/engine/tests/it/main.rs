//! Tests of the engine against a real PostgreSQL, in one binary: linking is slower than running.

#![expect(clippy::panic, reason = "a failed expectation is a panic")]

mod altered;
mod collations;
mod control;
mod crash;
mod density;
mod embed;
mod encryption;
mod equality;
mod expectations;
mod guardrails;
mod halves;
mod heap_order;
mod installing;
mod pace;
mod parameters;
mod refusals;
mod rehearse;
mod reuse;
mod sweep;
mod taken_along;
mod tenants;
mod throttle;
mod unseen;
