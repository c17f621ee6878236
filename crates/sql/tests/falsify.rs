//! Which statements provably falsify their own predicate, so that the sweep may apply them again.

mod fixture;

use pgmend_sql::Statement;

fn falsifies(text: &str) -> bool {
    let statement = Statement::parse(text, &[]).expect("a statement");
    statement.falsifies_itself(&fixture::table(&[0]))
}

#[test]
fn a_constant_that_is_certainly_another_one_falsifies() {
    for text in [
        "update shop.item set region = 'north' where region = 'nord'",
        "update shop.item set region = 'north' where region is null and id > 5",
        "update shop.item set region = 'north' where region <> 'north'",
        "update shop.item set region = null where region is not null",
        "update shop.item set region = 'north' where 'north' is distinct from region",
        "update shop.item set id = 1 where id = 2",
    ] {
        assert!(falsifies(text), "{text}");
    }
}

#[test]
fn what_only_looks_different_does_not() {
    for text in [
        // One integer, spelled twice; a blank that varchar(10) may cut off; types that compare otherwise than they read.
        "update shop.item set id = '01' where id = 1",
        "update shop.item set id = '01' where id = '1'",
        "update shop.item set name = 'abcdefghij ' where name = 'abcdefghij'",
        "update shop.item set price = 1.0 where price = 1",
        "update shop.item set changed_at = '2026-01-01' where changed_at = '2026-1-1'",
        // Not a constant, not the same column, or not for every row.
        "update shop.item set region = lower(region) where region = 'NORTH'",
        "update shop.item set region = 'north' where name = 'nord'",
        "update shop.item set region = 'north' where region = 'nord' or id = 1",
        "update shop.item set region = 'north' where region = 'north'",
        "update shop.item set region = 'north'",
        "delete from shop.item where region = 'nord'",
    ] {
        assert!(!falsifies(text), "{text}");
    }
}
