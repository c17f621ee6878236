-- Dead letters of run $1 after letter $3, as JSON, one object a row; with $2 only open ones; $4 at most.
-- Lock:  none (plain reads).
-- Index: dead_letter_run_id.
select json_build_object(
           'letter_no', d.letter_no, 'batch_no', d.batch_no, 'ordinal', d.ordinal, 'key', d.key,
           'sqlstate', d.sqlstate, 'message', d.message, 'constraint', d.constraint_name, 'column', d.column_name,
           'attempts', d.attempts, 'state', d.state,
           'recorded_at', to_char(d.recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
           'settled_at', to_char(d.settled_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))::text
  from pgmend.dead_letters_of($1::uuid, $3::bigint, $4::bigint, $2::boolean) d
 order by d.letter_no
