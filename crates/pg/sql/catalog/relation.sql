-- How a relation that the statement reads relates to the target: is it the target, does it hold or show its rows.
-- Views are followed through their rewrite rules, with the relations and functions they depend on.
-- Lock:  none beyond AccessShareLock on catalogs.
-- Index: pg_depend_depender_index, pg_rewrite_rel_rulename_index.
with recursive family as (
    select $2::oid as relid
    union select relid from pg_catalog.pg_partition_ancestors($2::oid)
    union select relid from pg_catalog.pg_partition_tree($2::oid)
), reach as (
    select $1::oid as relid
    union
    select d.refobjid
      from reach
      join pg_catalog.pg_rewrite r on r.ev_class = reach.relid and r.ev_type = '1'
      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
                                 and d.refclassid = 'pg_catalog.pg_class'::regclass
), called as (
    select distinct d.refobjid as procid
      from reach
      join pg_catalog.pg_rewrite r on r.ev_class = reach.relid and r.ev_type = '1'
      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
                                 and d.refclassid = 'pg_catalog.pg_proc'::regclass
)
select (exists (select from reach join family using (relid)))::text as reads_target,
       (exists (select from called join pg_catalog.pg_proc p on p.oid = called.procid
                 join pg_catalog.pg_namespace n on n.oid = p.pronamespace
                where p.provolatile <> 'i' and n.nspname <> 'pg_catalog'))::text as calls_unknown,
       (select c.relkind::text from pg_catalog.pg_class c where c.oid = $1::oid) as relkind,
       (select coalesce(json_agg(c.oid::bigint order by c.oid), '[]')::text from reach join pg_catalog.pg_class c on c.oid = reach.relid
         where c.relkind in ('r', 'p')) as tables
