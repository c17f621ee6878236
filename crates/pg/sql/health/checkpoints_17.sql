-- Checkpoints that were requested since the statistics were reset, from PostgreSQL 17 on.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select num_requested::float8::text, '', null::text, null::text
  from pg_catalog.pg_stat_checkpointer
