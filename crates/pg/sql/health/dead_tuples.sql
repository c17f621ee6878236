-- Share of dead rows in table $1 and its partitions; none while there are fewer than 10,000.
-- Lock:  none (plain reads of statistics).
-- Index: none.
select case when sum(s.n_dead_tup) >= 10000
            then sum(s.n_dead_tup) / (sum(s.n_dead_tup) + sum(s.n_live_tup)) else 0 end::float8::text,
       format('%s dead rows', coalesce(sum(s.n_dead_tup), 0)), null::text, null::text
  from pg_catalog.pg_stat_all_tables s
 where s.relid = $1::oid
    or s.relid in (select t.relid from pg_catalog.pg_partition_tree($1::oid::regclass) t)
