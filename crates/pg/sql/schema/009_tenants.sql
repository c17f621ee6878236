-- Tenants: partitions of a run by the values of a column, each with its own progress, failure and pause. What a
-- partition is (its lease, its batches, its end) is said in 007_partitions.sql.
-- Lock:  access exclusive on pgmend.partition for a moment: columns with constant defaults, no rewrite.
-- Index: each table names its own below.
alter table pgmend.partition
    drop constraint partition_partition_no_check,
    drop constraint partition_state_check,
    -- The tenant as it may be shown; null for NULL, and for a range of keys.
    add tenant   text,
    add canary   boolean not null default false,
    -- How often it was set aside because others held its rows.
    add rounds   int not null default 0,
    -- The last error that it stopped with, without values.
    add sqlstate text,
    add message  text,
    add constraint partition_partition_no_check check (partition_no between 1 and 2000),
    add constraint partition_state_check check (state in ('open', 'done', 'failed')),
    add constraint partition_failed check (state <> 'failed' or sqlstate is not null);
create index partition_open on pgmend.partition (run_id, rounds, partition_no) where state = 'open';
create index partition_failed on pgmend.partition (run_id) where state = 'failed';
-- So that the leases of tenants that are done need not be read.
create index lease_live on pgmend.lease (run_id) where partition_no > 0 and expires_at > '-infinity';
create index partition_canary on pgmend.partition (run_id) where canary;

-- What a person asked of one tenant of a run: no batch of it begins while its row is here.
create table pgmend.tenant_pause (
    run_id       uuid not null,
    partition_no int not null,
    reason       text not null check (btrim(reason) <> ''),
    asked_by     name not null default session_user,
    asked_at     timestamptz not null default clock_timestamp(),
    primary key (run_id, partition_no)
);

-- Divides a run by its tenants, before its first batch and under its own lease; once only. `p_parts` is a JSON array in
-- the order of the plan: lower, upper (keys or ordinals as arrays of texts), tenant, canary.
-- Lock:  new rows. Index: partition_pkey, batch_pkey.
create function pgmend.divide_by_tenant(p_run uuid, p_fence bigint, p_parts json) returns int
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_made int;
begin
    perform pgmend.hold_lease(p_run, 0, p_fence);
    if exists (select from pgmend.batch where run_id = p_run) or exists (select from pgmend.partition where run_id = p_run) then
        return 0;
    end if;
    insert into pgmend.partition (run_id, partition_no, lower, upper, tenant, canary)
    select p_run, e.at::int,
           case when json_typeof(e.value -> 'lower') = 'array'
                then array(select json_array_elements_text(e.value -> 'lower')) end,
           array(select json_array_elements_text(e.value -> 'upper')),
           e.value ->> 'tenant', (e.value ->> 'canary')::boolean
      from json_array_elements(p_parts) with ordinality as e (value, at);
    get diagnostics v_made = row_count;
    perform pgmend.append_ledger(p_run, 'run_divided', json_build_object('tenants', v_made)::text);
    return v_made;
end $$;

-- Takes the next tenant: canaries before all others, then those that were never set aside, in the order of the plan;
-- none that is paused, nor more than `p_most` at once. Where none can be had, `verdict` says why: `done`, `wait` (others
-- drive them), `failed` (as many have failed as may, or nothing else is left), `paused` (only paused ones are left),
-- `look` (the canaries are done, and nobody has looked since: no pause of the run with `p_look` is in the ledger),
-- `stopped`. Takers of one run come one after the other. `p_done` is the tenant that the taker has driven to its end: it
-- is closed first, whatever the verdict, so that a small tenant costs no round trip and no commit of its own for that.
-- Lock:  the lease row of the partition taken; the rows of the partition done and of its lease.
-- Index: partition_open, partition_failed, partition_canary, lease_live, tenant_pause_pkey, lease_pkey.
create function pgmend.take_tenant(
    p_run uuid, p_owner text, p_holder text, p_seconds double precision, p_most int, p_failed_max int, p_look text,
    p_done int, p_done_fence bigint,
    out verdict text, out partition_no int, out fence bigint, out lower text[], out upper text[], out rounds int)
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_next record;
    v_answer record;
    v_count record;
    v_live int;
begin
    perform pg_advisory_xact_lock(hashtextextended('pgmend.partition/' || p_run, 0));
    if p_done is not null then
        perform pgmend.close_partition(p_run, p_done, p_done_fence);
    end if;
    if not exists (select from pgmend.run r where r.run_id = p_run and r.state = 'running') then
        verdict := 'stopped';
        return;
    end if;
    -- By the small indexes: there may be 2,000 tenants, and each of them asks.
    select c.*, (select count(*) from pgmend.partition p where p.run_id = p_run and p.state = 'failed') as failed,
           exists (select from pgmend.partition p where p.run_id = p_run and p.state = 'open') as open
      into v_count
      from (select count(*) as canaries, count(*) filter (where p.state <> 'done') as canaries_left,
                   count(*) filter (where p.state = 'failed') as canaries_failed
              from pgmend.partition p where p.run_id = p_run and p.canary) as c;
    if v_count.failed > p_failed_max or v_count.canaries_failed > 0 then
        verdict := 'failed';
        return;
    end if;
    if not v_count.open then
        verdict := case when v_count.failed > 0 then 'failed' else 'done' end;
        return;
    end if;
    if p_look is not null and v_count.canaries > 0 and v_count.canaries_left = 0 and not exists (
        select from pgmend.ledger l
         where l.run_id = p_run and l.fact = 'run_paused' and l.body::json ->> 'why' = p_look)
    then
        verdict := 'look';
        return;
    end if;
    select count(*) into v_live
      from pgmend.lease l
     where l.run_id = p_run and l.partition_no > 0 and l.expires_at > '-infinity' and l.expires_at >= clock_timestamp();
    verdict := 'paused';
    for v_next in
        select p.* from pgmend.partition p
         where p.run_id = p_run and p.state = 'open' and (p.canary or v_count.canaries_left = 0)
           and not exists (select from pgmend.tenant_pause t where t.run_id = p.run_id and t.partition_no = p.partition_no)
         order by p.rounds, p.partition_no
         -- Fewer than `p_most` are held; the first of the others is to be had.
         limit p_most + 1
    loop
        verdict := 'wait';
        exit when v_live >= p_most;
        select * into v_answer from pgmend.acquire_lease(p_run, v_next.partition_no, p_owner, p_holder, p_seconds);
        if v_answer.acquired then
            verdict := 'taken';
            partition_no := v_next.partition_no;
            fence := v_answer.fence;
            lower := v_next.lower;
            upper := v_next.upper;
            rounds := v_next.rounds;
            return;
        end if;
    end loop;
    if verdict = 'paused' then
        -- One that was just paused is still on its way out; failures weigh more than pauses.
        verdict := case when v_live > 0 then 'wait' when v_count.failed > 0 then 'failed' else 'paused' end;
    end if;
end $$;

-- A tenant's worker stops with it alone: it has failed, or is set aside until the others had their turn.
-- Lock:  the partition's row, its lease's row, the run's chain. Index: partition_pkey, lease_fence.
create function pgmend.leave_tenant(
    p_run uuid, p_partition int, p_fence bigint, p_failed boolean, p_sqlstate text, p_message text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_tenant text;
begin
    update pgmend.lease set expires_at = '-infinity'
     where run_id = p_run and partition_no = p_partition and fence = p_fence and holder_role = session_user
       and expires_at > '-infinity';
    if not found then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    update pgmend.partition
       set state = case when p_failed then 'failed' else 'open' end, rounds = rounds + (not p_failed)::int,
           sqlstate = p_sqlstate, message = p_message
     where run_id = p_run and partition_no = p_partition and state = 'open'
    returning coalesce(tenant, 'NULL') into v_tenant;
    if not found then
        raise exception 'tenant % of the run is not open', p_partition using errcode = 'PM511', schema = 'pgmend';
    end if;
    perform pgmend.append_ledger(p_run, case when p_failed then 'tenant_failed' else 'tenant_set_aside' end,
        json_build_object('tenant', v_tenant, 'partition', p_partition, 'sqlstate', p_sqlstate, 'why', p_message)::text);
end $$;

-- A run that goes on tries its failed tenants again. Under the lease of the run itself.
-- Lock:  the failed partitions' rows. Index: partition_pkey, lease_fence.
create function pgmend.reopen_tenants(p_run uuid, p_fence bigint) returns int
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_rows int;
begin
    if not exists (select from pgmend.lease
                    where run_id = p_run and partition_no = 0 and fence = p_fence and holder_role = session_user for key share) then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    update pgmend.partition set state = 'open', rounds = 0 where run_id = p_run and state = 'failed';
    get diagnostics v_rows = row_count;
    return v_rows;
end $$;

-- Asks for a pause of one tenant. Its next batch does not begin; one under way is finished. The others go on.
-- Lock:  one row of pgmend.tenant_pause, the run's chain. Index: run_pkey, partition_pkey, tenant_pause_pkey.
create function pgmend.ask_tenant(p_run uuid, p_partition int, p_reason text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_part pgmend.partition;
begin
    if not exists (select from pgmend.run where run_id = p_run and ended_at is null) then
        raise exception 'run % has ended', p_run using errcode = 'PM511', schema = 'pgmend';
    end if;
    select * into v_part from pgmend.partition where run_id = p_run and partition_no = p_partition;
    if not found then
        raise exception 'the run has no tenant %', p_partition using errcode = 'PM755', schema = 'pgmend';
    end if;
    if v_part.state = 'done' then
        raise exception 'tenant % is done', coalesce(v_part.tenant, 'NULL') using errcode = 'PM511', schema = 'pgmend';
    end if;
    insert into pgmend.tenant_pause (run_id, partition_no, reason) values (p_run, p_partition, p_reason)
    on conflict (run_id, partition_no) do update
       set reason = excluded.reason, asked_by = session_user, asked_at = clock_timestamp();
    perform pgmend.append_ledger(p_run, 'tenant_pause_asked',
        json_build_object('tenant', coalesce(v_part.tenant, 'NULL'), 'reason', p_reason)::text);
end $$;

-- Lifts the pause of one tenant; one that has failed is tried again.
-- Lock:  one row of pgmend.tenant_pause, the partition's row, the run's chain. Index: run_pkey, tenant_pause_pkey, partition_pkey.
create function pgmend.lift_tenant(p_run uuid, p_partition int) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_part pgmend.partition;
begin
    if not exists (select from pgmend.run where run_id = p_run and ended_at is null) then
        raise exception 'run % has ended', p_run using errcode = 'PM511', schema = 'pgmend';
    end if;
    select * into v_part from pgmend.partition where run_id = p_run and partition_no = p_partition for update;
    if not found then
        raise exception 'the run has no tenant %', p_partition using errcode = 'PM755', schema = 'pgmend';
    end if;
    delete from pgmend.tenant_pause where run_id = p_run and partition_no = p_partition;
    if not found and v_part.state <> 'failed' then
        raise exception 'tenant % is neither paused nor has it failed', coalesce(v_part.tenant, 'NULL') using errcode = 'PM511', schema = 'pgmend';
    end if;
    update pgmend.partition set state = 'open', rounds = 0
     where run_id = p_run and partition_no = p_partition and state = 'failed';
    perform pgmend.append_ledger(p_run, 'tenant_pause_lifted',
        json_build_object('tenant', coalesce(v_part.tenant, 'NULL'))::text);
end $$;

-- No batch of a paused tenant begins.
-- Lock:  none (a plain read). Index: tenant_pause_pkey.
create function pgmend.refuse_paused_tenant() returns trigger
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_pause pgmend.tenant_pause;
begin
    select * into v_pause from pgmend.tenant_pause where run_id = new.run_id and partition_no = new.partition_no;
    if found then
        raise exception '%', v_pause.reason using errcode = 'PM754', schema = 'pgmend';
    end if;
    return new;
end $$;
create trigger batch_of_a_paused_tenant before insert on pgmend.batch
    for each row when (new.partition_no > 0) execute function pgmend.refuse_paused_tenant();

-- As before; a tenant that has failed is not done either.
create or replace function pgmend.refuse_open_partition() returns trigger
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if exists (select from pgmend.partition where run_id = new.run_id and state <> 'done') then
        raise exception 'a partition of the run is open' using errcode = 'PM534', schema = 'pgmend';
    end if;
    return new;
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (9);
