-- The tenants of a run as JSON, in the order of its plan, each with its last checkpoint's totals.
-- Lock:  none (plain reads).
-- Index: partition_pkey, tenant_pause_pkey, lease_pkey, batch_pkey (backwards in each partition).
select json_build_object(
           'number', p.partition_no, 'tenant', coalesce(p.tenant, 'NULL'), 'state', p.state, 'rounds', p.rounds, 'sqlstate', p.sqlstate, 'message', p.message,
           'driven', coalesce(l.expires_at >= clock_timestamp(), false),
           'paused_by', t.asked_by, 'pause_reason', t.reason,
           'changed_rows', coalesce(b.changed_total, 0), 'conflict_rows', coalesce(b.conflict_total, 0),
           'dead_rows', coalesce(b.dead_total, 0), 'batches', coalesce(b.batch_no, 0))::text
  from pgmend.partition p
  left join pgmend.tenant_pause t on t.run_id = p.run_id and t.partition_no = p.partition_no
  left join pgmend.lease l on l.run_id = p.run_id and l.partition_no = p.partition_no
  left join lateral (
      select b.changed_total, b.conflict_total, b.dead_total, b.batch_no
        from pgmend.batch b
       where b.run_id = p.run_id and b.partition_no = p.partition_no
       order by b.batch_no desc
       limit 1) as b on true
 where p.run_id = $1::uuid
 order by p.partition_no
