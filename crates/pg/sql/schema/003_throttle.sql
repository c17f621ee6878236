-- The control schema of pgmend, version 3: holds.
-- Lock:  creates objects in a schema of its own; touches no user's table.
-- Index: none; the table names its own below.

-- Why a run holds or held: one row a signal, `since_at` while it does. Time adds up in `held_s`.
create table pgmend.hold (
    run_id       uuid not null references pgmend.run,
    partition_no int not null,
    signal       text not null,
    since_at     timestamptz,
    seen_at      timestamptz not null,
    value        double precision,
    enter        double precision not null,
    leave        double precision not null,
    reason       text not null,
    look         text,
    held_s       double precision not null default 0,
    holds        int not null default 1,
    primary key (run_id, partition_no, signal)
);

-- Tells why the worker of a partition holds now; `[]` when it goes on. Only transitions enter the ledger, and of one
-- run no more than 1,000 of them: `hold` adds up all.
-- Lock:  rows of pgmend.hold of this partition; the ledger's, at a transition.
-- Index: hold_pkey, lease_fence.
create function pgmend.set_holds(p_run uuid, p_partition int, p_fence bigint, p_reasons jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_now timestamptz := clock_timestamp();
    v_held boolean;
    v_holds boolean := jsonb_array_length(p_reasons) > 0;
    v_since timestamptz;
    v_many bigint;
begin
    if not exists (select from pgmend.lease
                    where run_id = p_run and partition_no = p_partition and fence = p_fence
                      and holder_role = session_user) then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    select count(*) > 0, min(since_at) into v_held, v_since
      from pgmend.hold where run_id = p_run and partition_no = p_partition and since_at is not null;
    -- What nobody looked at, such as while a dead worker's lease ran out, was no hold.
    update pgmend.hold
       set held_s = held_s + least(extract(epoch from v_now - seen_at), 15), seen_at = v_now
     where run_id = p_run and partition_no = p_partition and since_at is not null;
    update pgmend.hold h
       set since_at = null
     where h.run_id = p_run and h.partition_no = p_partition and h.since_at is not null
       and not exists (select from jsonb_array_elements(p_reasons) as r where r ->> 'signal' = h.signal);
    insert into pgmend.hold as h (run_id, partition_no, signal, since_at, seen_at, value, enter, leave, reason, look)
    select p_run, p_partition, r ->> 'signal', v_now, v_now, (r ->> 'value')::double precision,
           (r ->> 'enter')::double precision, (r ->> 'leave')::double precision, r ->> 'text', r ->> 'look'
      from jsonb_array_elements(p_reasons) as r
    on conflict (run_id, partition_no, signal) do update
       set holds = h.holds + case when h.since_at is null then 1 else 0 end,
           since_at = coalesce(h.since_at, v_now), seen_at = v_now, value = excluded.value, enter = excluded.enter,
           leave = excluded.leave, reason = excluded.reason, look = excluded.look;
    if v_held is distinct from v_holds then
        select sum(holds) into v_many from pgmend.hold where run_id = p_run;
        if v_many <= 1000 and v_holds then
            perform pgmend.append_ledger(p_run, 'run_held', json_build_object(
                'why', (select string_agg(r ->> 'text', '; ') from jsonb_array_elements(p_reasons) as r),
                'signals', (select json_agg(r ->> 'signal') from jsonb_array_elements(p_reasons) as r))::text);
        elsif v_many <= 1000 then
            perform pgmend.append_ledger(p_run, 'run_released', json_build_object(
                'held_s', round(extract(epoch from v_now - v_since)))::text);
        end if;
    end if;
end $$;
revoke execute on function pgmend.set_holds(uuid, int, bigint, jsonb) from public;

insert into pgmend.schema_version (version) values (3);
