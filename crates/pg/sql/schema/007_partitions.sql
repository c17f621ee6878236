-- Partitions of a run: key ranges (or ranges of a change set's ordinals) that workers drive side by side, in one process
-- or in several. Partition 0 is the run itself: its start, its sweep and its end.
-- Lock:  creates objects in the control schema; touches no user's table.
-- Index: each table names its own below.
create table pgmend.partition (
    run_id       uuid not null,
    partition_no int not null check (partition_no between 1 and 64),
    -- Starts after this key; null: from the start of the run's range.
    lower        text[],
    -- Ends with this key.
    upper        text[] not null,
    state        text not null default 'open' check (state in ('open', 'done')),
    primary key (run_id, partition_no)
);

-- Divides a run, before its first batch and under its own lease; once only. Bounds are in key order: `p_uppers` is a
-- JSON array of keys, each an array of texts, the last one the run's own upper bound.
-- Lock:  new rows. Index: partition_pkey, batch_pkey.
create function pgmend.divide_run(p_run uuid, p_fence bigint, p_uppers json) returns int
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_made int;
begin
    perform pgmend.hold_lease(p_run, 0, p_fence);
    if exists (select from pgmend.batch where run_id = p_run) or exists (select from pgmend.partition where run_id = p_run) then
        return 0;
    end if;
    insert into pgmend.partition (run_id, partition_no, lower, upper)
    select p_run, u.at, lag(u.key) over (order by u.at), u.key
      from (select e.at::int as at, array(select json_array_elements_text(e.value)) as key
              from json_array_elements(p_uppers) with ordinality as e (value, at)) as u;
    get diagnostics v_made = row_count;
    perform pgmend.append_ledger(p_run, 'run_divided', json_build_object('partitions', v_made)::text);
    return v_made;
end $$;

-- Takes a partition that is open and that nobody holds, unless `p_most` workers of this run live already, wherever they
-- are: what a run may cost is shared by its workers, not multiplied. Takers of one run come one after the other.
-- Lock:  the lease row of the partition taken. Index: partition_pkey, lease_pkey.
create function pgmend.take_partition(
    p_run uuid, p_owner text, p_holder text, p_seconds double precision, p_most int,
    out run_state text, out open_partitions int, out partition_no int, out fence bigint, out lower text[], out upper text[])
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_free record;
    v_answer record;
begin
    perform pg_advisory_xact_lock(hashtextextended('pgmend.partition/' || p_run, 0));
    select r.state into run_state from pgmend.run r where r.run_id = p_run;
    select count(*) into open_partitions from pgmend.partition p where p.run_id = p_run and p.state = 'open';
    if run_state <> 'running' or open_partitions = 0
       or (select count(*) from pgmend.lease l
            where l.run_id = p_run and l.partition_no > 0 and l.expires_at >= clock_timestamp()) >= p_most
    then
        return;
    end if;
    for v_free in
        select p.* from pgmend.partition p left join pgmend.lease l on l.run_id = p.run_id and l.partition_no = p.partition_no
         where p.run_id = p_run and p.state = 'open' and (l.run_id is null or l.expires_at < clock_timestamp())
         order by p.partition_no
    loop
        select * into v_answer from pgmend.acquire_lease(p_run, v_free.partition_no, p_owner, p_holder, p_seconds);
        if v_answer.acquired then
            partition_no := v_free.partition_no;
            fence := v_answer.fence;
            lower := v_free.lower;
            upper := v_free.upper;
            return;
        end if;
    end loop;
end $$;

-- A partition is exhausted. Its lease is given back.
-- Lock:  the partition's row, its lease's row. Index: partition_pkey, lease_fence.
create function pgmend.close_partition(p_run uuid, p_partition int, p_fence bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    update pgmend.lease set expires_at = '-infinity'
     where run_id = p_run and partition_no = p_partition and fence = p_fence and holder_role = session_user;
    if not found then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    update pgmend.partition set state = 'done' where run_id = p_run and partition_no = p_partition;
end $$;

-- What stops a batch of a partition beside what stops any: a run that another worker has stopped, or that is over.
create function pgmend.refuse_partition() returns trigger
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if not exists (select from pgmend.run where run_id = new.run_id and state = 'running') then
        raise exception 'another worker has stopped the run' using errcode = 'PM533', schema = 'pgmend';
    end if;
    return new;
end $$;
create trigger batch_of_a_stopped_run before insert on pgmend.batch
    for each row when (new.partition_no > 0) execute function pgmend.refuse_partition();

-- No run succeeds while a partition is open, whatever its worker believes (a failover may have taken its end along).
create function pgmend.refuse_open_partition() returns trigger
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if exists (select from pgmend.partition where run_id = new.run_id and state = 'open') then
        raise exception 'a partition of the run is open' using errcode = 'PM534', schema = 'pgmend';
    end if;
    return new;
end $$;
create trigger run_with_an_open_partition before update of state on pgmend.run
    for each row when (new.state = 'succeeded') execute function pgmend.refuse_open_partition();

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (7);
