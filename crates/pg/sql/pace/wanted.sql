-- What people want of run $1 now, as one JSON object: to stop it, another pace, or other limits.
-- Lock:  none (plain reads).
-- Index: control_pkey, tuning_pkey, tuned_limit_pkey.
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
                                 and t.expires_at > clock_timestamp()), '[]'),
           'limits', coalesce((select json_agg(json_build_object(
                                          'signal', l.signal, 'enter', l.enter, 'leave', l.leave, 'reason', l.reason,
                                          'tuned_by', l.tuned_by,
                                          'expires_at', case when l.expires_at < 'infinity'
                                                             then to_char(l.expires_at, 'YYYY-MM-DD HH24:MI:SSOF') end)
                                      order by l.signal)
                                 from pgmend.tuned_limit l
                                where l.run_id = $1::uuid
                                  and l.expires_at > clock_timestamp()), '[]'))::text
