//! Every kind of key: types, orders, collations, widths.

use pgmend::Code;

use super::case::{Case, case};
use super::trial::try_all;

/// A table whose key has this type and these values.
macro_rules! keyed {
    ($name:literal, $type:literal, $values:literal) => {
        keyed!($name, $type, $values, "")
    };
    ($name:literal, $type:literal, $values:literal, $before:literal) => {
        [
            case(
                concat!("key_", $name, "_h4"),
                concat!(
                    $before,
                    "create table k (id ",
                    $type,
                    " primary key, v int, w text); insert into k select x::",
                    $type,
                    ", 1, 'w' from unnest(array[",
                    $values,
                    "]::text[]) x"
                ),
                "update k set v = v + 1, w = id::text",
            ),
            case(
                concat!("key_", $name, "_deleted_h4"),
                concat!(
                    $before,
                    "create table k (id ",
                    $type,
                    " primary key, v int, w text); insert into k select x::",
                    $type,
                    ", row_number() over (order by x), 'w' from unnest(array[",
                    $values,
                    "]::text[]) x"
                ),
                "delete from k where v % 2 = 1",
            ),
        ]
    };
}

fn types() -> Vec<Case> {
    [
        keyed!("smallint", "smallint", "'-32768','-1','0','1','32767'"),
        keyed!("bigint", "bigint", "'-9223372036854775808','-9007199254740993','-1','0','9007199254740992','9007199254740993','9223372036854775807'"),
        keyed!("uuid", "uuid", "'00000000-0000-0000-0000-000000000000','0190a1b2-0000-7000-8000-000000000001','7fffffff-ffff-ffff-ffff-ffffffffffff','80000000-0000-0000-0000-000000000000','ffffffff-ffff-ffff-ffff-ffffffffffff'"),
        keyed!("varchar", "varchar(12)", "'','a','A','aa',' a','a ','é'"),
        keyed!("bpchar", "char(4)", "'','a','ab','b  ','A'"),
        keyed!("timestamptz", "timestamptz", "'-infinity','infinity','4714-11-24 00:00:00 BC','2024-03-31 01:30:00+00','2024-03-31 01:30:00.000001+00','294276-12-31 23:59:59.999999'"),
        keyed!("timestamp", "timestamp", "'-infinity','infinity','0001-01-01 BC','1999-12-31 23:59:59.999999','2000-01-01'"),
        keyed!("date", "date", "'-infinity','infinity','4713-01-01 BC','2024-02-29','5874897-12-31'"),
        keyed!("time", "time", "'00:00','24:00','12:00:00.000001'"),
        keyed!("timetz", "timetz", "'00:00+00','01:00+01','23:59:59.999999-15'"),
        keyed!("numeric", "numeric", "'1.0','1.01','NaN','Infinity','-Infinity','0.00','1e40','0.00000000000000000000000000000000000001','123456789012345678901234567890.123'"),
        keyed!("numeric_scale", "numeric(10,2)", "'1.00','1.01','-1','0'"),
        keyed!("float8", "float8", "'NaN','Infinity','-Infinity','0','0.1','5e-324','1.7976931348623157e308','-1'"),
        keyed!("float4", "float4", "'NaN','0.1','0.2','1e-45','-1','3.4028235e38'"),
        keyed!("bool", "bool", "'t','f'"),
        keyed!("bytea", "bytea", "'','\\x00','\\x0000','\\xff','\\x61'"),
        keyed!("inet", "inet", "'10.0.0.1','10.0.0.0/8','::1','0.0.0.0/0','255.255.255.255'"),
        keyed!("cidr", "cidr", "'10.0.0.0/8','10.0.0.0/16','::/0'"),
        keyed!("macaddr", "macaddr", "'00:00:00:00:00:00','08:00:2b:01:02:03','ff:ff:ff:ff:ff:ff'"),
        keyed!("bits", "bit(4)", "'0000','0001','1000','1111'"),
        keyed!("varbit", "varbit", "'','0','00','1','10'"),
        keyed!("oid", "oid", "'0','1','2147483648','4294967295'"),
        keyed!("money", "money", "'-1.00','0','12.34'"),
        keyed!("pg_lsn", "pg_lsn", "'0/0','0/FFFFFFFF','FFFFFFFF/0'"),
        keyed!("quoted_char", "\"char\"", "'','a','\\'"),
        keyed!("name", "name", "'','a','A','b c'"),
        keyed!("enum", "mood", "'zzz','aaa','mmm','it''s'", "create type mood as enum ('zzz', 'mmm', 'aaa', 'it''s');"),
        keyed!("domain", "posint", "'1','10','2'", "create domain posint as int check (value > 0);"),
        keyed!("domain_of_text", "code", "'b','A','a'", "create domain code as text collate \"C\" not null check (value <> '');"),
        keyed!("interval", "interval", "'30 days','1 hour','-1 mon','1 mon 1 day','0'"),
        keyed!("range", "int4range", "'empty','(,)','[1,5)','[1,6)'"),
        keyed!("array", "int[]", "'{}','{1}','{1,2}','{2}','{NULL}','[0:1]={1,2}'"),
        keyed!("text_array", "text[]", "'{}','{a}','{A,b}','{\"a,b\",\"c\\\"d\"}','{NULL}'"),
        keyed!("jsonb", "jsonb", "'{}','[]','null','1','{\"a\": 1}','\"x\"','[1, 2]'"),
        keyed!("tsvector", "tsvector", "'','a','a:1 b:2'"),
        keyed!("composite", "pair", "'(1,b)','(1,a)','(2,)','(-1,\"x,y\")'", "create type pair as (a int, b text);"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

macro_rules! collated {
    ($name:literal, $before:literal, $collation:literal, $values:literal) => {
        [
            case(
                concat!("collation_", $name, "_h4"),
                concat!(
                    $before,
                    "create table k (id text collate ",
                    $collation,
                    " primary key, v int); insert into k select x, length(x) from unnest(array[",
                    $values,
                    "]) x"
                ),
                "update k set v = v + 1",
            ),
            case(
                concat!("collation_", $name, "_deleted_h4"),
                concat!(
                    $before,
                    "create table k (id text collate ",
                    $collation,
                    " primary key, v int); insert into k select x, length(x) from unnest(array[",
                    $values,
                    "]) x"
                ),
                "delete from k where id < 'm' or v = 0",
            ),
        ]
    };
}

fn collations() -> Vec<Case> {
    let collated: Vec<Case> = [
        collated!("c", "", "\"C\"", "'','10','9','B','_x','a','z','É','😀',E'\\t',' '"),
        collated!(
            "default",
            "",
            "\"default\"",
            "'','10','9','B','_x','a','z','É','a''b','a\"b','a\\\\b','{a,b}','NULL'"
        ),
        collated!("icu", "", "\"und-x-icu\"", "'','10','9','B','_x','a','A','z','É','é','co-op','coop'"),
        collated!(
            "icu_numeric",
            "create collation num (provider = icu, locale = 'en-u-kn-true');",
            "num",
            "'a10','a9','a09','A9'"
        ),
        collated!(
            "icu_upper_first",
            "create collation uf (provider = icu, locale = 'und-u-kf-upper');",
            "uf",
            "'a','A','b','B','aB','Ab'"
        ),
        collated!(
            "nondeterministic",
            "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);",
            "ci",
            "'Ab','aC','b','É','zz','_'"
        ),
        collated!(
            "nondeterministic_accents",
            "create collation ai (provider = icu, locale = 'und-u-ks-level1-kc-true', deterministic = false);",
            "ai",
            "'Resume','other','zebra','Zebre'"
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    let more = vec![
        case(
            "nondeterministic_compare_and_set_h4",
            "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); create table k (id int primary key, name text collate ci); insert into k values (1, 'Bob'), (2, 'BOB'), (3, 'ann')",
            "update k set name = 'bob' where name = 'bob'",
        ),
        case(
            "nondeterministic_already_right_h4",
            "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); create table k (id text collate ci primary key, n int); insert into k values ('Bob', 1), ('Ann', 2)",
            "update k set id = lower(id)",
        ),
        case(
            "after_of_a_nondeterministic_collation_h4",
            "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); create table k (id int primary key, name text, short varchar(9), other text collate ci); insert into k values (1, 'Bob', 'x', 'bob'), (2, 'BOB', 'Y', 'BOB'), (3, 'ann', null, 'Ann'), (4, null, 'ann', 'Ann')",
            "update k set name = other, short = other",
        ),
        case(
            "after_of_two_collations_h4",
            "create table k (id int primary key, name text, a text collate \"C\", b text collate \"und-x-icu\"); insert into k values (1, 'ab', 'a', 'b'), (2, 'AB', 'a', 'b'), (3, null, 'a', null), (4, 'x', null, 'b')",
            "update k set name = a || b",
        ),
        case(
            "citext_h4",
            "create extension citext; create table k (id citext primary key, v int); insert into k values ('B', 1), ('a', 2), ('C', 3), ('b2', 4), ('A1', 5)",
            "update k set v = v + 1",
        ),
        case(
            "citext_in_where_h4",
            "create extension citext; create table k (id citext primary key, mail citext); insert into k select 'K' || i, 'M' || i || '@X.org' from generate_series(1, 6) i",
            "update k set mail = lower(mail) where id in ('k1', 'K5') or mail = 'm3@x.ORG'",
        ),
        case(
            "collation_of_index_differs_h4",
            "create table k (id text not null, v int); create unique index on k (id collate \"C\"); insert into k values ('b', 1), ('A', 2), ('a', 3)",
            "update k set v = v + 1",
        )
        .key(&["id"]),
        case(
            "collation_pattern_ops_h4",
            "create table k (id text not null, v int); create unique index on k (id text_pattern_ops); insert into k values ('b', 1), ('A', 2), ('a', 3)",
            "update k set v = v + 1",
        ),
    ];
    collated.into_iter().chain(more).collect()
}

fn shapes() -> Vec<Case> {
    vec![
        case("sparse_and_negative", "create table k (id int primary key, v int); insert into k select i * i * i * 1000, i from generate_series(-12, 12) i", "update k set v = -v where v % 5 = 0"),
        case("two_columns_h4", "create table k (a int, b text, v int, primary key (a, b)); insert into k select i % 3, chr(97 + i), i from generate_series(1, 10) i", "update k set v = v + 1 where v > 2"),
        case("order_differs_from_the_table_h4", "create table k (v int, x text, a int, b date, primary key (b, a)); alter table k drop column x; insert into k select i, i, date '2024-01-01' - i % 4 from generate_series(1, 10) i", "update k set v = v + 1"),
        case("descending_h4", "create table k (a int not null, b int not null, v int); create unique index on k (a desc, b); insert into k select i % 3, i, i from generate_series(1, 10) i", "update k set v = v + 1"),
        case("nulls_first_h4", "create table k (a int not null, v int); create unique index on k (a desc nulls last); insert into k select i, i from generate_series(1, 6) i", "delete from k where v % 2 = 0"),
        case("include_columns_h4", "create table k (a int not null, v int, w text); create unique index on k (a) include (w); insert into k select i, i, null from generate_series(1, 6) i", "update k set v = v + 1, w = 'x'"),
        case("unique_not_null_instead_of_pk", "create table k (a int unique not null, v int); insert into k select i, i from generate_series(1, 6) i", "update k set v = v * 2"),
        case("unique_constraint_named_key", "create table k (id int primary key, a text unique not null, v int); insert into k select i, 'a' || 10 - i, i from generate_series(1, 6) i", "update k set v = v * 2").key(&["a"]),
        case("key_that_is_not_written", "create table k (id int primary key, a text unique not null, v int); insert into k select i, 'a' || i, i from generate_series(1, 6) i", "update k set id = id + 100, v = 0").streamed(),
        case(
            "eight_columns",
            "create table k (a smallint, b int, c bigint, d text collate \"C\", e date, f numeric, g uuid, h bool, v int, primary key (h, g, f, e, d, c, b, a));
             insert into k select i % 2, i % 3, i % 2, case when i % 2 = 0 then 'x' else '' end, 'infinity', i % 2, md5((i % 2)::text)::uuid, i % 2 = 0, i from generate_series(1, 6) i on conflict do nothing",
            "update k set v = v + 1",
        ),
        case("no_key", "create table k (a int, v int); insert into k values (1, 1)", "update k set v = 2").refused(Code::NoKey),
        case("nullable_key_h4", "create table k (a int unique, v int); insert into k values (1, 1)", "update k set v = 2").refused(Code::NoKey),
        case("partial_key_h4", "create table k (a int not null, v int); create unique index on k (a) where a > 0; insert into k values (1, 1)", "delete from k").refused(Code::NoKey),
        case("expression_key_h4", "create table k (a text not null, v int); create unique index on k (lower(a)); insert into k values ('a', 1)", "delete from k").refused(Code::NoKey),
        case("deferrable_key_h4", "create table k (a int not null unique deferrable, v int); insert into k values (1, 1)", "delete from k").refused(Code::NoKey),
        case("invalid_key_h4", "create table k (a int not null, v int); create unique index i on k (a); update pg_index set indisvalid = false where indexrelid = 'i'::regclass; insert into k values (1, 1)", "delete from k").refused(Code::NoKey),
        case("hash_index_is_no_key_h4", "create table k (a int not null, v int); create index on k using hash (a); insert into k values (1, 1)", "delete from k").refused(Code::NoKey),
        case("named_key_that_is_none", "create table k (id int primary key, a int); insert into k values (1, 1)", "delete from k").key(&["a"]).refused(Code::NoKey),
        case("nulls_not_distinct_aside", "create table k (a int, b int not null, v int, unique (b)); insert into k values (null, 2, 1), (null, 3, 1)", "update k set v = 2"),
        case("empty_table", "create table k (id int primary key, v int)", "update k set v = 1"),
        case("one_row", "create table k (id int primary key, v int); insert into k values (0, 0)", "update k set v = 1"),
        case("dropped_columns_h4", "create table k (z int, id int primary key, y text, v int); alter table k drop column z; alter table k drop column y; alter table k add w int default 5; insert into k select i, i from generate_series(1, 5) i", "delete from k where v > 2"),
        case("hundred_columns", "do $$ begin execute 'create table k (id int primary key, ' || (select string_agg('c' || i || ' int default ' || i, ', ') from generate_series(1, 100) i) || ')'; end $$; insert into k select i from generate_series(1, 5) i", "update k set c1 = c100, c50 = id + c99 where id > 1"),
        case("as_many_columns_as_images_hold", "do $$ begin execute 'create table k (id int primary key, ' || (select string_agg('c' || i || ' smallint default ' || i, ', ') from generate_series(1, 1595) i) || ')'; end $$; insert into k select i from generate_series(1, 5) i", "delete from k where c1595 = id + 1592 or id > 3"),
    ]
}

fn names() -> Vec<Case> {
    vec![
        case("columns_named_batch_and_key_h7", "create table k (key int primary key, batch int, old text, \"new\" text, n int, op text, m int, t int, s int, i int); insert into k select i, i, 'o', 'n', i, 'op', i, i, i, i from generate_series(1, 5) i", "update k set batch = key + n, old = \"new\" || op, m = t + s where i > 1"),
        case("columns_named_like_image_columns_h7", "create table k (batch_no int primary key, key_1 int, before int, after int, pgmend_k1 int, pgmend_b1 int, pgmend_a1 int, pgmend_n int); insert into k select i, i, i, i, i, i, i, i from generate_series(1, 5) i", "update k set pgmend_a1 = pgmend_k1 + pgmend_b1, before = after * 2, after = 1 where pgmend_n > 2"),
        case("images_of_such_columns_deleted_h7", "create table k (batch_no int primary key, v int, op text, v_before int, v_after int, xmin_ int); insert into k select i, i, 'x', i, i from generate_series(1, 5) i", "delete from k where v_before > 2"),
        case("before_and_after_names_h7", "create table k (id int primary key, v int, v_before int, v_after int, id_key int, key_id int, before_v int, after_v int); insert into k select i, i, i, i, i, i, i, i from generate_series(1, 5) i", "update k set v = 0, v_before = v, v_after = v + 1, before_v = v, after_v = 3, id_key = 9"),
        case("reserved_words_h7", "create table \"user\" (\"order\" int primary key, \"select\" int, \"from\" text, \"table\" text, \"default\" int default 4); insert into \"user\" select i, i, 'f', 't' from generate_series(1, 5) i", "update \"user\" set \"select\" = \"order\" + 1, \"from\" = \"table\", \"default\" = default where \"user\".\"select\" > 2"),
        case("mixed_case_h7", "create table \"Mixed Case\" (\"Mixed Id\" int primary key, \"a\"\"b\" text, \"ID\" int, id int); insert into \"Mixed Case\" select i, 'x', i, -i from generate_series(1, 5) i", "update \"Mixed Case\" as \"M C\" set \"a\"\"b\" = \"M C\".\"ID\"::text || \"M C\".id where \"Mixed Id\" > 1"),
        case("quotes_and_dots_h7", "create schema \"s.1\"; create table \"s.1\".\"t.\"\"x\" (\"i'd\" int primary key, \"$1\" int, \":p\" int, \"a,b\" text, \"%s\" int); insert into \"s.1\".\"t.\"\"x\" select i, i, i, 'z', i from generate_series(1, 5) i", "update \"s.1\".\"t.\"\"x\" set \"$1\" = \":p\" + 1, \"a,b\" = \"i'd\"::text, \"%s\" = 0"),
        case("unicode_h7", "create table \"tädël😀\" (\"schlüssel\" int primary key, \"größe\" text, \"列\" int); insert into \"tädël😀\" select i, 'x', i from generate_series(1, 5) i", "update \"tädël😀\" set \"größe\" = \"列\"::text where \"schlüssel\" <> 2"),
        case(
            "sixty_three_bytes_h7",
            "create table a23456789012345678901234567890123456789012345678901234567890123 (b23456789012345678901234567890123456789012345678901234567890123 int primary key, b2345678901234567890123456789012345678901234567890123456789012x int, c2345678901234567890123456789012345678901234567890123456789012é text);
             insert into a23456789012345678901234567890123456789012345678901234567890123 select i, i, 'x' from generate_series(1, 5) i",
            "update a23456789012345678901234567890123456789012345678901234567890123 set b2345678901234567890123456789012345678901234567890123456789012x = 0 where b23456789012345678901234567890123456789012345678901234567890123 > 2",
        ),
        case(
            "sixty_three_bytes_deleted_h7",
            "create table a23456789012345678901234567890123456789012345678901234567890123 (b23456789012345678901234567890123456789012345678901234567890123 int primary key, b2345678901234567890123456789012345678901234567890123456789012x int, \"ééééééééééééééééééééééééééééééé\" text);
             insert into a23456789012345678901234567890123456789012345678901234567890123 select i, i, 'x' from generate_series(1, 5) i",
            "delete from a23456789012345678901234567890123456789012345678901234567890123 where \"ééééééééééééééééééééééééééééééé\" = 'x'",
        ),
        case("same_name_in_two_schemas_h7", "create schema other; create table t (id int primary key, v int); create table other.t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i; insert into other.t select i, i * 10 from generate_series(2, 6) i", "update other.t set v = v + 1 where id in (select id from public.t)"),
        case("search_path_chooses_h7", "create schema other; create table t (id int primary key, v int); create table other.t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i; insert into other.t select i, i * 10 from generate_series(2, 6) i", "update t set v = v + 1").with(&[("search_path", "other, public")]),
        case("functions_of_the_search_path_h7", "create schema f; create function f.twice(int) returns int language sql immutable as 'select $1 * 2'; create function public.twice(int) returns int language sql immutable as 'select $1 * -2'; create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i", "update t set v = twice(v)").with(&[("search_path", "f, public")]),
        case("alias_like_a_column_h7", "create table t (id int primary key, t int, v int); insert into t select i, i, i from generate_series(1, 5) i", "update t set v = t.t + t.id where t.t > 1"),
        case("alias_like_a_keyword_h7", "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i", "update t as \"set\" set v = \"set\".v + 1 where \"set\".id > 1"),
        case("aliases_of_our_own_h7", "create table t (id int primary key, v int); create table s (id int, v int); insert into t select i, i from generate_series(1, 5) i; insert into s select i, i * 7 from generate_series(1, 5) i", "update t m set v = w.v + pgmend_s.v from s w, s pgmend_s where w.id = m.id and pgmend_s.id = m.id"),
    ]
}

#[test]
fn keys_of_every_type_are_walked_in_order() {
    try_all("key_type", &types().into_iter().step_by(2).collect::<Vec<_>>());
}

#[test]
fn rows_under_keys_of_every_type_are_deleted_in_order() {
    try_all("key_type_deleted", &types().into_iter().skip(1).step_by(2).collect::<Vec<_>>());
}

#[test]
fn keys_of_every_collation_and_shape_are_walked_in_order() {
    try_all("key", &[collations(), shapes()].concat());
}

#[test]
fn names_of_every_kind_are_quoted() {
    try_all("name", &names());
}
