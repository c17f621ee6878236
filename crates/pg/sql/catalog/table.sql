-- Everything the planner needs to know of a table, as one JSON object shaped like `core::table::Table`.
-- Lock:  none beyond AccessShareLock on catalogs.
-- Index: pg_class_oid_index and the catalogs' own indexes on the relation's oid.
with recursive target as (
    select c.*, n.nspname
      from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.oid = $1::oid
), tree as (
    select relid, isleaf from pg_catalog.pg_partition_tree($1::oid)
    union
    select $1::oid, true where not exists (select from pg_catalog.pg_partition_tree($1::oid))
), col as (
    select a.attnum, a.attname, a.attnotnull, a.attgenerated, a.attidentity, a.attcollation,
           t.oid as type_oid, t.typtype, t.typnotnull, t.typdefault,
           coalesce(d.base_oid, t.oid) as base_oid,
           case when t.typtype = 'd' then d.base_typmod else a.atttypmod end as base_typmod,
           case when t.typtype = 'd' then format_type(t.oid, null) end as domain,
           coalesce(d.domain_not_null, false) as domain_not_null, d.domain_default,
           -- A default names no column. With the table's oid the server would, for each of them, make the names of all the
           -- table's columns unique, one against the other: half a minute for 1,600 columns that have defaults.
           pg_get_expr(ad.adbin, case when a.attgenerated = '' then 0::oid else ad.adrelid end) as default_sql,
           row_number() over (order by a.attnum) - 1 as position
      from pg_catalog.pg_attribute a
      join pg_catalog.pg_type t on t.oid = a.atttypid
      left join pg_catalog.pg_attrdef ad on ad.adrelid = a.attrelid and ad.adnum = a.attnum
      left join lateral (
          with recursive up as (
              select t.typbasetype as oid, t.typtypmod as typmod, t.typnotnull as not_null, t.typdefault as dflt
               where t.typtype = 'd'
              union all
              select b.typbasetype, b.typtypmod, up.not_null or b.typnotnull, coalesce(up.dflt, b.typdefault)
                from up join pg_catalog.pg_type b on b.oid = up.oid where b.typtype = 'd')
          select up.oid as base_oid, up.typmod as base_typmod, up.not_null as domain_not_null, up.dflt as domain_default
            from up join pg_catalog.pg_type b on b.oid = up.oid where b.typtype <> 'd') d on true
     where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
), idx as (
    select i.*, ic.relname, am.amname, con.conname, con.contype,
           (select array_agg(k order by o) from unnest(i.indkey::int2[]) with ordinality as u (k, o) where o <= i.indnkeyatts) as keys
      from pg_catalog.pg_index i
      join pg_catalog.pg_class ic on ic.oid = i.indexrelid
      join pg_catalog.pg_am am on am.oid = ic.relam
      left join pg_catalog.pg_constraint con on con.conindid = i.indexrelid and con.conrelid = i.indrelid and con.contype in ('p', 'u', 'x')
     where i.indrelid = $1::oid
), sorted as (
    -- Unique indexes in an order that a library decides: the version that it had when they were built, and has now.
    select i.indexrelid, bool_or(v.recorded <> v.actual) as drifted,
           bool_or(v.recorded is null or v.actual is null) as unknown
      from pg_catalog.pg_index i
     cross join lateral unnest(i.indcollation::oid[]) with ordinality as u (oid, o)
      join pg_catalog.pg_collation co on co.oid = u.oid
      join pg_catalog.pg_database d on d.datname = current_database()
     cross join lateral (
         -- The database's own collation (100) is recorded with the database, from version 15 on; before, it is glibc's.
         select case when co.oid = 100 then coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') else co.collprovider::text end as provider,
                case when co.oid = 100 then d.datcollate::text else co.collcollate::text end as locale,
                case when co.oid = 100 then to_jsonb(d) ->> 'datcollversion' else co.collversion end as recorded,
                case when co.oid = 100 then $2::text else pg_collation_actual_version(co.oid) end as actual) as v
     where i.indrelid = $1::oid and i.indisunique and u.o <= i.indnkeyatts
           -- Byte by byte, or an order that PostgreSQL itself holds: no library changes it.
       and not (v.provider = 'b' or (v.provider = 'c' and (v.locale in ('C', 'POSIX') or v.locale like 'C.%')))
     group by i.indexrelid
), uniq as (
    select x.*,
           case when not x.indisvalid then 'is invalid'
                when not x.indimmediate then 'is deferrable'
                when x.indpred is not null then 'is partial'
                when x.indexprs is not null then 'is on an expression'
                when x.amname <> 'btree' then 'is not a btree'
                when exists (select from unnest(x.keys) k join pg_catalog.pg_attribute a on a.attrelid = $1::oid and a.attnum = k where not a.attnotnull)
                then 'has a column that may be NULL'
                when x.indnkeyatts > 8 then 'has more than 8 columns'
                when exists (select from sorted s where s.indexrelid = x.indexrelid and s.drifted)
                then 'uses a collation that was built with another version' end as unusable
      from idx x where x.indisunique
), fk as (
    select con.*,
           json_build_object(
               'name', con.conname,
               'from', json_build_object('schema', fn.nspname, 'name', f.relname),
               'from_columns', (select json_agg(a.attname order by o) from unnest(con.conkey) with ordinality u (k, o) join pg_catalog.pg_attribute a on a.attrelid = con.conrelid and a.attnum = k),
               'to', json_build_object('schema', tn.nspname, 'name', t.relname),
               'to_columns', (select json_agg(a.attname order by o) from unnest(con.confkey) with ordinality u (k, o) join pg_catalog.pg_attribute a on a.attrelid = con.confrelid and a.attnum = k),
               'on_delete', case con.confdeltype when 'c' then 'cascade' when 'n' then 'set' when 'd' then 'set' else 'reject' end,
               'on_update', case con.confupdtype when 'c' then 'cascade' when 'n' then 'set' when 'd' then 'set' else 'reject' end,
               'deferrable', con.condeferrable) as body
      from pg_catalog.pg_constraint con
      join pg_catalog.pg_class f on f.oid = con.conrelid join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
      join pg_catalog.pg_class t on t.oid = con.confrelid join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
     where con.contype = 'f' and con.conparentid = 0 and (con.conrelid = $1::oid or con.confrelid = $1::oid)
), trg as (
    select distinct on (tg.tgname, tg.tgfoid, tg.tgtype) tg.*, pn.nspname || '.' || p.proname as function, p.prosrc
      from pg_catalog.pg_trigger tg
      join pg_catalog.pg_proc p on p.oid = tg.tgfoid join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace
     where not tg.tgisinternal and tg.tgrelid in (select relid from tree union select $1::oid)
     order by tg.tgname, tg.tgfoid, tg.tgtype
), reach as (
    -- What the triggers lead to, as far as names tell: functions (f), relations that these name (r), and relations that a
    -- foreign key's action writes (c). Root 0 is what the target's own foreign keys write.
    (select g.oid as root, 'f' as what, g.tgfoid as oid from trg g where g.tgenabled in ('O', 'A')
      union all
     select 0::oid, 'c', fk.conrelid from fk
      where fk.confrelid = $1::oid and (fk.confdeltype in ('c', 'n', 'd') or fk.confupdtype in ('c', 'n', 'd')))
    union
    select reach.root, next.what, next.oid
      from reach
     cross join lateral (
           select p.prosrc, p.oid, regexp_split_to_array(p.body || ' ' || lower(p.body), '[^[:alnum:]_$]+') as words
             from (select f.oid, f.prosrc, regexp_replace(coalesce(nullif(f.prosrc, ''), pg_get_function_sqlbody(f.oid), ''),
                                           '--[^\n]*|''(insert|update|delete|truncate)''', '', 'gi') as body
                     from pg_catalog.pg_proc f where reach.what = 'f' and f.oid = reach.oid) as p
            union all
           select null, reach.oid, '{}' where reach.what <> 'f') as named
     cross join lateral (
           select 'f' as what, p.oid from pg_catalog.pg_proc p
            where p.proname = any (named.words) and p.oid >= 16384 and p.prorettype <> 'pg_catalog.trigger'::regtype
            union all
           select case when c.relkind = 'v' then 'v' else 'r' end, c.oid from pg_catalog.pg_class c
            where c.relname = any (named.words) and c.oid >= 16384 and c.relkind in ('r', 'p', 'v')
              and c.relnamespace::regnamespace::text <> 'pgmend'
              and named.words && '{insert,update,delete,merge,execute,copy}'
            union all
           select 'f', tg.tgfoid from pg_catalog.pg_trigger tg
            where reach.what in ('r', 'c') and tg.tgrelid = reach.oid and not tg.tgisinternal and tg.tgenabled in ('O', 'A')
              and tg.tgrelid not in (select relid from tree)
            union all
           select 'c', k.conrelid from pg_catalog.pg_constraint k
            where reach.what in ('r', 'c') and k.contype = 'f' and k.confrelid = reach.oid
              and (k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd'))) as next
), led as (
    select reach.root,
           case reach.what when 'f' then (select coalesce(nullif(f.prosrc, ''), pg_get_function_sqlbody(f.oid), '') from pg_catalog.pg_proc f where f.oid = reach.oid)
                           when 'v' then 'select ' || pg_get_viewdef(reach.oid)
                           when 'c' then 'delete from ' || reach.oid::regclass::text end as body
      from reach
), lost as (
    -- Where a name leads nowhere: a function in a language that shows no tables, or one that puts statements together.
    select distinct reach.root
      from reach join pg_catalog.pg_proc f on f.oid = reach.oid join pg_catalog.pg_language l on l.oid = f.prolang
     where reach.what = 'f' and f.oid >= 16384
       and (l.lanname not in ('plpgsql', 'sql') or f.prosrc ~* '\mexecute\M')
)
select json_build_object(
    'oid', t.oid::bigint,
    'name', json_build_object('schema', t.nspname, 'name', t.relname),
    'kind', case t.relkind when 'r' then 'plain' when 'p' then 'partitioned' else 'not_a_table' end,
    'relkind', t.relkind::text, 'persistence', t.relpersistence::text,
    'columns', coalesce((select json_agg(json_build_object(
        'attnum', c.attnum, 'name', c.attname,
        'base_type', json_build_object(
            'oid', c.base_oid::bigint, 'typmod', c.base_typmod, 'sql', format_type(c.base_oid, c.base_typmod),
            'collation', case when c.attcollation <> 0 and c.attcollation <> bt.typcollation then
                (select quote_ident(cn.nspname) || '.' || quote_ident(co.collname) from pg_catalog.pg_collation co join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace where co.oid = c.attcollation) end,
            'category', bt.typcategory::text),
        'domain', c.domain,
        'element_type', case when bt.typcategory = 'A' and bt.typelem <> 0 then format_type(bt.typelem, c.base_typmod) end,
        'fields', coalesce((select json_agg(json_build_array(fa.attname, format_type(fa.atttypid, fa.atttypmod)) order by fa.attnum)
                     from pg_catalog.pg_attribute fa where fa.attrelid = bt.typrelid and bt.typrelid <> 0 and fa.attnum > 0 and not fa.attisdropped), '[]'),
        'not_null', c.attnotnull or c.domain_not_null,
        'generated', c.attgenerated <> '',
        'identity', case c.attidentity when 'a' then 'always' when 'd' then 'by_default' end,
        'default_sql', case when c.attgenerated = '' then coalesce(c.default_sql, c.domain_default) end) order by c.attnum)
        from col c join pg_catalog.pg_type bt on bt.oid = c.base_oid), '[]'),
    'keys', coalesce((select json_agg(json_build_object('index', u.relname, 'primary', u.indisprimary,
        'columns', (select json_agg(c.position order by o) from unnest(u.keys) with ordinality k (n, o) join col c on c.attnum = k.n))
        order by u.indisprimary desc, u.indnkeyatts, u.relname) from uniq u where u.unusable is null), '[]'),
    'unique_indexes', coalesce((select json_agg(json_build_object('name', u.relname, 'attnums', u.keys, 'immediate', u.indimmediate,
        'partial', u.indpred is not null, 'exclusion', u.contype is not distinct from 'x', 'constraint', u.conname) order by u.relname)
        from idx u where u.indisunique or u.contype = 'x'), '[]'),
    'index_count', (select count(*) from idx),
    'unusable_keys', coalesce((select json_agg(u.relname || ' ' || u.unusable order by u.relname) from uniq u where u.unusable is not null), '[]'),
    'unversioned_keys', coalesce((select json_agg(u.relname order by u.relname) from uniq u join sorted s using (indexrelid) where s.unknown), '[]'),
    'referenced_by', coalesce((select json_agg(fk.body order by fk.conname) from fk where fk.confrelid = t.oid), '[]'),
    'references', coalesce((select json_agg(fk.body order by fk.conname) from fk where fk.conrelid = t.oid), '[]'),
    'unvalidated', coalesce((select json_agg(k.conname order by k.conname) from pg_catalog.pg_constraint k
        where k.conrelid = t.oid and k.contype in ('c', 'f') and not k.convalidated), '[]'),
    'triggers', coalesce((select json_agg(json_build_object('name', g.tgname, 'function', g.function,
        'row', (g.tgtype & 1) <> 0, 'before', (g.tgtype & 2) <> 0, 'instead', (g.tgtype & 64) <> 0,
        'on_insert', (g.tgtype & 4) <> 0, 'on_delete', (g.tgtype & 8) <> 0, 'on_update', (g.tgtype & 16) <> 0,
        'of_columns', coalesce((select json_agg(a.attname order by a.attnum) from unnest(g.tgattr::int2[]) u (k)
            join pg_catalog.pg_attribute a on a.attrelid = g.tgrelid and a.attnum = u.k), '[]'),
        'deferrable', g.tgdeferrable, 'enabled', g.tgenabled <> 'D', 'source', g.prosrc,
        'unfollowed', exists (select from lost where lost.root = g.oid),
        'reached', coalesce((select json_agg(led.body order by led.body) from led where led.root = g.oid and led.body is not null), '[]')) order by g.tgname) from trg g), '[]'),
    'cascaded', coalesce((select json_agg(led.body order by led.body) from led where led.root = 0 and led.body is not null), '[]'),
    'cascade_unfollowed', exists (select from lost where lost.root = 0),
    'rules', coalesce((select json_agg(json_build_object('name', r.rulename, 'on', case r.ev_type when '2' then 'update' when '3' then 'insert' else 'delete' end) order by r.rulename)
        from pg_catalog.pg_rewrite r where r.ev_class = t.oid and r.ev_type <> '1' and r.ev_enabled in ('O', 'A')), '[]'),
    'row_security', row_security_active(t.oid),
    'policies', (select count(*) from pg_catalog.pg_policy p where p.polrelid = t.oid),
    'partitions', coalesce((select json_agg(json_build_object('schema', pn.nspname, 'name', pc.relname) order by pn.nspname, pc.relname)
        from tree join pg_catalog.pg_class pc on pc.oid = tree.relid join pg_catalog.pg_namespace pn on pn.oid = pc.relnamespace
        where t.relkind = 'p' and tree.isleaf and pc.oid <> t.oid), '[]'),
    'inheritance_children', coalesce((select json_agg(json_build_object('schema', pn.nspname, 'name', pc.relname) order by pc.relname)
        from pg_catalog.pg_inherits i join pg_catalog.pg_class pc on pc.oid = i.inhrelid join pg_catalog.pg_namespace pn on pn.oid = pc.relnamespace
        where i.inhparent = t.oid and t.relkind <> 'p'), '[]'),
    'replica_identity', t.relreplident::text,
    'publications', coalesce((select json_agg(pubname order by pubname) from pg_catalog.pg_publication_tables pt where pt.schemaname = t.nspname and pt.tablename = t.relname), '[]'),
    'estimated_rows', (select case when min(lc.reltuples) < 0 then null else sum(lc.reltuples) end from tree join pg_catalog.pg_class lc on lc.oid = tree.relid where tree.isleaf),
    'heap_bytes', (select coalesce(sum(pg_relation_size(tree.relid)), 0) from tree where tree.isleaf),
    'total_bytes', (select coalesce(sum(pg_total_relation_size(tree.relid)), 0) from tree where tree.isleaf),
    'fingerprint', md5(concat_ws('|', t.oid, t.relkind, t.relrowsecurity,
        (select string_agg(concat_ws(',', c.attnum, c.attname, c.base_oid, c.base_typmod, c.attnotnull, c.attgenerated, c.attidentity, c.default_sql), ';' order by c.attnum) from col c),
        (select string_agg(concat_ws(',', x.relname, x.keys, x.indisunique, x.indisvalid, x.indimmediate), ';' order by x.relname) from idx x),
        (select string_agg(pg_get_constraintdef(k.oid), ';' order by k.conname) from pg_catalog.pg_constraint k where k.conrelid = t.oid),
        (select string_agg(concat_ws(',', g.tgname, g.tgtype, g.tgenabled, md5(g.prosrc)), ';' order by g.tgname) from trg g),
        (select string_agg(pg_get_ruledef(r.oid), ';' order by r.rulename) from pg_catalog.pg_rewrite r where r.ev_class = t.oid and r.ev_type <> '1'))))::text
  from target t
