-- The control schema of pgmend, version 12: keys are values. A key may be a mail address: whoever only reads gets the
-- columns that hold keys through functions, masked where the key's type or the job does not say that it is plain.
-- Lock:  creates functions in the control schema; access exclusive on pgmend.touched_key, once, if it has rows.
-- Index: each function names its own below.

-- Whether this login may read values: it runs, approves, or owns the schema. The other two see rows or plans anyway.
-- Lock:  none. Index: group_role_pkey.
create function pgmend.reads_values() returns boolean
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select pg_has_role(session_user, (select relowner from pg_class where oid = 'pgmend.plan'::regclass), 'member')
        or exists (select from pg_roles r
                    where r.rolname in (coalesce((select g.role from pgmend.group_role g where g.part = 'runner'), 'pgmend_runner'),
                                        coalesce((select g.role from pgmend.group_role g where g.part = 'approver'), 'pgmend_approver'))
                      and pg_has_role(session_user, r.oid, 'member'));
$$;

-- The two pads of HMAC-SHA-256 (RFC 2104) under the key of tokens, which is the SHA-256 of the secret: the HMAC of a
-- message is sha256(outer || sha256(inner || message)). Nobody but functions of the schema may call this.
-- Lock:  none. Index: token_key_pkey.
create function pgmend.hmac_pads(out inner_pad bytea, out outer_pad bytea)
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    -- A block of SHA-256 has 64 bytes, the key half of that: zeros fill it.
    v_key constant bytea := (select sha256(convert_to(secret, 'UTF8')) from pgmend.token_key) || decode(repeat('00', 32), 'hex');
begin
    inner_pad := v_key;
    outer_pad := v_key;
    for v_at in 0..63 loop
        inner_pad := set_byte(inner_pad, v_at, get_byte(v_key, v_at) # 54);
        outer_pad := set_byte(outer_pad, v_at, get_byte(v_key, v_at) # 92);
    end loop;
end $$;

-- The token of a value, as pgmend makes it: the first 30 bits of its HMAC, in Crockford's base 32.
create function pgmend.token_of(p_value text, p_inner bytea, p_outer bytea) returns text
language sql immutable set search_path = pg_catalog, pgmend, pg_temp as $$
    select '‹' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', ((h.bits >> (27 - 5 * n)) & 31)::int + 1, 1), '' order by n) || '›'
      from (select ((get_byte(m.hash, 0)::bigint * 256 + get_byte(m.hash, 1)) * 256 + get_byte(m.hash, 2)) * 256 + get_byte(m.hash, 3) as bits
              from (select sha256(p_outer || sha256(p_inner || convert_to(p_value, 'UTF8'))) as hash) as m) as h,
           generate_series(0, 5) as n;
$$;

-- Which columns of a run's key are plain: integers, uuids, and what the job declares. Null for whoever reads values.
-- Lock:  none. Index: run_pkey, plan_pkey.
create function pgmend.plain_keys(p_run uuid) returns boolean[]
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select case when pgmend.reads_values() then null
                else coalesce((select array_agg(k.type in ('smallint', 'integer', 'bigint', 'uuid') or b.body -> 'plain' ? c.name order by k.at)
                                 from (select p.body::jsonb as body from pgmend.run r join pgmend.plan p using (plan_id) where r.run_id = p_run) as b
                                cross join lateral jsonb_array_elements_text(b.body #> '{key,types}') with ordinality as k (type, at)
                                 join lateral jsonb_array_elements_text(b.body #> '{key,columns}') with ordinality as c (name, at) using (at)), '{}')
           end;
$$;

-- A key as its reader may see it, by what `plain_keys` says.
create function pgmend.shown_key(p_key text[], p_plain boolean[], p_inner bytea, p_outer bytea) returns text[]
language sql immutable set search_path = pg_catalog, pgmend, pg_temp as $$
    select case when p_plain is null then p_key
                else array(select case when coalesce(p_plain[k.at], false) then k.value else pgmend.token_of(k.value, p_inner, p_outer) end
                             from unnest(p_key) with ordinality as k (value, at) order by k.at) end;
$$;

-- The conflicts of a run after the one with number `p_after`, in order, `p_most` of them; null: all.
-- Lock:  none. Index: conflict_pkey.
create function pgmend.conflicts_of(p_run uuid, p_after bigint default null, p_most bigint default null) returns setof pgmend.conflict
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_plain constant boolean[] := pgmend.plain_keys(p_run);
    v_pad record;
begin
    select * into v_pad from pgmend.hmac_pads();
    return query
    select c.run_id, c.batch_no, c.n, pgmend.shown_key(c.key, v_plain, v_pad.inner_pad, v_pad.outer_pad), c.reason, c.recorded_at
      from pgmend.conflict c
     where c.run_id = p_run and (p_after is null or c.n > p_after)
     order by c.n limit p_most;
end $$;

-- The dead letters of a run after letter `p_after`, in order, `p_most` of them; null: all.
-- Lock:  none. Index: dead_letter_run_id.
create function pgmend.dead_letters_of(p_run uuid, p_after bigint default null, p_most bigint default null, p_open_only boolean default false)
returns setof pgmend.dead_letter
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_plain constant boolean[] := pgmend.plain_keys(p_run);
    v_pad record;
begin
    select * into v_pad from pgmend.hmac_pads();
    return query
    select d.letter_no, d.run_id, d.partition_no, d.batch_no, d.ordinal,
           pgmend.shown_key(d.key, v_plain, v_pad.inner_pad, v_pad.outer_pad), d.sqlstate, d.message, d.constraint_name,
           d.column_name, d.attempts, d.state, d.recorded_at, d.settled_at, d.settled_in
      from pgmend.dead_letter d
     where d.run_id = p_run and (p_after is null or d.letter_no > p_after) and (d.state = 'open' or not p_open_only)
     order by d.letter_no limit p_most;
end $$;

-- The key that a run ends with; null for whoever may not read values, who drives nothing either.
-- Lock:  none. Index: run_pkey.
create function pgmend.upper_bound_of(p_run uuid) returns text[]
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select r.upper_bound from pgmend.run r where r.run_id = p_run and pgmend.reads_values();
$$;

-- When the batch of a row of a change set began, by the row's ordinal; null when no batch has changed it. One that was
-- set aside and changed later was changed by the batch that settled it; one that was a conflict, by none.
-- Lock:  none. Index: batch_pkey, partition_pkey, dead_letter_run_id, conflict_pkey.
create function pgmend.ordinal_changed_at(p_run uuid, p_n bigint) returns timestamptz
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select b.begun_at
      from pgmend.batch b
     where b.run_id = p_run
       and case when exists (select from pgmend.dead_letter d where d.run_id = p_run and d.ordinal = p_n)
                then exists (select from pgmend.dead_letter d
                              where d.run_id = p_run and d.ordinal = p_n and d.state = 'changed' and d.settled_in = b.batch_no)
                else b.cursor_to[1]::bigint >= p_n
                     and (b.partition_no = 0 and not exists (select from pgmend.partition p where p.run_id = p_run)
                          or exists (select from pgmend.partition p
                                      where p.run_id = p_run and p.partition_no = b.partition_no and coalesce(p.lower[1]::bigint, 0) < p_n))
           end
       and not exists (select from pgmend.conflict c where c.run_id = p_run and c.n = p_n)
     order by b.partition_no desc, b.batch_no limit 1;
$$;

-- Digests that older versions left were not keyed: the HMAC of the digest is what this version keeps. Written anew rather
-- than updated: the table has no key, and where a publication is FOR ALL TABLES, no update of it is possible.
do $$
begin
    if exists (select from pgmend.touched_key) then
        create temporary table pgmend_keyed on commit drop as
        select k.target_oid, sha256(pad.outer_pad || sha256(pad.inner_pad || k.key_digest)) as key_digest, k.run_id, k.batch_no
          from pgmend.touched_key k cross join pgmend.hmac_pads() as pad;
        truncate pgmend.touched_key;
        insert into pgmend.touched_key (target_oid, key_digest, run_id, batch_no)
        select target_oid, key_digest, run_id, batch_no from pgmend_keyed;
    end if;
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (12);
