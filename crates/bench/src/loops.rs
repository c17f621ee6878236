//! Loops as people write them by hand: the same change, so many rows at a time.

/// As an experienced person writes it. As fast as it goes; with a rate, it waits for its turn after each batch; with a sleep,
/// it sleeps after each. Without a bound in seconds to its end, from the first key or after one.
pub const BY_HAND: &str = "
create procedure by_hand(batch int, rows_per_s float default null, sleep_s float default null,
                         seconds float default null, after bigint default 0) language plpgsql as $$
declare
    begun timestamptz := clock_timestamp();
    done bigint := 0;
    last bigint := after;
    upto bigint;
begin
    while seconds is null or clock_timestamp() < begun + make_interval(secs => seconds) loop
        select max(id) into upto
          from (select id from orders where id > last and region = 'unknown' order by id limit batch) as next;
        exit when upto is null;
        update orders
           set region = case when customer_id % 2 = 0 then 'north' else 'south' end
         where id > last and id <= upto and region = 'unknown';
        last := upto;
        done := done + batch;
        commit;
        if rows_per_s is not null then
            perform pg_sleep(extract(epoch from begun + make_interval(secs => done / rows_per_s) - clock_timestamp()));
        end if;
        if sleep_s is not null then
            perform pg_sleep(sleep_s);
        end if;
    end loop;
end $$";

/// Fills a new column as reshape's `alter_column` does: a trigger computes it whenever a row is written, whichever side
/// of the migration writes.
pub const TOUCH_TRIGGER: &str = "
create function is_new_side() returns boolean language plpgsql as $$
begin
    return current_setting('search_path') = 'new_side' or coalesce(current_setting('side.is_new', true) = 'YES', false);
end $$;
alter table orders add column new_region text;
create function fill_new() returns trigger language plpgsql as $$
begin
    if not is_new_side() then
        new.new_region = case when new.region <> 'unknown' then new.region
                              when new.customer_id % 2 = 0 then 'north' else 'south' end;
    end if;
    return new;
end $$;
create function fill_old() returns trigger language plpgsql as $$
begin
    if is_new_side() then new.region = new.new_region; end if;
    return new;
end $$;
create trigger fill_new before insert or update on orders for each row execute function fill_new();
create trigger fill_old before insert or update on orders for each row execute function fill_old()";

/// Rows that reshape touches at a time.
pub const TOUCHED_ROWS: u32 = 1_000;

/// The next rows in key order, touched so that the trigger fires: one statement, committed by itself, that gives the key
/// to go on from. reshape looks the key's columns up before each of them.
pub fn touch_batch(after: Option<&str>) -> String {
    let after = after.map_or(String::new(), |last| format!("where id > {last}"));
    format!(
        "with next as (select id from orders {after} order by id limit {TOUCHED_ROWS}),
              touched as (update orders as o set region = o.region from next where o.id = next.id returning o.id)
         select max(id) from touched"
    )
}

/// The columns of the key, as the catalog has them.
pub const KEY_COLUMNS: &str = "
select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
 where i.indrelid = 'orders'::regclass and i.indisprimary";
