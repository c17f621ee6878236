-- Bytes of WAL that the slot furthest behind keeps, also one that nobody reads; and half of what any slot may keep.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn), 0)::float8::text,
       coalesce('slot ' || s.slot_name || case when s.active then '' else ' (inactive)' end, ''),
       null::text,
       case when k.bytes >= 0 then (k.bytes / 2)::float8::text end
  from (select pg_catalog.pg_size_bytes(current_setting('max_slot_wal_keep_size')) as bytes) k
  left join lateral (select *
                       from pg_catalog.pg_get_replication_slots()
                      where restart_lsn is not null
                      order by restart_lsn
                      limit 1) s on true
