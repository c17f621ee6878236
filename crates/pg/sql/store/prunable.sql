-- Tables of images and change sets past their retention of $1 days; the caller lists them or drops one of them.
-- Never those of an unfinished run, nor of one whose undo is unfinished.
-- Lock:  none (plain reads).
-- Index: run_undo_of, run's unique plan_id; a scan of run and plan, which hold a row a run.
select kept.name, kept.job, kept.run_id, kept.target_oid, kept.belongs_to, kept.since
  from (select own.name, r.job, r.run_id, r.target_oid, 'run ' || r.run_id as belongs_to,
               r.ended_at + make_interval(days => $1::int) as since
          from pgmend.run r
          join pgmend.plan p on p.plan_id = r.plan_id
         cross join lateral (select r.image_table union select p.change_set) as own (name)
         where r.ended_at <= clock_timestamp() - make_interval(days => $1::int)
           and not exists (select from pgmend.run u where u.undo_of = r.run_id and u.ended_at is null)
        union all
        select p.change_set, p.job, null::uuid, p.target_oid, 'plan ' || p.plan_id || ', never run', p.expires_at
          from pgmend.plan p
         where p.expires_at <= clock_timestamp()
           and not exists (select from pgmend.run r where r.plan_id = p.plan_id)) as kept
 where to_regclass('pgmend.' || quote_ident(kept.name)) is not null
