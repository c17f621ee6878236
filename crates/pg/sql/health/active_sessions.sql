-- Sessions of others, in every database, that work or wait for the machine; those that wait for a lock or for their
-- client do not. The caller divides by the cores. Needs pg_read_all_stats for sessions of other roles.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select count(*) filter (where a.state = 'active' and (a.wait_event_type is null
           or a.wait_event_type in ('IO', 'LWLock', 'BufferPin', 'IPC')))::float8::text,
       format('%s on CPU, %s in I/O, %s in internal waits, %s waiting for locks',
              count(*) filter (where a.state = 'active' and a.wait_event_type is null),
              count(*) filter (where a.state = 'active' and a.wait_event_type = 'IO'),
              count(*) filter (where a.state = 'active' and a.wait_event_type in ('LWLock', 'BufferPin', 'IPC')),
              count(*) filter (where a.state = 'active' and a.wait_event_type = 'Lock')),
       case when not pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'usage')
            then format('role %s may not see what other sessions do', current_user) end,
       null::text
  from pg_catalog.pg_stat_get_activity(null) a
 where a.pid <> pg_backend_pid()
   and a.backend_type = 'client backend'
   and a.application_name not in ('pgmend', current_setting('application_name'))
