//! What a BEFORE trigger assigns to the new row, as far as its source tells.

use std::collections::BTreeSet;

/// Stands for every column.
pub const ANY: &str = "*";

/// Words after which a statement of PL/pgSQL begins.
const BEFORE_STATEMENTS: [&str; 5] = ["begin", "then", "else", "loop", ";"];

/// The columns of NEW that the source assigns, in lower case; [`ANY`] if it assigns the whole row. The name of a
/// C function tells nothing, so that it counts as any.
pub fn assigned(source: &str) -> BTreeSet<String> {
    let tokens = tokens(&source.to_lowercase());
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|t| t == word);
    let mut found = BTreeSet::new();
    if tokens.len() == 1 && !is(0, "suppress_redundant_updates_trigger") {
        found.insert(ANY.to_owned());
    }
    for i in (0..tokens.len()).filter(|&i| is(i, "new")) {
        let begins = i == 0 || BEFORE_STATEMENTS.contains(&tokens[i - 1].as_str());
        let into = i > 0 && (is(i - 1, "into") || is(i - 1, ","));
        let column = if is(i + 1, ".") { tokens.get(i + 2).cloned() } else { None };
        let next = if column.is_some() { i + 3 } else { i + 1 };
        let written =
            is(next, ":=") || (begins && (is(next, "=") || is(next, "["))) || (into && i > 0 && filled(&tokens, i));
        if written {
            found.insert(column.unwrap_or_else(|| ANY.to_owned()));
        }
    }
    found
}

/// Whether the token is one of the targets of a SELECT INTO.
fn filled(tokens: &[String], at: usize) -> bool {
    let before = tokens[..at].iter().rev();
    before
        .take_while(|t| *t != ";")
        .find(|t| ["into", "from", "values", "select"].contains(&t.as_str()))
        .is_some_and(|t| t == "into")
        && !tokens[..at].iter().rev().take_while(|t| *t != ";").any(|t| t == "insert")
}

/// Words and marks, without comments and strings.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let length = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '\'' => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            '"' => {
                let end = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
                tokens.push(rest[..end].trim_matches('"').to_owned());
                end
            }
            ':' if rest.starts_with(":=") => {
                tokens.push(":=".to_owned());
                2
            }
            c if c.is_whitespace() => c.len_utf8(),
            _ if word > 0 => {
                tokens.push(rest[..word].to_owned());
                word
            }
            c => {
                tokens.push(c.to_string());
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::assigned;

    fn found(source: &str) -> Vec<String> {
        assigned(source).into_iter().collect()
    }

    #[test]
    fn assignments_are_told_from_comparisons() {
        assert_eq!(
            found("begin new.Updated_At := now(); if new.x = 3 then new.\"Y\" = 4; end if; return new; end"),
            ["updated_at", "y"]
        );
        assert_eq!(found("begin select a, b into new.a, new.b from t; return new; end"), ["a", "b"]);
        assert_eq!(found("begin new := old; return new; end"), ["*"]);
        assert_eq!(found("moddatetime"), ["*"]);
        for quiet in
            ["begin insert into log values (new.id, new.v); return new; end", "begin -- new.x := 1\n return new; end"]
        {
            assert!(found(quiet).is_empty(), "{quiet}");
        }
    }
}
