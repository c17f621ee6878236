-- Seconds since the oldest transaction of others that keeps vacuum from its work began, and how old pgmend's own is.
-- Needs pg_read_all_stats for sessions of other roles.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select coalesce(extract(epoch from clock_timestamp() - o.began_at), 0)::float8::text,
       coalesce(o.who || format(' (pgmend''s own oldest: %s s)', round(coalesce(extract(epoch from clock_timestamp() - (
           select min(m.xact_start)
             from pg_catalog.pg_stat_get_activity(null) m
            where m.pid <> pg_backend_pid()
              and (m.backend_xmin is not null or m.backend_xid is not null)
              and m.application_name in ('pgmend', current_setting('application_name')))), 0))), ''),
       case when not pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'usage')
            then format('role %s may not see what other sessions do', current_user) end,
       null::text
  from (select 1) as one
  left join lateral (
           select a.xact_start as began_at, format('pid %s, %s of %s', a.pid, coalesce(nullif(a.application_name, ''), 'a session'), pg_catalog.pg_get_userbyid(a.usesysid)) as who
             from pg_catalog.pg_stat_get_activity(null) a
            where a.pid <> pg_backend_pid()
              and a.backend_type not in ('autovacuum worker', 'walsender')
              and (a.backend_xmin is not null or a.backend_xid is not null)
              and a.application_name not in ('pgmend', current_setting('application_name'))
            union all
           select x.prepared, format('prepared transaction %s', x.gid)
             from pg_catalog.pg_prepared_xact() x
            order by 1
            limit 1) as o on true
