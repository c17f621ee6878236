-- 1 while the archiver's last attempt is one that failed.
-- Lock:  none (plain reads of the server's memory).
-- Index: none.
select case when current_setting('archive_mode') <> 'off'
             and last_failed_time > coalesce(last_archived_time, '-infinity') then '1' else '0' end,
       coalesce(last_failed_wal, ''), null::text, null::text
  from pg_catalog.pg_stat_archiver
