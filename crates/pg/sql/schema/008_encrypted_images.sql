-- Encrypted images: their values are encrypted on the server with an image key, a random one that the worker makes.
-- Of the key only an age file is kept, which nobody opens but the recipient's identity.
-- Lock:  creates objects in the control schema; touches no user's table.
-- Index: each table names its own below.
create table pgmend.image_key (
    key_no    bigint generated always as identity primary key,
    run_id    uuid not null,
    recipient text not null,
    -- An age file, about 250 bytes; its content is the passphrase of the rows, as text.
    encrypted bytea not null check (octet_length(encrypted) between 1 and 65536),
    kept_at   timestamptz not null default clock_timestamp()
);
create index image_key_run_id on pgmend.image_key (run_id);

-- Keeps a new image key, committed before the first row that it encrypts. Only the lease's holder may.
-- Lock:  the lease's row for key share; one new row. Index: lease_fence.
create function pgmend.keep_image_key(p_run uuid, p_partition int, p_fence bigint, p_recipient text, p_encrypted bytea)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_no bigint;
begin
    perform pgmend.hold_lease(p_run, p_partition, p_fence);
    insert into pgmend.image_key (run_id, recipient, encrypted) values (p_run, p_recipient, p_encrypted)
    returning key_no into v_no;
    return v_no;
end $$;

-- A failover may have lost the key that a worker still holds: rows encrypted with it could never be read again. The
-- error is that of a missing checkpoint, after which the worker forgets what it holds.
-- Lock:  none (one row is read). Index: image_key_pkey.
create function pgmend.need_image_key(p_run uuid, p_key_no bigint) returns void
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if not exists (select from pgmend.image_key where key_no = p_key_no and run_id = p_run) then
        raise exception 'image key % is not there', p_key_no using errcode = 'PM520', schema = 'pgmend';
    end if;
end $$;

-- Whether the rows of a table of images or of a change set are encrypted.
-- Lock:  none. Index: pg_attribute_relid_attnam_index.
create function pgmend.is_encrypted(p_name name) returns boolean
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select exists (select from pg_attribute
                    where attrelid = to_regclass('pgmend.' || quote_ident(p_name)) and attname = 'encrypted_with'
                      and not attisdropped);
$$;

-- The change set of a run, and the name of the table that its encrypted rows are gathered in.
create function pgmend.encryption_of(p_run uuid, out plain name, out gathered name)
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select p.change_set, ('encrypting_' || substr(p.change_set, length('change_set_') + 1))::name
      from pgmend.run r join pgmend.plan p using (plan_id)
     where r.run_id = p_run and to_regclass('pgmend.' || quote_ident(p.change_set)) is not null
       and not pgmend.is_encrypted(p.change_set);
$$;

-- Begins the encryption of a run's change set, or goes on with one that was cut off: gives the table to fill; null when
-- there is nothing to encrypt. Who may read the change set may read and fill it; nobody else.
-- Lock:  the lease's row for key share; a new table. Index: lease_fence.
create function pgmend.begin_encryption(p_run uuid, p_partition int, p_fence bigint) returns name
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_name record;
    v_keys text;
    v_role record;
begin
    perform pgmend.hold_lease(p_run, p_partition, p_fence);
    select * into v_name from pgmend.encryption_of(p_run);
    if v_name.plain is null or to_regclass(format('pgmend.%I', v_name.gathered)) is not null then
        return v_name.gathered;
    end if;
    select string_agg(format(', %I %s%s', attname, format_type(atttypid, atttypmod),
                             case when attcollation <> 0 then ' collate ' || attcollation::regcollation::text else '' end),
                      '' order by attnum)
      into v_keys
      from pg_attribute
     where attrelid = format('pgmend.%I', v_name.plain)::regclass and attnum > 0 and attname like 'key\_%';
    execute format('create table pgmend.%I (n bigint primary key, op "char" not null%s,
                                            encrypted_with bigint not null, encrypted bytea not null)',
                   v_name.gathered, coalesce(v_keys, ''));
    execute format('comment on table pgmend.%I is %L', v_name.gathered,
                   obj_description(format('pgmend.%I', v_name.plain)::regclass, 'pg_class') || ', encrypted');
    for v_role in
        select distinct a.grantee::regrole as named
          from pg_class c cross join lateral aclexplode(c.relacl) as a
         where c.oid = format('pgmend.%I', v_name.plain)::regclass and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
           and a.grantee <> 0
    loop
        execute format('grant select, insert on pgmend.%I to %s', v_name.gathered, v_role.named);
    end loop;
    return v_name.gathered;
end $$;

-- Ends it: every row is there, so the plain change set goes and the encrypted one takes its name. Gives its rows.
-- Lock:  the lease's row for key share; both tables, which nobody else uses. Index: lease_fence.
create function pgmend.end_encryption(p_run uuid, p_partition int, p_fence bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_name record;
    v_plain_rows bigint;
    v_rows bigint;
begin
    perform pgmend.hold_lease(p_run, p_partition, p_fence);
    select * into v_name from pgmend.encryption_of(p_run);
    if v_name.plain is null then
        return null;
    end if;
    execute format('lock table pgmend.%I, pgmend.%I in access exclusive mode', v_name.plain, v_name.gathered);
    execute format('select count(*) from pgmend.%I', v_name.plain) into v_plain_rows;
    execute format('select count(*) from pgmend.%I', v_name.gathered) into v_rows;
    if v_rows <> v_plain_rows then
        raise exception 'the change set has % rows, % of them encrypted', v_plain_rows, v_rows using errcode = 'PM746', schema = 'pgmend';
    end if;
    execute format('drop table pgmend.%I', v_name.plain);
    execute format('alter table pgmend.%I rename to %I', v_name.gathered, v_name.plain);
    perform pgmend.append_ledger(p_run, 'change_set_encrypted',
                                 json_build_object('table', v_name.plain, 'rows', v_rows)::text);
    return v_rows;
end $$;

-- No run succeeds while its change set is plain although its plan has a recipient, whatever its worker believes.
create function pgmend.refuse_plain_change_set() returns trigger
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if (select plain from pgmend.encryption_of(new.run_id)) is not null
       and exists (select from pgmend.plan where plan_id = new.plan_id and body::jsonb #>> '{images,recipient}' is not null) then
        raise exception 'the change set of the run is not encrypted' using errcode = 'PM746', schema = 'pgmend';
    end if;
    return new;
end $$;
create trigger run_with_a_plain_change_set before update of state on pgmend.run
    for each row when (new.state = 'succeeded') execute function pgmend.refuse_plain_change_set();

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (8);
