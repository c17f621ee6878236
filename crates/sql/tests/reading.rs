//! What a statement says, and what is refused.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use pgmend_core::refusal::{Code, Refusal};
use pgmend_sql::{ColumnsRead, FunctionUse, ParamDecl, Place, Statement};

fn param(name: &str, type_sql: &str) -> ParamDecl {
    ParamDecl { name: name.to_owned(), type_sql: type_sql.to_owned() }
}

fn read(text: &str) -> Statement {
    Statement::parse(text, &[]).unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
}

fn refuse(text: &str, params: &[ParamDecl]) -> Refusal {
    Statement::parse(text, params).err().unwrap_or_else(|| panic!("{text} is accepted"))
}

fn reads(text: &str) -> Vec<String> {
    let name = |(schema, name): (Option<String>, String)| schema.map_or(name.clone(), |s| format!("{s}.{name}"));
    read(text).reads().into_iter().map(name).collect()
}

#[test]
fn parameters_are_found_by_token_and_cast_to_their_type() {
    let params = [param("since", "timestamptz"), param("n", "int")];
    let text =
        "update t set a = ':since', b = $$ :n $$ /* :x */, c[:n] = d[1:n] -- :y\n where at > :since and x::int = :n";
    let canonical = Statement::parse(text, &params).map(|s| s.canonical());
    assert_eq!(
        canonical.as_deref(),
        Ok(
            "UPDATE t SET a = ':since', b = ' :n ', c[$2::int] = d[1:n] WHERE at > $1::timestamptz AND x::int = $2::int"
        )
    );
}

#[test]
fn wrong_parameters_are_refused_with_the_way_out() {
    let undeclared = refuse("update t set a = :b", &[param("c", "int")]);
    assert_eq!((undeclared.code, undeclared.position), (Code::Parameter, Some(17)));
    assert_eq!(undeclared.message, "parameter :b is not declared; declared are c");
    assert_eq!(undeclared.help, "declare it under [params] or pass --param b=value");
    assert_eq!(refuse("update t set a = 1", &[param("c", "int")]).code, Code::Parameter);
    assert_eq!(refuse("update t set a = :c", &[param("c", "int; drop table x")]).code, Code::Parameter);
    assert_eq!(refuse("update t set a = :c", &[param("c", "int) , (select 1")]).code, Code::Parameter);
    let bare = refuse("update t set a = $1", &[]);
    assert_eq!((bare.code, bare.position), (Code::BareParameter, Some(17)));
}

#[test]
fn anything_but_one_change_is_refused_by_name() {
    for text in ["", "  -- nothing\n", ";;"] {
        assert_eq!(refuse(text, &[]).code, Code::Empty, "{text}");
    }
    assert_eq!(refuse("update t set a = 1; delete from t", &[]).code, Code::SeveralStatements);
    assert!(Statement::parse("update t set a = 1; -- done", &[]).is_ok());
    for (text, name) in [
        ("select 1", "SELECT"),
        ("with u as (select 1) select * from u", "SELECT"),
        ("table t", "SELECT"),
        ("merge into t using u on true when matched then delete", "MERGE"),
        ("truncate t", "TRUNCATE"),
        ("copy t from stdin", "COPY"),
        ("do $$ begin end $$", "DO"),
        ("create table t (a int)", "CREATE TABLE"),
        ("begin", "BEGIN"),
        ("set x = 1", "SET"),
        ("explain update t set a = 1", "EXPLAIN"),
        ("vacuum t", "VACUUM"),
    ] {
        let refusal = refuse(text, &[]);
        assert_eq!(refusal.code, Code::NotAChange);
        assert_eq!(refusal.message, format!("this is {name}, not an UPDATE, DELETE or INSERT"));
    }
}

#[test]
fn syntax_errors_point_into_the_users_text() {
    let params = [param("a_long_name", "int")];
    let text = "update t set a = :a_long_name whre b = 'whre'";
    let refusal = refuse(text, &params);
    assert_eq!(refusal.message, "syntax error at or near \"whre\"");
    assert_eq!(refusal.position, text.find("whre"));
    let text = "update t set é = 1 where";
    assert_eq!((refuse(text, &[]).code, refuse(text, &[]).position), (Code::Syntax, Some(text.len())));
    assert_eq!(refuse("update t set a = 'open", &[]).code, Code::Syntax);
    assert_eq!(refuse("update t set a = '\0'", &[]).code, Code::Syntax);
}

#[test]
fn cursors_and_writing_ctes_are_refused() {
    assert_eq!(refuse("delete from t where current of c", &[]).code, Code::CurrentOf);
    assert_eq!(refuse("with d as (delete from u returning *) update t set a = d.a from d", &[]).code, Code::WritingCte);
    assert_eq!(
        refuse("insert into t with d as (insert into u values (1) returning *) select * from d", &[]).code,
        Code::WritingCte
    );
}

#[test]
fn relations_are_resolved_by_the_scope_of_each_with() {
    assert_eq!(reads("update t set a = 1"), [""; 0]);
    assert_eq!(reads("update t set a = 1 where id in (select id from t)"), ["t"]);
    // The inner t is the table, the outer one the CTE.
    assert_eq!(reads("with t as (select * from t) update x set a = 1 from t"), ["t"]);
    assert_eq!(reads("with u as (select 1) update t set a = 1 from u"), [""; 0]);
    assert_eq!(reads("with u as (select * from v), v as (select 1) delete from t using u, v"), ["v"]);
    assert_eq!(reads("with recursive u as (select 1 union all select * from u) delete from t using u"), [""; 0]);
    assert_eq!(reads("with u as (select 1) delete from t using s.u where exists (select from \"U\")"), ["U", "s.u"]);
    assert_eq!(
        reads("delete from t where id in (with u as (select 1) select * from u) or exists (select from u)"),
        ["u"]
    );
    assert_eq!(
        reads(
            "insert into t select * from a join b using (x), lateral (select * from c) l \
             where x = any (array(select y from d)) union select * from e order by (select 1 from f) \
             on conflict (x) do update set a = (select 1 from g) where exists (select from h)"
        ),
        ["a", "b", "c", "d", "e", "f", "g", "h"]
    );
    assert_eq!(
        reads(
            "update t set a = case when b then (select 1 from c) else coalesce((select 2 from d), 3) end, \
             (e, f) = (select 1, 2 from g), h = row((select 1 from i), 2), \
             j = sum(k) filter (where exists (select from l)) over (partition by (select 1 from m)), \
             n = (array[(select 1 from o)])[(select 1 from p)], q = (select r from s tablesample system (1) for update)"
        ),
        ["c", "d", "g", "i", "l", "m", "o", "p", "s"]
    );
}

#[test]
fn functions_are_found_with_their_place_and_the_clock_is_not_one() {
    let statement = read(
        "update t set a = random(), b = now(), c = pg_catalog.lower(d) from f(clock_timestamp()) \
         where e < current_timestamp(3) and public.now() > g and age(h) > i",
    );
    let found: Vec<(Place, String)> = statement
        .functions()
        .into_iter()
        .map(|FunctionUse { schema, name, place }| (place, schema.map_or(name.clone(), |s| format!("{s}.{name}"))))
        .collect();
    for expected in [
        (Place::Set, "random"),
        (Place::Set, "pg_catalog.lower"),
        (Place::Where, "f"),
        (Place::Where, "clock_timestamp"),
        (Place::Where, "public.now"),
        (Place::Where, "age"),
    ] {
        assert!(found.contains(&(expected.0, expected.1.to_owned())), "{expected:?} in {found:?}");
    }
    assert_eq!(found.len(), 6);
    assert!(statement.uses_clock());
    let insert = read("insert into t select f() on conflict do nothing");
    assert_eq!(insert.functions()[0].place, Place::Source);
    assert!(!insert.uses_clock());
}

#[test]
fn a_clock_that_hides_in_an_untyped_literal_is_suspected() {
    assert!(read("delete from t where at < 'today 12:00'").may_hide_clock());
    assert!(!read("delete from t where at < 'now'::timestamptz").may_hide_clock());
    assert!(!read("delete from t where note = 'now or never' or note = 'now'::text").may_hide_clock());
    assert!(read("delete from t where at < 'today 12:00'::timestamp").may_hide_clock());
    // In SET it is bound, if the column is a date or a time.
    assert!(!read("update t set at = 'now', note = 'today'").may_hide_clock());
    assert!(read("update t set at = 'today 12:00'").may_hide_clock());
}

#[test]
fn columns_stars_and_whole_rows() {
    let some = |names: &[&str]| ColumnsRead::Some(names.iter().map(|n| (*n).to_owned()).collect());
    assert_eq!(read("update t set a = b + t.c where d = 1").columns_read(), some(&["b", "c", "d", "t"]));
    assert_eq!(read("update t x set a = f(x)").columns_read(), ColumnsRead::All);
    assert_eq!(read("update t set a = t.*::text").columns_read(), ColumnsRead::All);
    assert_eq!(read("update t set a = (select count(*) from u)").columns_read(), some(&[]));
    assert_eq!(read("update t set a[i] = 1, b.c = 2, a[2] = 3").assigned(), ["a", "b"]);
    assert_eq!(read("insert into t (a, b) values (1, 2)").assigned(), ["a", "b"]);
}

#[test]
fn gathering_parts_are_told_from_those_of_each_row() {
    assert!(!read("update t set a = (select sum(x) from u where u.id = t.id)").aggregates_elsewhere());
    assert!(!read("delete from t where id in (select id from u) or id in (values (1))").aggregates_elsewhere());
    assert!(!read("delete from t using (values (1)) v (id) where v.id = t.id").aggregates_elsewhere());
    for text in [
        "update t set a = (select max(x) from u)",
        "delete from t where id in (select id from t order by id limit 3)",
        "delete from t using (select id from u) v where v.id = t.id",
        "with u as (select 1) delete from t using u",
        "delete from t where id in (select 1 union select 2)",
        "delete from t where id in (select distinct id from u)",
        "delete from t where id in (select f(x) over () from u)",
    ] {
        assert!(read(text).aggregates_elsewhere(), "{text}");
    }
}

#[test]
fn conflict_clauses_are_described() {
    let conflict = read(
        "insert into t values (1) on conflict (a, lower(b)) where c do update set d = 1, e = excluded.e returning *",
    );
    assert!(conflict.had_returning());
    let clause = conflict.on_conflict().expect("there is one");
    assert!(clause.update && clause.complex);
    assert_eq!((clause.columns, clause.set_columns), (vec!["a".to_owned()], vec!["d".to_owned(), "e".to_owned()]));
    let named =
        read("insert into t values (1) on conflict on constraint k do nothing").on_conflict().expect("there is one");
    assert_eq!((named.update, named.complex, named.constraint.as_deref()), (false, false, Some("k")));
    assert_eq!(read("insert into t select a, b.*, 1 from b").source_width(), None);
    assert_eq!(read("insert into t select a, 1 from b union select * from c").source_width(), Some(2));
    assert!(read("delete from t where id = (select id from t for update skip locked)").locks_rows());
}

#[test]
fn the_grammar_survives_the_way_to_text_and_back() {
    for text in [
        "update only t as x set a = -(-1), b = - - 2, c = (1 + 2) * 3 - (4 - 5), d = not (not e), f = (g).h[1:2].i",
        "update t set a = b at time zone 'utc', c = interval '1 day' * 2, d = e collate \"C\", f = extract(year from g)",
        "update t set a = substring(b from 2 for 3), c = trim(both 'x' from d), e = overlay(f placing 'x' from 1), g = position('a' in h)",
        "update t set a = case b when 1 then 2 else 3 end, c = nullif(d, ''), e = greatest(1, 2), f = xmlelement(name g, h)",
        "update t set a = b is distinct from c, d = e between 1 and 2 and f, g = h not in (1, 2), i = j is not true",
        "update t set a = array[[1,2],[3,4]], b = '{}'::int[][], c = cast(d as numeric(10,2)[]), e = row(f, (g, h))",
        "update t set a = b operator(pg_catalog.+) c, d = e @> '{}' and f ? 'g' or h ->> 'i' = 'j', k = ~ l, m = ! n",
        "update t set a = E'\\n''\\\\', b = U&'\\0041', c = B'101', d = X'1F', e = 1e10, f = .5, g = 99999999999999999999",
        "update t set \"A b\" = \"select\", \"c\"\"d\" = u.\"e\" from \"S\".\"u\" as u(\"e\", \"user\")",
        "update t set a = (select b from c order by d desc nulls last, e using < limit 1 offset 2)",
        "update t set a = any_value(b) within group (order by c), d = f(variadic e), g = h(i => 1, j := 2)",
        "delete from t using a cross join b natural join c left join d on true full join (e join f using (g) as h) on i",
        "delete from t using lateral (select 1) x, rows from (f(1), g(2)) with ordinality as y(a, b), json_to_recordset('[]') as z(a int, b text)",
        "delete from t where (a, b) in (select 1, 2) and c = all (array[1]) and d like 'x' escape '!' and e similar to 'f' and g ilike any (h)",
        "delete from t where exists (select from u group by grouping sets ((a), rollup (b, c), ()) having count(*) > 1 window w as (partition by a rows between 1 preceding and current row))",
        "with recursive a(b) as materialized (select 1 union all select b from a) search depth first by b set c cycle b set d using e delete from t using a",
        "insert into t (a) select xmltable.b from xmltable('/r' passing c columns b int path 'd' default 1)",
        "insert into t select json_query(a, '$.b' returning text with wrapper), json_object('a': 1 absent on null), json_arrayagg(c order by c), d is json",
        "insert into t select * from json_table('[]', '$[*]' columns (a int path '$.a', nested '$.b' columns (c text)))",
        "insert into t as u (a, b) overriding system value (select 1, 2 except all select 3, 4) on conflict (a collate \"C\" text_ops) where b > 0 do update set (a, b) = (excluded.a, default) where u.a > 1",
        "insert into t values (current_user, session_user, current_date, localtimestamp(2))",
        "update t set a = (b).c, d = (e.f).g, h = (select i from j)[1], k = (l || m)::text || n::int::text",
        "update t set a = a || b || c, d = (e and f) or (g and not h), i = (j or k) and l, m = (n = o) = p",
    ] {
        read(text);
    }
}

#[test]
fn long_expressions_fit_and_endless_ones_are_refused() {
    let chain = |length: usize| format!("update t set a = {}", vec!["a"; length].join(" || "));
    read(&chain(900));
    assert_eq!(refuse(&chain(5_000), &[]).message, "the statement nests too deep");
    assert_eq!(refuse(&chain(15_000), &[]).message, "the statement nests too deep");
    assert_eq!(refuse(&chain(300_000), &[]).code, Code::Syntax);
    let nested = format!("delete from t where {}true{}", "not (".repeat(50_000), ")".repeat(50_000));
    assert_eq!(refuse(&nested, &[]).code, Code::Syntax);
    let list: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    read(&format!("delete from t where id in ({})", list.join(", ")));
}
