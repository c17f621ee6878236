-- What the group roles may do. A runner acts through the functions; an observer reads.
-- Lock:  catalog rows only.
-- Index: none.
grant usage on schema pgmend to pgmend_runner, pgmend_approver, pgmend_observer;

-- By name: tables of images are for the roles of their own run.
grant select on pgmend.schema_version, pgmend.plan, pgmend.run, pgmend.lease, pgmend.batch, pgmend.conflict,
    pgmend.ledger, pgmend.touched_key
    to pgmend_runner, pgmend_approver, pgmend_observer;
grant execute on all functions in schema pgmend to pgmend_runner;
