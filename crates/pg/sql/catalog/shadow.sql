-- What a schema of the search path redefines that pg_catalog defines, where that schema comes first: names, the first five.
-- Statements of ours would mean it, too.
-- Lock:  none beyond AccessShareLock on catalogs.
-- Index: pg_operator_oprname_l_r_n_index, pg_proc_proname_args_nsp_index.
with path as (
    select n.oid, n.nspname, u.place
      from unnest(current_schemas(true)) with ordinality as u (name, place)
      join pg_catalog.pg_namespace n on n.nspname = u.name
), earlier as (
    select oid, nspname from path where place < (select p.place from path p where p.nspname = 'pg_catalog')
), shadow as (
    select e.nspname || '.' || o.oprname as name
      from earlier e
      join pg_catalog.pg_operator o on o.oprnamespace = e.oid
     where exists (select from pg_catalog.pg_operator s
                    where s.oprname = o.oprname and s.oprleft = o.oprleft and s.oprright = o.oprright
                      and s.oprnamespace = 'pg_catalog'::regnamespace)
    union
    select e.nspname || '.' || f.proname || '()'
      from earlier e
      join pg_catalog.pg_proc f on f.pronamespace = e.oid
     where exists (select from pg_catalog.pg_proc s
                    where s.proname = f.proname and s.proargtypes = f.proargtypes
                      and s.pronamespace = 'pg_catalog'::regnamespace)
)
select name from shadow order by name limit 5
