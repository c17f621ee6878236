//! Which values people may see. A value is masked unless it is declared plain, or is of a kind that
//! is plain by default: integer and uuid keys, booleans, enums, and constants of the statement itself. What is masked
//! is shown as a token: equal values have equal tokens, and nobody finds a value from its token without the key.

use std::collections::BTreeSet;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use crate::digest::Digest;

/// What stands for a masked value where there is no key for a token; its length says nothing.
pub const MASKED: &str = "‹masked›";
/// What an error says whose text a function of the database wrote: it may hold values.
pub const TEXT_MASKED: &str = "raised an error, whose text is masked";
/// Crockford's base 32: no two letters that look alike.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters of a token: 30 bits, so that among a thousand values one pair in two thousand cases looks equal.
const TOKEN_LETTERS: u32 = 6;

/// The secret that tokens are made with. Prints a placeholder.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    /// The key made from a secret of any length.
    pub fn from_secret(secret: &[u8]) -> Self {
        let digest = <Sha256 as sha2::Digest>::digest(secret);
        Self(digest.into())
    }

    /// The token of a value: `‹4f7k0q›`, the first 30 bits of its HMAC-SHA-256.
    pub fn token(&self, value: &str) -> String {
        let hash = self.hmac(value.as_bytes());
        let bits = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        let letter = |n: u32| char::from(ALPHABET[(bits >> (32 - 5 * (n + 1)) & 31) as usize]);
        format!("‹{}›", (0..TOKEN_LETTERS).map(letter).collect::<String>())
    }

    /// A digest of a value that only holders of the key can compare with a guess: for the ledger.
    pub fn digest(&self, value: &impl Serialize) -> Digest {
        let bytes = serde_json::to_vec(value).expect("domain values have only string keys, which always serialise");
        Digest::of_hash(&self.hmac(&bytes))
    }

    fn hmac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(‹masked›)")
    }
}

/// Whether a text stands for a masked value.
pub fn is_masked(text: &str) -> bool {
    let letters = text.strip_prefix('‹').and_then(|rest| rest.strip_suffix('›'));
    letters.is_some_and(|l| l.len() == TOKEN_LETTERS as usize && l.bytes().all(|b| ALPHABET.contains(&b)))
}

/// Decides which columns' values are shown.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// `--show-values`: everything is shown.
    pub show_all: bool,
    /// Columns declared plain in the job, and parameters as `:name`.
    pub plain: BTreeSet<String>,
    /// Texts that are constants of the statement.
    pub constants: BTreeSet<String>,
    /// Makes the tokens of masked values; without it all of them look alike.
    pub key: Option<TokenKey>,
}

impl Mask {
    /// The value as it may be shown. `None` is SQL NULL, which is always shown.
    pub fn show(&self, column: &str, kind: ValueKind, value: Option<&str>) -> Option<String> {
        let value = value?;
        Some(if self.hides(column, kind, value) { self.conceal(value) } else { value.to_owned() })
    }

    /// Whether the value may not be shown.
    pub fn hides(&self, column: &str, kind: ValueKind, value: &str) -> bool {
        !(self.show_all || kind == ValueKind::Plain || self.plain.contains(column) || self.constants.contains(value))
    }

    /// The value of a parameter as it may be shown: it is typed by a person, but may be somebody's name.
    pub fn show_param(&self, name: &str, type_sql: &str, value: &str) -> String {
        let plain = self.show_all || is_plain_param(type_sql) || self.plain.contains(&format!(":{name}"));
        if plain { value.to_owned() } else { self.conceal(value) }
    }

    /// What stands for the value.
    pub fn conceal(&self, value: &str) -> String {
        self.key.as_ref().map_or_else(|| MASKED.to_owned(), |key| key.token(value))
    }
}

/// Whether parameters of a type are plain by themselves: whole numbers, times, booleans, uuids.
fn is_plain_param(type_sql: &str) -> bool {
    let lower = type_sql.trim().to_ascii_lowercase();
    let bare = lower.trim_end_matches("[]");
    let name = bare.split(['(', ' ']).next().unwrap_or_default();
    let plain = [
        "smallint",
        "int2",
        "integer",
        "int",
        "int4",
        "bigint",
        "int8",
        "boolean",
        "bool",
        "uuid",
        "date",
        "time",
        "timetz",
        "timestamp",
        "timestamptz",
        "interval",
    ];
    plain.contains(&name)
}

/// Whether values of a type are plain by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Booleans, enums, integer and uuid keys.
    Plain,
    /// Everything else.
    Sensitive,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_masked_unless_it_is_declared_plain_or_is_a_constant_of_the_statement() {
        let mask =
            Mask { constants: ["admin".to_owned()].into(), plain: ["city".to_owned()].into(), ..Mask::default() };
        assert_eq!(mask.show("email", ValueKind::Sensitive, Some("a@b.c")).as_deref(), Some(MASKED));
        assert_eq!(mask.show("role", ValueKind::Sensitive, Some("admin")).as_deref(), Some("admin"));
        assert_eq!(mask.show("city", ValueKind::Sensitive, Some("Basel")).as_deref(), Some("Basel"));
        assert_eq!(mask.show("email", ValueKind::Sensitive, None), None);
    }

    #[test]
    fn equal_values_look_equal_under_one_key_and_different_under_another() {
        let [one, other] = ["one", "other"].map(|secret| TokenKey::from_secret(secret.as_bytes()));
        assert_eq!(one.token("a@b.c"), one.token("a@b.c"));
        assert_ne!(one.token("a@b.c"), one.token("a@b.d"));
        assert_ne!(one.token("a@b.c"), other.token("a@b.c"));
        assert_ne!(one.digest(&"a@b.c"), other.digest(&"a@b.c"));
        assert!(is_masked(&one.token("a@b.c")) && is_masked(MASKED));
        for plain in ["masked", "‹4f7k0›", "‹4F7K0Q›", "a@b.c"] {
            assert!(!is_masked(plain), "{plain}");
        }
        assert_eq!(format!("{one:?}"), "TokenKey(‹masked›)");
    }

    #[test]
    fn a_token_is_the_beginning_of_an_hmac() {
        // RFC 4231, test case 1: key of twenty 0x0b, data "Hi There", HMAC-SHA-256 b0344c61…
        let mut mac = Hmac::<Sha256>::new_from_slice(&[0x0b; 20]).unwrap();
        mac.update(b"Hi There");
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        assert_eq!(&hash[..4], [0xb0, 0x34, 0x4c, 0x61]);
        let key = TokenKey::from_secret(b"secret");
        let bits = key.hmac(b"value").iter().take(4).fold(String::new(), |bits, byte| format!("{bits}{byte:08b}"));
        let letters = bits.as_bytes().chunks(5).take(6).map(|five| {
            let five = std::str::from_utf8(five).unwrap();
            char::from(ALPHABET[usize::from_str_radix(five, 2).unwrap()])
        });
        assert_eq!(key.token("value"), format!("‹{}›", letters.collect::<String>()));
    }

    #[test]
    fn parameters_that_are_numbers_of_things_or_times_are_shown() {
        let mask = Mask { plain: [":tier".to_owned()].into(), ..Mask::default() };
        for plain in ["int", "BIGINT", "date", "timestamp with time zone", "uuid", "integer[]"] {
            assert_eq!(mask.show_param("p", plain, "1"), "1", "{plain}");
        }
        for masked in ["text", "numeric(10,2)", "jsonb", "interval_of_mine", "text[]"] {
            assert_eq!(mask.show_param("p", masked, "1"), MASKED, "{masked}");
        }
        assert_eq!(mask.show_param("tier", "text", "gold"), "gold");
    }
}
