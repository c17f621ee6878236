//! The equality suite: a table of statements over awkward types and keys. Each runs plain on one copy of
//! its tables, and by pgmend with batches of 1, 2, 3 and 1000 rows on others. What pgmend accepts must leave
//! the same contents; what it refuses must leave the table untouched. Then each run is undone, and the contents
//! must be as they were.
//!
//! `EQUALITY=part` of a case's name runs the cases of that name only.

mod case;
mod check;
mod copies;
mod dump;
mod trial;

mod deletes;
mod hazards;
mod inserts;
mod jobs;
mod keys;
mod samples;
mod tables;
mod updates;
mod values;
