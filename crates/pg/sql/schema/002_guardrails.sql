-- The control schema of pgmend, version 2: who may run what, when, and who said so.
-- Lock:  creates objects in a schema of its own; touches no user's table.
-- Index: none; each table names its own below.

-- The policy of this database. Rows are never changed: the newest counts, the older ones tell what was in force.
-- Only the schema's owner writes it, so a runner's own file can be stricter but never laxer.
create table pgmend.policy (
    policy_no   bigint generated always as identity primary key,
    environment text not null,
    body        jsonb not null,
    set_by      name not null default session_user,
    set_at      timestamptz not null default clock_timestamp()
);

create function pgmend.set_policy(p_environment text, p_body jsonb) returns bigint
language sql set search_path = pg_catalog, pgmend, pg_temp as $$
    insert into pgmend.policy (environment, body) values (p_environment, p_body) returning policy_no;
$$;

create function pgmend.current_policy(out environment text, out body jsonb)
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select environment, body from pgmend.policy order by policy_no desc limit 1;
$$;

-- A yes or a veto of a named role, bound to the digest of one plan.
create table pgmend.approval (
    approval_id    bigint generated always as identity primary key,
    plan_id        uuid not null references pgmend.plan,
    digest         text not null,
    verdict        text not null check (verdict in ('approved', 'vetoed')),
    reason         text not null check (btrim(reason) <> ''),
    approver       name not null,
    effective_role name not null,
    given_at       timestamptz not null default clock_timestamp(),
    expires_at     timestamptz not null,
    revoked_at     timestamptz,
    revoked_by     name,
    revoke_reason  text,
    check ((revoked_at is null) = (revoked_by is null)),
    check ((revoked_at is null) = (revoke_reason is null))
);
create unique index approval_once on pgmend.approval (plan_id, approver) where revoked_at is null;

-- What a person asked of a run: the next batch finds it and does not begin.
create table pgmend.control (
    run_id       uuid primary key references pgmend.run,
    wish         text not null check (wish in ('pause', 'cancel')),
    reason       text not null check (btrim(reason) <> ''),
    asked_by     name not null default session_user,
    asked_at     timestamptz not null default clock_timestamp()
);

-- Leave to run one plan without its approvals: from a second role, for a short time, with a reason and a ticket.
create table pgmend.break_glass (
    token      uuid primary key default gen_random_uuid(),
    plan_id    uuid not null references pgmend.plan,
    digest     text not null,
    granted_by name not null,
    granted_to name not null,
    reason     text not null check (btrim(reason) <> ''),
    ticket     text not null check (btrim(ticket) <> ''),
    granted_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    used_by    uuid references pgmend.run
);
create index break_glass_plan on pgmend.break_glass (plan_id);

-- What somebody must look at afterwards; shown until it is closed.
create table pgmend.review_item (
    run_id    uuid primary key references pgmend.run,
    why       text not null,
    opened_at timestamptz not null default clock_timestamp(),
    closed_at timestamptz,
    closed_by name,
    note      text,
    check ((closed_at is null) = (closed_by is null)),
    check ((closed_at is null) = (note is null))
);

-- The open windows from an instant on, the one that contains it first, within so many days. Windows are local times of
-- a zone; one that ends before it begins lasts into the next day. `[]` is always open. One that is open at the end of
-- the days known closes there.
create function pgmend.windows(p_hours jsonb, p_from timestamptz, p_days int, out opens_at timestamptz, out closes_at timestamptz)
returns setof record
language plpgsql stable set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_zone text := coalesce(p_hours ->> 'zone', 'UTC');
    v_local timestamp := p_from at time zone coalesce(p_hours ->> 'zone', 'UTC');
begin
    if p_hours is null then
        opens_at := '-infinity';
        closes_at := 'infinity';
        return next;
        return;
    end if;
    return query
    with window_ as (
        select case when jsonb_array_length(coalesce(p_hours -> 'windows', '[]')) = 0
                    then '[{"days": ["mon","tue","wed","thu","fri","sat","sun"], "from": "00:00", "to": "24:00"}]'::jsonb
                    else p_hours -> 'windows' end as list
    ), day as (
        select v_local::date + i as at from generate_series(-1, p_days) as i
    ), open as (
        select day.at + (w ->> 'from')::interval as opens,
               day.at + (w ->> 'to')::interval
                   + case when (w ->> 'to')::interval <= (w ->> 'from')::interval then interval '1 day' else interval '0' end as closes
          from day, window_, jsonb_array_elements(window_.list) as w
         where w -> 'days' ? to_char(day.at::timestamp, 'dy')
    ), dark as (
        select split_part(b, '..', 1)::date::timestamp as begins,
               coalesce(nullif(split_part(b, '..', 2), ''), b)::date + interval '1 day' as ends
          from jsonb_array_elements_text(coalesce(p_hours -> 'blackout', '[]')) as b
    ), merged as (
        -- Windows that touch are one: `to` 24:00 and `from` 00:00 close nothing.
        select range_agg(tsrange(opens, closes)) - coalesce((select range_agg(tsrange(begins, ends)) from dark), '{}') as all_
          from open where opens < closes
    ), piece as (
        select lower(p) as opens, upper(p) as closes from merged, unnest(all_) as p
    )
    select piece.opens at time zone v_zone, piece.closes at time zone v_zone
      from piece where piece.closes > v_local order by piece.opens;
end $$;

-- The open window that contains an instant, or the next one. A week tells it nearly always: every batch asks.
create function pgmend.window_at(p_hours jsonb, p_at timestamptz, out opens_at timestamptz, out closes_at timestamptz)
language plpgsql stable set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_days int;
begin
    foreach v_days in array array[8, 400] loop
        select w.opens_at, w.closes_at into opens_at, closes_at from pgmend.windows(p_hours, p_at, v_days) as w limit 1;
        exit when p_hours is null or closes_at < p_at + (v_days - 1) * interval '1 day';
    end loop;
end $$;

-- Whether a plan meets a condition of the policy: all that the condition names must hold.
create function pgmend.meets(p_when jsonb, p_plan jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pgmend, pg_temp as $$
    select coalesce((p_plan #>> '{counts,changed_rows,value}')::numeric >= (p_when ->> 'rows_min')::numeric, true)
       and coalesce((p_plan #>> '{counts,changed_rows,value}')::numeric
                    >= (p_when ->> 'share_min')::numeric * (p_plan #>> '{counts,scanned_rows,value}')::numeric, true)
       and coalesce(p_when -> 'tables' ? ((p_plan #>> '{target,schema}') || '.' || (p_plan #>> '{target,name}')), true)
       and coalesce(p_when -> 'kinds' ? (p_plan ->> 'kind'), true)
       and coalesce((p_when ->> 'irreversible')::boolean = not (p_plan -> 'reversible' ->> 0)::boolean, true)
       and (p_when -> 'columns' is null or exists (
            select from jsonb_array_elements_text(coalesce(p_plan -> 'writes', '[]')) as w
             where p_when -> 'columns' ? ((p_plan #>> '{target,schema}') || '.' || (p_plan #>> '{target,name}') || '.' || w)));
$$;

-- A condition of the policy in words, all parts of which hold.
create function pgmend.condition_in_words(p_when jsonb) returns text
language sql immutable set search_path = pg_catalog, pgmend, pg_temp as $$
    select concat_ws(' and ',
        ltrim(to_char((p_when ->> 'rows_min')::numeric, 'FM999,999,999,999,999')) || ' rows or more',
        trim_scale((p_when ->> 'share_min')::numeric * 100) || ' % of the table or more',
        'table ' || (select string_agg(e, ' or ') from jsonb_array_elements_text(nullif(p_when -> 'tables', 'null')) as e),
        'column ' || (select string_agg(e, ' or ') from jsonb_array_elements_text(nullif(p_when -> 'columns', 'null')) as e),
        (select string_agg(e, ' or ') from jsonb_array_elements_text(nullif(p_when -> 'kinds', 'null')) as e),
        case (p_when ->> 'irreversible')::boolean when true then 'what cannot be undone' when false then 'what can be undone' end);
$$;

-- How many approvals a plan needs, and why. The undo of a run is covered by what was said to the run itself.
create function pgmend.approvals_required(p_plan uuid, out required int, out why text[])
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_policy jsonb;
    v_plan pgmend.plan;
    v_rule jsonb;
begin
    required := 0;
    why := '{}';
    select p.body into v_policy from pgmend.current_policy() as p;
    select * into v_plan from pgmend.plan where plan_id = p_plan;
    if v_policy is null or not found then
        return;
    end if;
    if exists (select from pgmend.run where run_id = v_plan.undo_of and kind <> 'undo') then
        why := array['the approvals of the run cover its undo'];
        return;
    end if;
    required := coalesce((v_policy ->> 'approvals')::int, 0);
    if required > 0 then
        why := array[format('%s for every run', required)];
    end if;
    for v_rule in select r from jsonb_array_elements(coalesce(v_policy -> 'more', '[]')) as r loop
        if pgmend.meets(v_rule - 'approvals', v_plan.body::jsonb) then
            required := greatest(required, (v_rule ->> 'approvals')::int);
            why := why || format('%s for %s', v_rule ->> 'approvals', pgmend.condition_in_words(v_rule - 'approvals'));
        end if;
    end loop;
end $$;

-- Roles that made or registered a plan of this change: they do not approve it.
create function pgmend.is_planner(p_plan uuid, p_role name) returns boolean
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select exists (select from pgmend.plan p join pgmend.plan q using (target_oid, kind)
                    where q.plan_id = p_plan and p.planned_by = p_role
                      and p.body::jsonb ->> 'canonical' = q.body::jsonb ->> 'canonical');
$$;

-- Approvals of a plan that count now.
create function pgmend.approvals_held(p_plan uuid, out approved int, out vetoed_by name)
language sql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
    select count(distinct a.approver) filter (where a.verdict = 'approved' and a.expires_at > clock_timestamp()
                                                and not pgmend.is_planner(p_plan, a.approver))::int,
           min(a.approver::text) filter (where a.verdict = 'vetoed')::name
      from pgmend.approval a join pgmend.plan p using (plan_id)
     where a.plan_id = p_plan and a.revoked_at is null and a.digest = p.digest;
$$;

create function pgmend.approve(p_plan uuid, p_digest text, p_verdict text, p_reason text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_plan pgmend.plan;
    v_hours numeric;
    v_id bigint;
begin
    select * into v_plan from pgmend.plan where plan_id = p_plan for share;
    if not found then
        raise exception 'plan % is not stored here', p_plan using errcode = 'PM501', schema = 'pgmend';
    end if;
    if v_plan.digest <> p_digest then
        raise exception 'plan % has another digest than the one that was shown', p_plan using errcode = 'PM502', schema = 'pgmend';
    end if;
    if p_verdict = 'approved' and pgmend.is_planner(p_plan, session_user) then
        raise exception 'role % has planned this change and cannot approve it', session_user using errcode = 'PM602', schema = 'pgmend';
    end if;
    -- A run that goes on may need a yes again, long after its plan could start one: one was taken back.
    if v_plan.expires_at < clock_timestamp()
       and not exists (select from pgmend.run where plan_id = p_plan and ended_at is null) then
        raise exception 'plan % has expired', p_plan using errcode = 'PM502', schema = 'pgmend';
    end if;
    if exists (select from pgmend.run where plan_id = p_plan and ended_at is not null) then
        raise exception 'plan % has been used', p_plan using errcode = 'PM503', schema = 'pgmend';
    end if;
    select (p.body ->> 'approval_hours')::numeric into v_hours from pgmend.current_policy() as p;
    update pgmend.approval set revoked_at = clock_timestamp(), revoked_by = session_user, revoke_reason = 'said anew'
     where plan_id = p_plan and approver = session_user and revoked_at is null;
    insert into pgmend.approval (plan_id, digest, verdict, reason, approver, effective_role, expires_at)
    values (p_plan, p_digest, p_verdict, p_reason, session_user, current_setting('role'),
            clock_timestamp() + coalesce(v_hours, 24) * interval '1 hour')
    returning approval_id into v_id;
    perform pgmend.append_ledger(p_plan, case p_verdict when 'approved' then 'plan_approved' else 'plan_vetoed' end,
                                 json_build_object('approval', v_id, 'digest', p_digest)::text);
    return v_id;
end $$;

-- Takes a yes back. A run of the plan that is under way stops before its next batch.
create function pgmend.revoke_approval(p_plan uuid, p_reason text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_run uuid;
begin
    update pgmend.approval set revoked_at = clock_timestamp(), revoked_by = session_user, revoke_reason = p_reason
     where plan_id = p_plan and approver = session_user and revoked_at is null;
    if not found then
        raise exception 'role % has no approval of plan % to take back', session_user, p_plan using errcode = 'PM501', schema = 'pgmend';
    end if;
    perform pgmend.append_ledger(p_plan, 'approval_revoked', '{}');
    select run_id into v_run from pgmend.run where plan_id = p_plan and ended_at is null;
    if found then
        perform pgmend.ask(v_run, 'pause', format('%s took the approval back: %s', session_user, p_reason));
    end if;
    return v_run is not null;
end $$;

-- Asks a run to pause or to end. The next batch does not begin; a batch under way is finished.
create function pgmend.ask(p_run uuid, p_wish text, p_reason text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if not exists (select from pgmend.run where run_id = p_run and ended_at is null) then
        raise exception 'run % has ended', p_run using errcode = 'PM511', schema = 'pgmend';
    end if;
    insert into pgmend.control (run_id, wish, reason) values (p_run, p_wish, p_reason)
    on conflict (run_id) do update
       set wish = excluded.wish, reason = excluded.reason, asked_by = session_user, asked_at = clock_timestamp();
    perform pgmend.append_ledger(p_run, p_wish || '_asked', json_build_object('reason', p_reason)::text);
    perform pg_notify('pgmend_control', p_run::text);
end $$;

-- Lifts a pause. A run whose plan has lost an approval that it needs stays where it is.
create function pgmend.lift(p_run uuid) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_plan uuid;
begin
    if not exists (select from pgmend.control where run_id = p_run) then
        return;
    end if;
    select plan_id into v_plan from pgmend.run where run_id = p_run;
    if (select wish from pgmend.control where run_id = p_run) = 'pause' and exists (
        select from pgmend.approval where plan_id = v_plan and revoked_at is not null and revoke_reason <> 'said anew')
       and (select count(*) from pgmend.approval where plan_id = v_plan and revoked_at is null and verdict = 'approved')
           < (select required from pgmend.approvals_required(v_plan))
    then
        raise exception 'an approval of this run was taken back' using errcode = 'PM601', schema = 'pgmend';
    end if;
    delete from pgmend.control where run_id = p_run;
    perform pgmend.append_ledger(p_run, 'pause_lifted', '{}');
end $$;

-- Leave for one role to run one plan without its approvals.
create function pgmend.grant_break_glass(p_plan uuid, p_digest text, p_to name, p_reason text, p_ticket text, p_minutes int)
returns uuid language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_token uuid;
begin
    if p_to = session_user then
        raise exception 'role % cannot break the glass for itself', session_user using errcode = 'PM603', schema = 'pgmend';
    end if;
    if p_minutes not between 1 and 240 then
        raise exception 'a token lasts 1 to 240 minutes' using errcode = 'PM603', schema = 'pgmend';
    end if;
    if not exists (select from pgmend.plan where plan_id = p_plan and digest = p_digest) then
        raise exception 'plan % is not stored here with this digest', p_plan using errcode = 'PM502', schema = 'pgmend';
    end if;
    if exists (select from pgmend.run where plan_id = p_plan) then
        raise exception 'plan % has been used', p_plan using errcode = 'PM503', schema = 'pgmend';
    end if;
    insert into pgmend.break_glass (plan_id, digest, granted_by, granted_to, reason, ticket, expires_at)
    values (p_plan, p_digest, session_user, p_to, p_reason, p_ticket, clock_timestamp() + p_minutes * interval '1 minute')
    returning token into v_token;
    perform pgmend.append_ledger(p_plan, 'glass_may_be_broken', json_build_object('to', p_to, 'ticket', p_ticket)::text);
    return v_token;
end $$;

create function pgmend.close_review(p_run uuid, p_note text) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
begin
    if exists (select from pgmend.run where run_id = p_run and started_by = session_user) then
        raise exception 'role % started run % and cannot review it', session_user, p_run using errcode = 'PM602', schema = 'pgmend';
    end if;
    update pgmend.review_item set closed_at = clock_timestamp(), closed_by = session_user, note = p_note
     where run_id = p_run and closed_at is null;
    if not found then
        raise exception 'run % has nothing to review', p_run using errcode = 'PM501', schema = 'pgmend';
    end if;
    perform pgmend.append_ledger(p_run, 'review_closed', json_build_object('note', p_note)::text);
end $$;

-- What the policy asks of a plan, each with whether it is met: the plan prints it, the start of a run insists on it.
create function pgmend.guardrails(p_plan uuid, out rule text, out demanded text, out present text, out met boolean)
returns setof record
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_policy jsonb;
    v_plan jsonb;
    v_required record;
    v_held record;
    v_window record;
begin
    select p.body into v_policy from pgmend.current_policy() as p;
    select body::jsonb into v_plan from pgmend.plan where plan_id = p_plan;
    if v_policy is null or v_plan is null then
        return;
    end if;
    select * into v_required from pgmend.approvals_required(p_plan);
    select * into v_held from pgmend.approvals_held(p_plan);
    if v_required.required > 0 then
        rule := 'approvals';
        demanded := v_required.required || ' (' || array_to_string(v_required.why, '; ') || ')';
        present := coalesce(v_held.approved, 0)::text;
        met := coalesce(v_held.approved, 0) >= v_required.required;
        return next;
    end if;
    if v_held.vetoed_by is not null then
        rule := 'veto'; demanded := 'none'; present := 'vetoed by ' || v_held.vetoed_by; met := false;
        return next;
    end if;
    if v_plan ->> 'kind' = 'undo' then
        return;
    end if;
    if v_policy ? 'ticket' then
        rule := 'ticket'; demanded := 'like ' || (v_policy ->> 'ticket');
        present := coalesce(v_plan #>> '{about,ticket}', 'none');
        met := coalesce((v_plan #>> '{about,ticket}') ~ (v_policy ->> 'ticket'), false);
        return next;
    end if;
    if (v_policy ->> 'owner')::boolean then
        rule := 'owner'; demanded := 'named'; present := coalesce(v_plan #>> '{about,owner}', 'none');
        met := coalesce(btrim(v_plan #>> '{about,owner}') <> '', false);
        return next;
    end if;
    if (v_policy ->> 'goal')::boolean then
        rule := 'goal'; demanded := 'a sentence'; present := coalesce(v_plan #>> '{about,goal}', 'none');
        met := coalesce(btrim(v_plan #>> '{about,goal}') <> '', false);
        return next;
    end if;
    if (v_policy ->> 'clean_commit')::boolean then
        rule := 'commit'; demanded := 'clean'; present := coalesce(v_plan #>> '{about,commit}', 'none');
        met := coalesce(v_plan #>> '{about,commit}' !~ 'dirty', false);
        return next;
    end if;
    if v_policy ? 'batch_rows_max' then
        rule := 'batch'; demanded := 'at most ' || (v_policy ->> 'batch_rows_max') || ' rows';
        present := coalesce(v_plan #>> '{limits,batch_rows}', v_plan #>> '{limits,rows_per_transaction_max}') || ' rows';
        met := coalesce(v_plan #>> '{limits,batch_rows}', v_plan #>> '{limits,rows_per_transaction_max}')::bigint
               <= (v_policy ->> 'batch_rows_max')::bigint;
        return next;
    end if;
    if (v_policy ->> 'undo')::boolean then
        rule := 'undo'; demanded := 'possible'; present := v_plan -> 'reversible' ->> 1;
        met := (v_plan -> 'reversible' ->> 0)::boolean;
        return next;
    end if;
    if v_policy ? 'recipient' then
        rule := 'recipient'; demanded := v_policy ->> 'recipient';
        present := coalesce(v_plan #>> '{images,recipient}', 'none');
        met := coalesce(v_plan #>> '{images,recipient}' = v_policy ->> 'recipient', false);
        return next;
    end if;
    if v_policy ? 'requires' then
        rule := 'requires'; demanded := 'done in ' || (v_policy ->> 'requires');
        present := coalesce(v_plan #>> array['about', 'done in ' || (v_policy ->> 'requires')], 'not done there');
        met := v_plan #>> array['about', 'done in ' || (v_policy ->> 'requires')] is not null;
        return next;
    end if;
    if v_policy ? 'hours' then
        select * into v_window from pgmend.window_at(v_policy -> 'hours', clock_timestamp());
        rule := 'hours';
        met := v_window.opens_at <= clock_timestamp();
        demanded := 'an open window';
        present := case when met then 'open until ' || v_window.closes_at
                      else 'closed until ' || coalesce(v_window.opens_at::text, 'ever') end;
        return next;
    end if;
end $$;

-- The last word before a run starts: every guardrail is met, or the glass was broken for this login and plan.
-- Gives the token that was used.
create function pgmend.insist_on_guardrails(p_plan uuid) returns uuid
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_open text;
    v_rule text;
    v_token uuid;
begin
    select string_agg(format('%s: %s demanded, %s found', g.rule, g.demanded, g.present), '; '),
           min(g.rule) filter (where g.rule not in ('approvals', 'veto'))
      into v_open, v_rule
      from pgmend.guardrails(p_plan) as g where not g.met;
    if v_open is null then
        return null;
    end if;
    if v_rule is not null then
        raise exception '%', v_open using errcode = case v_rule when 'hours' then 'PM605' else 'PM604' end, schema = 'pgmend';
    end if;
    select token into v_token from pgmend.break_glass b join pgmend.plan p using (plan_id)
     where b.plan_id = p_plan and b.digest = p.digest and b.granted_to = session_user
       and b.used_by is null and b.expires_at > clock_timestamp()
     for update of b;
    if not found then
        raise exception '%', v_open using errcode = 'PM601', schema = 'pgmend';
    end if;
    return v_token;
end $$;

-- One driven run at a time writes a column of a table; a delete or an insert writes all of them. The plans are read only
-- where another run of the table is driven: that of a run by tenants is large, and each tenant asks.
-- Lock:  the table's turn (advisory, to the end of the transaction). Index: plan_pkey, run_target, lease_pkey.
create function pgmend.refuse_same_columns(p_run uuid, p_plan uuid) returns void
language plpgsql security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_target oid;
    v_plan pgmend.plan;
    v_writes jsonb;
    v_other record;
begin
    select p.target_oid into v_target from pgmend.plan p where p.plan_id = p_plan;
    perform pg_advisory_xact_lock(hashtextextended('pgmend.target/' || v_target, 0));
    if not exists (select from pgmend.run r join pgmend.lease l using (run_id)
                    where r.target_oid = v_target and r.run_id <> p_run and l.expires_at > clock_timestamp()) then
        return;
    end if;
    select * into v_plan from pgmend.plan where plan_id = p_plan;
    v_writes := coalesce(v_plan.body::jsonb -> 'writes', '[]');
    select r.run_id, r.job, l.holder into v_other
      from pgmend.run r join pgmend.lease l using (run_id) join pgmend.plan p using (plan_id)
     where r.target_oid = v_plan.target_oid and r.run_id <> p_run
       -- One that has ended writes only while its dead letters are tried again.
       and (r.ended_at is null or l.acquired_at > r.ended_at)
       and l.expires_at > clock_timestamp()
       and (v_writes = '[]' or coalesce(p.body::jsonb -> 'writes', '[]') = '[]'
            or exists (select from jsonb_array_elements_text(v_writes) as w where p.body::jsonb -> 'writes' ? w))
     limit 1;
    if found then
        raise exception 'run % (%) writes the same columns, driven by %', v_other.run_id, v_other.job, v_other.holder
            using errcode = 'PM513', schema = 'pgmend';
    end if;
end $$;

-- What stops a batch: a person's wish, or a window that has closed.
create function pgmend.refuse_batch(p_run uuid) returns void
language plpgsql stable security definer set search_path = pg_catalog, pgmend, pg_temp as $$
declare
    v_wish pgmend.control;
    v_hours jsonb;
    v_window record;
begin
    select * into v_wish from pgmend.control where run_id = p_run;
    if found then
        raise exception '%', v_wish.reason
            using errcode = case v_wish.wish when 'pause' then 'PM530' else 'PM531' end, schema = 'pgmend';
    end if;
    select p.body -> 'hours' into v_hours from pgmend.current_policy() as p;
    if v_hours is not null then
        select * into v_window from pgmend.window_at(v_hours, clock_timestamp());
        if v_window.opens_at is null or v_window.opens_at > clock_timestamp() then
            raise exception 'outside the allowed hours, which begin again at %', coalesce(v_window.opens_at::text, 'no time')
                using errcode = 'PM532', schema = 'pgmend';
        end if;
    end if;
end $$;

revoke execute on all functions in schema pgmend from public;

insert into pgmend.schema_version (version) values (2);
