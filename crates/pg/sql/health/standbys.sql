-- Where the primary stands and how far each standby has replayed, as one JSON object. Subscribers of logical
-- replication are left out: their slots tell.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select json_build_object(
           'position', pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::float8,
           'hidden', count(*) filter (where r.state is null),
           'standbys', coalesce(json_agg(json_build_object(
               'name', case when a.application_name in ('', 'walreceiver') then coalesce(host(a.client_addr), 'this machine')
                            else a.application_name end,
               'state', r.state,
               'lag_s', extract(epoch from r.replay_lag)::float8,
               'replayed', pg_catalog.pg_wal_lsn_diff(r.replay_lsn, '0/0')::float8)) filter (where r.state is not null), '[]'))::text
  from pg_catalog.pg_stat_get_wal_senders() r
  join pg_catalog.pg_stat_get_activity(null) a on a.pid = r.pid
 where not exists (select from pg_catalog.pg_get_replication_slots() s where s.active_pid = r.pid and s.slot_type = 'logical')
