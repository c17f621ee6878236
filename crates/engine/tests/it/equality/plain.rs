//! First cases.

use super::case::{Case, case};
use super::trial::try_all;

const ITEM: &str = "create table item (id int primary key, name text, price numeric(10,2), done bool not null default false, n int);
    insert into item select i, 'item ' || i, i * 1.5, i % 3 = 0, i % 4 from generate_series(1, 10) i;";

fn cases() -> Vec<Case> {
    vec![
        case("update_all_rows", ITEM, "update item set n = n + 1"),
        case("update_with_alias", ITEM, "update item as i set name = upper(i.name) where i.id % 2 = 0").streamed(),
        case("delete_some", ITEM, "delete from item where done").streamed(),
        case("insert_select", ITEM, "insert into item select id + 100, name, price, done, n from item where n = 1").frozen(),
        case("limit", ITEM, "update item set n = 9 where id in (select id from item order by price desc limit 3)").frozen(),
    ]
}

#[test]
fn first_cases_are_equal() {
    try_all("plain", &cases());
}
