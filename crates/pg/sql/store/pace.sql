-- How fast the batches of run $1 went, as one JSON object; no row before the first batch.
-- Lock:  none (plain reads).
-- Index: batch_pkey.
select json_build_object(
           'batches', count(*), 'max_ms', max(took_ms), 'rows_max', max(changed_rows),
           'p50_ms', percentile_cont(0.5) within group (order by took_ms),
           'p90_ms', percentile_cont(0.9) within group (order by took_ms),
           'first_rows_per_s', sum(changed_rows) filter (where place <= (all_batches + 9) / 10) * 1000.0
                               / nullif(sum(took_ms) filter (where place <= (all_batches + 9) / 10), 0),
           'last_rows_per_s', sum(changed_rows) filter (where place > all_batches - (all_batches + 9) / 10) * 1000.0
                              / nullif(sum(took_ms) filter (where place > all_batches - (all_batches + 9) / 10), 0))::text
  from (select b.took_ms, b.changed_rows, row_number() over w as place, count(*) over () as all_batches
          from pgmend.batch b
         where b.run_id = $1::uuid
        window w as (order by b.batch_no)) as batches
having count(*) > 0
