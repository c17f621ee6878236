-- The control schema of pgmend, pace: how fast a run goes, what it waits for, and who said so.
-- Lock:  creates objects in a schema of its own; touches no user's table.
-- Index: none; each table names its own below.

-- What a person changed of a live run's pace. It counts until it expires; 0 switches rate or rest off.
create table pgmend.tuning (
    run_id     uuid not null references pgmend.run,
    setting    text not null,
    value      numeric not null,
    reason     text not null check (btrim(reason) <> ''),
    tuned_by   name not null default session_user,
    tuned_at   timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    primary key (run_id, setting),
    constraint tuning_value check (
        case setting
            when 'rate' then value between 0 and 10000000 and value = trunc(value)
            when 'nice' then value between 0 and 100
            when 'batch_rows' then value between 1 and 50000 and value = trunc(value)
            else false
        end)
);

-- What the driver of a run says of itself: the pace that it was started with, and what it waits for.
create table pgmend.driving (
    run_id       uuid not null references pgmend.run,
    partition_no int not null,
    pace         jsonb not null default '{}',
    waits_for    text,
    waits_until  timestamptz,
    said_at      timestamptz not null default clock_timestamp(),
    primary key (run_id, partition_no),
    check ((waits_for is null) = (waits_until is null))
);

-- Changes the pace of a live run: setting -> value, null for what the run was started with. In the ledger with the
-- value before and after, by whom and why. Ends after so many minutes; null pins it to the end of the run.
-- Lock:  one row of pgmend.tuning for each setting, and the run's chain.
-- Index: run_pkey, tuning_pkey.
create function pgmend.tune(p_run uuid, p_changes jsonb, p_minutes int, p_reason text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_plan jsonb;
    v_most int;
    v_setting text;
    v_value numeric;
    v_before numeric;
    v_until timestamptz := case when p_minutes is null then 'infinity'
                                else clock_timestamp() + p_minutes * interval '1 minute' end;
begin
    select p.body::jsonb into v_plan from pgmend.run r join pgmend.plan p using (plan_id)
     where r.run_id = p_run and r.ended_at is null;
    if v_plan is null then
        raise exception 'run % has ended', p_run using errcode = 'PM511', schema = 'pgmend';
    end if;
    if p_minutes not between 1 and 10080 or p_changes = '{}' then
        raise exception 'a change of the pace names something, and lasts 1 to 10080 minutes' using errcode = 'PM711', schema = 'pgmend';
    end if;
    select least(50000, (v_plan #>> '{limits,rows_per_transaction_max}')::int, (p.body ->> 'batch_rows_max')::int)
      into v_most
      from (select 1) as one left join pgmend.current_policy() as p on true;
    for v_setting, v_value in select c.key, (c.value #>> '{}')::numeric from jsonb_each(p_changes) as c order by c.key loop
        if v_setting not in ('rate', 'nice', 'batch_rows') then
            raise exception 'no `%` can be tuned', v_setting using errcode = 'PM711', schema = 'pgmend';
        end if;
        if v_setting = 'batch_rows' and v_value > v_most then
            raise exception 'batch_rows = % is out of bounds: a batch of this run has at most % rows', v_value, v_most
                using errcode = 'PM711', schema = 'pgmend';
        end if;
        select t.value into v_before from pgmend.tuning t
         where t.run_id = p_run and t.setting = v_setting and t.expires_at > clock_timestamp();
        if not found then
            v_before := coalesce((select max((d.pace ->> v_setting)::numeric) from pgmend.driving d where d.run_id = p_run),
                                 (v_plan #>> array['pace', v_setting])::numeric,
                                 (v_plan #>> array['limits', v_setting])::numeric);
        end if;
        if v_value is null then
            delete from pgmend.tuning where run_id = p_run and setting = v_setting;
        else
            insert into pgmend.tuning (run_id, setting, value, reason, expires_at)
            values (p_run, v_setting, v_value, p_reason, v_until)
            on conflict (run_id, setting) do update
               set value = excluded.value, reason = excluded.reason, tuned_by = session_user,
                   tuned_at = clock_timestamp(), expires_at = excluded.expires_at;
        end if;
        perform pgmend.append_ledger(p_run, 'pace_tuned', json_build_object(
            'setting', v_setting, 'from', v_before, 'to', v_value, 'why', p_reason,
            'until', case when v_value is null then null else v_until end)::text);
    end loop;
    perform pg_notify('pgmend_control', p_run::text);
exception when check_violation then
    raise exception 'the pace is out of bounds: %', p_changes using errcode = 'PM711', schema = 'pgmend';
end $$;

-- The driver of a run says how fast it was told to go, and what it waits for and how long. Only the lease's holder may.
-- Lock:  one row of pgmend.driving.
-- Index: lease_fence, driving_pkey.
create function pgmend.announce(
    p_run uuid, p_partition int, p_fence bigint, p_pace jsonb, p_waits_for text, p_waits_s double precision) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if not exists (select from pgmend.lease where run_id = p_run and partition_no = p_partition and fence = p_fence
                                              and holder_role = session_user) then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    insert into pgmend.driving as d (run_id, partition_no, pace, waits_for, waits_until)
    values (p_run, p_partition, p_pace, p_waits_for,
            case when p_waits_for is not null then clock_timestamp() + make_interval(secs => p_waits_s) end)
    on conflict (run_id, partition_no) do update
       set pace = excluded.pace, waits_for = excluded.waits_for, waits_until = excluded.waits_until,
           said_at = clock_timestamp();
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (4);
