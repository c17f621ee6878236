-- The worst volatility among the functions that a name may mean, and whether a user defined any of them.
-- Lock:  none beyond AccessShareLock on catalogs.
-- Index: pg_proc_proname_args_nsp_index.
select case when bool_or(p.provolatile = 'v') then 'v' when bool_or(p.provolatile = 's') then 's' else 'i' end as volatility,
       coalesce(bool_or(n.nspname <> 'pg_catalog'), false)::text as user_defined,
       coalesce(bool_or(p.prokind in ('a', 'w')), false)::text as aggregate
  from pg_catalog.pg_proc p
  join pg_catalog.pg_namespace n on n.oid = p.pronamespace
 where p.proname = $1
   and case when $2 <> '' then n.nspname = $2
            else pg_catalog.pg_function_is_visible(p.oid) end
