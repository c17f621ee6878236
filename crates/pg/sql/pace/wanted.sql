-- What people want of run $1 now, as one JSON object: to stop it, or another pace.
-- Lock:  none (plain reads).
-- Index: control_pkey, tuning_pkey.
select json_build_object(
           'stop', (select json_build_object('wish', c.wish, 'reason', c.reason, 'asked_by', c.asked_by)
                      from pgmend.control c
                     where c.run_id = $1::uuid),
           'tuned', coalesce((select json_agg(json_build_object(
                                         'setting', t.setting, 'value', t.value::float8, 'reason', t.reason,
                                         'tuned_by', t.tuned_by,
                                         'expires_at', case when t.expires_at < 'infinity'
                                                            then to_char(t.expires_at, 'YYYY-MM-DD HH24:MI:SSOF') end)
                                     order by t.setting)
                                from pgmend.tuning t
                               where t.run_id = $1::uuid
                                 and t.expires_at > clock_timestamp()), '[]'))::text
