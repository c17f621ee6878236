-- The control schema of pgmend, version 11: vacuums of the target that runs make on their way, and other limits for the
-- signals of a live run.
-- Lock:  creates objects in a schema of its own; touches no user's table.
-- Index: none; each table names its own below.

-- One row a vacuum. `after_rows` is what the run had changed by then.
create table pgmend.vacuum (
    run_id       uuid not null references pgmend.run,
    vacuum_no    int not null,
    partition_no int not null,
    fence        bigint not null,
    after_rows   bigint not null,
    began_at     timestamptz not null default clock_timestamp(),
    ended_at     timestamptz,
    outcome      text check (outcome in ('done', 'skipped', 'gave_way', 'too_long', 'failed', 'lost')),
    why          text,
    pages_before bigint,
    pages_after  bigint,
    primary key (run_id, vacuum_no),
    constraint vacuum_outcome check ((ended_at is null) = (outcome is null))
);

-- Begins a vacuum if the run has changed `p_rows` rows since the last one and no other worker is at it; tells after how
-- many rows the last one was, this one included. One that gave way, or was lost with its worker, is none.
-- Lock:  the run's vacuums, one after the other (advisory, to the end of the transaction); one new row.
-- Index: lease_fence, vacuum_pkey, batch_pkey backwards in each partition.
create function pgmend.begin_vacuum(
    p_run uuid, p_partition int, p_fence bigint, p_rows bigint, out vacuum_no int, out after_rows bigint)
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_changed bigint;
    v_no int;
begin
    if not exists (select from pgmend.lease
                    where run_id = p_run and partition_no = p_partition and fence = p_fence and holder_role = session_user) then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('pgmend.vacuum/' || p_run, 0));
    update pgmend.vacuum v set ended_at = clock_timestamp(), outcome = 'lost', why = 'its worker is gone'
     where v.run_id = p_run and v.ended_at is null
       and not exists (select from pgmend.lease l
                        where l.run_id = v.run_id and l.partition_no = v.partition_no and l.fence = v.fence
                          and l.expires_at > clock_timestamp() and (l.partition_no, l.fence) <> (p_partition, p_fence));
    select coalesce(sum(b.changed_total), 0) into v_changed
      from (select 0 as partition_no union all select p.partition_no from pgmend.partition p where p.run_id = p_run) as p
     cross join lateral (select b.changed_total from pgmend.batch b
                          where b.run_id = p_run and b.partition_no = p.partition_no order by b.batch_no desc limit 1) as b;
    select coalesce(max(v.after_rows) filter (where v.outcome is null or v.outcome not in ('gave_way', 'lost')), 0),
           coalesce(max(v.vacuum_no), 0) + 1
      into after_rows, v_no
      from pgmend.vacuum v where v.run_id = p_run;
    -- Those of dead workers have just been given up: what is left is another worker's, which lives.
    if v_changed - after_rows < p_rows or exists (select from pgmend.vacuum v where v.run_id = p_run and v.ended_at is null) then
        return;
    end if;
    insert into pgmend.vacuum (run_id, vacuum_no, partition_no, fence, after_rows)
    values (p_run, v_no, p_partition, p_fence, v_changed);
    vacuum_no := v_no;
    after_rows := v_changed;
end $$;

-- Ends a vacuum. In the ledger too, for the first thousand of a run; the table has all.
-- Lock:  one row of pgmend.vacuum, and the run's chain. Index: lease_fence, vacuum_pkey.
create function pgmend.end_vacuum(
    p_run uuid, p_partition int, p_fence bigint, p_no int, p_outcome text, p_why text, p_before bigint, p_after bigint)
    returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_began timestamptz;
begin
    update pgmend.vacuum v
       set ended_at = clock_timestamp(), outcome = p_outcome, why = p_why, pages_before = p_before, pages_after = p_after
     where v.run_id = p_run and v.vacuum_no = p_no and v.partition_no = p_partition and v.fence = p_fence
       and v.ended_at is null
       and exists (select from pgmend.lease l where l.run_id = p_run and l.partition_no = p_partition and l.fence = p_fence
                                                and l.holder_role = session_user)
    returning v.began_at into v_began;
    if not found then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    if p_no <= 1000 then
        perform pgmend.append_ledger(p_run, 'run_vacuumed', json_build_object(
            'outcome', p_outcome, 'why', p_why,
            'took_s', round(extract(epoch from clock_timestamp() - v_began)::numeric, 1))::text);
    end if;
end $$;

-- What a person changed of a live run's limits. It counts until it expires.
create table pgmend.tuned_limit (
    run_id     uuid not null references pgmend.run,
    signal     text not null check (length(signal) between 1 and 63),
    enter      double precision not null check (enter >= 0 and enter < 'infinity'),
    leave      double precision not null check (leave >= 0 and leave <= enter),
    reason     text not null check (btrim(reason) <> ''),
    tuned_by   name not null default session_user,
    tuned_at   timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    primary key (run_id, signal)
);

-- Changes where signals hold a live run: `[{"signal", "enter", "leave"}]`, `enter` null for what the plan says. In the
-- ledger with the limit before and after, by whom and why. Ends after so many minutes; null pins it to the end of the run.
-- What the environment says bounds it where the run is driven.
-- Lock:  one row of pgmend.tuned_limit for each signal, and the run's chain.
-- Index: run_pkey, tuned_limit_pkey.
create function pgmend.tune_limits(p_run uuid, p_limits jsonb, p_minutes int, p_reason text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_limit record;
    v_before pgmend.tuned_limit;
    v_until timestamptz := case when p_minutes is null then 'infinity'
                                else clock_timestamp() + p_minutes * interval '1 minute' end;
begin
    if not exists (select from pgmend.run r where r.run_id = p_run and r.ended_at is null) then
        raise exception 'run % has ended', p_run using errcode = 'PM511', schema = 'pgmend';
    end if;
    if p_minutes not between 1 and 10080 or jsonb_array_length(p_limits) not between 1 and 64 then
        raise exception 'a change of limits names 1 to 64 signals, and lasts 1 to 10080 minutes' using errcode = 'PM711', schema = 'pgmend';
    end if;
    for v_limit in select l.signal, l.enter, l.leave
                     from jsonb_to_recordset(p_limits) as l (signal text, enter double precision, leave double precision)
                    order by l.signal
    loop
        select t.* into v_before from pgmend.tuned_limit t
         where t.run_id = p_run and t.signal = v_limit.signal and t.expires_at > clock_timestamp();
        if v_limit.enter is null then
            continue when v_before.signal is null;
            delete from pgmend.tuned_limit t where t.run_id = p_run and t.signal = v_limit.signal;
        else
            insert into pgmend.tuned_limit (run_id, signal, enter, leave, reason, expires_at)
            values (p_run, v_limit.signal, v_limit.enter, v_limit.leave, p_reason, v_until)
            on conflict (run_id, signal) do update
               set enter = excluded.enter, leave = excluded.leave, reason = excluded.reason, tuned_by = session_user,
                   tuned_at = clock_timestamp(), expires_at = excluded.expires_at;
        end if;
        perform pgmend.append_ledger(p_run, 'limit_tuned', json_build_object(
            'signal', v_limit.signal, 'from', v_before.enter, 'to', v_limit.enter, 'leave', v_limit.leave, 'why', p_reason,
            'until', case when v_limit.enter is null then null else v_until end)::text);
    end loop;
    perform pg_notify('pgmend_control', p_run::text);
exception when check_violation or not_null_violation then
    raise exception 'a limit is out of bounds: %', p_limits using errcode = 'PM711', schema = 'pgmend';
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (11);
