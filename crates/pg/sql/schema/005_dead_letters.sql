-- Dead letters: rows that a run could not change and set aside with their error, so that it could go on.
-- Lock:  creates objects in a schema of its own; touches no user's table.
-- Index: each table names its own below.
create table pgmend.dead_letter (
    letter_no       bigint generated always as identity primary key,
    run_id          uuid not null,
    partition_no    int not null,
    batch_no        bigint not null,
    ordinal         bigint,
    key             text[] not null,
    sqlstate        text not null,
    message         text not null,
    constraint_name text,
    column_name     text,
    attempts        int not null default 1,
    state           text not null default 'open' check (state in ('open', 'changed', 'passed_over', 'conflict')),
    recorded_at     timestamptz not null default clock_timestamp(),
    settled_at      timestamptz,
    settled_in      bigint,
    constraint dead_letter_settled check ((state = 'open') = (settled_at is null))
);
create index dead_letter_run_id on pgmend.dead_letter (run_id, letter_no);

-- The turn of a batch that sets rows aside, in a run with several workers: two of them at the same moment would each miss
-- the other's letters, and exceed the limit together. The later one fails to serialise, and counts anew.
create table pgmend.dead_letter_turn (
    run_id  uuid primary key,
    letters bigint not null
);

-- Sets one row aside, in the transaction of its batch and in no other.
-- Lock:  the batch's own row; one new letter; for a partition, the run's turn until the batch is over.
-- Index: batch_pkey, dead_letter_turn_pkey.
create function pgmend.set_aside(
    p_run uuid, p_partition int, p_batch_no bigint, p_ordinal bigint, p_key text[], p_sqlstate text, p_message text,
    p_constraint text, p_column text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    update pgmend.batch set dead_rows = dead_rows + 1
     where run_id = p_run and partition_no = p_partition and batch_no = p_batch_no and xid = pg_current_xact_id();
    if not found then
        raise exception 'batch % is not under way here', p_batch_no using errcode = 'PM520', schema = 'pgmend';
    end if;
    if p_partition > 0 then
        insert into pgmend.dead_letter_turn as t (run_id, letters) values (p_run, 1)
        on conflict (run_id) do update set letters = t.letters + 1;
    end if;
    insert into pgmend.dead_letter (run_id, partition_no, batch_no, ordinal, key, sqlstate, message, constraint_name, column_name)
    values (p_run, p_partition, p_batch_no, p_ordinal, p_key, p_sqlstate, p_message, p_constraint, p_column);
end $$;

-- What became of a letter that was tried again, in the transaction of the batch that tried it. `open`: it failed again.
-- Lock:  the batch's own row; the letter. Index: batch_pkey, dead_letter_pkey.
create function pgmend.settle_dead_letter(
    p_run uuid, p_partition int, p_batch_no bigint, p_letter bigint, p_state text, p_sqlstate text, p_message text,
    p_constraint text, p_column text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    update pgmend.dead_letter
       set attempts = attempts + 1, state = p_state,
           settled_at = case when p_state <> 'open' then clock_timestamp() end,
           settled_in = case when p_state <> 'open' then p_batch_no end,
           sqlstate = coalesce(p_sqlstate, sqlstate), message = coalesce(p_message, message),
           constraint_name = case when p_sqlstate is null then constraint_name else p_constraint end,
           column_name = case when p_sqlstate is null then column_name else p_column end
     where letter_no = p_letter and run_id = p_run and state = 'open';
    if not found then
        raise exception 'dead letter % is not open', p_letter using errcode = 'PM520', schema = 'pgmend';
    end if;
    update pgmend.batch set dead_rows = dead_rows - (p_state <> 'open')::int
     where run_id = p_run and partition_no = p_partition and batch_no = p_batch_no and xid = pg_current_xact_id();
    if not found then
        raise exception 'batch % is not under way here', p_batch_no using errcode = 'PM520', schema = 'pgmend';
    end if;
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (5);
