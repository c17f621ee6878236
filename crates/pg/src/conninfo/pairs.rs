//! `host=db port=5432 password='it''s'`: the keyword=value form of a connection string.

use pgmend_core::refusal::{Code, Refusal};

/// Splits the text into keywords and values, in order. No error shows the text, since it may hold
/// the password.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (keyword, after) = rest.split_once('=').ok_or_else(missing_equals)?;
        let keyword = keyword.trim_end();
        // Keywords are shown in refusals; a foreign URL with its password must not pass for one.
        if keyword.is_empty() || !keyword.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(missing_equals());
        }
        let (value, after) = value(after.trim_start(), keyword)?;
        pairs.push((keyword.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// One value, quoted or not, and the text after it. A backslash takes the next character as it is.
fn value<'text>(text: &'text str, keyword: &str) -> Result<(String, &'text str), Refusal> {
    let mut value = String::new();
    let quoted = text.starts_with('\'');
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            character if !quoted && character.is_whitespace() => return Ok((value, &text[at..])),
            character => value.push(character),
        }
    }
    if quoted {
        return Err(Refusal::new(
            Code::Connection,
            format!("the value of `{keyword}` in the connection string lacks its closing quote"),
            "write a quote or a backslash inside a value with a backslash before it",
        ));
    }
    Ok((value, ""))
}

fn missing_equals() -> Refusal {
    Refusal::new(
        Code::Connection,
        "the connection string is neither a PostgreSQL URL nor a list of keyword=value pairs",
        "write `postgresql://user@host:5432/dbname` or `host=… dbname=…`; quote values that hold spaces",
    )
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn text(conninfo: &str) -> String {
        let pairs = parse(conninfo).expect("a valid string");
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn pairs_are_split_with_libpq_quoting() {
        assert_eq!(text("host=a port=1  dbname=b"), "host=a|port=1|dbname=b");
        assert_eq!(text("host = a\n user = 'b c'"), "host=a|user=b c");
        assert_eq!(text(r"password='it\'s \\ here' user=x\ y"), r"password=it's \ here|user=x y");
        assert_eq!(text("password='' host=h"), "password=|host=h");
        assert_eq!(text("options='-c role=app -c search_path=a,b'"), "options=-c role=app -c search_path=a,b");
        assert_eq!(text("password='a'user=b"), "password=a|user=b");
        assert_eq!(text("  "), "");
    }

    #[test]
    fn text_that_is_not_pairs_is_refused_without_being_shown() {
        for conninfo in ["mydb", "host=a hunter2", "password='hunter2", "=x", "mysql://u:hunter2@h/d?x=y"] {
            let refusal = parse(conninfo).expect_err("must be refused");
            assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
        }
    }
}
