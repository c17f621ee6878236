-- The tables that a VACUUM of table $1 is made of, its leaf partitions or itself, as JSON objects: name, pages, and
-- whether role $2 may vacuum it. A silent VACUUM skips what it may not.
-- Lock:  none (plain reads of the catalog).
-- Index: the catalogs' own.
select json_build_object(
           'oid', c.oid::bigint, 'name', format('%I.%I', n.nspname, c.relname),
           'pages', pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::bigint,
           'vacuums', pg_catalog.pg_stat_get_vacuum_count(c.oid),
           'may', pg_catalog.pg_has_role($2::name, c.relowner, 'usage')
                  or pg_catalog.pg_has_role($2::name, d.datdba, 'usage')
                  or case when current_setting('server_version_num')::int >= 170000
                          then pg_catalog.has_table_privilege($2::name, c.oid, 'maintain') else false end)::text
  from (select t.relid::oid as oid from pg_catalog.pg_partition_tree($1::oid::regclass) as t where t.isleaf
        union select $1::oid) as leaf
  join pg_catalog.pg_class c on c.oid = leaf.oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_database d on d.datname = current_database()
 where c.relkind = 'r'
 order by c.oid
