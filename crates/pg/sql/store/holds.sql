-- Why run $1 holds or held, as JSON objects, the active ones first.
-- Lock:  none (plain reads).
-- Index: hold_pkey.
select json_build_object(
           'partition_no', h.partition_no, 'signal', h.signal, 'active', h.since_at is not null,
           'since_s', extract(epoch from clock_timestamp() - h.since_at)::float8,
           'value', h.value, 'enter', h.enter, 'leave', h.leave, 'reason', h.reason, 'look', h.look,
           'held_s', h.held_s, 'holds', h.holds)::text
  from pgmend.hold h
 where h.run_id = $1::uuid
 order by h.since_at nulls last, h.partition_no, h.signal
 limit 200
