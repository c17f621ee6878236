-- Where the primary stands and how far each standby has replayed, as one JSON object. Subscribers of logical
-- replication are left out: their slots tell.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select json_build_object(
           'position', pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::float8,
           'hidden', count(*) filter (where r.pid is not null and r.state is null),
           'standbys', coalesce(json_agg(json_build_object(
               'name', case when r.application_name in ('', 'walreceiver') then coalesce(host(r.client_addr), 'this machine')
                            else r.application_name end,
               'state', r.state,
               'lag_s', extract(epoch from r.replay_lag)::float8,
               'replayed', pg_catalog.pg_wal_lsn_diff(r.replay_lsn, '0/0')::float8)) filter (where r.state is not null), '[]'))::text
  from (select 1) as one
  left join pg_catalog.pg_stat_replication r
    on not exists (select from pg_catalog.pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')
