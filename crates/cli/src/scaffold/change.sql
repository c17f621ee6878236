-- One statement, as you would type it into psql: no LIMIT, no loop, no BEGIN. Batches are pgmend's work.
update your_table
   set your_column = 'right'
 where your_column = 'wrong';
