-- Checkpoints that were requested since the statistics were reset, up to PostgreSQL 16.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select checkpoints_req::float8::text, '', null::text, null::text
  from pg_catalog.pg_stat_bgwriter
