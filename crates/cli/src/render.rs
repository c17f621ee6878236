//! Text for people. Pure functions over values of the library, so that every page has a snapshot.

pub mod dead_letters;
pub mod error;
pub mod figure;
pub mod next;
pub mod outcome;
pub mod page;
pub mod paint;
pub mod plan;
pub mod prune;
pub mod status;
pub mod tenants;
pub mod trace;
pub mod tune;

#[cfg(test)]
pub(crate) mod example;
