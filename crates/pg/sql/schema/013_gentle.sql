-- The control schema of pgmend, version 13: no more rows are set aside than people approved, whatever a client allows.
-- Lock:  creates a function and a trigger in a schema of its own; touches no user's table.
-- Index: none; the function names its own.

-- What stops a batch that sets rows aside at its checkpoint: where the plan had to be approved, more letters than the
-- approved plan says. Counted as the client counts: open letters of all partitions, a share of what was planned or of
-- what there is, whichever is more.
-- Lock:  none (plain reads; letters of two partitions at once take turns, see dead_letter_turn).
-- Index: run_pkey, plan_pkey, partition_pkey, batch_pkey backwards in each partition.
create function pgmend.refuse_unapproved_letters() returns trigger
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_plan uuid;
    v_planned bigint;
    v_limit jsonb;
    v_sum record;
    v_most bigint;
begin
    select r.plan_id, r.planned_rows, coalesce(p.body::jsonb -> 'dead_letters', '{}')
      into v_plan, v_planned, v_limit
      from pgmend.run r join pgmend.plan p using (plan_id) where r.run_id = new.run_id;
    if (select required from pgmend.approvals_required(v_plan)) = 0 then
        return null;
    end if;
    select coalesce(sum(b.dead_total), 0) as letters,
           coalesce(sum(b.changed_total + b.skipped_total + b.conflict_total + b.dead_total), 0) as seen
      into v_sum
      from (select 0 as partition_no union all select p.partition_no from pgmend.partition p where p.run_id = new.run_id) as p
     cross join lateral (select b.changed_total, b.skipped_total, b.conflict_total, b.dead_total from pgmend.batch b
                          where b.run_id = new.run_id and b.partition_no = p.partition_no
                          order by b.batch_no desc limit 1) as b;
    v_most := least((v_limit ->> 'rows_max')::bigint,
                    floor((v_limit ->> 'share_max')::float8 * greatest(v_planned, v_sum.seen))::bigint);
    if v_sum.letters > coalesce(v_most, 0) then
        raise exception 'the plan that was approved lets % rows be set aside, and this batch makes it %', coalesce(v_most, 0), v_sum.letters
            using errcode = 'PM766', schema = 'pgmend';
    end if;
    return null;
end $$;
create trigger batch_with_unapproved_letters after update of dead_total on pgmend.batch
    for each row when (new.dead_rows > 0) execute function pgmend.refuse_unapproved_letters();

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (13);
