//! What a job says beside its statement: parameters, the mode, trusted functions; and values that differ from
//! run to run.

use pgmend::{Code, Mode};

use super::case::{Case, case};
use super::trial::try_all;

const ITEM: &str = "create type mood as enum ('sad', 'ok', 'happy');
    create domain code as text check (value ~ '^[a-z]+$');
    create table item (id int primary key, name text, n int, price numeric(10,2), at timestamptz, d date, m mood, c code, tags text[], j jsonb, u uuid, b bytea, r int4range, i interval, done bool);
    insert into item select i, 'item ' || i, i % 4, i * 1.5, '2024-03-01 12:00+00'::timestamptz + i * interval '1 day', date '2024-03-01' + i, 'ok', 'abc', array['t' || i],
        jsonb_build_object('k', i), md5(i::text)::uuid, '\\x00', int4range(i, i + 3), interval '1 day' * i, false from generate_series(1, 9) i;";

const UNSURE: &str = "create table t (id int primary key, v int, x text, u uuid, at timestamptz); insert into t select i, i from generate_series(1, 7) i;
    create function looked_up(int) returns int language sql volatile as 'select $1 * 3';
    create function steady(int) returns int language sql stable as 'select $1 + 1';
    create function noted(int) returns int language plpgsql volatile as $$ begin insert into t values (100 + $1, 0); return $1; end $$;";

fn params() -> Vec<Case> {
    vec![
        case("param_int", ITEM, "update item set n = :n where id >= :from and id < :from + 3")
            .param("n", "int", "42")
            .param("from", "int", "3")
            .streamed(),
        case("param_names_that_begin_alike", ITEM, "update item set n = :a, price = :ab, name = :abc where id = 2")
            .param("a", "int", "1")
            .param("ab", "numeric", "2.5")
            .param("abc", "text", "three"),
        case("param_is_never_text_of_the_statement_h7", ITEM, "update item set name = :evil where name <> 'x'")
            .param("evil", "text", "x'; drop table item; -- $1 \\ :evil"),
        case("param_timestamptz", ITEM, "update item set at = :at where at < :at")
            .param("at", "timestamptz", "2024-03-05 12:00:00.000001+02"),
        case("param_date_and_interval", ITEM, "update item set d = :d::date + :i, i = :i where d > :d")
            .param("d", "date", "2024-03-04")
            .param("i", "interval", "1 mon -2 days"),
        case("param_numeric", ITEM, "update item set price = price * :f")
            .param("f", "numeric", "1.005"),
        case("param_array", ITEM, "update item set tags = tags || :more where id = any (:ids)")
            .param("ids", "int[]", "{2,3,5,77}")
            .param("more", "text[]", "{\"a,b\",NULL,\"\"}"),
        case("param_array_slice", ITEM, "update item set tags = (tags || :more)[1:2] where id < 4")
            .param("more", "text[]", "{x,y}"),
        case("param_json", ITEM, "update item set j = j || :j where j @> :has")
            .param("j", "jsonb", "{\"new\": [1, null]}")
            .param("has", "jsonb", "{\"k\": 4}"),
        case("param_enum_domain_uuid", ITEM, "update item set m = :m, c = :c where u <> :u")
            .param("m", "mood", "happy")
            .param("c", "code", "xyz")
            .param("u", "uuid", "c4ca4238-a0b9-2382-0dcc-509a6f75849b"),
        case("param_bytea_bool_range", ITEM, "update item set b = :b, done = :done where r && :r")
            .param("b", "bytea", "\\xdeadbeef")
            .param("done", "bool", "yes")
            .param("r", "int4range", "[4,6)"),
        case("param_in_a_subselect", ITEM, "delete from item where id in (select g from generate_series(1, :top) g where g % :by = 0)")
            .param("top", "bigint", "8")
            .param("by", "int", "3"),
        case("param_in_an_insert", ITEM, "insert into item (id, name, n) select id + :shift, :prefix || name, n from item where n = :n")
            .param("shift", "int", "100")
            .param("prefix", "text", "copy ' of ")
            .param("n", "smallint", "2"),
        case("param_in_values_and_conflict", ITEM, "insert into item (id, name) values (1, :name), (50, :name) on conflict (id) do update set name = excluded.name || :name")
            .param("name", "varchar(20)", "ö\"'"),
        case("param_frozen", ITEM, "update item set n = :n where id in (select id from item order by price desc limit :k)")
            .param("n", "int", "-1")
            .param("k", "int", "4")
            .frozen(),
        case("param_that_does_not_fit", ITEM, "update item set n = :n").param("n", "int", "twelve").fails(),
    ]
}

fn modes() -> Vec<Case> {
    vec![
        case("freeze_what_could_stream", ITEM, "update item set n = n + 1, name = upper(name) where id <> 4")
            .asking_for(Mode::Freeze),
        case("freeze_a_delete", ITEM, "delete from item where n > 1").asking_for(Mode::Freeze),
        case("freeze_a_join", ITEM, "update item set name = v.x from (values (1, 'a'), (4, 'b')) v(k, x) where k = id")
            .asking_for(Mode::Freeze),
        case("stream_by_request", ITEM, "update item set n = 0 where done is false").asking_for(Mode::Stream),
        case(
            "stream_what_cannot_h1",
            ITEM,
            "update item set n = 0 where id in (select id from item order by n limit 2)",
        )
        .asking_for(Mode::Stream)
        .refused(Code::NotSplittable),
    ]
}

fn unsure() -> Vec<Case> {
    vec![
        case("clock_is_one_instant_h6", UNSURE, "update t set at = now(), x = (current_timestamp = transaction_timestamp() and localtimestamp = now()::timestamp and current_date = now()::date)::text")
            .comparing(&["select id, v, x, at is not null from t", "select count(distinct at) from t"])
            .streamed(),
        case("clock_in_a_text_h6", "create table t (id int primary key, v int, at timestamptz); insert into t select i, i, timestamptz '2020-01-01' from generate_series(1, 6) i", "update t set v = v + 1 where at < 'today 12:00'")
            .frozen(),
        case("clock_in_a_default_h6", "create table t (id int primary key, v int, at timestamptz default clock_timestamp()); insert into t select i, i, null from generate_series(1, 6) i", "update t set at = default, v = v + 1")
            .comparing(&["select id, v, at is not null from t"]),
        case("clock_in_a_default_of_an_insert_h6", "create table t (id int primary key, at timestamptz default now(), d timestamp default localtimestamp)", "insert into t (id) select generate_series(1, 7)")
            .comparing(&["select id, at is not null from t", "select count(distinct at), count(distinct d) from t"]),
        case("random_values_are_frozen_h6", UNSURE, "update t set u = gen_random_uuid(), x = case when random() < 2 then 'yes' end")
            .comparing(&["select id, v, x, u is not null from t", "select count(distinct u) from t"])
            .frozen(),
        case("random_selects_rows_h6", UNSURE, "update t set v = 0 where random() < 0.5").refused(Code::VolatilePredicate),
        case("random_in_a_from_h6", UNSURE, "update t set v = r.x from (select random() as x) r where r.x < 2").refused(Code::VolatilePredicate),
        case("transaction_id_is_frozen_h6", UNSURE, "update t set x = pg_current_xact_id_if_assigned()::text is null").comparing(&["select id, v from t"]),
        case("nextval_in_a_value_h6", "create sequence s; create table t (id int primary key, v bigint); insert into t select generate_series(1, 6)", "update t set v = nextval('s')")
            .comparing(&["select id from t", "select count(distinct v), min(v) is null from t"]),
        case("unknown_function_h6", UNSURE, "update t set v = looked_up(v)").refused(Code::SideEffects),
        case("trusted_function_h6", UNSURE, "update t set v = looked_up(v) where looked_up(id) > 6").trusting(&["looked_up"]),
        case("trusted_by_its_schema_h6", UNSURE, "delete from t where public.looked_up(id) = 9").trusting(&["public.looked_up"]),
        case("writing_function_h6", UNSURE, "update t set v = noted(v)").refused(Code::SideEffects),
        case("stable_function_is_frozen_h1", UNSURE, "update t set v = steady(v) where steady(id) > 3").frozen(),
        case(
            "trigger_that_drops_rows_h16",
            "create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 9) i;
             create function skip() returns trigger language plpgsql as $$ begin if old.id % 3 = 0 then return null; end if; return new; end $$;
             create trigger skip before update on t for each row execute function skip();",
            "update t set v = v + 10 where v < 20",
        )
        .counting_vaguely(),
    ]
}

#[test]
fn jobs_with_parameters_modes_and_values_of_the_moment_are_equal() {
    try_all("job", &[params(), modes(), unsure()].concat());
}
