//! Public sample databases: what people really have. `PGMEND_SAMPLES` names their folder; it is looked for beside the
//! repository otherwise, and where there is none the cases are skipped.

use std::path::{Path, PathBuf};

use pgmend::{Observer, RunState, UndoOptions};
use pgmend_testkit::{Database, Server};

use super::case::{Case, case};
use super::check::{run, same};
use super::copies::{Contents, Copies, Copy, sorted, text};
use super::dump;
use super::trial::{report, runtime};

/// The folder of the samples.
fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("PGMEND_SAMPLES").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// Runs statements over a sample; each is taken back before the next.
fn over(sample: &str, cases: &[Case]) {
    let wanted = std::env::var("EQUALITY").unwrap_or_default();
    let cases: Vec<&Case> = cases.iter().filter(|c| c.name.contains(&wanted)).collect();
    let Some(folder) = folder() else {
        eprintln!("{sample}: skipped, there is no folder of sample databases (PGMEND_SAMPLES)");
        return;
    };
    if cases.is_empty() {
        return;
    }
    let failures = runtime().block_on(async {
        let base = Database::create(Server::shared(), sample).expect("a database for the sample");
        let dump = std::fs::read_to_string(folder.join(format!("{sample}.sql"))).expect("the sample can be read");
        let mut sql = base.sql().expect("a session");
        for part in dump::statements(&dump) {
            sql.run(&part).expect("the sample loads");
        }
        drop(sql);
        let copies = Copies::of(base, sample).await.expect("the sample is copied");
        let mut failures = Vec::new();
        for case in &cases {
            let began = std::time::Instant::now();
            if let Err(failure) = Box::pin(check(&copies, case)).await {
                failures.push(format!("{}: {}\n  {failure}\n", case.name, case.statement));
            }
            eprintln!("{sample}: {} took {} ms", case.name, began.elapsed().as_millis());
        }
        failures
    });
    report(sample, cases.len(), &failures);
}

async fn check(copies: &Copies, case: &Case) -> Result<(), String> {
    let expected = plain(&copies.plain, case)?;
    for (batch_rows, copy) in &copies.batched {
        // Thousands of rows one by one would only take time.
        if !case.setup.is_empty() && *batch_rows < 1000 {
            continue;
        }
        let tried = Box::pin(attempt(copy, case, *batch_rows, &expected)).await;
        tried.map_err(|failure| format!("in batches of {batch_rows}: {failure}"))?;
    }
    Ok(())
}

/// What the plain statement makes of it, taken back.
fn plain(copy: &Copy, case: &Case) -> Result<Contents, String> {
    let mut sql = copy.fresh_sql()?;
    sql.run("begin").map_err(text)?;
    sql.run(case.statement).map_err(|e| format!("the plain statement fails: {e}"))?;
    let mut contents = Contents::new();
    for query in case.compare {
        let rows = sql.run(&sorted(query)).map_err(text)?;
        contents.extend(rows.into_iter().flatten().map(|row| format!(" {}", row.unwrap_or_default())));
    }
    Ok(contents)
}

async fn attempt(copy: &Copy, case: &Case, batch_rows: u32, expected: &Contents) -> Result<(), String> {
    let before = copy.contents(&[], case.compare)?;
    let mut engine = copy.engine("").await?;
    let (planned, outcome) = Box::pin(run(&mut engine, case, batch_rows)).await.map_err(text)?;
    if outcome.state != RunState::Succeeded {
        return Err(format!("the run ended as {:?}", outcome.state));
    }
    let reason = &planned.plan.mode_reason;
    same(&format!("not as the plain statement ({reason})"), expected, &copy.contents(&[], case.compare)?)?;
    if planned.plan.counts.changed_rows.value != outcome.changed_rows || outcome.changed_rows == 0 {
        let counted = planned.plan.counts.changed_rows.value;
        return Err(format!("the plan counted {counted} changed rows, the run {}", outcome.changed_rows));
    }
    let run = outcome.run_id.to_string();
    let undone = Box::pin(engine.undo(&run, &UndoOptions::default(), &mut Observer::silent())).await;
    let undone = undone.map_err(|e| format!("undo: {e}"))?;
    if undone.state != RunState::Succeeded || undone.conflict_rows != 0 {
        return Err(format!("undo ended as {:?} with {} conflicts", undone.state, undone.conflict_rows));
    }
    copy.keep(engine, "");
    same("not as before after undo", &before, &copy.contents(&[], case.compare)?)
}

/// A statement over a sample, and what to compare.
fn sample(name: &'static str, statement: &'static str, compare: &'static [&'static str]) -> Case {
    case(name, "", statement).comparing(compare)
}

/// The same over so many rows that only large batches are tried.
fn wide(name: &'static str, statement: &'static str, compare: &'static [&'static str]) -> Case {
    case(name, "wide", statement).comparing(compare)
}

const FILM: &[&str] = &["select to_jsonb(t) - 'last_update' from public.film t order by film_id"];
const CUSTOMER: &[&str] = &["select to_jsonb(t) - 'last_update' from public.customer t order by customer_id"];
const PAYMENT: &[&str] = &["select tableoid::regclass, t.* from public.payment t order by payment_id, payment_date"];

#[test]
fn pagila_is_changed_as_by_the_plain_statement_and_back() {
    let cases = vec![
        sample(
            "pagila_array_and_enum",
            "update public.film set special_features = special_features || 'Restored'::text, rating = 'PG' where rating = 'NC-17' and length < 55",
            FILM,
        ),
        sample(
            "pagila_window",
            "update public.film f set rental_rate = r.rate from (select film_id, 0.99 + ntile(3) over (partition by rating order by length, film_id) as rate from public.film where replacement_cost > 29) r where r.film_id = f.film_id",
            FILM,
        ),
        sample(
            "pagila_domain_and_subselect",
            "update public.film set release_year = 1999, original_language_id = (select language_id from public.language where name like 'Italian%') where film_id in (select film_id from public.film_category where category_id = 3 limit 20)",
            FILM,
        ),
        sample(
            "pagila_text_search",
            "update public.film set title = initcap(title) where fulltext @@ to_tsquery('english', 'drama & monkey')",
            FILM,
        ),
        sample(
            "pagila_join",
            "update public.customer c set email = lower(c.first_name) || '@' || replace(lower(ci.city), ' ', '') || '.org' from public.address a join public.city ci using (city_id) where a.address_id = c.address_id and ci.country_id = 44 and c.active = 1",
            CUSTOMER,
        ),
        sample(
            "pagila_delete_unrented",
            "delete from public.inventory i where not exists (select from public.rental r where r.inventory_id = i.inventory_id)",
            &["select * from public.inventory order by inventory_id"],
        ),
        wide(
            "pagila_partitions_moved",
            "update public.payment set payment_date = payment_date + interval '1 month' where payment_date < '2022-03-01' and amount > 5",
            PAYMENT,
        ),
        wide("pagila_partitions_deleted", "delete from public.payment where amount = 0.99", PAYMENT),
        wide(
            "pagila_rentals",
            "update public.rental r set return_date = rental_date + f.rental_duration * interval '1 day' from public.inventory i join public.film f using (film_id) where i.inventory_id = r.inventory_id and r.return_date - r.rental_date > interval '8 days'",
            &["select to_jsonb(t) - 'last_update' from public.rental t order by rental_id"],
        ),
    ];
    over("pagila", &cases);
}

#[test]
fn northwind_is_changed_as_by_the_plain_statement_and_back() {
    const ORDERS: &[&str] = &["select * from orders order by order_id"];
    let cases = vec![
        sample(
            "northwind_real",
            "update order_details set unit_price = unit_price * 1.1, discount = 0 where discount > 0.2 and quantity > 60",
            &["select * from order_details order by order_id, product_id"],
        ),
        sample(
            "northwind_group",
            "update products p set units_on_order = s.n from (select product_id, sum(quantity)::smallint n from order_details group by 1 having sum(quantity) > 900) s where s.product_id = p.product_id",
            &["select * from products order by product_id"],
        ),
        sample(
            "northwind_bytes",
            "update employees set photo = photo || '\\x00ff'::bytea, notes = upper(notes), reports_to = null",
            &["select * from employees order by employee_id"],
        ),
        sample(
            "northwind_ship",
            "update orders o set (ship_name, ship_city) = (select upper(c.contact_name), upper(c.city) from customers c where c.customer_id = o.customer_id) where ship_country = 'Venezuela'",
            ORDERS,
        ),
        sample(
            "northwind_insert",
            "insert into orders (order_id, customer_id, order_date) select 20000 + row_number() over (order by customer_id), customer_id, date '1998-06-01' from customers where country in ('Germany', 'Brazil')",
            ORDERS,
        ),
    ];
    over("northwind", &cases);
}

#[test]
fn chinook_and_netflix_are_changed_as_by_the_plain_statement_and_back() {
    const TRACK: &[&str] = &["select * from track order by track_id"];
    const SHOWS: &[&str] = &["select * from public.netflix_shows order by show_id collate \"C\""];
    let chinook = vec![
        sample(
            "chinook_composers",
            "update track t set composer = a.name from album al join artist a using (artist_id) where al.album_id = t.album_id and t.composer is null and a.name like 'A%'",
            TRACK,
        ),
        sample(
            "chinook_composite_key",
            "delete from playlist_track where playlist_id in (select playlist_id from playlist where name = 'Grunge')",
            &["select * from playlist_track order by 1, 2"],
        ),
        sample(
            "chinook_tree",
            "with recursive team as (select employee_id from employee where reports_to is null union all select e.employee_id from employee e join team on e.reports_to = team.employee_id) update employee set title = title || ' (team)' where employee_id in (select employee_id from team)",
            &["select * from employee order by employee_id"],
        ),
        wide(
            "chinook_prices",
            "update track set unit_price = unit_price + 0.10 where genre_id = (select genre_id from genre where name = 'Rock')",
            TRACK,
        ),
    ];
    over("chinook", &chinook);
    let netflix = vec![
        sample(
            "netflix_directors",
            "update public.netflix_shows set director = 'unknown' where director is null and country = 'Ireland'",
            SHOWS,
        ),
        sample(
            "netflix_durations",
            "update public.netflix_shows set rating = 'NR', duration = rating where rating like '% min'",
            SHOWS,
        ),
        sample(
            "netflix_duplicates",
            "delete from public.netflix_shows a using public.netflix_shows b where lower(a.title) = lower(b.title) and a.type = b.type and a.show_id > b.show_id",
            SHOWS,
        ),
        sample(
            "netflix_keys",
            "update public.netflix_shows set show_id = 'x' || show_id where release_year < 1960",
            SHOWS,
        ),
        wide(
            "netflix_dates",
            "update public.netflix_shows set date_added = make_date(release_year, 1, 1) where date_added > make_date(release_year + 10, 1, 1)",
            SHOWS,
        ),
    ];
    over("netflix", &netflix);
}
