-- Sessions that keep a pgmend of this database waiting while it holds or wants a lock on table $1, one JSON object
-- each. Their statements come as they are, as far as this role may see them: the reader shows only the shape.
-- Lock:  none (plain reads of the activity and lock views).
-- Index: none.
select distinct jsonb_build_object(
           'pid', u.pid, 'user', coalesce(b.usename, 'unknown'), 'application', coalesce(b.application_name, ''),
           'state', coalesce(b.state, 'unknown'),
           'open_s', round(extract(epoch from clock_timestamp() - b.xact_start), 1),
           'statement', nullif(b.query, ''), 'backend_start', b.backend_start)::text
  from pg_catalog.pg_stat_activity w
 cross join lateral unnest(pg_catalog.pg_blocking_pids(w.pid)) as u (pid)
  left join pg_catalog.pg_stat_activity b on b.pid = u.pid
 where w.datname = current_database()
   and w.pid <> pg_backend_pid()
   and w.application_name in ('pgmend', current_setting('application_name'))
   and w.wait_event_type = 'Lock'
   and exists (select from pg_catalog.pg_locks l where l.pid = w.pid and l.relation = $1::oid)
 limit 3
