//! The forms of UPDATE: aliases, joins, sub-selects, row assignments, elements, fields, casts, CTEs.

use pgmend::Code;

use super::case::{Case, case};
use super::trial::try_all;

const ITEM: &str =
    "create table item (id int primary key, name text, price numeric(10,2), done bool not null default false,
        n int default 7, tags text[] default '{a,b,c}');
    insert into item select i, 'item ' || i, i * 1.5, i % 3 = 0, nullif(i % 4, 0) from generate_series(1, 10) i;
    create table price (item_id int, list text, price numeric(10,2), unique (item_id, list));
    insert into price select i, l, i * 10 + length(l) from generate_series(3, 9) i, unnest(array['b', 'sale']) l;";

const JSON: &str = "create table doc (id int primary key, j json, jb jsonb);
    insert into doc select i, format('{\"a\": %s, \"a\": %s,  \"z\":[1, 2]}', i, i + 1)::json,
        jsonb_build_object('a', i, 'list', jsonb_build_array(1, 2, i), 'o', null) from generate_series(1, 7) i;
    insert into doc values (8, null, null);";

const SHAPE: &str = "create type point3 as (x int, y int, z text);
    create type segment as (a point3, b point3);
    create table shape (id int primary key, p point3, s segment, ps point3[], grid int[][]);
    insert into shape select i, row(i, i + 1, 'z' || i)::point3, row(row(i, 0, null)::point3, row(0, i, '')::point3)::segment,
        array[row(1, 2, 'q')::point3, null], '[-1:0][2:3]={{1,2},{3,4}}'::int[] from generate_series(1, 7) i;
    insert into shape values (9, null, null, null, null);";

fn plain_forms() -> Vec<Case> {
    vec![
        case("every_row", ITEM, "update item set n = n + 1").streamed(),
        case("alias", ITEM, "update item as i set name = upper(i.name) where i.id % 2 = 0").streamed(),
        case("alias_hides_the_name", ITEM, "UPDATE item price SET n = price.id WHERE price.done").streamed(),
        case("several_columns", ITEM, "update item set name = name || '!', price = price * 2, n = null where not done"),
        case("swap_of_two_columns", ITEM, "update item set n = id, name = n::text, price = n where n is not null"),
        case("or_in_where_h7", ITEM, "update item set n = 99 where id = 2 or id = 7 or done"),
        case(
            "comments_and_strings_h7",
            ITEM,
            "update /* ; where */ item set name = 'a;b -- c $$ :x where' || E'\\'\\n' -- end\n where name like '%;%' or id > 4",
        ),
        case("dollar_quotes_h7", ITEM, "update item set name = $q$it's; :n $1 returning$q$ where id in (1, 10)"),
        case("default", ITEM, "update item set n = default, tags = default, done = default where id > 5").streamed(),
        case(
            "casts",
            ITEM,
            "update item set price = (id::text || '.125')::numeric(6,1), n = '12'::int4, name = cast(id as varchar(1))",
        ),
        case(
            "case_expression",
            ITEM,
            "update item set n = case when done then 1 when n is null then 2 else n * 10 end",
        ),
        case("returning_is_left_out", ITEM, "update item set n = 3 where id = 5 returning id, n"),
        case("only", ITEM, "update only item set n = 5 where done"),
        case("star_alias", ITEM, "update item * set n = 5 where done"),
        case("coalesce_nullif", ITEM, "update item set n = coalesce(n, 0), name = nullif(name, 'item 3')"),
        case("nothing_matches", ITEM, "update item set n = 1 where id = 4711"),
        case("all_is_right_already", ITEM, "update item set name = name where id > 2"),
        case("some_are_right_already", ITEM, "update item set n = 2 where id < 9"),
        case(
            "whole_row_condition_h7",
            ITEM,
            "update item i set n = 1 where i is not null and i.* is not distinct from i",
        ),
        case("is_distinct_from", ITEM, "update item set n = 0 where n is distinct from 3"),
        case(
            "between_and_any",
            ITEM,
            "update item set n = -1 where id between symmetric 7 and 3 and id = any ('{3,5,8}')",
        ),
        case("collate_in_where", ITEM, "update item set n = 4 where name > 'item 3' collate \"C\""),
        case(
            "schema_qualified_operator",
            ITEM,
            "update item set n = id operator(pg_catalog.*) 2 where id operator(pg_catalog.<) 4",
        ),
        case("ctid_is_read", ITEM, "update item set n = 1 where ctid = '(0,3)'"),
        case(
            "fourty_terms",
            ITEM,
            concat!(
                "update item set name = ",
                "name||'a'||'b'||'c'||'d'||'e'||'f'||'g'||'h'||'i'||'j'||'k'||'l'||'m'||'n'||'o'||'p'||'q'||'r'||'s'||'t'||'u'||'v'||'w'||'x'||'y'||'z'||'a'||'b'||'c'||'d'||'e'||'f'||'g'||'h'||'i'||'j'||'k'||'l'||'m'||'n'",
                " where id < 5"
            ),
        ),
    ]
}

fn joins() -> Vec<Case> {
    vec![
        case("from", ITEM, "update item set price = p.price from price p where p.item_id = item.id and p.list = 'b'").streamed(),
        case("from_with_alias", ITEM, "update item i set price = p.price, name = p.list || i.name from price as p where p.item_id = i.id and p.list = 'sale' and not i.done").streamed(),
        case("from_join", ITEM, "update item i set price = a.price - b.price from price a join price b on a.item_id = b.item_id and b.list = 'sale' where a.item_id = i.id and a.list = 'b'"),
        case("from_left_join", ITEM, "update item i set n = coalesce(p.price, -1) from (select g as id from generate_series(1, 10) g) k left join price p on p.item_id = k.id and p.list = 'b' where k.id = i.id"),
        case("from_join_using", ITEM, "update item i set n = 1 from price a join price b using (item_id, list) where item_id = i.id and list = 'b'"),
        case("from_lateral", ITEM, "update item i set n = l.v from price p, lateral (select p.price::int + 1 as v) l where p.item_id = i.id and p.list = 'b'"),
        case("from_values", ITEM, "update item set name = v.name, n = v.n from (values (1, 'one', 1), (2, 'two', null), (44, 'x', 4)) as v(id, name, n) where v.id = item.id"),
        case("from_values_text", ITEM, "update item set price = v.p::numeric from (values ('1', '10.10'), ('2', '0')) v(k, p) where v.k = item.id::text"),
        case("from_function", ITEM, "update item set n = g * 2 from generate_series(2, 4) g where g = id"),
        case("from_unnest", ITEM, "update item set n = u.v from unnest(array[1, 2, 3], array[10, null, 30]) as u(k, v) where u.k = item.id"),
        case("from_rows_from_ordinality", ITEM, "update item set n = u.o from unnest(array[7, 3, 5]) with ordinality as u(k, o) where u.k = item.id"),
        case("from_grouped_subselect", ITEM, "update item i set price = s.top from (select item_id, max(price) as top from price group by item_id) s where s.item_id = i.id"),
        case("from_disagreeing_matches_h17", ITEM, "update item i set price = p.price from price p where p.item_id = i.id").refused(Code::AmbiguousSource),
        case("from_agreeing_matches_h17", ITEM, "update item i set n = 100 from price p where p.item_id = i.id"),
        case("from_agreeing_values_h17", ITEM, "update item i set n = p.item_id * 2 from price p where p.item_id = i.id"),
        case("from_cross_join_without_a_condition", ITEM, "update item set n = x.v from (select 5 as v) x"),
        case("from_distinct_on", ITEM, "update item i set price = p.price from (select distinct on (item_id) item_id, price from price order by item_id, price desc) p where p.item_id = i.id"),
    ]
}

fn sub_selects() -> Vec<Case> {
    vec![
        case(
            "scalar_subselect",
            ITEM,
            "update item set price = (select p.price from price p where p.item_id = item.id and list = 'b')",
        )
        .streamed(),
        case(
            "row_from_subselect",
            ITEM,
            "update item i set (price, name) = (select p.price, p.list || i.name from price p where p.item_id = i.id and p.list = 'sale') where id > 3",
        ),
        case(
            "row_from_subselect_without_a_row",
            ITEM,
            "update item set (price, n) = (select 1, 2 where false) where done",
        ),
        case("row_constructor", ITEM, "update item set (n, name) = row(id + 1, 'x' || id) where id < 6"),
        case("row_without_the_word", ITEM, "update item set (n, name) = (5, default) where id < 3"),
        case(
            "row_with_one_column",
            ITEM,
            "update item set (n) = row(8), (price, done) = (select 0.5, true) where id = 4",
        ),
        case(
            "exists",
            ITEM,
            "update item set done = true where exists (select from price p where p.item_id = item.id and p.price > 75)",
        )
        .streamed(),
        case("not_in", ITEM, "update item set n = 0 where id not in (select item_id from price)").streamed(),
        case("in_with_null", ITEM, "update item set n = 0 where id not in (select nullif(item_id, 3) from price)"),
        case(
            "any_array_subselect_h2",
            ITEM,
            "update item set n = 0 where id = any (array(select item_id from price where list = 'b'))",
        ),
        case("aggregate_elsewhere", ITEM, "update item set price = price / (select sum(price) from price)"),
        case(
            "correlated_aggregate",
            ITEM,
            "update item set n = (select count(*) from price p where p.item_id = item.id)",
        )
        .streamed(),
        case(
            "cte",
            ITEM,
            "with top as (select item_id, max(price) m from price group by 1) update item set price = m from top where top.item_id = id",
        ),
        case(
            "cte_in_a_subselect",
            ITEM,
            "with b as materialized (select * from price where list = 'b') update item set n = 1 where id in (select item_id from b)",
        ),
        case(
            "cte_named_like_the_target",
            ITEM,
            "with item as (select 3 as id) update public.item set n = 1 where id in (select id from item)",
        ),
        case(
            "recursive_cte",
            ITEM,
            "with recursive c(v) as (select 1 union all select v * 2 from c where v < 20) update item set n = 0 where id in (select v from c)",
        ),
        case(
            "two_ctes",
            ITEM,
            "with a as (select 2 as k), b as (select k + 1 as k from a) update item i set n = b.k from b where i.id = b.k",
        ),
        case(
            "writing_cte_h21",
            ITEM,
            "with d as (delete from price returning item_id) update item set n = 0 where id in (select item_id from d)",
        )
        .refused(Code::WritingCte),
        case(
            "nested_subselects",
            ITEM,
            "update item set n = (select max(x.v) from (select price * 2 as v from price where item_id = (select id from generate_series(1, 20) id where id = item.id)) x)",
        ),
        case(
            "union_subselect",
            ITEM,
            "update item set n = 3 where id in (select item_id from price where list = 'b' union select 1 intersect select 1)",
        ),
    ]
}

fn elements_and_fields() -> Vec<Case> {
    vec![
        case("array_element", ITEM, "update item set tags[3] = 'third' where id > 4").streamed(),
        case("array_element_beyond_the_end", ITEM, "update item set tags[6] = name, tags[1] = null"),
        case("array_slice", ITEM, "update item set tags[2:3] = array['x', 'y'] where done"),
        case("array_append", ITEM, "update item set tags = tags || name where not ('z' = any (tags))"),
        case(
            "array_lower_bound_h11",
            SHAPE,
            "update shape set grid = array_fill(1, array[2, 2], array[5, -3]) where id % 2 = 0",
        ),
        case("array_element_below_the_bound", SHAPE, "update shape set ps[0] = row(9, 9, 'n') where id < 4"),
        case("array_two_dimensions", SHAPE, "update shape set grid[0][2] = 42"),
        case("composite_field", SHAPE, "update shape set p.y = (p).x * 10, p.z = null"),
        case("composite_field_of_a_field", SHAPE, "update shape set s.b.z = 'deep' where id < 5"),
        case("composite_field_of_an_element", SHAPE, "update shape set ps[2].x = id"),
        case("composite_whole", SHAPE, "update shape set p = row((p).y, (p).x, 'swapped')::point3 where id in (1, 9)"),
        case("composite_in_where", SHAPE, "update shape set p = null where (p).x > 3 and p < row(7, 0, '')::point3"),
        case("jsonb_subscript", JSON, "update doc set jb['list'][1] = '\"x\"', jb['new'] = to_jsonb(id)"),
        case("jsonb_set", JSON, "update doc set jb = jsonb_set(jb, '{list,0}', '0') - 'o' where jb ? 'a'"),
        case(
            "jsonb_operators",
            JSON,
            "update doc set jb = jb || '{\"b\": 1}' where jb @> '{\"a\": 3}' or jb ->> 'a' = '5' or jb #>> '{list,2}' = '6'",
        ),
        case(
            "jsonb_question_operators",
            JSON,
            "update doc set jb = jb #- '{list,0}' where jb ?| array['q', 'list'] and jb ?& array['a']",
        ),
        case(
            "json_text_kept_h11",
            JSON,
            "update doc set j = case when id < 4 then j else '{\"b\":1,  \"b\": 2}' end where id <> 5",
        ),
        case("json_from_jsonb", JSON, "update doc set j = jb::json, jb = j::jsonb"),
        case(
            "element_and_set_dependence",
            ITEM,
            "update item set tags[1] = 'x' where id in (select id from item order by id limit 2)",
        ),
        case("element_of_the_key_h5", "create table k (id int[] primary key, v int); insert into k select array[i, 0], i from generate_series(1, 5) i", "update k set id[2] = v where v > 2").refused(Code::CannotFreeze),
        case("element_from_a_join", ITEM, "update item set tags[2] = p.list, n = p.price from price p where p.item_id = item.id and p.list = 'b'").streamed(),
        case("element_from_agreeing_matches_h17", ITEM, "update item set tags[p.item_id] = 'm' from price p where p.item_id = item.id and id < 6"),
        case("element_from_disagreeing_matches_h17", ITEM, "update item set tags[2] = p.list from price p where p.item_id = item.id").refused(Code::AmbiguousSource),
        case("subscript_from_disagreeing_matches_h17", ITEM, "update item set tags[length(p.list)] = 'm' from price p where p.item_id = item.id").refused(Code::AmbiguousSource),
        case("element_by_a_window_h1", ITEM, "update item set tags[1] = w.r::text from (select id, rank() over (order by n desc nulls last) r from item) w where w.id = item.id"),
        case("field_set_dependent_h1", SHAPE, "update shape set p.x = (select max((p).x) from shape) where id > 2"),
        case("subscript_set_dependent_h1", JSON, "update doc set jb['a'] = to_jsonb((select count(*) from doc where jb is not null)) where jb is not null"),
        case("row_of_a_source_star", ITEM, "update item set (n, name) = row(v.*) from (select item_id::int as n, min(list) as name from price group by 1) v where v.n = item.id"),
        case("row_of_its_own_star", "create table t (a int primary key, b int, c int); insert into t select i, i, -i from generate_series(1, 6) i", "update t set (b, c) = row(s.*) from (select 7 as x, 8 as y) s where a > 2"),
    ]
}

#[test]
fn updates_of_one_table_are_equal() {
    try_all("update", &plain_forms());
}

#[test]
fn updates_from_other_tables_are_equal() {
    try_all("update_from", &[joins(), sub_selects()].concat());
}

#[test]
fn updates_of_elements_and_fields_are_equal() {
    try_all("update_part", &elements_and_fields());
}
