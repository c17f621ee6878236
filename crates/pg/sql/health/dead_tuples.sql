-- Share of dead rows in table $1 and its partitions; none while there are fewer than 10,000. The statistics forget the
-- live rows in a crash, a failover or a copied database, so that the catalog's number counts where it is larger.
-- Lock:  none (plain reads of statistics and catalog).
-- Index: pg_class_oid_index.
select case when sum(s.n_dead_tup) >= 10000
            then sum(s.n_dead_tup) / (sum(s.n_dead_tup) + sum(greatest(s.n_live_tup, c.reltuples::bigint))) else 0 end::float8::text,
       format('%s dead rows', coalesce(sum(s.n_dead_tup), 0)), null::text, null::text
  from pg_catalog.pg_stat_all_tables s
  join pg_catalog.pg_class c on c.oid = s.relid
 where s.relid = $1::oid
    or s.relid in (select t.relid from pg_catalog.pg_partition_tree($1::oid::regclass) t)
