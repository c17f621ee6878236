update users
   set role = case role when 'admin' then 'member' else 'admin' end
 where import_id = 17
   and role in ('admin', 'member')
