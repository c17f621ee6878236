-- The control schema of pgmend, version 15: what readers see. Signatures are keyed, a job's role reads the conflicts of its
-- own runs only, and whoever may not read images is told a row's story with masked values.
-- Lock:  row locks on pgmend.plan and pgmend.run, once; functions and grants in the control schema.
-- Index: each function names its own below.

-- A signature as the plans of this version have it, from the plain digest that it covers, or that older versions kept: the
-- HMAC of the digest as JSON, under the key of tokens.
-- Lock:  none. Index: token_key_pkey.
create function pgmend.keyed_signature(p_digest text) returns text
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select encode(sha256(pad.outer_pad || sha256(pad.inner_pad || convert_to('"' || p_digest || '"', 'UTF8'))), 'hex')
      from pgmend.hmac_pads() as pad;
$$;

-- A signature covers literals and parameters: whoever may read it must not be able to try a guess. What older versions
-- left becomes what this version makes of the same change, so that the change is known again.
update pgmend.plan set signature = pgmend.keyed_signature(signature);
update pgmend.run set signature = pgmend.keyed_signature(signature);

-- Whether this login may read what a run left alone: it reads values anyway, or has the rights that the run had.
-- Lock:  none. Index: run_pkey.
create function pgmend.reads_run(p_run uuid) returns boolean
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select pgmend.reads_values()
        or exists (select from pgmend.run r join pg_roles o on o.rolname = r.effective_role
                    where r.run_id = p_run and pg_has_role(session_user, o.oid, 'member'));
$$;

-- The rows of a run's change set that it did not change, by ordinal: conflicts, and dead letters that stayed. For
-- statements in the rights of the job's role, which has no right to the tables themselves.
-- Lock:  none. Index: conflict_pkey, dead_letter_run_id.
create function pgmend.ordinals_left_alone(p_run uuid) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if not pgmend.reads_run(p_run) then
        raise exception 'run % had the rights of another role', p_run using errcode = 'PM310', schema = 'pgmend';
    end if;
    return query
    select c.n from pgmend.conflict c where c.run_id = p_run
     union all
    select d.ordinal from pgmend.dead_letter d where d.run_id = p_run and d.ordinal is not null and d.state <> 'changed';
end $$;

-- The keys of a run's open dead letters, for the same statements.
-- Lock:  none. Index: dead_letter_run_id.
create function pgmend.open_letter_keys(p_run uuid) returns setof text[]
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if not pgmend.reads_run(p_run) then
        raise exception 'run % had the rights of another role', p_run using errcode = 'PM310', schema = 'pgmend';
    end if;
    return query select d.key from pgmend.dead_letter d where d.run_id = p_run and d.state = 'open';
end $$;

-- Older versions let the roles of jobs read the conflicts and dead letters of every run. The groups get their rights
-- back from roles.sql, which always follows.
do $$
declare
    v_right record;
begin
    for v_right in
        select distinct c.oid::regclass as of_table, a.grantee::regrole as of_role
          from pg_class c cross join lateral aclexplode(c.relacl) as a
         where c.oid in ('pgmend.conflict'::regclass, 'pgmend.dead_letter'::regclass)
           and a.grantee not in (0, c.relowner)
    loop
        execute format('revoke all on %s from %s', v_right.of_table, v_right.of_role);
    end loop;
    -- Whoever had a job run with its rights, and may need them to undo it.
    for v_right in
        select distinct o.oid::regrole as of_role from pgmend.run r join pg_roles o on o.rolname = r.effective_role
         where r.effective_role <> r.started_by
    loop
        execute format('grant execute on function pgmend.ordinals_left_alone(uuid), pgmend.open_letter_keys(uuid) to %s',
                       v_right.of_role);
    end loop;
end $$;

-- The text of a column of an image, as an expression. Not by a cast where the type is somebody's own: this is executed in
-- the rights of the schema's owner, and whoever owns a type may make casts of it.
-- Lock:  none. Index: pg_type_oid_index.
create function pgmend.text_of_image(p_column name, p_type oid) returns text
language sql stable set search_path = pg_catalog, pgmend, pg_temp as $$
    select case when t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b' then format('i.%I::text', p_column)
                else format('case when i.%1$I is null then null else format(''%%s'', i.%1$I) end', p_column) end
      from pg_type t where t.oid = p_type;
$$;

-- Whether values of a column may be told to whoever only reads: booleans, enums, integers and uuids that are keys or refer
-- to one. What a job declares plain is so, too; that is the caller's business.
-- Lock:  none. Index: pg_index_indrelid_index, pg_constraint_conrelid_contypid_conname_index.
create function pgmend.is_plain_column(p_target oid, p_attnum int, p_type oid) returns boolean
language sql stable set search_path = pg_catalog, pgmend, pg_temp as $$
    select exists (select from pg_type t where t.oid = p_type and t.typcategory in ('B', 'E'))
        or p_type in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype)
       and (exists (select from pg_constraint c where c.conrelid = p_target and c.contype = 'f' and p_attnum = any (c.conkey))
            or exists (select from pg_index i
                        where i.indrelid = p_target and i.indisunique and i.indisvalid and i.indimmediate
                          and i.indpred is null and i.indexprs is null
                          and p_attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                          and not exists (select from unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) as k (attnum)
                                            join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                                           where not a.attnotnull)));
$$;

-- The columns of a run's images, and of what part of a row: the key, before, after. Only those that its table has: an
-- encrypted one has the key.
-- Lock:  none. Index: pg_attribute_relid_attnam_index.
create function pgmend.image_columns(
    p_layout jsonb, p_table regclass, out part text, out at bigint, out attnum int, out named text, out image_column name, out type oid)
returns setof record
language sql stable set search_path = pg_catalog, pgmend, pg_temp as $$
    select p.part, e.at, (e.c ->> 'attnum')::int, e.c ->> 'column', a.attname, a.atttypid
      from unnest(array['key', 'before', 'after']) as p (part)
     cross join lateral jsonb_array_elements(p_layout -> p.part) with ordinality as e (c, at)
      join pg_attribute a on a.attrelid = p_table and a.attname = e.c ->> 'image_column' and a.attnum > 0 and not a.attisdropped;
$$;

-- The images that a run kept of one row, for whoever may not read them: values as tokens, but for plain columns and
-- constants of the statement; nulls where they are encrypted. The key's columns are attribute numbers of the target,
-- its values in their order, as the server prints them. An answer confirms a guess: a key that is not plain is
-- answered only to those who may read the row itself. What is plain is the planner's to say, of images that they or the
-- starter of the run may read.
-- Lock:  none. Index: run_pkey, plan_pkey; the images are read from end to end, since most have no index of their keys.
create function pgmend.masked_images(
    p_run uuid, p_key_columns smallint[], p_key text[], out place bigint, out op text, out before text[], out after text[])
returns setof record
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_run record;
    v_name name;
    v_maker name;
    v_layout jsonb;
    v_table regclass;
    v_reads boolean;
    v_where text;
    v_cells text[];
    v_pad record;
begin
    select r.target_oid, r.started_by, r.image_table, p.planned_by, p.change_set, p.body::jsonb as body
      into v_run
      from pgmend.run r join pgmend.plan p using (plan_id) where r.run_id = p_run;
    if v_run.image_table is not null and v_run.body #> '{images,layout}' is not null then
        v_name := v_run.image_table;
        v_maker := v_run.started_by;
        v_layout := v_run.body #> '{images,layout}';
    else
        v_name := v_run.change_set;
        v_maker := v_run.planned_by;
        v_layout := v_run.body #> '{change_set,layout}';
    end if;
    v_table := to_regclass(format('pgmend.%I', v_name));
    if v_table is null or v_layout is null then
        return;
    end if;
    if v_name not like 'image\_%' and v_name not like 'change\_set\_%'
       or not exists (select from pg_roles o where o.rolname = v_maker and has_table_privilege(o.oid, v_table, 'select')) then
        raise exception '% does not hold the images of run %', v_name, p_run using errcode = 'PM501', schema = 'pgmend';
    end if;
    v_reads := pgmend.reads_values() or coalesce(has_table_privilege(session_user, v_run.target_oid, 'select'), false);
    -- The row's key as it was or as it became: a statement may write the key itself.
    select string_agg(side.sql, ' or ')
      into v_where
      from (select '(' || string_agg(case when t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b'
                                          then format('i.%I = ($1)[%s]::%s', c.image_column, k.at, format_type(c.type, null))
                                          else format('%s = ($1)[%s]', pgmend.text_of_image(c.image_column, c.type), k.at) end,
                                     ' and ') || ')' as sql
              from (values (array['key', 'before']), (array['after', 'key'])) as s (parts)
             cross join unnest(p_key_columns) with ordinality as k (attnum, at)
             cross join lateral (select c.image_column, c.type, c.named
                                   from pgmend.image_columns(v_layout, v_table) as c
                                  where c.attnum = k.attnum and c.part = any (s.parts)
                                  order by array_position(s.parts, c.part) limit 1) as c
              join pg_type t on t.oid = c.type
             where v_reads or pgmend.is_plain_column(v_run.target_oid, k.attnum, c.type)
                or coalesce(v_run.body -> 'plain', '[]') ? c.named
             group by s.parts
            having count(*) = cardinality(p_key_columns)) as side;
    if v_where is null then
        if v_reads then
            return;
        end if;
        raise exception 'role % may not read the rows of %', session_user, v_run.target_oid::regclass using errcode = 'PM310', schema = 'pgmend';
    end if;
    select * into v_pad from pgmend.hmac_pads();
    select array[coalesce(string_agg(v.sql, ', ' order by c.at) filter (where c.part = 'before'), ''),
                 coalesce(string_agg(v.sql, ', ' order by c.at) filter (where c.part = 'after'), '')]
      into v_cells
      from pgmend.image_columns(v_layout, v_table) as c
     cross join lateral (select pgmend.text_of_image(c.image_column, c.type) as text_) as x
     cross join lateral (select case when pgmend.is_plain_column(v_run.target_oid, c.attnum, c.type)
                                       or coalesce(v_run.body -> 'plain', '[]') ? c.named then x.text_
                                     else format('case when %1$s = any ($2) then %1$s when %1$s is not null then pgmend.token_of(%1$s, $3, $4) end', x.text_)
                                end as sql) as v;
    return query execute format(
        'select i.%I::bigint, i.op::text, array[%s]::text[], array[%s]::text[] from %s as i where %s order by 1',
        case when v_name like 'image\_%' then 'batch_no' else 'n' end, v_cells[1], v_cells[2], v_table, v_where)
      using p_key, array(select jsonb_array_elements_text(coalesce(v_run.body -> 'constants', '[]'))), v_pad.inner_pad, v_pad.outer_pad;
end $$;

-- Runs with pruned images that touched a key, and when, by the digest that `pgmend trace` computes. A guess is as good as
-- a key here, so that only those may ask who may read the row itself, unless all such keys are plain. Conflicts were not
-- touched, as far as their key reads as `p_key`.
-- Lock:  none. Index: touched_key_digest, batch_pkey, conflict_pkey.
create or replace function pgmend.runs_touching(p_target oid, p_digest bytea, p_key text[], out run_id uuid, out touched_at timestamptz)
returns setof record
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_pad record;
begin
    if not (pgmend.reads_values() or coalesce(has_table_privilege(session_user, p_target, 'select'), false))
       and exists (select from (select distinct k.run_id from pgmend.touched_key k where k.target_oid = p_target) as r
                    where pgmend.plain_keys(r.run_id) = '{}' or not true = all (pgmend.plain_keys(r.run_id))) then
        raise exception 'role % may not read the rows of %', session_user, p_target::regclass using errcode = 'PM310', schema = 'pgmend';
    end if;
    select * into v_pad from pgmend.hmac_pads();
    return query
    select k.run_id, coalesce(min(b.begun_at), max(r.ended_at), max(r.started_at))
      from pgmend.touched_key k
      join pgmend.run r on r.run_id = k.run_id
      left join pgmend.batch b on b.run_id = k.run_id and b.partition_no = k.batch_no / 1000000000000
                              and b.batch_no = k.batch_no % 1000000000000
     where k.target_oid = p_target
       and k.key_digest = sha256(v_pad.outer_pad || sha256(v_pad.inner_pad || p_digest))
       and not exists (select from pgmend.conflict c where c.run_id = k.run_id and c.key = p_key)
     group by k.run_id;
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (15);
