-- The open window of the policy in force, or the next one, as one JSON object; no row where every hour is allowed.
-- Lock:  none (plain reads).
-- Index: policy_pkey.
select json_build_object(
           'opens_in_s', extract(epoch from w.opens_at - clock_timestamp())::float8,
           'closes_in_s', extract(epoch from w.closes_at - clock_timestamp())::float8,
           'opens_at', to_char(w.opens_at at time zone coalesce(p.body #>> '{hours,zone}', 'UTC'), 'YYYY-MM-DD HH24:MI:SS'),
           'closes_at', to_char(w.closes_at at time zone coalesce(p.body #>> '{hours,zone}', 'UTC'), 'YYYY-MM-DD HH24:MI:SS'),
           'zone', coalesce(p.body #>> '{hours,zone}', 'UTC'))::text
  from pgmend.current_policy() as p
 cross join lateral pgmend.window_at(p.body -> 'hours', clock_timestamp()) as w
 where p.body ? 'hours'
