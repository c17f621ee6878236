-- The control schema of pgmend, version 17: a change set may go in halves.
-- Lock:  creates a function in a schema of its own; touches no user's table.
-- Index: none; it names its own.

-- Closes the gap that the last stretch of a change set in halves has in its ordinals, before it is sealed: of `p_rows` rows, those
-- left over by the whole stretches were numbered as if there were more of them.
-- Lock:  row exclusive on a change set that no other transaction sees yet. Index: none yet, so that it is read once from end to end.
create function pgmend.close_last_stretch(p_name name, p_half_rows bigint, p_rows bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_whole bigint := p_rows / (2 * p_half_rows) * 2 * p_half_rows;
    v_first bigint := (p_rows - v_whole + 1) / 2;
begin
    if p_name not like 'change\_set\_%' then
        raise exception '% is not a change set', p_name using errcode = 'PM501', schema = 'pgmend';
    end if;
    if exists (select from pg_index where indrelid = format('pgmend.%I', p_name)::regclass) then
        raise exception '% is sealed', p_name using errcode = 'PM501', schema = 'pgmend';
    end if;
    if p_rows > v_whole then
        execute format('update pgmend.%I set n = n - $1 where n > $2', p_name)
          using p_half_rows - v_first, v_whole + p_half_rows;
    end if;
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (17);
