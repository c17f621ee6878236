//! The only crate of pgmend with a database driver: sessions, catalog, read transactions, leases,
//! batch transactions, the control schema. Decides no policy.

pub mod archive;
pub mod batch;
pub mod catalog;
pub mod connect;
pub mod conninfo;
pub mod dead_letters;
pub mod error;
pub mod gate;
pub mod guardrails;
pub mod health;
pub mod image_keys;
pub mod images;
pub mod masked_images;
pub mod pace;
pub mod partitions;
pub mod readtx;
pub mod roles;
pub mod scene;
pub mod schema;
pub mod session;
pub mod store;
pub mod tenants;
pub mod vacuum;
pub mod written;

mod passfile;
mod said;
mod service;
mod tls;

pub use error::PgError;
pub use session::{Answer, Session, Statement};
