//! What a client is about to execute, from the messages that it sent.

use std::collections::HashMap;

use crate::wire::{Message, text_at};

/// The prepared statements and portals of one connection, by name.
#[derive(Default)]
pub(super) struct Statements {
    prepared: HashMap<String, String>,
    portals: HashMap<String, String>,
}

impl Statements {
    /// The SQL that this message makes the server execute, if it does.
    pub(super) fn executed_by(&mut self, message: &Message) -> Option<String> {
        let mut body = message.body();
        match message.kind() {
            b'Q' => Some(text_at(&mut body).to_owned()),
            b'P' => {
                let name = text_at(&mut body).to_owned();
                self.prepared.insert(name, text_at(&mut body).to_owned());
                None
            }
            b'B' => {
                let portal = text_at(&mut body).to_owned();
                let sql = self.prepared.get(text_at(&mut body)).cloned().unwrap_or_default();
                self.portals.insert(portal, sql);
                None
            }
            b'E' => self.portals.get(text_at(&mut body)).cloned(),
            _ => None,
        }
    }
}

/// Whether this text ends a transaction with COMMIT. Quoted semicolons are not understood:
/// tests write the statements.
pub(super) fn commits(sql: &str) -> bool {
    sql.split(';').any(|statement| {
        let statement = statement.trim_start();
        let unmarked = statement.strip_prefix("/*").and_then(|comment| comment.split_once("*/"));
        let statement = unmarked.map_or(statement, |(_, rest)| rest);
        let mut words = statement.split_whitespace();
        let first = words.next().unwrap_or_default();
        let ends = ["commit", "end"].iter().any(|word| first.eq_ignore_ascii_case(word));
        ends && !words.next().is_some_and(|word| word.eq_ignore_ascii_case("prepared"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_known_in_every_form_that_clients_send() {
        for sql in ["COMMIT", "commit;", "end", "begin; select 1; commit and chain", "/* a mark */ commit"] {
            assert!(commits(sql), "{sql}");
        }
        for sql in ["commit prepared 'x'", "select 'commit'", "begin", ""] {
            assert!(!commits(sql), "{sql}");
        }
    }

    #[test]
    fn an_execute_is_traced_back_to_the_text_it_was_parsed_from() {
        let mut statements = Statements::default();
        let mut sent = |kind, body: &[u8]| statements.executed_by(&Message::new(kind, body));
        assert_eq!(sent(b'P', b"s1\0COMMIT\0\0\0"), None);
        assert_eq!(sent(b'B', b"\0s1\0\0\0\0\0\0\0"), None);
        assert_eq!(sent(b'E', b"\0\0\0\0\0").as_deref(), Some("COMMIT"));
    }
}
