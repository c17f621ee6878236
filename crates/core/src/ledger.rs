//! The ledger's facts: what happened, chained by hashes. The canonical bytes of an entry are
//! `previous hash (hex) ‖ entry number (decimal) ‖ fact ‖ actor ‖ recorded_at ‖ body (JSON as stored)`, parts
//! joined by a line feed, in UTF-8; the entry's hash is the SHA-256 of those, in hexadecimal. The first entry's
//! previous hash is empty. `recorded_at` is written in UTC as `2026-11-21T22:04:05.123456Z`.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One entry as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Position in the run's chain, from 1.
    pub entry_no: i64,
    /// When, by the server's clock.
    pub recorded_at: String,
    /// What, past tense, such as `run_paused`.
    pub fact: String,
    /// Who: `session_user`.
    pub actor: String,
    /// Details as JSON text; holds no row values.
    pub body: String,
    /// The entry's hash.
    pub hash: String,
}

impl Entry {
    /// The hash that the entry must have after `previous`.
    pub fn hash_after(&self, previous: &str) -> Digest {
        let Entry { entry_no, recorded_at, fact, actor, body, .. } = self;
        Digest::of_bytes(format!("{previous}\n{entry_no}\n{fact}\n{actor}\n{recorded_at}\n{body}").as_bytes())
    }
}

/// The first entry that does not continue the chain, if any.
pub fn broken_at(entries: &[Entry]) -> Option<i64> {
    let mut previous = String::new();
    for (expected_no, entry) in (1..).zip(entries) {
        let hash = entry.hash_after(&previous).0;
        if entry.entry_no != expected_no || entry.hash != hash {
            return Some(entry.entry_no);
        }
        previous = hash;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(bodies: &[&str]) -> Vec<Entry> {
        let mut previous = String::new();
        (1..)
            .zip(bodies)
            .map(|(entry_no, body)| {
                let (recorded_at, actor) = ("2026-11-21T22:04:05.000001Z".into(), "alice".into());
                let body = (*body).to_owned();
                let entry =
                    Entry { entry_no, recorded_at, fact: "run_paused".into(), actor, body, hash: String::new() };
                let hash = entry.hash_after(&previous).0;
                previous.clone_from(&hash);
                Entry { hash, ..entry }
            })
            .collect()
    }

    #[test]
    fn an_edited_or_missing_entry_breaks_the_chain() {
        let intact = chain(&["{}", "{\"a\":1}", "{}"]);
        assert_eq!(broken_at(&intact), None);
        let mut edited = intact.clone();
        edited[1].body = "{\"a\":2}".into();
        assert_eq!(broken_at(&edited), Some(2));
        let mut signed = intact.clone();
        signed[1].actor = "bob".into();
        assert_eq!(broken_at(&signed), Some(2));
        let mut missing = intact;
        missing.remove(1);
        assert_eq!(broken_at(&missing), Some(3));
    }
}
