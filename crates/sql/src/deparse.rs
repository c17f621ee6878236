//! From the tree back to text, proved: the text is parsed again and compared with the tree.

use pg_query::protobuf as p;
use pg_query::{DeparseOptions, NodeEnum};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::quote_ident;
use serde_json::Value;

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

/// The tree without the places where its parts stood in the text.
fn shape(node: &NodeEnum) -> Option<Value> {
    let mut value = serde_json::to_value(node).ok()?;
    forget_places(&mut value);
    Some(value)
}

fn forget_places(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !PLACES.contains(&name.as_str()));
            fields.values_mut().for_each(forget_places);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_places),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
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
