//! The forms of DELETE, and what deletes take along.

use pgmend::Code;

use super::case::{Case, case};
use super::trial::try_all;

const SHOP: &str = "create table client (id bigint generated always as identity primary key, name text, vip bool,
        label text generated always as ('c:' || coalesce(name, '?')) stored);
    insert into client (name, vip) select nullif('n' || i, 'n4'), i % 2 = 0 from generate_series(1, 8) i;
    create table bought (id int primary key, client_id bigint, total numeric);
    insert into bought select i, i % 5 + 1, i from generate_series(1, 20) i;";

const NODE: &str = "create table node (id int primary key, parent int references node, name text);
    insert into node values (1, null, 'root'), (2, 1, 'a'), (3, 1, 'b'), (4, 2, 'aa'), (5, 4, 'aaa'), (6, null, 'root2'), (7, 6, 'x');";

const CASCADE: &str = "create table a (id int primary key, v text);
    create table b (id int primary key, a_id int references a on delete cascade);
    create table c (id int primary key, b_id int references b on delete set null);
    insert into a select i, 'v' || i from generate_series(1, 6) i;
    insert into b select i, (i - 1) / 2 + 1 from generate_series(1, 12) i;
    insert into c select i, i from generate_series(1, 12) i;";

fn forms() -> Vec<Case> {
    vec![
        case("delete_all", SHOP, "delete from bought").streamed(),
        case("delete_where", SHOP, "delete from client where not vip").streamed(),
        case("delete_alias", SHOP, "delete from client as c where c.name is null or c.id = 7"),
        case("delete_using", SHOP, "delete from bought b using client c where c.id = b.client_id and c.vip").streamed(),
        case("delete_using_several_matches", SHOP, "delete from client c using bought b where c.id = b.client_id"),
        case(
            "delete_using_two",
            SHOP,
            "delete from bought b using client c join generate_series(1, 3) g on g = c.id where c.id = b.client_id",
        ),
        case(
            "delete_using_values",
            SHOP,
            "delete from bought using (values (1), (2), (2), (99)) v(id) where v.id = bought.id",
        ),
        case(
            "delete_exists",
            SHOP,
            "delete from client where not exists (select from bought where client_id = client.id)",
        )
        .streamed(),
        case(
            "delete_cte",
            SHOP,
            "with gone as (select client_id from bought group by 1 having sum(total) > 40) delete from client where id in (select * from gone)",
        ),
        case("delete_returning", SHOP, "delete from bought where id < 4 returning *"),
        case("delete_nothing", SHOP, "delete from bought where false"),
        case("delete_identity_comes_back_h11", SHOP, "delete from client where id in (2, 4, 8)"),
        case("delete_current_of", SHOP, "delete from bought where current of c").refused(Code::CurrentOf),
    ]
}

fn set_dependent() -> Vec<Case> {
    vec![
        case("delete_duplicates_h1", SHOP, "delete from bought a using bought b where a.client_id = b.client_id and a.id > b.id").frozen(),
        case("delete_groups_larger_than_h1", SHOP, "delete from bought b where (select count(*) from bought o where o.client_id = b.client_id and o.total > 3) > 3").frozen(),
        case("delete_first_three_h1_h2", SHOP, "delete from bought where id in (select id from bought order by total desc, id limit 3)").frozen(),
        case("delete_leaves_h1", SHOP, "delete from client where id not in (select client_id from bought)"),
        case("delete_above_average_h1", SHOP, "delete from bought where total > (select avg(total) from bought)").frozen(),
        case("delete_row_number_h1", SHOP, "delete from bought where id in (select id from (select id, row_number() over (partition by client_id order by total desc) r from bought) x where r > 2)").frozen(),
        case("delete_limit_for_update_h2", SHOP, "delete from bought where id in (select id from bought order by id limit 4 for update skip locked)").frozen(),
        case("delete_ctid_dedup_h2", SHOP, "delete from bought where ctid in (select max(ctid) from bought group by client_id)").frozen(),
    ]
}

fn references() -> Vec<Case> {
    vec![
        case("self_reference_all_h22", NODE, "delete from node").frozen(),
        case("self_reference_subtree_h22", NODE, "delete from node where id in (2, 4, 5)"),
        case("self_reference_leaves_h1", NODE, "delete from node n where not exists (select from node c where c.parent = n.id)").frozen(),
        case("self_reference_broken_h22", NODE, "delete from node where id = 1").fails(),
        case("recursive_subtree_h1", NODE, "with recursive t as (select id from node where id = 2 union all select n.id from node n join t on n.parent = t.id) delete from node where id in (select id from t)").frozen(),
        case("cascade_is_not_fully_undoable_h11", CASCADE, "delete from a where id in (1, 3, 5)").undoing_only(&["a"]),
        case("set_null_h11", CASCADE, "delete from b where id % 3 = 0").undoing_only(&["b"]),
        case("reads_what_it_cascades_into", CASCADE, "delete from a where exists (select from b where a_id = a.id and b.id > 6)").frozen().undoing_only(&["a"]),
        case("reads_further_down_the_cascade_h1", CASCADE, "delete from a where (select count(*) from c where b_id is not null) > 7 and id > 1").undoing_only(&["a"]),
        case(
            "self_cascade_h1",
            "create table t (id int primary key, up int references t on delete cascade); insert into t select i, nullif(i / 2, 0) from generate_series(1, 12) i",
            "delete from t where id in (2, 3, 12)",
        )
        .frozen(),
        case(
            "referenced_without_cascade",
            "create table p (id int primary key); create table q (id int primary key, p int references p); insert into p select generate_series(1, 5); insert into q values (1, 3)",
            "delete from p where id <> 3",
        ),
        case(
            "referenced_and_rejected",
            "create table p (id int primary key); create table q (id int primary key, p int references p); insert into p select generate_series(1, 5); insert into q values (1, 3)",
            "delete from p",
        )
        .fails(),
        case(
            "deferred_reference_h22",
            "create table p (id int primary key); create table q (id int primary key, p int references p deferrable initially deferred); insert into p select generate_series(1, 5); insert into q values (1, 3)",
            "delete from p where id > 1",
        )
        .fails(),
        case(
            "cycle_of_tables_h22",
            "create table p (id int primary key, q int); create table q (id int primary key, p int references p); insert into p select i, i from generate_series(1, 5) i; insert into q values (1, 5), (2, null), (3, 4), (4, 4), (5, 5), (9, null); alter table p add foreign key (q) references q on delete set null",
            "delete from p where id < 4",
        ),
    ]
}

#[test]
fn deletes_are_equal() {
    try_all("delete", &[forms(), set_dependent(), references()].concat());
}
