//! Plain strings of a session whose `standard_conforming_strings` is off: a backslash escapes there, which
//! the grammar, as it is compiled in, knows of `E'…'` only.

/// The same text with every plain string written as `E'…'`.
pub fn with_escapes(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let length = if first == '\'' {
            let prefixed = prefix(&written);
            if !prefixed {
                written.push_str(if word_character(before) { " E" } else { "E" });
            }
            string(rest, !standard(&written))
        } else {
            skipped(rest, before).unwrap_or(first.len_utf8())
        };
        let (token, tail) = rest.split_at(length.min(rest.len()));
        written.push_str(token);
        before = token.chars().next_back().unwrap_or(before);
        rest = tail;
    }
    written
}

fn word_character(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The last word of what was written, if it touches its end.
fn last_word(written: &str) -> String {
    let tail: Vec<char> = written.chars().rev().take_while(|c| word_character(*c) || *c == '&').collect();
    tail.into_iter().rev().collect::<String>().to_ascii_lowercase()
}

/// Whether a string's quote that follows belongs to `E`, `B`, `X` or `U&`.
fn prefix(written: &str) -> bool {
    matches!(last_word(written).as_str(), "e" | "b" | "x" | "u&")
}

/// Whether such a string has no backslash escapes (`B`, `X`; `U&` is an error in such a session anyway).
fn standard(written: &str) -> bool {
    matches!(last_word(written).as_str(), "b" | "x" | "u&")
}

/// The length of a string from its opening quote.
fn string(text: &str, escapes: bool) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if escapes => escaped = true,
            // A doubled quote reads as the end of one string and the beginning of the next; so does the walk.
            '\'' if text[i + 1..].starts_with('\'') => escaped = true,
            '\'' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a comment, a quoted name or a dollar-quoted string at the beginning of a text.
fn skipped(text: &str, before: char) -> Option<usize> {
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(comment(text));
    }
    if let Some(name) = text.strip_prefix('"') {
        return Some(name.find('"').map_or(text.len(), |end| end + 2));
    }
    let tag = text.strip_prefix('$').filter(|_| !word_character(before))?;
    let end = tag.find('$')?;
    let named =
        tag[..end].chars().enumerate().all(|(i, c)| word_character(c) && c != '$' && !(i == 0 && c.is_ascii_digit()));
    let quote = &text[..end + 2];
    named.then(|| text[quote.len()..].find(quote).map_or(text.len(), |at| at + 2 * quote.len()))
}

/// Comments nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0usize);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::with_escapes;

    #[test]
    fn plain_strings_get_the_prefix_and_nothing_else_changes() {
        let same =
            ["a = E'x\\'y'", "b'01' || X'ff'", "$$it's$$ || $q$'$q$", "\"it's\" -- it's\n", "/* it's /* ' */ */ 1"];
        for text in same {
            assert_eq!(with_escapes(text), text);
        }
        assert_eq!(with_escapes("t = 'a\\'b' and u='c''d'"), "t = E'a\\'b' and u=E'c''d'");
        assert_eq!(with_escapes("date'2020-01-01'"), "date E'2020-01-01'");
    }
}
