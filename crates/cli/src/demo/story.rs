//! The story, scene by scene.

use std::os::unix::process::ExitStatusExt as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pgmend_core::exit;
use pgmend_testkit::Sql;

use super::jobs::{self, FILL_PROVIDER, ONE_PRIMARY, Repair, SWAP_ROLES};
use super::proof::{self, Copy, number};
use super::shop::{Shop, broken};
use super::stage::{Running, Stage};
use super::traffic::{COUNTED, Traffic};
use crate::failure::Failure;
use crate::render::figure::rows;

/// The user whose role someone changes by hand between the repair and its undo.
const CHANGED_BY_HAND: i64 = 2_121;
/// A user whose story is told by `trace`.
const TRACED: &str = "1700";
const POLL: Duration = Duration::from_millis(5);
/// The middle of a run comes within seconds; this allows for a loaded machine.
const MIDDLE_LIMIT: Duration = Duration::from_secs(90);
/// Half of the lease's 6 s without a heartbeat: from then on `status` takes the process for dead.
const SILENCE: Duration = Duration::from_millis(3_100);
/// Signal 9: no handler runs, nothing is tidied up.
const SIGKILL: i32 = 9;

/// Tells it. Ends at the first thing that is not as it must be.
pub fn tell(shop: &Shop, stage: &mut Stage, orders: u32) -> Result<(), Failure> {
    let mut sql = open(shop, stage, orders)?;
    let traffic = Traffic::start(shop, orders)?;
    stage.say("From now on 2 threads of an application read these tables, add rows, and write columns that no repair touches.")?;
    stage.say("By itself a run would work a fortieth of the time beside them on two cores; --nice 0 leaves it no rest, to be done sooner.")?;

    review(shop, stage)?;
    kill(stage, &mut sql, orders)?;
    resume(stage, &mut sql)?;
    join_rules(stage, &mut sql)?;
    dedupe(stage, &mut sql)?;
    undo(stage, &mut sql)?;
    look_back(stage)?;
    settle(stage, &mut sql, traffic)
}

fn open(shop: &Shop, stage: &mut Stage, orders: u32) -> Result<Sql, Failure> {
    stage.scene("A shop with a mess in it")?;
    stage.say(&format!("{}, started for this demo; no other database is touched", shop.address()))?;
    let many = rows(orders.into());
    stage.say(&format!("creating {many} users, {many} orders, {many} authorizations …"))?;
    shop.fill(orders)?;
    jobs::write(&shop.jobs(), orders)?;
    let mut sql = shop.sql()?;
    jobs::ALL.iter().try_for_each(|repair| proof::copy(&mut sql, repair))?;
    let swapped = number(&mut sql, "select count(*) from users where import_id = 17 and role in ('admin', 'member')")?;
    let lost = number(&mut sql, "select count(*) from authorizations where provider_id is null")?;
    let doubled = number(
        &mut sql,
        "select sum(n - 1) from (select count(*) as n from assignment where active and kind = 'PRIMARY' group by user_id) per_user",
    )?;
    stage.say(&format!("  {:>9} users of import 17 have admin and member swapped", rows(swapped)))?;
    stage
        .say(&format!("  {:>9} authorizations have no provider_id; for most, year and project tell it", rows(lost)))?;
    stage.say(&format!("  {:>9} assignments are a second or third active PRIMARY of their user", rows(doubled)))?;
    Ok(sql)
}

fn review(shop: &Shop, stage: &mut Stage) -> Result<(), Failure> {
    stage.scene("Review: what would change")?;
    stage.typed(&format!("export DATABASE_URL={}", shop.url()))?;
    stage.pgmend(&["init"], exit::DONE)?;
    show_files(stage, &SWAP_ROLES)?;
    stage.pgmend(&["plan", SWAP_ROLES.job, "--by", "country"], exit::DONE)
}

fn kill(stage: &mut Stage, sql: &mut Sql, orders: u32) -> Result<(), Failure> {
    stage.scene("Run, and kill -9 in the middle")?;
    let run = stage.start(&["run", SWAP_ROLES.job, "--nice", "0", "--execute"])?;
    wait_for_the_middle(&run, sql, i64::from(orders) * 2 / 5)?;
    let pid = run.id()?;
    run.kill()?;
    let status = run.wait()?;
    if status.signal() != Some(SIGKILL) {
        return Err(broken("kill pgmend in the middle")(format!("it ended with {status}")));
    }
    stage.typed(&format!("kill -9 {pid}"))?;
    let counts = "select count(*) || ' ' || coalesce(max(b.changed_total), 0) || ' ' ||
                         (select count(*) from users u join earlier.users e using (user_id) where u.role <> e.role)
                    from pgmend.batch b join pgmend.run using (run_id) where job = 'swap-roles'";
    let counts = sql.value(counts).map_err(broken("count"))?.unwrap_or_default();
    let numbers: Vec<i64> = counts.split(' ').filter_map(|n| n.parse().ok()).collect();
    let &[batches, recorded, differing] = numbers.as_slice() else {
        return Err(broken("count")("the server did not answer with three numbers"));
    };
    let told = format!(
        "{} batches are committed; the last checkpoint says {} rows, and {} rows differ from the copy made before",
        rows(batches),
        rows(recorded),
        rows(differing)
    );
    let in_the_middle = 0 < recorded && recorded < i64::from(orders);
    insist(stage, recorded == differing && in_the_middle, &told)?;
    sleep(SILENCE);
    stage.pgmend(&["status", "swap-roles"], exit::DONE)
}

/// Until at least `changed` rows are committed.
fn wait_for_the_middle(run: &Running, sql: &mut Sql, changed: i64) -> Result<(), Failure> {
    let so_far = "select coalesce(max(changed_total), 0) from pgmend.batch join pgmend.run using (run_id) where job = 'swap-roles'";
    let deadline = Instant::now() + MIDDLE_LIMIT;
    while number(sql, so_far)? < changed {
        if let Some(status) = run.ended()? {
            return Err(broken("kill pgmend in the middle")(format!("it ended before, with {status}")));
        }
        if Instant::now() > deadline {
            return Err(broken("kill pgmend in the middle")("it did not get there in time"));
        }
        sleep(POLL);
    }
    Ok(())
}

fn resume(stage: &mut Stage, sql: &mut Sql) -> Result<(), Failure> {
    stage.scene("The same command again goes on")?;
    stage.say(
        "The dead process still holds its lease, for 6 seconds from its last heartbeat; then the run is taken over.",
    )?;
    stage.pgmend(&["run", SWAP_ROLES.job, "--nice", "0", "--execute"], exit::DONE)?;
    verify(stage, sql, &SWAP_ROLES)?;
    stage.say(
        "  A swap done twice is no swap: a row that both the killed and the resumed process had changed would be",
    )?;
    stage.say("  back where it was and show up in both lines, and so would a row that neither had changed.")
}

fn join_rules(stage: &mut Stage, sql: &mut Sql) -> Result<(), Failure> {
    stage.scene("A repair that joins a table of rules, in batches sized as they go")?;
    show_files(stage, &FILL_PROVIDER)?;
    stage.pgmend(&["run", FILL_PROVIDER.job, "--nice", "0", "--execute"], exit::DONE)?;
    verify(stage, sql, &FILL_PROVIDER)
}

fn dedupe(stage: &mut Stage, sql: &mut Sql) -> Result<(), Failure> {
    stage.scene("A repair that no batch can compute alone: its change set is frozen, and reviewed")?;
    show_files(stage, &ONE_PRIMARY)?;
    stage.pgmend(&["plan", ONE_PRIMARY.job], exit::DONE)?;
    let newest = "select plan_id from pgmend.plan where job = 'one-primary' order by planned_at desc limit 1";
    let plan_id = sql.value(newest).map_err(broken("find the plan"))?.unwrap_or_default();
    stage.pgmend(&["run", &plan_id, "--nice", "0", "--execute"], exit::DONE)?;
    verify(stage, sql, &ONE_PRIMARY)
}

fn undo(stage: &mut Stage, sql: &mut Sql) -> Result<(), Failure> {
    stage.scene("Undo, without overwriting what someone wrote since")?;
    let by_hand = format!("update users set role = 'owner' where user_id = {CHANGED_BY_HAND}");
    stage.typed(&format!("psql \"$DATABASE_URL\" -c \"{by_hand}\""))?;
    sql.run(&by_hand).map_err(broken("change a user by hand"))?;
    stage.pgmend(&["undo", "swap-roles", "--nice", "0", "--execute"], exit::FINISHED_WITH_EXCEPTIONS)?;
    let same = proof::compare(sql, &SWAP_ROLES, Copy::Earlier, Some(CHANGED_BY_HAND))?;
    let told = format!(
        "before = after: user_id and role of {} users are as they were before the repair ({} missing, {} surplus)",
        rows(same.copy_rows),
        rows(same.missing_rows),
        rows(same.surplus_rows)
    );
    insist(stage, same.is_empty(), &told)?;
    let role = format!("select role from users where user_id = {CHANGED_BY_HAND}");
    let role = sql.value(&role).map_err(broken("look at a user"))?.unwrap_or_default();
    insist(
        stage,
        role == "owner",
        &format!("user {CHANGED_BY_HAND}, changed by hand since, is left as `{role}` and reported"),
    )
}

fn look_back(stage: &mut Stage) -> Result<(), Failure> {
    stage.scene("Afterwards: who changed this row, and the paper trail")?;
    stage.pgmend(&["trace", SWAP_ROLES.table, TRACED], exit::DONE)?;
    stage.pgmend(&["report", "swap-roles"], exit::DONE)?;
    stage.pgmend(&["list"], exit::DONE)
}

/// The application's side: no error, no lost write.
fn settle(stage: &mut Stage, sql: &mut Sql, traffic: Traffic) -> Result<(), Failure> {
    stage.scene("And the application")?;
    let tally = traffic.stop()?;
    let [middle, late, slowest] = tally.milliseconds();
    stage.say(&format!(
        "{} reads, {} changes, {} inserts; median {middle:.1} ms, 99th percentile {late:.1} ms, slowest {slowest:.0} ms",
        rows(count(tally.reads)),
        rows(count(tally.changes)),
        rows(count(tally.inserts))
    ))?;
    stage.proved("none of its statements failed")?;
    let counted = number(sql, COUNTED)?;
    let told = format!("its counters add up to {}: none of its changes was overwritten", rows(counted));
    insist(stage, counted == count(tally.changes), &told)?;
    stage.proved(&format!("all of it as expected, in {:.0} s", stage.seconds()))
}

fn show_files(stage: &Stage, repair: &Repair) -> Result<(), Failure> {
    repair.files.iter().try_for_each(|(file, _)| stage.cat(file))
}

/// Runs the plain statement on the copy and compares.
fn verify(stage: &Stage, sql: &mut Sql, repair: &Repair) -> Result<(), Failure> {
    let Repair { table, key, column, .. } = repair;
    let (changed, took) = proof::run_plain(sql, repair)?;
    let found = proof::compare(sql, repair, Copy::Plain, None)?;
    stage.say("")?;
    stage.say(&format!(
        "proof: the same statement, run plainly on a copy of `{table}` made before, changed {} rows in one transaction of {took:.1} s",
        rows(changed)
    ))?;
    stage.say(&format!(
        "  compared: {key} and {column} of the copy's {} rows (the traffic writes other columns, and has added {} rows)",
        rows(found.copy_rows),
        rows(found.later_rows)
    ))?;
    stage.say(&format!(
        "  {:>7} rows in: select {key}, {column} from plain.{table}  except  … from {table}",
        rows(found.missing_rows)
    ))?;
    stage.say(&format!(
        "  {:>7} rows in: select {key}, {column} from {table}  except  … from plain.{table}",
        rows(found.surplus_rows)
    ))?;
    insist(stage, found.is_empty() && changed > 0, "pgmend's result equals the plain statement's")
}

/// Says that it is as it must be, or ends the demo.
fn insist(stage: &Stage, is_so: bool, sentence: &str) -> Result<(), Failure> {
    if is_so { stage.proved(sentence) } else { Err(broken("go on, since this is not so")(sentence)) }
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
