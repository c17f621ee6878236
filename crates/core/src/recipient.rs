//! The recipient that images are encrypted to: the public half of an `age` key pair, as text. Its form is checked
//! here, its checksum where the library is (`engine::encryption`).

use serde::{Deserialize, Serialize};

use crate::refusal::{Code, Refusal};

/// What the text of an X25519 recipient begins with (c2sp.org/age, "The X25519 recipient type").
const PREFIX: &str = "age1";
/// Its length in characters: the prefix, 32 bytes in groups of five bits, a checksum of six.
const LENGTH: usize = 62;
/// Bech32's alphabet: no `1`, `b`, `i`, `o`.
const ALPHABET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// A public key that rows may be encrypted to; whoever has its identity, and nobody else, reads them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recipient(String);

impl Recipient {
    /// The recipient of that text, if it has the form of one.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let own = text.trim();
        let well_formed = own.len() == LENGTH
            && own.strip_prefix(PREFIX).is_some_and(|rest| rest.chars().all(|letter| ALPHABET.contains(letter)));
        if own.starts_with("AGE-SECRET-KEY-") {
            // It must not be repeated in a message.
            let help = "make a new pair, since this one has been in a file or a shell's history: age-keygen; then give the line that begins with age1";
            return Err(Refusal::new(Code::Recipient, "this is an identity, the secret half of the key", help));
        }
        if well_formed {
            return Ok(Self(own.to_owned()));
        }
        let message = format!("`{own}` is not an age recipient");
        Err(Refusal::new(Code::Recipient, message, HELP))
    }

    /// The text, `age1…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What to give instead of something that is no recipient.
pub const HELP: &str = "give the public key that age-keygen prints: age1 and 58 more letters and digits; keys of ssh and of plugins are not taken";

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    fn the_text_that_age_keygen_prints_is_a_recipient() {
        assert_eq!(Recipient::parse(&format!(" {OWN}\n")).unwrap().as_str(), OWN);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "age1", &OWN[1..], &OWN.to_uppercase(), &OWN.replace('q', "b"), "ssh-ed25519 AAAA"] {
            assert_eq!(Recipient::parse(text).unwrap_err().code, Code::Recipient, "{text}");
        }
    }

    #[test]
    fn a_secret_key_is_never_repeated() {
        let refusal = Recipient::parse("AGE-SECRET-KEY-1QQQQ").unwrap_err();
        assert!(!refusal.message.contains("QQQQ") && !refusal.help.contains("QQQQ"));
    }
}
