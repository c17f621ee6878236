//! Golden texts of every shape. Each snapshot is a script that PostgreSQL can PREPARE.

mod fixture;

use pgmend_sql::{
    Applied, ImageColumns, Join, Kind, Lock, Matched, Options, Order, ParamDecl, Range, Returning, Rewriter, Statement,
    Target, Window, apply_delete, apply_insert, apply_update, fill_in_order, insert_imaged, span,
};

const PAGE: Range = Range { lower: Some(8), upper: Some(6), exactly: None, half: None };

fn pairs(side: &str, columns: &[String]) -> Vec<(String, String)> {
    columns.iter().map(|c| (c.clone(), format!("{side}_{c}"))).collect()
}

/// All statements of a change, one a line, each under its name.
fn script(text: &str, params: &[(&str, &str)], key: &[usize]) -> String {
    let declared: Vec<ParamDecl> =
        params.iter().map(|(n, t)| ParamDecl { name: (*n).to_owned(), type_sql: (*t).to_owned() }).collect();
    let statement = Statement::parse(text, &declared).expect("parses");
    let table = fixture::table(key);
    let rewriter = Rewriter::new(&statement, Target { table: &table, key: &table.keys[0] }, Options::default())
        .expect("can be rewritten");
    let mut lines = vec![format!("-- {text}"), format!("canonical: {}", statement.canonical())];
    let mut add = |name: &str, sql: Result<String, pgmend_core::refusal::Refusal>| {
        lines.push(match sql {
            Ok(sql) => format!("{name}: {sql}"),
            Err(refusal) => format!("{name}: !! {refusal}"),
        });
    };
    add("plain", rewriter.plain());
    if statement.kind() == Kind::Insert {
        let columns = rewriter.insert_columns().expect("an insert");
        let values: Vec<String> = columns.iter().map(|c| format!("v_{c}")).collect();
        let window = Window { lower: 8, upper: 6, span: None };
        add("columns", Ok(columns.join(", ")));
        add("freeze", rewriter.freeze_source("\"shop\".\"cs\"", &values));
        add("apply", rewriter.insert_apply("\"shop\".\"cs\"", &values, window, Returning::None));
        add("source", statement.source_sql());
        return lines.join("\n");
    }
    let after = rewriter.after_columns();
    let both = rewriter.computable_after();
    let images = ImageColumns {
        keys: table.key_columns(&table.keys[0]).map(|c| format!("key_{}", c.name)).collect(),
        before: pairs("before", &statement.assigned()),
        after: if both { pairs("after", &after) } else { Vec::new() },
        pgcrypto: None,
    };
    let assigned = statement.assigned();
    let join = if both { Join::All } else { Join::Exists };
    let spec =
        Matched { before: &assigned, after: both, join, range: PAGE, skip_unchanged: both, ..Matched::default() };
    add("matched", rewriter.matched(&spec));
    add(
        "keys",
        rewriter.matched(&Matched { order_by_key: true, limit: Some(10), lock: Lock::Update, ..Matched::default() }),
    );
    add("bound", rewriter.bound(Range { lower: Some(8), ..Range::default() }, 10));
    add("next keys", rewriter.keys(Range { lower: Some(8), ..Range::default() }, 10));
    add("count", rewriter.count(Range::default()));
    if statement.joins_target() && both && !after.is_empty() {
        add("ambiguity", rewriter.ambiguity(PAGE));
    }
    add("change", rewriter.change(PAGE, both, Returning::None));
    let one = Range { exactly: Some(6), ..Range::default() };
    add("change of one row", rewriter.change(one, both, Returning::None));
    add("images", rewriter.image_insert("shop.image", 10, PAGE, &images, false, Lock::NoKeyUpdate));
    let returned = ImageColumns { after: pairs("after", &assigned), ..images.clone() };
    add("images and change", rewriter.image_change("shop.image", 10, PAGE, &returned, false));
    add("freeze", rewriter.freeze_insert("shop.cs", &images, true, false, Order::Key, None));
    lines.join("\n")
}

#[test]
fn a_change_set_in_halves_numbers_its_rows() {
    insta::assert_snapshot!(fill_in_order(
        "shop.cs",
        "op, key_id",
        "'U', m.id",
        "shop.item as m",
        "m.id",
        Some(50_000)
    ));
}

#[test]
fn an_update_with_or_and_the_clock() {
    insta::assert_snapshot!(script(
        "update shop.item i set price = price * 1.1, changed_at = now() where i.price < :most or region = 'eu' -- x",
        &[("most", "numeric")],
        &[0],
    ));
}

#[test]
fn an_update_with_a_composite_key_and_defaults() {
    insta::assert_snapshot!(script(
        "update item set (name, \"Mood\") = row('x', default), changed_at = default, price = default, total = default",
        &[],
        &[1, 0],
    ));
}

#[test]
fn an_update_from_a_join_with_a_cte_of_the_targets_name() {
    insta::assert_snapshot!(script(
        "with item as (select * from shop.other where n > current_date) \
         update shop.item t set name = o.name, code = 'c' from item o left join shop.other p using (id) \
         where o.id = t.id and t.region <> 'x' returning t.*",
        &[],
        &[0],
    ));
}

#[test]
fn an_update_from_a_select_and_of_elements() {
    insta::assert_snapshot!(script(
        "update only shop.item set (name, price) = (select o.name, 2 from shop.other o where o.id = item.id)",
        &[],
        &[0],
    ));
    insta::assert_snapshot!(script("update shop.item set tags[2] = 'x', name = 'a' where id > 5", &[], &[0]));
}

#[test]
fn a_delete_with_and_without_using() {
    insta::assert_snapshot!(script("delete from shop.item where changed_at < 'yesterday'::timestamptz", &[], &[0]));
    insta::assert_snapshot!(script(
        "with u as (select id from shop.other) delete from shop.item using shop.other o, u \
         where o.id = item.id and u.id = o.id or item.price is null",
        &[],
        &[1, 0],
    ));
}

#[test]
fn inserts_of_every_source() {
    for (i, text) in [
        "insert into shop.item values (1, 'eu', default, default), (default, 'us', 'x', default)",
        "insert into shop.item (name, tags) values ('a', '{x}'), ('b', null) on conflict (id) do nothing",
        "insert into shop.item as t (id, region) with u as (select 1 as id) select id, 'eu' from u order by id limit 3 \
         on conflict (id) do update set changed_at = default, price = t.price + excluded.price where t.id > 0",
        "insert into shop.item (id, region) select id, 'a' from shop.other union all select 2, 'b'",
        "insert into shop.item default values",
        "insert into shop.item (name, changed_at) overriding user value values (default, default), (default, 'now')",
    ]
    .iter()
    .enumerate()
    {
        insta::assert_snapshot!(format!("insert_{i}"), script(text, &[], &[0]));
    }
}

#[test]
fn change_sets_are_applied_by_key_and_guard() {
    let table = fixture::table(&[1, 0]);
    let key = &table.keys[0];
    let text = |s: &str| s.to_owned();
    let columns = ImageColumns {
        keys: vec![text("key_region"), text("key_id")],
        before: pairs("before", &[text("name"), text("code")]),
        after: pairs("after", &[text("name"), text("code")]),
        pgcrypto: None,
    };
    let window = Window { lower: 8, upper: 6, span: None };
    insta::assert_snapshot!(
        [
            apply_update(&table, key, "shop.cs", &columns, &columns.before, window, true),
            apply_delete(&table, key, "shop.cs", &columns, &columns.before, window, Some("true"), true),
            apply_insert(&table, key, "shop.cs", &columns.after, window, None, true),
        ]
        .join("\n")
    );
}

#[test]
fn a_window_reads_the_range_of_its_keys() {
    let table = fixture::table(&[1, 0]);
    let key = &table.keys[0];
    let text = |s: &str| s.to_owned();
    let columns = ImageColumns {
        keys: vec![text("key_region"), text("key_id")],
        before: pairs("before", &[text("code")]),
        after: pairs("after", &[text("code")]),
        pgcrypto: None,
    };
    let window = Window { lower: 8, upper: 6, span: Some(11) };
    insta::assert_snapshot!(
        [
            span(&table, key, "shop.cs", &columns, window),
            apply_update(&table, key, "shop.cs", &columns, &columns.before, window, false),
            apply_delete(&table, key, "shop.cs", &columns, &columns.before, window, None, false),
        ]
        .join("\n")
    );
}

#[test]
fn encrypted_images_hold_keys_and_one_text_of_values() {
    let table = fixture::table(&[1, 0]);
    let key = &table.keys[0];
    let text = |s: &str| s.to_owned();
    let columns = ImageColumns {
        keys: vec![text("key_region"), text("key_id")],
        before: pairs("before", &[text("name"), text("code")]),
        after: pairs("after", &[text("name"), text("code")]),
        pgcrypto: Some(text("crypto")),
    };
    let change_set = ImageColumns { pgcrypto: None, ..columns.clone() };
    let window = Window { lower: 8, upper: 6, span: None };
    let applied = Applied {
        table: &table,
        key,
        change_set: "shop.cs",
        columns: &change_set,
        guard: &change_set.before,
        window,
        block: None,
        complete: None,
    };
    let statement = Statement::parse("update users set name = upper(name), code = 'x'", &[]).unwrap();
    let rewriter = Rewriter::new(&statement, Target { table: &table, key }, Options::default()).unwrap();
    let range = Range { lower: Some(8), upper: Some(6), ..Range::default() };
    insta::assert_snapshot!(
        [
            rewriter.image_insert("shop.image", 10, range, &columns, false, Lock::None).unwrap(),
            rewriter.image_change("shop.image", 10, range, &columns, false).unwrap(),
            applied.update_imaged("shop.image", 10, &columns),
            insert_imaged(&table, key, "insert …", "shop.image", 10, &columns),
        ]
        .join("\n")
    );
}
