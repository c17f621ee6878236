-- The control schema of pgmend, version 15: signatures are keyed, and a job's role reads the conflicts of its own runs only.
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

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (15);
