//! The ledger's facts: what happened, chained by hashes. The canonical bytes of an entry are
//! `previous hash (hex) ‖ entry number (decimal) ‖ fact ‖ body (JSON as stored)`, parts joined by a
//! line feed; the entry's hash is the SHA-256 of those. The first entry's previous hash is empty.

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

/// The hash that an entry must have after `previous`.
pub fn chain_hash(previous: &str, entry_no: i64, fact: &str, body: &str) -> Digest {
    Digest::of_bytes(format!("{previous}\n{entry_no}\n{fact}\n{body}").as_bytes())
}

/// The first entry that does not continue the chain, if any.
pub fn broken_at(entries: &[Entry]) -> Option<i64> {
    let mut previous = String::new();
    for (expected_no, entry) in (1..).zip(entries) {
        let hash = chain_hash(&previous, entry.entry_no, &entry.fact, &entry.body).0;
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
                let hash = chain_hash(&previous, entry_no, "run_paused", body).0;
                previous.clone_from(&hash);
                let (recorded_at, actor) = (String::new(), String::new());
                Entry { entry_no, recorded_at, fact: "run_paused".into(), actor, body: (*body).into(), hash }
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
        let mut missing = intact;
        missing.remove(1);
        assert_eq!(broken_at(&missing), Some(3));
    }
}
