-- The control schema of pgmend, version 16: a batch whose triggers nobody could follow writes its own rows and no others.
-- Lock:  creates functions in a schema of its own; touches no user's table.
-- Index: none; each function names its own.

-- Rows that this session has inserted, updated and deleted in a table, and written in others, as its own statistics count
-- them: partitions and children included. What earlier transactions of the session wrote may be among them, so that only
-- the difference between two readings of one transaction says something.
-- Lock:  none (the session's own counters). Index: pg_inherits_parent_index.
create function pgmend.written_rows(p_target oid, p_others oid[]) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if current_setting('track_counts') = 'off' then
        raise exception 'the rows that triggers write cannot be counted: track_counts is off' using errcode = 'PM790', schema = 'pgmend';
    end if;
    return (
        with recursive family (mine, relid) as (
            select true, p_target
             union
            select false, o from unnest(p_others) as o
             union
            select f.mine, i.inhrelid from family f join pg_inherits i on i.inhparent = f.relid
        ), written as (
            select mine, pg_stat_get_xact_tuples_inserted(relid) as inserted, pg_stat_get_xact_tuples_updated(relid) as updated,
                   pg_stat_get_xact_tuples_deleted(relid) as deleted
              from family
        )
        select array[coalesce(sum(inserted) filter (where mine), 0), coalesce(sum(updated) filter (where mine), 0),
                     coalesce(sum(deleted) filter (where mine), 0),
                     coalesce(sum(inserted + updated + deleted) filter (where not mine), 0)]::bigint[]
          from written);
end $$;

-- Refuses a batch in which more rows of the target were written than it says it changed, or any of what the statement reads.
-- An update that moves a row to another partition is a deletion and an insertion. Rows set aside in this batch were tried in
-- vain, each once, and count as written.
-- Lock:  none (the session's own counters; the batch's row, which this transaction has). Index: batch_pkey.
create function pgmend.refuse_unseen_writes(
    p_run uuid, p_partition int, p_batch_no bigint, p_kind text, p_target oid, p_others oid[], p_before bigint[], p_changed bigint)
    returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_now bigint[] := pgmend.written_rows(p_target, p_others);
    v_inserted bigint := v_now[1] - p_before[1];
    v_updated bigint := v_now[2] - p_before[2];
    v_deleted bigint := v_now[3] - p_before[3];
    v_moved bigint := case p_kind when 'update' then least(v_inserted, v_deleted) else 0 end;
    v_written bigint := v_inserted + v_updated + v_deleted - v_moved;
    v_others bigint := v_now[4] - p_before[4];
    v_own bigint := case p_kind when 'update' then v_updated + v_moved
                                when 'delete' then v_deleted
                                else v_inserted + v_updated end;
    v_tried bigint := coalesce((select b.dead_rows from pgmend.batch b
                                 where b.run_id = p_run and b.partition_no = p_partition and b.batch_no = p_batch_no), 0);
begin
    if v_own < p_changed or v_written > p_changed + v_tried then
        raise exception 'batch %: % rows of % were written and % were to change: a trigger wrote more than the plan could foresee',
            p_batch_no, v_written, p_target::regclass, p_changed using errcode = 'PM790', schema = 'pgmend';
    end if;
    if v_others > 0 then
        raise exception 'batch %: a trigger wrote % rows of what the statement reads', p_batch_no, v_others
            using errcode = 'PM790', schema = 'pgmend';
    end if;
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (16);
