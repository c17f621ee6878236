-- The control schema of pgmend, version 6: what masked values are told apart by, and which roles
-- stand for the groups.
-- Lock:  creates objects in a schema of its own; touches no user's table.
-- Index: token_key_pkey, group_role_pkey.

-- The secret of the tokens that stand for masked values, one for the database: equal values look equal in every plan and
-- report of it. Whoever has it can try guesses, so that only those read it who see rows anyway.
create table pgmend.token_key (
    only_one boolean primary key default true check (only_one),
    secret   text not null check (length(secret) >= 64),
    made_at  timestamptz not null default clock_timestamp()
);
-- Three version-4 UUIDs hold 366 random bits.
insert into pgmend.token_key (secret)
values (translate(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));

create function pgmend.token_secret() returns text
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select secret from pgmend.token_key;
$$;
revoke execute on function pgmend.token_secret() from public;

-- Roles by name where a DBA made them: the grants of roles.sql go to these.
create table pgmend.group_role (
    part text primary key check (part in ('runner', 'approver', 'observer')),
    role name not null
);

insert into pgmend.schema_version (version) values (6);
