-- Sessions of others in this database that wait for a lock that a pgmend holds or wants before them.
-- Lock:  none (plain reads of the activity and lock views).
-- Index: none.
select count(*)::float8::text,
       coalesce('pid ' || min(a.pid), ''), null::text, null::text
  from pg_catalog.pg_stat_activity a
 where a.datname = current_database()
   and a.application_name not in ('pgmend', current_setting('application_name'))
   and a.pid in (select l.pid from pg_catalog.pg_locks l where not l.granted)
   and pg_catalog.pg_blocking_pids(a.pid) && array(
           select o.pid
             from pg_catalog.pg_stat_activity o
            where o.datname = current_database()
              and o.pid <> pg_backend_pid()
              and o.application_name in ('pgmend', current_setting('application_name')))
