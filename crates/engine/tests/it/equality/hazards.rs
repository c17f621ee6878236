//! The hazards of `hazards.md` that no form, key or value of the other tables shows: reads in hiding, triggers,
//! constraints, row security, settings. What needs a second session, a crash or a lost connection (H3, H12 to H15,
//! H24, H25, H27) is in the crash suite and in the sweep's tests.

use pgmend::Code;

use super::case::{Case, case};
use super::trial::try_all;

/// A setup and more of it. Setups are few, and live as long as the test.
fn and(setup: &str, more: &str) -> &'static str {
    format!("{setup} {more}").leak()
}

const TREE: &str = "create table u (id int primary key, parent int, grp int, pos int, done bool default false, is_primary bool default false, slug text, amount numeric);
    insert into u (id, parent, grp, pos, slug, amount) select i, nullif(i / 2, 0), i % 3, i, case when i % 4 = 0 then null else 's' || i end, i * 10 from generate_series(1, 12) i;
    create function grp_total(int) returns numeric language sql stable as 'select sum(amount) from u where grp = $1';
    create view busy as select grp, count(*) n from u where not done group by grp;";

fn reads_in_hiding() -> Vec<Case> {
    vec![
        case("first_three_h1", TREE, "UPDATE u SET done = true WHERE id IN (SELECT id FROM u WHERE NOT done ORDER BY id LIMIT 3)").frozen(),
        case("group_without_a_primary_h1", TREE, "UPDATE u SET is_primary = true WHERE NOT EXISTS (SELECT 1 FROM u o WHERE o.grp=u.grp AND o.is_primary)").frozen(),
        case("orphans_h1", TREE, "update u set done = true where parent is not null and not exists (select from u p where p.id = u.parent and not p.done)").frozen(),
        case("parent_values_h1", TREE, "update u set amount = p.amount + u.amount from u p where p.id = u.parent").frozen(),
        case("renumbering_h1", TREE, "update u set pos = r.n from (select id, row_number() over (partition by grp order by pos desc) n from u) r where r.id = u.id").frozen(),
        case("above_the_average_h1", TREE, "update u set amount = 0 where amount > (select avg(amount) from u)").frozen(),
        case("recursion_over_the_changed_column_h1", TREE, "with recursive d as (select id from u where id = 2 union all select u.id from u join d on u.parent = d.id) update u set parent = null, done = true where id in (select id from d)").frozen(),
        case("stable_function_reads_it_h1", TREE, "update u set amount = grp_total(grp)").frozen(),
        case("view_reads_it_h1", TREE, "update u set done = true where grp in (select grp from busy where n > 3)").frozen(),
        case("leaves_h1", TREE, "update u set slug = 'leaf' where id not in (select parent from u where parent is not null)").frozen(),
        case("max_plus_one_h1", TREE, "update u set pos = (select max(pos) + 1 from u) where done is false and id > 8").frozen(),
        case("with_over_the_target_h1", TREE, "with top as (select grp, max(amount) m from u group by grp) update u set is_primary = (u.amount = top.m) from top where top.grp = u.grp").frozen(),
        case("null_limit_h2", TREE, "UPDATE u SET slug = 'new' WHERE id = ANY(ARRAY(SELECT id FROM u WHERE slug IS NULL ORDER BY id LIMIT 2))").frozen(),
        case("offset_h2", TREE, "delete from u where id in (select id from u order by amount desc offset 9)").frozen(),
        case("fetch_first_with_ties_h2", TREE, "delete from u where id in (select id from u order by grp fetch first 2 rows with ties)").frozen(),
        case("values_of_a_window_h1", TREE, "update u set amount = w.s from (select id, sum(amount) over (order by id) s, lag(slug) over w2 l, ntile(3) over w2 from u window w2 as (order by pos)) w where w.id = u.id").frozen(),
        case("distinct_on_h2", TREE, "delete from u where id not in (select distinct on (grp) id from u order by grp, amount desc)").frozen(),
        case(
            "operator_that_reads_it_h1",
            "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 6) i;
             create function above(int, int) returns bool language sql stable as 'select $1 > (select avg(v) from t) + $2';
             create operator ?> (leftarg = int, rightarg = int, function = above);",
            "update t set v = v + 10 where v ?> 0",
        )
        .frozen(),
        case(
            "table_fed_by_its_trigger_h1",
            "create table t (id int primary key, v int); create table log (id int, n int default 1); insert into t select i, i from generate_series(1, 6) i;
             create function feed() returns trigger language plpgsql as $$ begin insert into log values (new.id); return null; end $$;
             create trigger feed after update on t for each row execute function feed();",
            "update t set v = v + 100 where (select count(*) from log) < 2",
        )
        .undoing_only(&["t"]),
    ]
}

fn keys_that_move() -> Vec<Case> {
    vec![
        case("key_shifted_h5", TREE, "UPDATE u SET id = id + 1000").frozen(),
        case("key_negated_h5", TREE, "update u set id = -id, pos = pos + 1 where id > 4").frozen(),
        case("key_moves_onto_others_h5", TREE, "update u set id = id + 1").refused(Code::KeyMoves),
        case("key_moves_onto_one_that_stays_h5", TREE, "update u set id = 3 where id = 4").refused(Code::KeyMoves),
        case("key_set_to_itself_h5", TREE, "update u set id = id, pos = 0 where grp = 1"),
        case(
            "key_cascades_on_update_h5",
            "create table p (id int primary key, v int); create table q (id int primary key, p int references p on update cascade); insert into p select i, i from generate_series(1, 5) i; insert into q select i, i % 5 + 1 from generate_series(1, 8) i",
            "update p set id = id + 100",
        )
        .undoing_only(&["p"]),
        case(
            "key_rewritten_by_a_trigger_h5",
            "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 6) i;
             create function shift() returns trigger language plpgsql as $$ begin new.id := old.id + 1000; return new; end $$;
             create trigger shift before update on t for each row execute function shift();",
            "update t set v = v + 1",
        )
        .frozen()
        .undone_in_part(0),
        case("composite_key_moves_in_part_h5", "create table k (a int, b int, v int, primary key (a, b)); insert into k select i % 2, i, i from generate_series(1, 8) i", "update k set a = a + 10, v = 0 where b > 3").frozen(),
        case("unique_values_swapped_h22", "create table t (id int primary key, pos int unique deferrable); insert into t select i, i from generate_series(1, 6) i", "update t set pos = 7 - pos").frozen(),
        case("unique_values_shifted_deferred_h22", "create table t (id int primary key, pos int unique deferrable initially deferred); insert into t select i, i from generate_series(1, 6) i", "update t set pos = pos + 1"),
        case("unique_values_shifted_downwards_h22", "create table t (id int primary key, pos int unique); insert into t select i, i * 10 from generate_series(1, 6) i", "update t set pos = pos - 5"),
        case("unique_values_that_would_meet_h22", "create table t (id int primary key, pos int unique); insert into t select i, i from generate_series(1, 6) i", "update t set pos = 1").fails(),
        case("exclusion_shifted_h22", "create table r (id int primary key, during int4range, exclude using gist (during with &&) deferrable); insert into r select i, int4range(i * 10, i * 10 + 10) from generate_series(1, 6) i", "update r set during = int4range(lower(during) + 5, upper(during) + 5)").frozen(),
        case("self_reference_renamed_h22", "create table n (id text primary key, up text references n); insert into n values ('a', null), ('b', 'a'), ('c', 'b'), ('d', 'b')", "update n set id = 'x' || id, up = 'x' || up").frozen(),
        case("self_reference_in_an_insert_h22", "create table n (id int primary key, up int references n); insert into n values (1, null)", "insert into n values (5, 4), (4, 3), (3, 1), (2, 5)"),
        case("self_reference_set_h22", "create table n (id int primary key, up int references n); insert into n select i, nullif(i - 1, 0) from generate_series(1, 6) i", "update n set up = id"),
    ]
}

const LEDGER: &str = "create table entry (id int primary key, txn int, amount int); insert into entry select i, (i + 1) / 2, case when i % 2 = 0 then -5 else 5 end from generate_series(1, 8) i;";

fn triggers() -> Vec<Case> {
    vec![
        case(
            "balanced_by_a_constraint_trigger_h22",
            and(LEDGER, "create function balanced() returns trigger language plpgsql as $$ begin
                if (select sum(amount) from entry where txn = new.txn) <> 0 then raise 'unbalanced'; end if; return null; end $$;
             create constraint trigger balanced after update on entry deferrable initially deferred for each row execute function balanced();"),
            "update entry set amount = amount * 2",
        ),
        case(
            "statement_trigger_h9",
            and(LEDGER, "create table log (n int); create function counted() returns trigger language plpgsql as $$ begin insert into log select count(*) from moved; return null; end $$;
             create trigger counted after update on entry referencing new table as moved for each statement execute function counted();"),
            "update entry set amount = 0 where id > 2",
        )
        .undoing_only(&["entry"]),
        case(
            "guard_against_many_rows_h9",
            and(LEDGER, "create function few() returns trigger language plpgsql as $$ begin if (select count(*) from gone) > 4 then raise 'too many'; end if; return null; end $$;
             create trigger few after delete on entry referencing old table as gone for each statement execute function few();"),
            "delete from entry where id > 1",
        )
        .fails(),
        case(
            "audit_trigger_h11",
            and(LEDGER, "create table audit (id int, old int, new int); create function audit() returns trigger language plpgsql as $$ begin insert into audit values (old.id, old.amount, new.amount); return null; end $$;
             create trigger audit after update on entry for each row execute function audit();"),
            "update entry set amount = amount + 1 where id > 3",
        )
        .undoing_only(&["entry"]),
        case(
            "before_trigger_decides_h11",
            and(LEDGER, "create function clamp() returns trigger language plpgsql as $$ begin new.amount := least(new.amount, 6); if new.id = 3 then new.txn := 99; end if; return new; end $$;
             create trigger clamp before update on entry for each row execute function clamp();"),
            "update entry set amount = amount + 2",
        )
        .undone_in_part(0),
        case(
            "conditional_trigger",
            and(LEDGER, "create function never() returns trigger language plpgsql as $$ begin raise 'never'; end $$;
             create trigger never before update of txn on entry for each row execute function never();
             create trigger never_too before update on entry for each row when (new.amount > 1000) execute function never();"),
            "update entry set amount = -amount",
        ),
        case(
            "disabled_trigger_h26",
            and(LEDGER, "create function never() returns trigger language plpgsql as $$ begin raise 'never'; end $$;
             create trigger never before update on entry for each row execute function never(); alter table entry disable trigger never;"),
            "update entry set amount = -amount",
        ),
        case(
            "trigger_raises_for_one_row_h23",
            and(LEDGER, "create function picky() returns trigger language plpgsql as $$ begin if old.id = 5 then raise 'not five'; end if; return new; end $$;
             create trigger picky before update on entry for each row execute function picky();"),
            "update entry set amount = 1",
        )
        .fails(),
        case(
            "trigger_sums_into_another_table_h11",
            and(LEDGER, "create table total (txn int primary key, s int); insert into total select txn, sum(amount) from entry group by 1;
             create function summed() returns trigger language plpgsql as $$ begin update total set s = s + new.amount - old.amount where txn = new.txn; return null; end $$;
             create trigger summed after update on entry for each row execute function summed();"),
            "update entry set amount = amount + id where txn < 4",
        )
        .undoing_only(&["entry"]),
        case(
            "trigger_writes_the_target_through_a_function_h1",
            and(LEDGER, "create function emptied(int) returns void language sql as 'update entry set txn = null where id = $1 + 1';
             create function passed_on() returns trigger language plpgsql as $$ begin if pg_trigger_depth() = 1 then perform emptied(new.id); end if; return null; end $$;
             create trigger passed_on after update on entry for each row execute function passed_on();"),
            "update entry set amount = amount + 1 where txn is not null",
        )
        .frozen()
        .undone_in_part(0),
        case(
            "trigger_writes_the_table_that_fired_it_h1",
            and(LEDGER, "create function passed_on() returns trigger language plpgsql as $$ begin if pg_trigger_depth() = 1 then execute 'update ' || TG_RELID::regclass || ' set txn = null where id = $1' using new.id + 1; end if; return null; end $$;
             create trigger passed_on after update on entry for each row execute function passed_on();"),
            "update entry set amount = amount + 1 where txn is not null",
        )
        .frozen()
        .undone_in_part(0),
        case(
            "trigger_of_a_trigger_feeds_what_is_read_h1",
            and(LEDGER, "create table seen (id int); create table noted (id int);
             create function note() returns trigger language plpgsql as $$ begin insert into noted values (new.id); return null; end $$;
             create trigger note after update on entry for each row execute function note();
             create function see() returns trigger language plpgsql as $$ begin insert into seen values (new.id); return null; end $$;
             create trigger see after insert on noted for each row execute function see();"),
            "update entry set amount = amount + 1 where not exists (select from seen where seen.id = entry.id - 1)",
        )
        .frozen()
        .undoing_only(&["entry"]),
        case(
            "cascade_fires_a_trigger_that_writes_the_target_h1",
            "create table a (id int primary key, n int); create table b (id int primary key, a_id int references a on delete cascade);
             insert into a select i, 0 from generate_series(1, 8) i; insert into b select i, i from generate_series(1, 8) i;
             create function counted() returns trigger language plpgsql as $$ begin update a set n = n + 1 where id = old.a_id + 1; return null; end $$;
             create trigger counted after delete on b for each row execute function counted();",
            "delete from a where n = 0 and id < 6",
        )
        .frozen()
        .undone_in_part(0),
        case(
            "trigger_only_reads_what_the_statement_reads",
            and(LEDGER, "create table rate (txn int primary key, r int); insert into rate select i, i from generate_series(1, 4) i;
             create function checked() returns trigger language plpgsql as $$ begin if (select r from rate where txn = new.txn) > 99 then raise 'no'; end if; return new; end $$;
             create trigger checked before update on entry for each row execute function checked();"),
            "update entry set amount = amount * rate.r from rate where rate.txn = entry.txn",
        )
        .streamed(),
        case(
            "touched_so_that_triggers_fire",
            and(LEDGER, "create table noted (id int); create function note() returns trigger language plpgsql as $$ begin insert into noted values (new.id); return null; end $$;
             create trigger note after update on entry for each row execute function note();"),
            "update entry set amount = amount where txn > 1",
        )
        .undoing_only(&["entry"]),
        case(
            "audit_by_the_name_of_the_table_h11",
            and(LEDGER, "create schema audit; create table audit.entry_log (like entry);
             create function logged() returns trigger language plpgsql as $$ begin if TG_OP = 'UPDATE' then execute format('insert into audit.%I select ($1).*', TG_TABLE_NAME || '_log') using old; end if; return null; end $$;
             create trigger logged after update on entry for each row execute function logged();"),
            "update entry set amount = amount * 2",
        )
        .streamed()
        .undoing_only(&["entry"]),
        case(
            "insert_trigger_fills_in",
            and(LEDGER, "create function filled() returns trigger language plpgsql as $$ begin new.amount := coalesce(new.amount, new.id * 2); return new; end $$;
             create trigger filled before insert on entry for each row execute function filled();"),
            "insert into entry select id + 50, txn, nullif(amount, 5) from entry",
        ),
        case(
            "insert_trigger_drops_rows_h16",
            and(LEDGER, "create function dropped() returns trigger language plpgsql as $$ begin if new.id % 2 = 0 then return null; end if; return new; end $$;
             create trigger dropped before insert on entry for each row execute function dropped();"),
            "insert into entry select id + 50, txn, amount from entry",
        )
        .counting_vaguely(),
        case(
            "delete_trigger_keeps_rows_h16",
            and(LEDGER, "create function kept() returns trigger language plpgsql as $$ begin if old.id % 3 = 0 then return null; end if; return old; end $$;
             create trigger kept before delete on entry for each row execute function kept();"),
            "delete from entry where amount > 0",
        )
        .counting_vaguely(),
    ]
}

const LIMITED: &str = "do $$ begin create role equality_limited; exception when duplicate_object then null; end $$;
    create table t (id int primary key, owner text, v int); insert into t select i, case when i % 2 = 0 then 'equality_limited' else 'other' end, i from generate_series(1, 8) i;
    grant usage on schema public to equality_limited; grant select, insert, update, delete on t to equality_limited;";

const AS_LIMITED: &[(&str, &str)] = &[("role", "equality_limited")];

fn surroundings() -> Vec<Case> {
    vec![
        case("row_security_h10", and(LIMITED, "alter table t enable row level security; create policy own on t using (owner = current_user);"), "update t set v = 0").with(AS_LIMITED).refused(Code::RowSecurity),
        case("row_security_bypassed_h10", and(LIMITED, "alter table t enable row level security; create policy own on t using (owner = current_user);"), "update t set v = 0"),
        case("limited_role_h10", LIMITED, "update t set owner = current_user, v = v + 1 where v > 2").with(AS_LIMITED),
        case("limited_role_deletes_h10", LIMITED, "delete from t where owner = current_user").with(AS_LIMITED),
        case("limited_role_may_not_h10", and(LIMITED, "revoke update on t from equality_limited;"), "update t set v = 0").with(AS_LIMITED).refused(Code::Privilege),
        case("limited_columns_h10", and(LIMITED, "revoke update on t from equality_limited; grant update (v) on t to equality_limited;"), "update t set owner = 'x'").with(AS_LIMITED).refused(Code::Privilege),
        case("replica_role_h26", LIMITED, "update t set v = 0").with(&[("session_replication_role", "replica")]).refused(Code::ReplicationRole),
        case("published_h31", "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i; drop publication if exists changes; create publication changes for table t", "update t set v = v + 1"),
        case("published_without_identity_h31", "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i; alter table t replica identity nothing; drop publication if exists changes; create publication changes for table t", "update t set v = v + 1").fails(),
        case("publication_dropped_h31", "drop publication if exists changes; create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i", "delete from t where v > 3"),
        case("rule_on_another_command_h20", "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i; create rule kept as on delete to t do instead nothing", "update t set v = v + 1"),
        case("rule_out_of_force_h20", "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i; create rule kept as on update to t do instead nothing; alter table t disable rule kept", "update t set v = v + 1"),
        case("rule_on_the_way_back_h20", "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 5) i; create rule kept as on insert to t do instead nothing", "delete from t where v > 2").refused(Code::Rules),
        case("sparse_h28", "create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 3000) i; update t set v = 1 where id in (17, 1500, 2999)", "update t set v = 2 where v = 1"),
        case("indexed_columns_and_hot_h29", "create table t (id int primary key, v int, w int) with (fillfactor = 50); create index on t (v); create index on t ((w + v)) where w > 2; insert into t select i, i, i from generate_series(1, 9) i", "update t set v = v + w, w = w - 1"),
        case("json_object_h7", "create table t (id int primary key, b text, j json); insert into t select i, 'b' || i from generate_series(1, 4) i", "update t set j = json_object('a':b, 'c': id, 'd':b)").since(16),
        case("json_arrayagg_and_object_param_h7", "create table t (id int primary key, b text, j json); insert into t select i, 'b' || i from generate_series(1, 4) i", "update t set j = json_object('a': :b, 'id':id, 'both': (select json_arrayagg(x order by x) from unnest(array[t.b, :b]) x))").since(16).param("b", "text", "x"),
        // Without a space it is a cast to a type called b, and the parameter is not used.
        case("json_object_with_a_cast_h7", "create table t (id int primary key, b text, j json); insert into t select i, 'b' || i from generate_series(1, 4) i", "update t set j = json_object('a'::b, 'id':id)").since(16).param("b", "text", "x").refused(Code::Parameter),
        case("old_collation_h4", "create collation old (provider = icu, locale = 'en'); create table k (id text collate old primary key, v int); insert into k values ('b', 1), ('a', 2); update pg_collation set collversion = '0.1' where collname = 'old'", "update k set v = v + 1").refused(Code::CollationDrift),
        case("rounded_keys_h4", "create table k (id float8 primary key, v int); insert into k values (0.1, 1), (0.30000000000000004, 2), (0.3, 3)", "update k set v = v + 1").with(&[("extra_float_digits", "0")]).refused(Code::NoKey),
        case("rounded_values_h11", "create table k (id int primary key, f float8, t text); insert into k values (1, 0.30000000000000004, null), (2, 1e22, null)", "update k set t = f::text").with(&[("extra_float_digits", "-3")]),
        case("writing_cte_in_a_delete_h21", TREE, "with x as (update u set done = true returning id) delete from u where id in (select id from x)").refused(Code::WritingCte),
        case("writing_cte_in_an_insert_h21", "create table p (id int primary key); create table d (id int primary key); insert into p values (1), (2)", "with x as (delete from p returning id) insert into d select id from x").refused(Code::WritingCte),
        case("not_valid_foreign_key_h22", "create table p (id int primary key); create table q (id int primary key, p int); insert into p values (1), (2); insert into q values (1, 1), (2, 7), (3, 2), (4, 8); alter table q add foreign key (p) references p not valid", "delete from q where id < 4").undone_in_part(1),
        case("not_valid_check_h22", "create table q (id int primary key, v int); insert into q values (1, 1), (2, -7), (3, 2); alter table q add check (v > 0) not valid", "update q set v = abs(v) + 1").undone_in_part(1),
        case("not_valid_but_right_h22", "create table q (id int primary key, v int); insert into q values (1, 1), (2, 7), (3, 2); alter table q add check (v > 0) not valid", "update q set v = v + 1").undone_in_part(0),
    ]
}

#[test]
fn statements_that_read_what_they_change_or_move_keys_are_handled_or_refused() {
    try_all("hazard", &[reads_in_hiding(), keys_that_move()].concat());
}

#[test]
fn triggers_rights_and_settings_are_handled_or_refused() {
    try_all("surroundings", &[triggers(), surroundings()].concat());
}
