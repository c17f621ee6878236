//! The shape of a statement that somebody else sent: what it does to what, and none of its values. Read by the scanner
//! alone, since what a server shows of a running statement may be cut off in the middle.

use pg_query::protobuf::Token;

/// Characters of a shape that are shown.
const SHAPE_MAX: usize = 160;
const COMMENTS: [Token; 2] = [Token::SqlComment, Token::CComment];
const LITERALS: [Token; 6] =
    [Token::Iconst, Token::Fconst, Token::Sconst, Token::Usconst, Token::Bconst, Token::Xconst];

/// The statement with its literals replaced by `?`, without comments, in one line and cut to a bounded length. What does
/// not scan, such as a text that ends within a literal, is its first keyword; nothing, where it has none.
pub fn shape(text: &str) -> Option<String> {
    let Ok(scanned) = pg_query::scan(text) else { return first_keyword(text) };
    let mut words: Vec<&str> = Vec::new();
    for token in &scanned.tokens {
        let (Ok(start), Ok(end)) = (usize::try_from(token.start), usize::try_from(token.end)) else { continue };
        let Some(word) = text.get(start..end) else { return first_keyword(text) };
        let token = token.token();
        if COMMENTS.contains(&token) {
            continue;
        }
        if LITERALS.contains(&token) { add_literal(&mut words) } else { words.push(word) }
    }
    let line = spaced(&words);
    let cut: String = line.chars().take(SHAPE_MAX).collect();
    match (line.is_empty(), cut.len() < line.len()) {
        (true, _) => None,
        (false, true) => Some(format!("{} …", cut.trim_end())),
        (false, false) => Some(line),
    }
}

/// A list of a thousand literals is as good as one of two.
fn add_literal(words: &mut Vec<&str>) {
    match words.as_slice() {
        [.., "?", ","] => {
            words.pop();
            words.push(", …");
        }
        [.., "?", ", …", ","] => {
            words.pop();
        }
        [..] => words.push("?"),
    }
}

fn spaced(words: &[&str]) -> String {
    let mut line = String::new();
    for word in words {
        let tight = matches!(*word, "," | ")" | "." | ";" | "::" | ", …" | "]" | "[");
        if !line.is_empty() && !tight && !line.ends_with(['(', '.', '[']) && !line.ends_with("::") {
            line.push(' ');
        }
        line.push_str(word);
    }
    line.trim_end_matches(';').to_owned()
}

/// Letters alone are no value.
fn first_keyword(text: &str) -> Option<String> {
    let word: String = text.trim_start().chars().take_while(char::is_ascii_alphabetic).take(20).collect();
    (!word.is_empty()).then(|| format!("{} …", word.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_and_comments_are_gone_and_the_rest_is_one_line() {
        let text = "update account\n   set balance = balance - 17.50, note = 'Kim''s' -- user 4711\n where id = $1 and t.ok /* trace=abc */ and at > '2026-01-01'::date;";
        assert_eq!(
            shape(text).as_deref(),
            Some("update account set balance = balance - ?, note = ? where id = $1 and t.ok and at > ?::date")
        );
        assert_eq!(
            shape("select * from t where id in (1,2,3,4) and x").as_deref(),
            Some("select * from t where id in (?, …) and x")
        );
        assert_eq!(shape("alter role kim password 'secret'").as_deref(), Some("alter role kim password ?"));
        assert_eq!(shape("do $$ begin raise 'x'; end $$").as_deref(), Some("do ?"));
    }

    #[test]
    fn what_is_cut_off_within_a_literal_is_its_first_keyword() {
        assert_eq!(shape("update t set secret = 'half of i").as_deref(), Some("update …"));
        assert_eq!(shape("insert into t values ($$half of i").as_deref(), Some("insert …"));
        assert_eq!(shape("delete from t where /* half").as_deref(), Some("delete …"));
        assert_eq!(shape("  "), None);
        assert_eq!(shape("'only a value"), None);
    }

    #[test]
    fn a_shape_has_a_bounded_length() {
        let long = format!("select {} from t", vec!["a_column"; 500].join(", "));
        assert!(shape(&long).is_some_and(|shape| shape.chars().count() <= SHAPE_MAX + 2 && shape.ends_with('…')));
    }

    proptest! {
        #[test]
        fn no_literal_survives_wherever_the_text_is_cut(secret in "[a-z]{12}", number in 1_000_000_i64..9_999_999, cut in 0_usize..120) {
            let text = format!("update account set a = '{secret}', b = {number}, c = E'{secret}\\n', d = $x${secret}$x$ where id = {number}");
            let cut: String = text.chars().take(cut).collect();
            let shown = shape(&cut).unwrap_or_default();
            for hidden in [&secret[..6], &number.to_string()[..4]] {
                prop_assert!(!shown.contains(hidden), "{shown}");
            }
        }
    }
}
