//! Constants that the user typed: they are in the statement already, so showing them again tells nothing new.

use std::collections::BTreeSet;

use pg_query::protobuf::Token;

/// The string and number constants of a statement, without quotes.
#[expect(clippy::wildcard_enum_match_arm, reason = "the tokens of PostgreSQL's grammar are hundreds")]
pub fn constants(text: &str) -> BTreeSet<String> {
    let Ok(scanned) = pg_query::scan(text) else { return BTreeSet::new() };
    let slice = |start: i32, end: i32| text.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?);
    let constant = |token: &pg_query::protobuf::ScanToken| {
        let raw = slice(token.start, token.end)?;
        match token.token() {
            Token::Sconst => Some(raw.trim_matches('\'').replace("''", "'")),
            Token::Iconst | Token::Fconst => Some(raw.to_owned()),
            _ => None,
        }
    };
    scanned.tokens.iter().filter_map(constant).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes_are_taken_off_constants() {
        let found = super::constants("update t set a = 'it''s', b = 5 where c = 'x'");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["5", "it's", "x"]);
    }
}
