-- Runs as JSON, one object a row; the caller adds WHERE, ORDER BY and LIMIT.
-- Lock:  none (plain reads).
-- Index: run_pkey, run_job_started_at, run_signature, run_undo_of or run_target, by the caller's predicate.
select json_build_object(
           'run_id', r.run_id, 'plan_id', r.plan_id, 'job', r.job, 'kind', r.kind, 'target', r.target,
           'target_oid', r.target_oid::bigint, 'undo_of', r.undo_of,
           'undone_by', (select u.run_id
                           from pgmend.run u
                           join pgmend.plan p on p.plan_id = u.plan_id
                          where u.undo_of = r.run_id
                            and u.state = 'succeeded'
                            and p.undo_where is null
                            and not exists (select from pgmend.run uu
                                             where uu.undo_of = u.run_id and uu.state = 'succeeded')
                          order by u.started_at desc
                          limit 1),
           'state', r.state, 'reason', case when r.state = 'cancelled' then null else r.reason end,
           'instant', to_char(r.instant at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00'),
           'upper_bound', pgmend.upper_bound_of(r.run_id), 'planned_rows', r.planned_rows, 'image_table', r.image_table,
           'started_by', r.started_by, 'effective_role', r.effective_role, 'client', r.client,
           'started_at', to_char(r.started_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
           'ended_at', to_char(r.ended_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
           'duration_s', extract(epoch from coalesce(r.ended_at, clock_timestamp()) - r.started_at)::float8,
           'residual_rows', r.residual_rows, 'arrived_later_rows', r.arrived_later_rows,
           'verification', r.verification, 'pruned', r.pruned_at is not null, 'again_reason', r.again_reason,
           'ended_s_ago', extract(epoch from clock_timestamp() - r.ended_at)::float8)::text
  from pgmend.run r
