-- Sessions of others in this cluster that did something within the last second, and those of them that work right now. What
-- this role may not see counts as working: its sessions are there, and what they do is hidden.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select count(*) filter (where a.state is null
           or a.state = 'active'
           or a.state_change > clock_timestamp() - interval '1 second')::text,
       count(*) filter (where a.state = 'active' and (a.wait_event_type is null
           or a.wait_event_type in ('IO', 'LWLock', 'BufferPin', 'IPC')))::text
  from pg_catalog.pg_stat_get_activity(null) a
 where a.pid <> pg_backend_pid()
   and a.datid is not null
   and a.usesysid is not null
   and coalesce(a.backend_type, 'client backend') = 'client backend'
   and a.application_name not in ('pgmend', current_setting('application_name'))
