-- The vacuums of run $1, summed up as one JSON object; `under_way_s` while a worker that lives is at one.
-- Lock:  none (plain reads).
-- Index: vacuum_pkey, lease_fence.
select json_build_object(
           'done', count(*) filter (where v.outcome = 'done'),
           'skipped', count(*) filter (where v.outcome in ('skipped', 'failed', 'too_long')),
           'gave_way', count(*) filter (where v.outcome in ('gave_way', 'lost')),
           'took_s', coalesce(sum(extract(epoch from v.ended_at - v.began_at)), 0)::float8,
           'pages_before', (select f.pages_before from pgmend.vacuum f where f.run_id = $1::uuid and f.outcome = 'done' order by f.vacuum_no limit 1),
           'pages_after', (select f.pages_after from pgmend.vacuum f where f.run_id = $1::uuid and f.outcome = 'done' order by f.vacuum_no desc limit 1),
           'last_why', (select f.why from pgmend.vacuum f where f.run_id = $1::uuid and f.outcome not in ('done', 'lost') order by f.vacuum_no desc limit 1),
           'under_way_s', max(extract(epoch from clock_timestamp() - v.began_at)) filter (where v.ended_at is null
               and exists (select from pgmend.lease l where l.run_id = v.run_id and l.partition_no = v.partition_no
                                                        and l.fence = v.fence and l.expires_at > clock_timestamp())))::text
  from pgmend.vacuum v
 where v.run_id = $1::uuid
