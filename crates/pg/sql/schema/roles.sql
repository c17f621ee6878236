-- What the group roles may do. A runner acts through the functions; an observer reads.
-- Lock:  catalog rows only.
-- Index: none.
grant usage on schema pgmend to pgmend_runner, pgmend_approver, pgmend_observer;
grant select on all tables in schema pgmend to pgmend_runner, pgmend_approver, pgmend_observer;
grant execute on all functions in schema pgmend to pgmend_runner;
