//! The clock: every form of `now()` is bound to one instant, which the run fixes when it starts.

use pg_query::NodeEnum;
use pg_query::protobuf::{self as p, SqlValueFunctionOp as Op};

use crate::fragment;
use crate::walk::{Visitor, Walk};

/// Replaces the clock by parameter `instant` and says whether there was anything to replace.
pub(crate) fn bind(tree: &mut impl Walk, instant: usize) -> bool {
    let mut clock = Clock { instant, found: false };
    tree.walk(&mut clock);
    clock.found
}

/// Whether the text, read as a date or a time, would read the clock: `now`, `today 12:00` …
pub(crate) fn is_clock_word(text: &str) -> bool {
    let reads = |word: &str| day_offset(word).is_some() || word.eq_ignore_ascii_case("now");
    let words = || text.split_whitespace();
    words().any(reads) && words().all(|word| reads(word) || word.bytes().any(|byte| byte.is_ascii_digit()))
}

/// Whether the text is one such word alone, which [`bind`] replaces once its type is known.
pub(crate) fn is_one_clock_word(text: &str) -> bool {
    day_offset(text).is_some() || text.trim().eq_ignore_ascii_case("now")
}

/// Whether a type is a date or a time.
pub(crate) fn is_dated(type_name: &p::TypeName) -> bool {
    let (_, name) = fragment::qualified(&type_name.names);
    matches!(name.as_str(), "date" | "timestamp" | "timestamptz" | "time" | "timetz")
}

/// The day that a word stands for, counted from today.
fn day_offset(word: &str) -> Option<&'static str> {
    match word.trim().to_ascii_lowercase().as_str() {
        "today" => Some(""),
        "tomorrow" => Some(" + 1"),
        "yesterday" => Some(" - 1"),
        _ => None,
    }
}

struct Clock {
    instant: usize,
    found: bool,
}

impl Clock {
    fn put(&mut self, node: &mut NodeEnum, sql: &str) {
        if let Some(replacement) = fragment::expression(sql).ok().and_then(|node| node.node) {
            *node = replacement;
            self.found = true;
        }
    }

    fn value_function(&mut self, node: &mut NodeEnum, op: Op, typmod: i32) {
        let instant = format!("${}::timestamptz", self.instant);
        let precise = |type_name: &str| format!("({instant})::{type_name}({typmod})");
        let sql = match op {
            Op::SvfopCurrentTimestamp => instant,
            Op::SvfopCurrentTimestampN => precise("timestamptz"),
            Op::SvfopCurrentDate => format!("({instant})::date"),
            Op::SvfopCurrentTime => format!("({instant})::timetz"),
            Op::SvfopCurrentTimeN => precise("timetz"),
            Op::SvfopLocaltime => format!("({instant})::time"),
            Op::SvfopLocaltimeN => precise("time"),
            Op::SvfopLocaltimestamp => format!("({instant})::timestamp"),
            Op::SvfopLocaltimestampN => precise("timestamp"),
            Op::SqlvalueFunctionOpUndefined
            | Op::SvfopCurrentRole
            | Op::SvfopCurrentUser
            | Op::SvfopUser
            | Op::SvfopSessionUser
            | Op::SvfopCurrentCatalog
            | Op::SvfopCurrentSchema => return,
        };
        self.put(node, &sql);
    }

    /// `now()` and its kin, and `age(x)`, which is `age(current_date, x)`.
    fn call(&mut self, node: &mut NodeEnum, call: &p::FuncCall) {
        let (schema, name) = fragment::qualified(&call.funcname);
        if schema.as_deref().is_some_and(|schema| schema != "pg_catalog") {
            return;
        }
        match (name.as_str(), call.args.len()) {
            ("now" | "transaction_timestamp" | "statement_timestamp", 0) => {
                self.put(node, &format!("${}::timestamptz", self.instant));
            }
            ("age", 1) => {
                if let (Ok(today), NodeEnum::FuncCall(call)) =
                    (fragment::expression(&format!("(${}::timestamptz)::date", self.instant)), node)
                {
                    call.args.insert(0, today);
                    self.found = true;
                }
            }
            _ => {}
        }
    }

    /// `'now'::timestamptz`, `date 'today'` …
    fn literal(&mut self, node: &mut NodeEnum, word: &str, type_name: &p::TypeName) {
        let (_, name) = fragment::qualified(&type_name.names);
        let dated = matches!(name.as_str(), "date" | "timestamp" | "timestamptz");
        if !type_name.array_bounds.is_empty() || !is_dated(type_name) {
            return;
        }
        let instant = format!("${}::timestamptz", self.instant);
        let value = match day_offset(word) {
            Some(days) if dated => format!("(({instant})::date{days})"),
            None if is_one_clock_word(word) => format!("({instant})"),
            Some(_) | None => return,
        };
        if let Some(cast) =
            fragment::expression(&value).ok().and_then(|value| fragment::cast(value, type_name.clone()).node)
        {
            *node = cast;
            self.found = true;
        }
    }
}

/// The text of a plain string constant.
pub(crate) fn string_constant(node: &NodeEnum) -> Option<&str> {
    let NodeEnum::AConst(p::AConst { val: Some(p::a_const::Val::Sval(string)), .. }) = node else { return None };
    Some(&string.sval)
}

impl Visitor for Clock {
    fn leave(&mut self, node: &mut NodeEnum) {
        match candidate(node) {
            Some(NodeEnum::SqlvalueFunction(function)) => self.value_function(node, function.op(), function.typmod),
            Some(NodeEnum::FuncCall(call)) => self.call(node, &call),
            Some(NodeEnum::TypeCast(cast)) => {
                let word = cast.arg.as_ref().and_then(|arg| arg.node.as_ref()).and_then(string_constant);
                if let (Some(word), Some(type_name)) = (word, &cast.type_name) {
                    self.literal(node, word, type_name);
                }
            }
            _ => {}
        }
    }
}

/// A copy of the node if it may read the clock: the node itself is replaced meanwhile.
fn candidate(node: &NodeEnum) -> Option<NodeEnum> {
    let literal = |cast: &p::TypeCast| {
        cast.arg.as_ref().and_then(|arg| arg.node.as_ref()).is_some_and(|arg| string_constant(arg).is_some())
    };
    let may = matches!(node, NodeEnum::SqlvalueFunction(_))
        || matches!(node, NodeEnum::FuncCall(call) if call.args.len() <= 1)
        || matches!(node, NodeEnum::TypeCast(cast) if literal(cast));
    may.then(|| node.clone())
}
