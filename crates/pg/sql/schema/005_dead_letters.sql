-- Dead letters: rows that a run could not change and set aside with their error, so that it could go on.
-- Lock:  access exclusive on pgmend.batch for a moment: two columns with constant defaults, no rewrite.
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

-- Totals run along, as those of the other rows do: the last checkpoint's is the number of open letters.
alter table pgmend.batch
    add dead_rows  bigint not null default 0,
    add dead_total bigint not null default 0;

-- Sets one row aside, in the transaction of its batch and in no other.
-- Lock:  the batch's own row; one new letter. Index: batch_pkey.
create function pgmend.set_aside(
    p_run uuid, p_partition int, p_batch_no bigint, p_ordinal bigint, p_key text[], p_sqlstate text, p_message text,
    p_constraint text, p_column text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    update pgmend.batch set dead_rows = dead_rows + 1
     where run_id = p_run and partition_no = p_partition and batch_no = p_batch_no and xid = pg_current_xact_id();
    if not found then
        raise exception 'batch % is not under way here', p_batch_no using errcode = 'PM520';
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
        raise exception 'dead letter % is not open', p_letter using errcode = 'PM520';
    end if;
    update pgmend.batch set dead_rows = dead_rows - (p_state <> 'open')::int
     where run_id = p_run and partition_no = p_partition and batch_no = p_batch_no and xid = pg_current_xact_id();
    if not found then
        raise exception 'batch % is not under way here', p_batch_no using errcode = 'PM520';
    end if;
end $$;

-- As before, with the dead letters' running total.
create or replace function pgmend.end_batch(
    p_run uuid, p_partition int, p_batch_no bigint, p_changed bigint, p_imaged bigint, p_skipped bigint,
    p_conflicts bigint, p_took_ms double precision) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if p_imaged is not null and p_imaged <> p_changed then
        raise exception 'batch %: % rows changed but % imaged', p_batch_no, p_changed, p_imaged using errcode = 'PM521';
    end if;
    update pgmend.batch b
       set changed_rows = p_changed, skipped_rows = p_skipped, conflict_rows = p_conflicts, took_ms = p_took_ms,
           changed_total = coalesce(p.changed_total, 0) + p_changed,
           skipped_total = coalesce(p.skipped_total, 0) + p_skipped,
           conflict_total = coalesce(p.conflict_total, 0) + p_conflicts,
           dead_total = coalesce(p.dead_total, 0) + b.dead_rows
      from (select 1) as one
      left join pgmend.batch p
        on p.run_id = p_run and p.partition_no = p_partition and p.batch_no = p_batch_no - 1
     where b.run_id = p_run and b.partition_no = p_partition and b.batch_no = p_batch_no
       -- Of this very transaction, whose beginning passed the fence: a checkpoint that is committed stays as it is.
       and b.xid = pg_current_xact_id();
    if not found then
        raise exception 'batch % has no row', p_batch_no using errcode = 'PM520';
    end if;
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (5);
