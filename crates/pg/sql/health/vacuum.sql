-- 1 while a vacuum of table $1 or of one of its partitions runs, 2 while one of them is so old that it has to.
-- Lock:  none (plain reads of the progress and lock views; the lock tells the table also to roles without rights).
-- Index: none.
select coalesce(max(case when age(c.relfrozenxid) > current_setting('autovacuum_freeze_max_age')::int
                           or mxid_age(c.relminmxid) > current_setting('autovacuum_multixact_freeze_max_age')::int
                         then 2 else 1 end), 0)::float8::text,
       coalesce(min(format('%s (pid %s)', c.relname, p.pid)), ''), null::text, null::text
  from pg_catalog.pg_stat_progress_vacuum p
  join pg_catalog.pg_locks l
    on l.pid = p.pid and l.locktype = 'relation' and l.mode in ('ShareUpdateExclusiveLock', 'AccessExclusiveLock')
  join pg_catalog.pg_class c on c.oid = l.relation
 where p.datname = current_database()
   and (c.oid = $1::oid or c.oid in (select t.relid from pg_catalog.pg_partition_tree($1::oid::regclass) t))
