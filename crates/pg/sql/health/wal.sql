-- Bytes of WAL that the server has written in its life.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::float8::text, '', null::text, null::text
