-- Sessions of others in this database that wait for a lock that a pgmend holds or wants before them, and those that
-- queue behind them.
-- Lock:  none (plain reads of the server's memory).
-- Index: pg_database_datname_index.
with recursive here as (
    select d.oid from pg_catalog.pg_database d where d.datname = current_database()
), ours as (
    select array(select o.pid
                   from pg_catalog.pg_stat_get_activity(null) o
                  where o.datid = (select oid from here)
                    and o.pid <> pg_backend_pid()
                    and o.application_name in ('pgmend', current_setting('application_name'))) as pids
), waiting as materialized (
    select a.pid, pg_catalog.pg_blocking_pids(a.pid) as blockers
      from pg_catalog.pg_stat_get_activity(null) a
     where a.datid = (select oid from here)
       and a.application_name not in ('pgmend', current_setting('application_name'))
       and a.pid in (select l.pid from pg_catalog.pg_lock_status() l where not l.granted)
), queue as (
    select w.pid
      from waiting w, ours
     where w.blockers && ours.pids
     union
    select w.pid
      from waiting w
      join queue q on q.pid = any (w.blockers)
)
select count(*)::float8::text,
       coalesce('pid ' || min(pid), ''), null::text, null::text
  from queue
