-- The control schema of pgmend, version 10: what of a plan its readers may see.
-- Lock:  creates a function in the control schema; touches no user's table.
-- Index: plan_pkey, group_role_pkey.

-- A plan's body. Whoever runs or approves gets it as it is: a run needs the parameters, an approval is bound to all of it.
-- Whoever only reads gets it without the values of rows and parameters that are not plain: a parameter may be a
-- person's name, and samples were shown in full where somebody asked for that. Constants of the statement are plain.
create function pgmend.plan_body(p_plan uuid, out body text, out masked boolean)
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_plan jsonb;
    v_mask constant text := '‹masked›';
    v_in_full boolean;
begin
    select p.body into body from pgmend.plan p where p.plan_id = p_plan;
    -- Version 12 brings the function; nobody calls this one before the migrations have ended.
    masked := not pgmend.reads_values();
    if body is null or not masked then
        return;
    end if;
    -- With the key of its digest a guess of what is masked could be tried; its own signature may be one of an older version.
    v_plan := (body::jsonb - 'digest_key') || (select jsonb_build_object('signature', p.signature) from pgmend.plan p where p.plan_id = p_plan);
    v_in_full := coalesce((v_plan ->> 'shows_values')::boolean, false);
    v_plan := jsonb_set(v_plan, '{params}', coalesce((
        select jsonb_agg(jsonb_set(e.param, '{value}', case when v_in_full then to_jsonb(v_mask)
                         else coalesce(v_plan #> array['shown_params', (e.at - 1)::text], to_jsonb(v_mask)) end) order by e.at)
          from jsonb_array_elements(v_plan -> 'params') with ordinality as e (param, at)), '[]'));
    if v_plan #> '{expect,watch}' is not null then
        v_plan := jsonb_set(v_plan, '{expect,watch}', coalesce((
            select jsonb_agg(jsonb_set(e.row_, '{key}', coalesce((
                       select jsonb_agg(case when v_in_full then to_jsonb(v_mask) else coalesce(k.pair -> 1, to_jsonb(v_mask)) end order by k.at)
                         from jsonb_array_elements(v_plan #> array['watched', (e.at - 1)::text, 'sample', 'key']) with ordinality as k (pair, at)),
                       '[]')) order by e.at)
              from jsonb_array_elements(v_plan #> '{expect,watch}') with ordinality as e (row_, at)), '[]'));
    end if;
    if v_plan #> '{tenants,tenants}' is not null then
        v_plan := jsonb_set(v_plan, '{tenants,tenants}', coalesce((
            select jsonb_agg(e.tenant || case when e.tenant -> 'value' = 'null' then '{}'
                             when v_in_full then jsonb_build_object('value', v_mask, 'shown', v_mask)
                             else jsonb_build_object('value', e.tenant -> 'shown') end order by e.at)
              from jsonb_array_elements(v_plan #> '{tenants,tenants}') with ordinality as e (tenant, at)), '[]'));
    end if;
    if v_in_full then
        v_plan := (v_plan - 'watched') || jsonb_build_object(
            'shown_params', coalesce((select jsonb_agg(v_mask) from jsonb_array_elements(v_plan -> 'params')), '[]'),
            'samples', '[]'::jsonb, 'transitions', '[]'::jsonb, 'groups', null, 'explain', '[]'::jsonb);
    end if;
    body := v_plan::text;
end $$;
revoke execute on function pgmend.plan_body(uuid) from public;

insert into pgmend.schema_version (version) values (10);
