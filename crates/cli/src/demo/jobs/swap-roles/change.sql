update users
   set role = case role when 'admin' then 'member' else 'admin' end
 where role in ('admin', 'member')
