//! Whatever the user's predicate is, a rewrite keeps it whole.
#![expect(clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]

mod fixture;

use pg_query::NodeEnum;
use pg_query::protobuf::BoolExprType;
use pgmend_sql::{Join, Matched, Options, Range, Returning, Rewriter, Statement, Target};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("price".to_owned()),
        Just("item.total".to_owned()),
        Just("-1".to_owned()),
        Just("'x; drop table y --'".to_owned()),
        Just("$a$ where $a$".to_owned()),
        Just("now()".to_owned()),
        Just("(select max(n) from shop.other where name = region)".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone(), prop_oneof![Just("+"), Just("-"), Just("*"), Just("||"), Just("->>")])
                .prop_map(|(a, b, op)| format!("{a} {op} {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("- {a}")),
            inner.clone().prop_map(|a| format!("({a})::numeric")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("case {a} when {b} then {c} else array[{a}, {b}] end")),
        ]
    })
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (value(), value(), prop_oneof![Just("="), Just("<"), Just("is distinct from"), Just("like"), Just("@>")])
            .prop_map(|(a, b, op)| format!("({a}) {op} ({b})")),
        (value(), value(), value()).prop_map(|(a, b, c)| format!("({a}) between ({b}) and ({c})")),
        value().prop_map(|a| format!("({a}) is null")),
        value().prop_map(|a| format!("exists (select from shop.other where {a} > 0 or n < current_date)")),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(5, 32, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} and {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} or {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("not {a}")),
            inner.clone().prop_map(|a| format!("({a}) is not true")),
            inner.prop_map(|a| format!("not ({a} /* ) or true */)")),
        ]
    })
}

fn node(text: &str) -> NodeEnum {
    let mut parsed = pg_query::parse(text, 0).expect("parses").protobuf;
    let raw = parsed.stmts.pop().expect("one statement");
    raw.stmt.and_then(|stmt| stmt.node).expect("a statement")
}

/// The tree of a WHERE without its places in the text, from its statement.
fn predicate(text: &str) -> serde_json::Value {
    let condition = match node(text) {
        NodeEnum::SelectStmt(select) => select.where_clause,
        NodeEnum::UpdateStmt(update) => update.where_clause,
        NodeEnum::DeleteStmt(delete) => delete.where_clause,
        other => panic!("{other:?}"),
    };
    let mut value = serde_json::to_value(condition.expect("a WHERE")).expect("serialises");
    strip(&mut value);
    value
}

fn strip(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields
                .retain(|name, _| !name.contains("location") && !name.starts_with("list_") && !name.contains("_list_"));
            fields.values_mut().for_each(strip);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_range_binds_to_the_whole_predicate(condition in condition(), value in value()) {
        let text = format!("update shop.item set price = {value}, region = 'r' where {condition}");
        let statement = Statement::parse(&text, &[]).expect("parses");
        let table = fixture::table(&[1, 0]);
        let target = Target { table: &table, key: &table.keys[0] };
        let rewriter = Rewriter::new(&statement, target, Options::default()).expect("can be rewritten");
        let range = Range { lower: Some(2), upper: Some(4), ..Range::default() };

        let whole = predicate(&rewriter.plain().expect("deparses"));
        let own = "select from x where ((item.region, item.id) > ($2::text::text, $3::text::bigint)) \
                   and ((item.region, item.id) <= ($4::text::text, $5::text::bigint))";
        let own = conjuncts(&predicate(own));
        let matched = Matched { range, after: true, join: Join::All, ..Matched::default() };
        for built in [
            rewriter.change(range, false, Returning::None).expect("builds"),
            rewriter.matched(&matched).expect("builds"),
        ] {
            let mut found = conjuncts(&predicate(&built));
            let tail = found.split_off(found.len() - 2);
            prop_assert_eq!(&tail, &own);
            // What is left is the user's predicate, or its own conjuncts if it is an AND.
            let users = if is_and(&whole) { conjuncts(&whole) } else { vec![whole.clone()] };
            prop_assert_eq!(found, users);
        }
        for built in [
            rewriter.bound(range, 9),
            rewriter.count(range),
            rewriter.change(range, true, Returning::Rows(&["price".to_owned()])),
        ] {
            prop_assert!(pg_query::parse(&built.expect("builds"), 0).is_ok());
        }
        prop_assert_eq!(Statement::parse(&statement.canonical(), &[]).expect("parses").canonical(), statement.canonical());
    }
}

fn is_and(value: &serde_json::Value) -> bool {
    value["node"]["BoolExpr"]["boolop"] == BoolExprType::AndExpr as i32
}

fn conjuncts(value: &serde_json::Value) -> Vec<serde_json::Value> {
    assert!(is_and(value), "{value}");
    value["node"]["BoolExpr"]["args"].as_array().cloned().unwrap_or_default()
}
