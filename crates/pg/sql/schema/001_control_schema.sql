-- The control schema of pgmend, version 1.
-- Lock:  creates objects in a schema of its own; touches no user's table.
-- Index: none; each table names its own below.
create schema if not exists pgmend;
revoke all on schema pgmend from public;

create table pgmend.schema_version (
    version      int primary key,
    installed_at timestamptz not null default clock_timestamp(),
    installed_by name not null default session_user
);
insert into pgmend.schema_version (version) values (1);

-- A plan: immutable but for its consumption by a run and the pruning of its change set.
create table pgmend.plan (
    plan_id        uuid primary key,
    job            text not null,
    kind           text not null check (kind in ('update', 'delete', 'insert', 'undo')),
    signature      text not null,
    digest         text not null,
    target_oid     oid not null,
    undo_of        uuid,
    undo_where     text,
    body           text not null,
    change_set     name,
    planned_by     name not null,
    effective_role name not null,
    planned_at     timestamptz not null default clock_timestamp(),
    expires_at     timestamptz not null,
    pruned_at      timestamptz
);
create index plan_job_planned_at on pgmend.plan (job, planned_at desc);
create index plan_signature on pgmend.plan (signature);

-- A run: one resumable execution of one plan. Who drives it is the lease's business.
create table pgmend.run (
    run_id             uuid primary key,
    plan_id            uuid not null unique references pgmend.plan,
    job                text not null,
    kind               text not null check (kind in ('update', 'delete', 'insert', 'undo')),
    signature          text not null,
    target_oid         oid not null,
    target             text not null,
    undo_of            uuid references pgmend.run,
    state              text not null default 'running',
    reason             text,
    again_reason       text,
    instant            timestamptz not null,
    upper_bound        text[],
    planned_rows       bigint not null,
    image_table        name,
    started_by         name not null,
    effective_role     name not null,
    client             text not null,
    started_at         timestamptz not null default clock_timestamp(),
    ended_at           timestamptz,
    residual_rows      bigint,
    arrived_later_rows bigint,
    verification       text[] not null default '{}',
    pruned_at          timestamptz,
    constraint run_state check (
        case state
            when 'running' then reason is null and ended_at is null
            when 'paused' then reason is not null and ended_at is null
            when 'failed' then reason is not null and ended_at is null
            when 'succeeded' then reason is null and ended_at is not null
            when 'cancelled' then ended_at is not null
            else false
        end)
);
-- One unfinished run of the same change at a time.
create unique index run_signature_unfinished on pgmend.run (signature) where ended_at is null;
create index run_signature on pgmend.run (signature);
create index run_job_started_at on pgmend.run (job, started_at desc);
create index run_undo_of on pgmend.run (undo_of);
create index run_target on pgmend.run (target_oid);

-- Time-limited ownership. The fence is part of a unique key: a takeover changes the key and waits for
-- batches that hold it `for key share`; a heartbeat does not, and passes.
create table pgmend.lease (
    run_id       uuid not null references pgmend.run,
    partition_no int not null,
    fence        bigint not null,
    owner        text not null,
    holder       text not null,
    holder_role  name not null default session_user,
    acquired_at  timestamptz not null,
    heartbeat_at timestamptz not null,
    expires_at   timestamptz not null,
    primary key (run_id, partition_no),
    constraint lease_fence unique (run_id, partition_no, fence)
);

-- The checkpoint: one row a batch, committed with the batch. Totals run along, so that the last row tells all; that of
-- dead letters is the number of open ones.
create table pgmend.batch (
    run_id         uuid not null,
    partition_no   int not null,
    batch_no       bigint not null,
    fence          bigint not null,
    pass           int not null default 0,
    -- Everything up to here is done; empty before the first.
    cursor_to      text[] not null,
    -- Where batches go in halves: the first half of the rows is done up to here, the second up to cursor_to.
    first_half_to  text[],
    changed_rows   bigint not null default 0,
    skipped_rows   bigint not null default 0,
    conflict_rows  bigint not null default 0,
    dead_rows      bigint not null default 0,
    changed_total  bigint not null default 0,
    skipped_total  bigint not null default 0,
    conflict_total bigint not null default 0,
    dead_total     bigint not null default 0,
    took_ms        double precision not null default 0,
    xid            xid8 not null default pg_current_xact_id(),
    begun_at       timestamptz not null default clock_timestamp(),
    primary key (run_id, partition_no, batch_no)
) with (fillfactor = 70);

-- A row that is no longer as the change set found it; reported, never overwritten.
create table pgmend.conflict (
    run_id      uuid not null,
    batch_no    bigint not null,
    n           bigint not null,
    key         text[] not null,
    reason      text not null,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (run_id, n)
);

-- The append-only, hash-chained record of what happened; see `core::ledger` for the canonical bytes.
create table pgmend.ledger (
    run_id      uuid not null,
    entry_no    bigint not null,
    fact        text not null,
    body        text not null,
    hash        text not null,
    actor       name not null,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (run_id, entry_no)
);

-- Where each chain ends: an entry that is cut off at the end is missed.
create table pgmend.ledger_head (
    run_id   uuid primary key,
    entry_no bigint not null,
    hash     text not null
);

-- What is written stays, whoever asks.
create function pgmend.refuse_rewriting() returns trigger
language plpgsql as $$
begin
    raise exception 'the ledger is append-only' using errcode = '42501';
end $$;
create trigger ledger_is_append_only before update or delete or truncate on pgmend.ledger
    for each statement execute function pgmend.refuse_rewriting();

-- Keys of pruned images, as digests keyed with the secret of the tokens: `trace` answers after `prune` which runs touched a row.
create table pgmend.touched_key (
    target_oid oid not null,
    key_digest bytea not null,
    run_id     uuid not null,
    batch_no   bigint
);
create index touched_key_digest on pgmend.touched_key (target_oid, key_digest);

-- Appends to a run's chain. Serialised per run by the advisory lock, released at commit.
create function pgmend.append_ledger(p_run uuid, p_fact text, p_body text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_no bigint;
    v_previous text;
    v_hash text;
    v_actor text := session_user;
    v_at text := to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
begin
    perform pg_advisory_xact_lock(hashtextextended('pgmend.ledger/' || p_run, 0));
    select entry_no, hash into v_no, v_previous from pgmend.ledger_head where run_id = p_run;
    v_no := coalesce(v_no, 0) + 1;
    v_hash := encode(sha256(convert_to(concat_ws(E'\n', coalesce(v_previous, ''), v_no, p_fact, v_actor, v_at, p_body), 'UTF8')), 'hex');
    insert into pgmend.ledger (run_id, entry_no, fact, body, hash, actor, recorded_at)
    values (p_run, v_no, p_fact, p_body, v_hash, session_user, v_at::timestamptz);
    insert into pgmend.ledger_head (run_id, entry_no, hash) values (p_run, v_no, v_hash)
    on conflict (run_id) do update set entry_no = excluded.entry_no, hash = excluded.hash;
    return v_no;
end $$;

create function pgmend.store_plan(
    p_plan uuid, p_job text, p_kind text, p_signature text, p_digest text, p_target oid, p_undo_of uuid,
    p_undo_where text, p_body text, p_change_set name, p_role name, p_expires_at timestamptz) returns void
language sql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    insert into pgmend.plan (plan_id, job, kind, signature, digest, target_oid, undo_of, undo_where, body, change_set,
                             planned_by, effective_role, expires_at)
    values (p_plan, p_job, p_kind, p_signature, p_digest, p_target, p_undo_of, p_undo_where, p_body, p_change_set,
            session_user, p_role, p_expires_at);
$$;

-- Starts the run of a plan. The gate's last word: plan known, fresh, not consumed; the same change not
-- made before (unless asked for, with a reason) and not under way. Serialised per signature.
create function pgmend.start_run(
    p_run uuid, p_plan uuid, p_digest text, p_target text, p_instant timestamptz, p_upper_bound text[],
    p_planned_rows bigint, p_image_table name, p_role name, p_client text, p_again text, p_body text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_plan pgmend.plan;
    v_token uuid;
begin
    select * into v_plan from pgmend.plan where plan_id = p_plan for update;
    if not found then
        raise exception 'plan % is not stored here', p_plan using errcode = 'PM501', schema = 'pgmend';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('pgmend.signature/' || v_plan.signature, 0));
    if v_plan.digest <> p_digest then
        raise exception 'plan % has another digest', p_plan using errcode = 'PM502', schema = 'pgmend';
    end if;
    if v_plan.expires_at < clock_timestamp() then
        raise exception 'plan % has expired', p_plan using errcode = 'PM502', schema = 'pgmend';
    end if;
    if exists (select from pgmend.run where plan_id = p_plan) then
        raise exception 'plan % has been used', p_plan using errcode = 'PM503', schema = 'pgmend';
    end if;
    if p_again is null and exists (select from pgmend.run where signature = v_plan.signature and state = 'succeeded') then
        raise exception 'this change has already been made' using errcode = 'PM504', schema = 'pgmend';
    end if;
    perform pgmend.refuse_same_columns(p_run, p_plan);
    v_token := pgmend.insist_on_guardrails(p_plan);
    insert into pgmend.run (run_id, plan_id, job, kind, signature, target_oid, target, undo_of, again_reason, instant,
                            upper_bound, planned_rows, image_table, started_by, effective_role, client)
    values (p_run, p_plan, v_plan.job, v_plan.kind, v_plan.signature, v_plan.target_oid, p_target, v_plan.undo_of,
            p_again, p_instant, p_upper_bound, p_planned_rows, p_image_table, session_user, p_role, p_client);
    perform pgmend.append_ledger(p_run, 'run_started', p_body);
    if v_token is not null then
        update pgmend.break_glass set used_by = p_run where token = v_token;
        insert into pgmend.review_item (run_id, why)
        select p_run, format('the glass was broken by %s, with leave from %s: %s (%s)', session_user, granted_by, reason, ticket)
          from pgmend.break_glass where token = v_token;
        perform pgmend.append_ledger(p_run, 'glass_broken', json_build_object('token', v_token)::text);
    end if;
end $$;

-- Takes the lease if it is free or has run out by the server's clock; otherwise tells who holds it.
create function pgmend.acquire_lease(
    p_run uuid, p_partition int, p_owner text, p_holder text, p_seconds double precision,
    out acquired boolean, out fence bigint, out held_by text, out left_s double precision)
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    -- A look first: the lock of an attempt would wait for the holder's batch, and hold up its heartbeat and its next
    -- batch meanwhile, until the lease of a live worker runs out.
    select l.holder, extract(epoch from l.expires_at - clock_timestamp())
      into held_by, left_s
      from pgmend.lease l
     where l.run_id = p_run and l.partition_no = p_partition and l.expires_at >= clock_timestamp();
    if found then
        acquired := false;
        return;
    end if;
    perform pgmend.refuse_same_columns(p_run, r.plan_id) from pgmend.run r where r.run_id = p_run;
    insert into pgmend.lease as l
           (run_id, partition_no, fence, owner, holder, acquired_at, heartbeat_at, expires_at)
    values (p_run, p_partition, 1, p_owner, p_holder, v_now, v_now, v_now + make_interval(secs => p_seconds))
    on conflict (run_id, partition_no) do update
       set fence = l.fence + 1, owner = excluded.owner, holder = excluded.holder, holder_role = session_user,
           acquired_at = v_now, heartbeat_at = v_now, expires_at = excluded.expires_at
     where l.expires_at < clock_timestamp()
    returning l.fence into acquire_lease.fence;
    acquired := found;
    if acquired then
        held_by := p_holder;
        left_s := p_seconds;
    else
        select l.holder, extract(epoch from l.expires_at - clock_timestamp())
          into held_by, left_s
          from pgmend.lease l where l.run_id = p_run and l.partition_no = p_partition;
    end if;
end $$;

create function pgmend.heartbeat(p_run uuid, p_partition int, p_fence bigint, p_seconds double precision) returns boolean
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    update pgmend.lease
       set heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => p_seconds)
     where run_id = p_run and partition_no = p_partition and fence = p_fence and expires_at > '-infinity'
       and holder_role = session_user;
    return found;
end $$;

create function pgmend.release_lease(p_run uuid, p_partition int, p_fence bigint) returns void
language sql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    update pgmend.lease set expires_at = '-infinity'
     where run_id = p_run and partition_no = p_partition and fence = p_fence and holder_role = session_user;
$$;

-- The fence: raises unless the lease is this worker's, and keeps it so until the transaction ends. A heartbeat passes, a
-- takeover waits.
-- Lock:  the lease's row for key share. Index: lease_fence.
create function pgmend.hold_lease(p_run uuid, p_partition int, p_fence bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    perform from pgmend.lease
      where run_id = p_run and partition_no = p_partition and fence = p_fence and holder_role = session_user
        for key share;
    if not found then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
end $$;

-- The guards of a batch, in contract order: the server, the fence, the predecessor, the batch's own row.
-- Each raises: an empty result that only the client noticed would not stop a pipelined commit.
create function pgmend.begin_batch(
    p_run uuid, p_partition int, p_fence bigint, p_batch_no bigint, p_pass int, p_cursor_to text[],
    p_first_half_to text[], p_system_identifier text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if pg_is_in_recovery() or (select system_identifier::text from pg_control_system()) <> p_system_identifier then
        raise exception 'this is not the server that was planned for' using errcode = 'PM507', schema = 'pgmend';
    end if;
    perform pgmend.hold_lease(p_run, p_partition, p_fence);
    perform pgmend.refuse_batch(p_run);
    if p_batch_no > 1 then
        perform from pgmend.batch
          where run_id = p_run and partition_no = p_partition and batch_no = p_batch_no - 1
            for update;
        if not found then
            raise exception 'batch % is not there', p_batch_no - 1 using errcode = 'PM520', schema = 'pgmend';
        end if;
    end if;
    insert into pgmend.batch (run_id, partition_no, batch_no, fence, pass, cursor_to, first_half_to)
    values (p_run, p_partition, p_batch_no, p_fence, p_pass, p_cursor_to, p_first_half_to);
end $$;

-- The checkpoint: counts and totals of the batch, just before its commit. Rows imaged must be rows changed.
create function pgmend.end_batch(
    p_run uuid, p_partition int, p_batch_no bigint, p_changed bigint, p_imaged bigint, p_skipped bigint,
    p_conflicts bigint, p_took_ms double precision) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if p_imaged is not null and p_imaged <> p_changed then
        raise exception 'batch %: % rows changed but % imaged', p_batch_no, p_changed, p_imaged using errcode = 'PM521', schema = 'pgmend';
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
        raise exception 'batch % has no row', p_batch_no using errcode = 'PM520', schema = 'pgmend';
    end if;
end $$;

-- Adds to the conflicts of a run, from within its batch.
create function pgmend.record_conflict(p_run uuid, p_batch_no bigint, p_n bigint, p_key text[], p_reason text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    -- The batch that this transaction began, having passed the fence.
    if not exists (select from pgmend.batch
                    where run_id = p_run and batch_no = p_batch_no and xid = pg_current_xact_id()) then
        raise exception 'batch % has no row', p_batch_no using errcode = 'PM520', schema = 'pgmend';
    end if;
    insert into pgmend.conflict (run_id, batch_no, n, key, reason) values (p_run, p_batch_no, p_n, p_key, p_reason);
    return true;
end $$;

-- Moves a run to another state. Only the lease's holder ends or stops it; a free lease lets anyone cancel.
create function pgmend.change_state(
    p_run uuid, p_fence bigint, p_from text[], p_state text, p_reason text, p_residual bigint, p_arrived bigint,
    p_verification text[], p_fact text, p_body text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if not exists (select from pgmend.lease
                    where run_id = p_run and fence = p_fence and holder_role = session_user for key share) then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    update pgmend.run
       set state = p_state, reason = p_reason,
           ended_at = case when p_state in ('succeeded', 'cancelled') then clock_timestamp() end,
           residual_rows = coalesce(p_residual, residual_rows),
           arrived_later_rows = coalesce(p_arrived, arrived_later_rows),
           verification = coalesce(p_verification, verification)
     where run_id = p_run and state = any (p_from);
    if not found then
        raise exception 'the run is in another state' using errcode = 'PM511', schema = 'pgmend';
    end if;
    perform pgmend.append_ledger(p_run, p_fact, p_body);
end $$;

-- Tells the ledger what a worker did between two states. Only the lease's holder may, and only these facts.
create function pgmend.record_fact(p_run uuid, p_fence bigint, p_fact text, p_body text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if not exists (select from pgmend.lease where run_id = p_run and fence = p_fence and holder_role = session_user) then
        raise exception 'the lease has been taken over' using errcode = 'PM505', schema = 'pgmend';
    end if;
    if p_fact not in ('run_swept', 'run_checked', 'run_held', 'dead_letters_retried') then
        raise exception '% is not a fact that a worker records', p_fact using errcode = '22023';
    end if;
    perform pgmend.append_ledger(p_run, p_fact, p_body);
end $$;

-- Makes a table of images or a change set. Types come as oids, so that no text of the caller is executed.
-- The caller's role may read and add, nothing else.
create function pgmend.create_image_table(
    p_name name, p_ordinal boolean, p_columns name[], p_types oid[], p_typmods int[], p_collations oid[],
    p_role name, p_comment text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_columns text;
begin
    if p_name not like (case when p_ordinal then 'change\_set\_%' else 'image\_%' end) then
        raise exception '% is no name of images', p_name using errcode = 'PM310', schema = 'pgmend';
    end if;
    if not pg_has_role(session_user, p_role, 'member') then
        raise exception '% is not a member of %', session_user, p_role using errcode = 'PM310', schema = 'pgmend';
    end if;
    select string_agg(format(', %I %s%s', c.name, format_type(c.type, c.typmod),
                             case when c.coll <> 0 then ' collate ' || c.coll::regcollation::text else '' end),
                      '' order by c.at)
      into v_columns
      from unnest(p_columns, p_types, p_typmods, p_collations) with ordinality as c (name, type, typmod, coll, at);
    execute format('create table pgmend.%I (%s, op "char" not null%s%s)', p_name,
                   case when p_ordinal then 'n bigint generated by default as identity (cache 1000)' else 'batch_no bigint not null' end,
                   case when p_ordinal then ' default ''I''' else '' end,
                   coalesce(v_columns, ''));
    execute format('comment on table pgmend.%I is %L', p_name, p_comment);
    execute format('grant select, insert on pgmend.%I to %I', p_name, session_user);
    execute format('grant usage on schema pgmend to %I', session_user);
    if p_role <> session_user then
        execute format('grant usage on schema pgmend to %I', p_role);
        execute format('grant execute on function pgmend.record_conflict(uuid, bigint, bigint, text[], text),
                        pgmend.ordinals_left_alone(uuid), pgmend.open_letter_keys(uuid) to %I', p_role);
        execute format('grant select, insert on pgmend.%I to %I', p_name, p_role);
    end if;
end $$;

-- Indexes the keys of a run's images, for a sweep that must not touch an imaged row again.
create function pgmend.index_images(p_name name) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_keys text;
begin
    if p_name not like 'image\_%' then
        raise exception '% holds no images', p_name using errcode = 'PM501', schema = 'pgmend';
    end if;
    select string_agg(quote_ident(attname), ', ' order by attnum)
      into v_keys
      from pg_attribute
     where attrelid = format('pgmend.%I', p_name)::regclass and attnum > 0 and attname like 'key\_%';
    execute format('create index if not exists %I on pgmend.%I (%s)', left(p_name, 55) || '_key', p_name, v_keys);
    execute format('analyze pgmend.%I', p_name);
end $$;

-- Indexes and analyses a change set once it is complete.
create function pgmend.seal_change_set(p_name name) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if p_name not like 'change\_set\_%' then
        raise exception '% is not a change set', p_name using errcode = 'PM501', schema = 'pgmend';
    end if;
    execute format('alter table pgmend.%I add primary key (n)', p_name);
    execute format('analyze pgmend.%I', p_name);
end $$;

-- Drops a table of images or a change set, after saving digests of its keys so that `trace` still answers.
-- The settings make equal keys print equally; `trace` uses the same.
create function pgmend.prune_image_table(p_name name, p_run uuid, p_target oid) returns bigint
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1
set bytea_output = 'hex' as $$
declare
    v_keys text;
    v_batch text;
    v_pad record;
    v_rows bigint := 0;
begin
    if p_name not like 'change\_set\_%' and p_name not like 'image\_%' then
        raise exception '% holds no images', p_name using errcode = 'PM501', schema = 'pgmend';
    end if;
    if exists (select from pgmend.run r left join pgmend.plan p using (plan_id)
                where (r.image_table = p_name or p.change_set = p_name) and r.ended_at is null) then
        raise exception '% belongs to a run that has not ended', p_name using errcode = 'PM404', schema = 'pgmend';
    end if;
    -- By the table's own run, not by the one that the caller names.
    if p_run is not null and not exists (
        select from pgmend.run r left join pgmend.plan p using (plan_id)
         where r.run_id = p_run and (r.image_table = p_name or p.change_set = p_name)) then
        raise exception '% does not hold the images of run %', p_name, p_run using errcode = 'PM501', schema = 'pgmend';
    end if;
    if not pg_has_role(session_user, (select relowner from pg_class where oid = 'pgmend.run'::regclass), 'member')
       and (exists (select from pgmend.run r left join pgmend.plan p using (plan_id)
                     where (r.image_table = p_name or p.change_set = p_name)
                       and r.ended_at > clock_timestamp() - interval '7 days')
            or exists (select from pgmend.plan p where p.change_set = p_name and p.expires_at > clock_timestamp()
                          and not exists (select from pgmend.run r where r.plan_id = p.plan_id))) then
        raise exception 'only the owner of schema pgmend drops images of the last 7 days' using errcode = 'PM310', schema = 'pgmend';
    end if;
    select string_agg(pgmend.text_of_image(attname, atttypid), ', ' order by attnum)
      into v_keys
      from pg_attribute
     where attrelid = format('pgmend.%I', p_name)::regclass and attnum > 0 and attname like 'key\_%';
    select case when exists (select from pg_attribute
                              where attrelid = format('pgmend.%I', p_name)::regclass and attname = 'batch_no')
                then 'batch_no' else 'null' end
      into v_batch;
    if v_keys is not null and p_run is not null then
        select * into v_pad from pgmend.hmac_pads();
        execute format('insert into pgmend.touched_key (target_oid, key_digest, run_id, batch_no)
                        select $1, sha256($4 || sha256($3 || sha256(convert_to(array[%s]::text, ''UTF8'')))), $2, %s
                          from pgmend.%I as i', v_keys, v_batch, p_name)
          using p_target, p_run, v_pad.inner_pad, v_pad.outer_pad;
        get diagnostics v_rows = row_count;
    end if;
    execute format('drop table pgmend.%I', p_name);
    -- What an encryption left behind that was cut off and never went on.
    if p_name like 'change\_set\_%' then
        execute format('drop table if exists pgmend.%I', 'encrypting_' || substr(p_name, length('change_set_') + 1));
    end if;
    update pgmend.run set pruned_at = clock_timestamp() where run_id = p_run;
    update pgmend.plan set pruned_at = clock_timestamp() where change_set = p_name;
    if p_run is not null then
        perform pgmend.append_ledger(p_run, 'images_pruned',
                                     json_build_object('table', p_name, 'keys_saved', v_rows)::text);
    end if;
    return v_rows;
end $$;

revoke execute on all functions in schema pgmend from public;
