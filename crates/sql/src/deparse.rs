//! From the tree back to text, proved: the text is parsed again and compared with the tree.

use pg_query::protobuf as p;
use pg_query::{DeparseOptions, NodeEnum};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::quote_ident;

use crate::depth;
use crate::fragment;
use crate::walk::{Visitor, Walk};

/// The text of one statement. Refuses a tree that does not survive the way to text and back.
pub(crate) fn text(statement: &NodeEnum) -> Result<String, Refusal> {
    depth::on_large_stack(|| there_and_back(statement))
}

fn there_and_back(statement: &NodeEnum) -> Result<String, Refusal> {
    let mut written = statement.clone();
    let mut quirks = Quirks { set_alias: false };
    written.walk(&mut quirks);
    let raw = p::RawStmt { stmt: Some(Box::new(fragment::node(written))), stmt_location: 0, stmt_len: 0 };
    let tree = p::ParseResult { version: VERSION, stmts: vec![raw] };
    let mut text = pg_query::deparse(&tree, DeparseOptions::default()).map_err(|error| lost(&error.to_string()))?;
    if quirks.set_alias {
        text = text.replace(&quote_ident(QUOTED_SET), "\"set\"");
    }
    let again = fragment::statement(&text)?;
    if shape(&again) == shape(statement) { Ok(text) } else { Err(lost(&text)) }
}

/// The grammar's version, as pg_query stamps its trees.
const VERSION: i32 = 180_006;

/// Stands for the alias `set` on the way to text: the deparser writes `UPDATE t set SET …`, which does not
/// parse. A name with a line feed is quoted, and no identifier in use can be mistaken for it.
const QUOTED_SET: &str = "\nset\n";

/// What the deparser needs to be helped with.
struct Quirks {
    set_alias: bool,
}

impl Visitor for Quirks {
    /// The deparser guesses from the places in the text whether `point '(1,2)'` was meant, and writes `point NULL`, which
    /// does not parse, for a cast whose places are not those of a text. `::point` always reads back.
    fn enter(&mut self, node: &mut NodeEnum) {
        if let NodeEnum::TypeCast(cast) = node
            && let Some(name) = &mut cast.type_name
        {
            name.location = i32::MAX;
        }
    }

    fn relation(&mut self, relation: &mut p::RangeVar) {
        if let Some(alias) = relation.alias.as_mut().filter(|alias| alias.aliasname == "set") {
            QUOTED_SET.clone_into(&mut alias.aliasname);
            self.set_alias = true;
        }
    }
}

fn lost(detail: &str) -> Refusal {
    Refusal::new(
        Code::RoundTrip,
        format!("the rewritten statement does not read back as itself: {detail}"),
        "write the statement in a simpler form, and report this as a defect of pgmend",
    )
}

/// The tree as JSON, without the places where its parts stood in the text. Never as a tree of values: a spreadsheet has a
/// million nodes, each of which would be a map.
fn shape(node: &NodeEnum) -> Option<Vec<u8>> {
    serde_json::to_vec(node).ok().map(|json| without_places(&json))
}

/// Leaves out the fields that are places, with their numbers.
fn without_places(json: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some(quote) = rest.iter().position(|byte| *byte == b'"') {
        let (before, token) = rest.split_at(quote);
        let (token, after) = token.split_at(token_length(token));
        kept.extend_from_slice(before);
        let is_place = after.first() == Some(&b':')
            && PLACES.iter().any(|place| token[1..].starts_with(place.as_bytes()) && token.len() == place.len() + 2);
        if is_place {
            let number = after[1..].iter().position(|byte| !(byte.is_ascii_digit() || *byte == b'-'));
            rest = &after[number.map_or(after.len(), |length| length + 1)..];
        } else {
            kept.extend_from_slice(token);
            rest = after;
        }
    }
    kept.extend_from_slice(rest);
    kept
}

/// The length of the string that `text` begins with, its quotes included.
fn token_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Fields that only say where something stood.
const PLACES: &[&str] = &[
    "location",
    "name_location",
    "list_start",
    "list_end",
    "rexpr_list_start",
    "rexpr_list_end",
    "stmt_location",
    "stmt_len",
];

#[cfg(test)]
mod tests {
    use super::without_places;

    #[test]
    fn places_are_left_out_and_texts_that_look_like_them_are_kept() {
        let without = |json: &str| String::from_utf8(without_places(json.as_bytes())).unwrap();
        assert_eq!(without(r#"{"a":1,"location":-1,"b":[{"list_start":7}],"stmt_len":12}"#), r#"{"a":1,,"b":[{}],}"#);
        for kept in [
            r#"{"sval":"location"}"#,
            r#"{"sval":"\"location\":12"}"#,
            r#"{"locations":1}"#,
            r#"["location",1]"#,
            r#"{"sval":"\\"}"#,
        ] {
            assert_eq!(without(kept), kept);
        }
        assert_eq!(without(r#"{"a":"\\","location":5}"#), r#"{"a":"\\",}"#);
    }
}
