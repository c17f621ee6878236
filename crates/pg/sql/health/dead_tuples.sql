-- Share of dead rows in table $1 and its partitions; none while there are fewer than 10,000. The statistics forget the
-- live rows in a crash, a failover or a copied database, so that the catalog's number counts where it is larger.
-- Lock:  none (plain reads of statistics and catalog).
-- Index: pg_class_oid_index.
select case when t.dead >= 10000 then t.dead / (t.dead + t.live) else 0 end::float8::text,
       format('%s dead rows', coalesce(t.dead, 0)), null::text, null::text
  from (select sum(pg_catalog.pg_stat_get_dead_tuples(c.oid)) as dead,
               sum(greatest(pg_catalog.pg_stat_get_live_tuples(c.oid), c.reltuples::bigint)) as live
          from pg_catalog.pg_class c
         where c.relkind in ('r', 'm', 'p')
           and (c.oid = $1::oid
                or c.oid in (select p.relid from pg_catalog.pg_partition_tree($1::oid::regclass) p))) t
