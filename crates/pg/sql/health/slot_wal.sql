-- Bytes of WAL that the slot furthest behind keeps, also one that nobody reads; and half of what any slot may keep.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn), 0)::float8::text,
       coalesce('slot ' || s.slot_name || case when s.active then '' else ' (inactive)' end, ''),
       null::text,
       case when k.setting::bigint >= 0 then (k.setting::bigint * 1048576 / 2)::float8::text end
  from pg_catalog.pg_settings k
  left join lateral (select *
                       from pg_catalog.pg_replication_slots
                      where restart_lsn is not null
                      order by restart_lsn
                      limit 1) s on true
 where k.name = 'max_slot_wal_keep_size'
