//! Which values people may see. A value is masked unless it is declared plain, or is of a kind that
//! is plain by default: integer and uuid keys, booleans, enums, and constants of the statement itself.

use std::collections::BTreeSet;

/// What stands for a masked value; its length says nothing.
pub const MASKED: &str = "‹masked›";

/// Decides which columns' values are shown.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// `--show-values`: everything is shown.
    pub show_all: bool,
    /// Columns declared plain in the job.
    pub plain: BTreeSet<String>,
    /// Texts that are constants of the statement.
    pub constants: BTreeSet<String>,
}

impl Mask {
    /// The value as it may be shown. `None` is SQL NULL, which is always shown.
    pub fn show(&self, column: &str, kind: ValueKind, value: Option<&str>) -> Option<String> {
        let value = value?;
        let plain =
            self.show_all || kind == ValueKind::Plain || self.plain.contains(column) || self.constants.contains(value);
        Some(if plain { value.to_owned() } else { MASKED.to_owned() })
    }
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
        let mask = Mask { constants: ["admin".to_owned()].into(), plain: ["city".to_owned()].into(), show_all: false };
        assert_eq!(mask.show("email", ValueKind::Sensitive, Some("a@b.c")).as_deref(), Some(MASKED));
        assert_eq!(mask.show("role", ValueKind::Sensitive, Some("admin")).as_deref(), Some("admin"));
        assert_eq!(mask.show("city", ValueKind::Sensitive, Some("Basel")).as_deref(), Some("Basel"));
        assert_eq!(mask.show("email", ValueKind::Sensitive, None), None);
    }
}
