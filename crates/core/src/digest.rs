//! Digests: SHA-256 over canonical JSON, printed as lower-case hexadecimal.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::mask::TokenKey;

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

/// The key of one plan's digests, made with the plan and kept in it. A plan holds literals, parameters and the hash of its
/// rows; who sees a digest of them but not the key cannot try a guess against it. Prints a placeholder.
#[derive(Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct DigestKey(String);

impl DigestKey {
    /// The key made from a secret: random, and of 128 bits at least.
    pub fn from_secret(secret: String) -> Self {
        Self(secret)
    }

    /// Whether there is none: in the output of a plan, and in plans of versions that had none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keyed digest of a value; a plain one where there is no key.
    pub fn digest(&self, value: &impl Serialize) -> Digest {
        if self.is_empty() { Digest::of(value) } else { TokenKey::from_secret(self.0.as_bytes()).digest(value) }
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(‹masked›)")
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, DigestKey};

    #[test]
    fn the_digest_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of_bytes(b"abc").0, abc);
    }

    #[test]
    fn a_guess_is_compared_only_by_whoever_has_the_key() {
        let [one, other] = ["one", "other"].map(|secret| DigestKey::from_secret(secret.to_owned()));
        assert_eq!(one.digest(&"a@b.c"), one.digest(&"a@b.c"));
        assert_ne!(one.digest(&"a@b.c"), other.digest(&"a@b.c"));
        assert_ne!(one.digest(&"a@b.c"), Digest::of(&"a@b.c"));
        assert_eq!(DigestKey::default().digest(&"a@b.c"), Digest::of(&"a@b.c"));
        assert_eq!(format!("{one:?}"), "DigestKey(‹masked›)");
    }
}
