update assignment a
   set active = false
  from (select assignment_id,
               row_number() over (partition by user_id order by assigned_at desc, assignment_id desc) as nth
          from assignment
         where active and kind = 'PRIMARY') newest
 where newest.assignment_id = a.assignment_id
   and newest.nth > 1
