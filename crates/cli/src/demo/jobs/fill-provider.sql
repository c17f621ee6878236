update authorizations a
   set provider_id = r.provider_id
  from provider_rule r
 where r.year = a.year
   and r.project_id = a.project_id
   and a.provider_id is null
