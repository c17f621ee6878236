-- How long batches may begin now, and the window after this one, as one JSON object; no row where every hour is allowed.
-- Lock:  none (plain reads).
-- Index: policy_pkey.
select json_build_object(
           'closes_in_s', case when w.opens_at <= clock_timestamp()
                               then extract(epoch from w.closes_at - clock_timestamp())::float8 else 0 end,
           'closes_at', to_char(w.closes_at at time zone coalesce(p.body #>> '{hours,zone}', 'UTC'), 'YYYY-MM-DD HH24:MI:SS'),
           'opens_in_s', extract(epoch from n.opens_at - clock_timestamp())::float8,
           'opens_at', to_char(n.opens_at at time zone coalesce(p.body #>> '{hours,zone}', 'UTC'), 'YYYY-MM-DD HH24:MI:SS'),
           'zone', coalesce(p.body #>> '{hours,zone}', 'UTC'))::text
  from pgmend.current_policy() as p
 cross join lateral pgmend.window_at(p.body -> 'hours', clock_timestamp()) as w
 cross join lateral pgmend.window_at(
            p.body -> 'hours',
            case when w.opens_at <= clock_timestamp() then w.closes_at else clock_timestamp() end) as n
 where p.body ? 'hours'
