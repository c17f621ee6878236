//! Transcripts: what a person types, and the real output on a real server, by snapshot. What differs from machine to
//! machine and from day to day is replaced by a word in ‹›.

mod aftermath;
mod fixes;
mod leases;
mod plans;
mod runs;
mod tenants;
mod terminal;
mod transcript;
