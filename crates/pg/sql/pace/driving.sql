-- What the drivers of run $1 say of themselves, as one JSON array; a wait that is over is left out.
-- Lock:  none (plain reads).
-- Index: driving_pkey.
select coalesce(json_agg(json_build_object(
           'pace', d.pace,
           'waits_for', case when d.waits_until > clock_timestamp() then d.waits_for end,
           'waits_s', case when d.waits_until > clock_timestamp()
                           then extract(epoch from d.waits_until - clock_timestamp())::float8 end)
       order by d.partition_no), '[]')::text
  from pgmend.driving d
 where d.run_id = $1::uuid
