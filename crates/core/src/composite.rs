//! The text of a row, as PostgreSQL prints a composite value: `(1,"a ""b"" c",,"")`. Only for showing values that were
//! encrypted as one; the server itself reads them back where they are restored.

/// The fields of a row's text, `None` for NULL; `None` altogether if it is no such text.
pub fn fields(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut fields = Vec::new();
    let mut field: Option<String> = None;
    let mut quoted = false;
    let mut letters = inner.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.get_or_insert_default().push('"');
            }
            '"' => {
                // An empty pair of quotes is a text without letters, not NULL.
                field.get_or_insert_default();
                quoted = !quoted;
            }
            '\\' => field.get_or_insert_default().push(letters.next()?),
            ',' if !quoted => fields.push(field.take()),
            other => field.get_or_insert_default().push(other),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn nulls_and_empty_texts_differ() {
        let text = |t: &str| Some(t.to_owned());
        assert_eq!(fields("(1,,\"\",x)"), Some(vec![text("1"), None, text(""), text("x")]));
        assert_eq!(fields("()"), Some(vec![None]));
    }

    #[test]
    fn quotes_and_backslashes_are_taken_off() {
        let parsed = fields(r#"("a ""b"", (c)","\\x77","{""k"": ""v\\n""}")"#).unwrap();
        assert_eq!(parsed.into_iter().flatten().collect::<Vec<_>>(), [r#"a "b", (c)"#, r"\x77", r#"{"k": "v\n"}"#]);
    }

    #[test]
    fn what_is_no_row_is_not_read() {
        for text in ["", "1,2", "(1,2", "(\"a)"] {
            assert_eq!(fields(text), None, "{text}");
        }
    }
}
