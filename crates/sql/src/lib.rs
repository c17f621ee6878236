//! Reads the user's statement with PostgreSQL's own grammar, says what it does, and builds every
//! statement that touches a user's table. Pure: nothing here connects anywhere.
//!
//! The tree is edited and deparsed, never the text; the deparsed text is parsed again and compared.
//! Parameters of every built statement, all declared `text` by the driver: `$1..$p` the user's,
//! `$p+1` the run's instant, from `$p+2` the statement's own.

mod apply;
mod assign;
mod change;
mod clock;
mod conflict;
mod constants;
mod deparse;
mod depth;
mod encrypted;
mod escapes;
mod falsify;
mod family;
mod fragment;
mod insert;
mod keyset;
mod matched;
mod params;
mod reads;
mod rewriter;
mod scan;
mod shape;
mod statement;
mod tenant;
mod text;
mod upsert;
mod walk;

pub use apply::{Guard, Window, apply_delete, apply_insert, apply_update, ends, span};
pub use change::{Order, Returning, fill_in_order};
pub use conflict::Applied;
pub use constants::constants;
pub use encrypted::{decrypt_if_opened, decrypt_rows, decrypted_type, encrypt_rows, encryption_trial};
pub use escapes::with_escapes;
pub use family::cascades_within;
pub use keyset::{Half, Range, ToldBy, can_be_halved, integer};
pub use matched::{Join, Lock, Matched};
pub use reads::{ColumnsRead, FunctionUse, Place, functions_of_default};
pub use rewriter::{ImageColumns, Options, Rewriter, Target};
pub use scan::{greatest_key, predicate, quantiles, row_count, window};
pub use shape::shape;
pub use statement::{Kind, OnConflict, ParamDecl, Statement};
pub use upsert::insert_imaged;
