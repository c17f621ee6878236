//! Digests: SHA-256 over canonical JSON, printed as lower-case hexadecimal.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Digest(pub String);

impl Digest {
    /// The digest of some bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::of_hash(&Sha256::digest(bytes))
    }

    /// A hash of 32 bytes in hexadecimal.
    pub(crate) fn of_hash(hash: &[u8]) -> Self {
        use std::fmt::Write as _;
        let hex = hash.iter().fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
            hex
        });
        Self(hex)
    }

    /// The digest of a value's canonical JSON: `serde_json` prints fields in declaration order and
    /// maps here are all `BTreeMap`s, so that equal values have equal bytes.
    pub fn of(value: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(value).expect("domain values have only string keys, which always serialise");
        Self::of_bytes(&bytes)
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12.min(self.0.len())]
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn the_digest_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of_bytes(b"abc").0, abc);
    }
}
