-- What the group roles may do. A runner acts through functions that decide for themselves, an approver says yes, no
-- and enough, an observer reads. Nobody but the owner may create, alter, drop or write anything directly.
-- Lock:  catalog rows only.
-- Index: none.
grant usage on schema pgmend to pgmend_runner, pgmend_approver, pgmend_observer;

-- By name: tables of images are for the roles of their own run.
grant select on pgmend.schema_version, pgmend.lease,
    pgmend.ledger, pgmend.ledger_head, pgmend.touched_key, pgmend.policy, pgmend.approval, pgmend.control,
    pgmend.break_glass, pgmend.review_item, pgmend.hold, pgmend.group_role, pgmend.tuning, pgmend.driving, pgmend.dead_letter_turn,
    pgmend.vacuum, pgmend.tuned_limit, pgmend.image_key, pgmend.tenant_pause
    to pgmend_runner, pgmend_approver, pgmend_observer;
-- A plan's body holds the values of its parameters: whoever only reads gets it through plan_body, without them.
revoke select on pgmend.plan from pgmend_observer;
grant select on pgmend.plan to pgmend_runner, pgmend_approver;
grant select (plan_id, job, kind, signature, digest, target_oid, undo_of, undo_where, change_set, planned_by,
              effective_role, planned_at, expires_at, pruned_at) on pgmend.plan to pgmend_observer;
-- The same holds for keys, of which one may be a mail address: conflicts_of and dead_letters_of mask them.
revoke select on pgmend.run, pgmend.batch, pgmend.partition, pgmend.conflict, pgmend.dead_letter from pgmend_observer;
grant select on pgmend.run, pgmend.batch, pgmend.partition, pgmend.conflict, pgmend.dead_letter to pgmend_runner, pgmend_approver;
-- All but run.upper_bound, batch.cursor_to and first_half_to, partition.lower and upper, conflict.key and dead_letter.key.
grant select (run_id, plan_id, job, kind, signature, target_oid, target, undo_of, state, reason, again_reason, instant,
              planned_rows, image_table, started_by, effective_role, client, started_at, ended_at, residual_rows,
              arrived_later_rows, verification, pruned_at) on pgmend.run to pgmend_observer;
grant select (run_id, partition_no, batch_no, fence, pass, changed_rows, skipped_rows, conflict_rows, dead_rows,
              changed_total, skipped_total, conflict_total, dead_total, took_ms, xid, begun_at) on pgmend.batch to pgmend_observer;
grant select (run_id, partition_no, state, tenant, canary, rounds, sqlstate, message) on pgmend.partition to pgmend_observer;
grant select (run_id, batch_no, n, reason, recorded_at) on pgmend.conflict to pgmend_observer;
grant select (letter_no, run_id, partition_no, batch_no, ordinal, sqlstate, message, constraint_name, column_name, attempts,
              state, recorded_at, settled_at, settled_in) on pgmend.dead_letter to pgmend_observer;
grant execute on function pgmend.plan_body(uuid), pgmend.conflicts_of(uuid, bigint, bigint),
    pgmend.dead_letters_of(uuid, bigint, bigint, boolean), pgmend.upper_bound_of(uuid),
    pgmend.ordinal_changed_at(uuid, bigint), pgmend.runs_touching(oid, bytea, text[]),
    pgmend.masked_images(uuid, smallint[], text[])
    to pgmend_runner, pgmend_approver, pgmend_observer;
grant execute on function pgmend.current_policy(), pgmend.approvals_required(uuid), pgmend.approvals_held(uuid),
    pgmend.is_planner(uuid, name), pgmend.guardrails(uuid), pgmend.window_at(jsonb, timestamptz),
    pgmend.windows(jsonb, timestamptz, int), pgmend.is_encrypted(name)
    to pgmend_runner, pgmend_approver, pgmend_observer;

grant execute on function
    pgmend.store_plan(uuid, text, text, text, text, oid, uuid, text, text, name, name, timestamptz),
    pgmend.start_run(uuid, uuid, text, text, timestamptz, text[], bigint, name, name, text, text, text),
    pgmend.acquire_lease(uuid, int, text, text, double precision),
    pgmend.heartbeat(uuid, int, bigint, double precision),
    pgmend.release_lease(uuid, int, bigint),
    pgmend.begin_batch(uuid, int, bigint, bigint, int, text[], text[], text),
    pgmend.end_batch(uuid, int, bigint, bigint, bigint, bigint, bigint, double precision),
    pgmend.written_rows(oid, oid[]),
    pgmend.refuse_unseen_writes(uuid, int, bigint, text, oid, oid[], bigint[], bigint),
    pgmend.record_conflict(uuid, bigint, bigint, text[], text),
    pgmend.ordinals_left_alone(uuid),
    pgmend.open_letter_keys(uuid),
    pgmend.set_aside(uuid, int, bigint, bigint, text[], text, text, text, text),
    pgmend.settle_dead_letter(uuid, int, bigint, bigint, text, text, text, text, text),
    pgmend.divide_run(uuid, bigint, json),
    pgmend.take_partition(uuid, text, text, double precision, int),
    pgmend.close_partition(uuid, int, bigint),
    pgmend.divide_by_tenant(uuid, bigint, json),
    pgmend.take_tenant(uuid, text, text, double precision, int, int, text, int, bigint),
    pgmend.leave_tenant(uuid, int, bigint, boolean, text, text),
    pgmend.reopen_tenants(uuid, bigint),
    pgmend.begin_vacuum(uuid, int, bigint, bigint),
    pgmend.end_vacuum(uuid, int, bigint, int, text, text, bigint, bigint),
    pgmend.keep_image_key(uuid, int, bigint, text, bytea),
    pgmend.need_image_key(uuid, bigint),
    pgmend.begin_encryption(uuid, int, bigint),
    pgmend.end_encryption(uuid, int, bigint),
    pgmend.change_state(uuid, bigint, text[], text, text, bigint, bigint, text[], text, text),
    pgmend.record_fact(uuid, bigint, text, text),
    pgmend.set_holds(uuid, int, bigint, jsonb),
    pgmend.announce(uuid, int, bigint, jsonb, text, double precision),
    pgmend.create_image_table(name, boolean, name[], oid[], int[], oid[], name, text),
    pgmend.index_images(name),
    pgmend.close_last_stretch(name, bigint, bigint),
    pgmend.seal_change_set(name),
    pgmend.prune_image_table(name, uuid, oid)
    to pgmend_runner;
grant execute on function pgmend.ask(uuid, text, text), pgmend.lift(uuid), pgmend.token_secret(),
    pgmend.ask_tenant(uuid, int, text), pgmend.lift_tenant(uuid, int),
    pgmend.tune(uuid, jsonb, int, text), pgmend.tune_limits(uuid, jsonb, int, text)
    to pgmend_runner, pgmend_approver;
grant execute on function
    pgmend.approve(uuid, text, text, text),
    pgmend.revoke_approval(uuid, text),
    pgmend.grant_break_glass(uuid, text, name, text, text, int),
    pgmend.close_review(uuid, text)
    to pgmend_approver;
