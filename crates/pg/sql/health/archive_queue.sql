-- WAL segments that wait for the archiver. Needs pg_monitor.
-- Lock:  none (reads a folder of the server).
-- Index: none.
select count(*)::float8::text, '', null::text, null::text
  from pg_catalog.pg_ls_archive_statusdir()
 where name like '%.ready'
   and current_setting('archive_mode') <> 'off'
