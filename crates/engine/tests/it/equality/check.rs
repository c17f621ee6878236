//! Runs one case on all copies and compares.

use pgmend::{Code, Engine, Error, Observer, Outcome, PlanOptions, Planned, RunOptions, RunState, UndoOptions};

use super::case::{Case, Expect, Undo};
use super::copies::{Contents, Copies, Copy, text};

/// Runs a case; says what is wrong.
pub async fn check(copies: &Copies, case: &Case) -> Result<(), String> {
    copies.plain.prepare(case)?;
    let expected = match case.expect {
        Expect::Equal => Some(plain(&copies.plain, case)?),
        Expect::Refused(_) => None,
        Expect::Fails => match plain(&copies.plain, case) {
            Ok(_) => return Err("the plain statement was to fail but does not".into()),
            Err(_) => None,
        },
    };
    for (batch_rows, copy) in &copies.batched {
        copy.prepare(case)?;
        let tried = Box::pin(attempt(copy, case, *batch_rows, expected.as_ref())).await;
        tried.map_err(|failure| format!("in batches of {batch_rows}: {failure}"))?;
    }
    Ok(())
}

/// The plain statement's result.
fn plain(copy: &Copy, case: &Case) -> Result<Contents, String> {
    let mut sql = copy.fresh_sql()?;
    for (name, value) in case.settings {
        sql.run(&format!("select set_config('{name}', '{value}', false)")).map_err(text)?;
    }
    sql.run(&case.plain_statement()).map_err(|e| format!("the plain statement fails: {e}"))?;
    drop(sql);
    copy.contents(&[], case.compare)
}

async fn attempt(copy: &Copy, case: &Case, batch_rows: u32, expected: Option<&Contents>) -> Result<(), String> {
    let mut engine = copy.engine(&case.options()).await?;
    Box::pin(attempt_with(&mut engine, copy, case, batch_rows, expected)).await?;
    copy.keep(engine, &case.options());
    Ok(())
}

async fn attempt_with(
    engine: &mut Engine,
    copy: &Copy,
    case: &Case,
    batch_rows: u32,
    expected: Option<&Contents>,
) -> Result<(), String> {
    let only: &[&str] = if let Undo::Only(tables) = case.undo { tables } else { &[] };
    let before = copy.contents(&[], &[])?;
    let restorable = if only.is_empty() { before.clone() } else { copy.contents(only, &[])? };
    let ran = Box::pin(run(engine, case, batch_rows)).await;
    let (planned, outcome) = match (case.expect, ran) {
        (Expect::Refused(code), ran) => {
            refused(code, ran)?;
            return same("a refusal changed the table", &before, &copy.contents(&[], &[])?);
        }
        (Expect::Fails, ran) => return failed(ran),
        (Expect::Equal, ran) => ran.map_err(|e| format!("{e}"))?,
    };
    if outcome.state != RunState::Succeeded {
        return Err(format!(
            "the run ended as {:?} after plan {:?} ({})",
            outcome.state, planned.plan.mode, planned.plan.mode_reason
        ));
    }
    if let Some(expected) = expected {
        let contents = copy.contents(&[], case.compare)?;
        same(
            &format!("not as the plain statement ({:?}: {})", planned.plan.mode, planned.plan.mode_reason),
            expected,
            &contents,
        )?;
    }
    agreed(copy, case, batch_rows, &planned, &outcome)?;
    // Undone alone, by threes and all at once; pairs would only take their time. One copy shows the redo.
    if batch_rows == 2 {
        return Ok(());
    }
    let changed = copy.contents(only, &[])?;
    undo(engine, copy, case, &planned, &outcome, only, &restorable).await?;
    if matches!(case.undo, Undo::Irreversible | Undo::Partly(_)) || batch_rows != 3 {
        return Ok(());
    }
    undone_twice(engine, &outcome).await?;
    redo(engine, copy, only, &changed).await
}

pub async fn run(engine: &mut Engine, case: &Case, batch_rows: u32) -> Result<(Planned, Outcome), Error> {
    let job = case.job(batch_rows);
    let planned = Box::pin(engine.plan(&job, &PlanOptions::default())).await?;
    let outcome = Box::pin(engine.run(&job, &RunOptions::default(), &mut Observer::silent())).await?;
    Ok((planned, outcome))
}

fn refused(code: Code, ran: Result<(Planned, Outcome), Error>) -> Result<(), String> {
    match ran {
        Err(Error::Refused(refusal)) if refusal.code == code => Ok(()),
        Err(other) => Err(format!("was to be refused with {code} but: {other}")),
        Ok((planned, outcome)) => {
            let plan = planned.plan;
            Err(format!(
                "was to be refused with {code} but was accepted ({:?}: {}) and {:?}",
                plan.mode, plan.mode_reason, outcome.state
            ))
        }
    }
}

/// A statement that fails plain may fail here at any row; but it must not succeed.
fn failed(ran: Result<(Planned, Outcome), Error>) -> Result<(), String> {
    match ran {
        Err(_) => Ok(()),
        Ok((_, outcome)) if matches!(outcome.state, RunState::Failed { .. } | RunState::Paused { .. }) => Ok(()),
        Ok((planned, outcome)) => {
            Err(format!("succeeds although the plain statement fails ({:?}, {:?})", planned.plan.mode, outcome.state))
        }
    }
}

/// What the plan promised, and the limits.
fn agreed(copy: &Copy, case: &Case, batch_rows: u32, planned: &Planned, outcome: &Outcome) -> Result<(), String> {
    let plan = &planned.plan;
    if case.mode.is_some_and(|mode| mode != plan.mode) {
        return Err(format!("the plan chose {:?} ({}), not {:?}", plan.mode, plan.mode_reason, case.mode));
    }
    if outcome.conflict_rows != 0 {
        return Err(format!("{} conflicts on a quiet database", outcome.conflict_rows));
    }
    let counted = plan.counts.changed_rows.value;
    let exact = !case.vague_counts && plan.counts.changed_rows.certainty == pgmend::Certainty::Exact;
    if exact && counted != outcome.changed_rows {
        return Err(format!("the plan counted {counted} changed rows, the run {}", outcome.changed_rows));
    }
    if !case.vague_counts && outcome.residual_rows.is_some_and(|rows| rows != 0) {
        return Err(format!("{:?} rows are left: {:?}", outcome.residual_rows, outcome.verification));
    }
    let largest = format!("select max(changed_rows) from pgmend.batch where run_id = '{}'", outcome.run_id);
    let largest: i64 = copy.value(&largest)?.map_or(0, |n| n.parse().unwrap_or(i64::MAX));
    if !plan.one_transaction && largest > i64::from(batch_rows) {
        return Err(format!("a batch changed {largest} rows"));
    }
    let promised = matches!(case.undo, Undo::Everything);
    if plan.reversible.0 != promised {
        return Err(format!("the plan says reversible = {}: {}", plan.reversible.0, plan.reversible.1));
    }
    Ok(())
}

async fn undo(
    engine: &mut Engine,
    copy: &Copy,
    case: &Case,
    planned: &Planned,
    outcome: &Outcome,
    only: &[&str],
    before: &Contents,
) -> Result<(), String> {
    let run = outcome.run_id.to_string();
    let undone = Box::pin(engine.undo(&run, &UndoOptions::default(), &mut Observer::silent())).await;
    if case.undo == Undo::Irreversible {
        return match undone {
            Err(Error::Refused(refusal)) if refusal.code == Code::Irreversible => Ok(()),
            Err(other) => Err(format!("undo was to be refused as irreversible but: {other}")),
            Ok(undone) => Err(format!("undo of an irreversible run {:?}", undone.state)),
        };
    }
    let undone = undone.map_err(|e| format!("undo: {e}"))?;
    let conflicts = if let Undo::Partly(conflicts) = case.undo { conflicts } else { 0 };
    if undone.state != RunState::Succeeded || undone.conflict_rows != conflicts {
        return Err(format!("undo ended as {:?} with {} conflicts", undone.state, undone.conflict_rows));
    }
    if matches!(case.undo, Undo::Partly(_)) {
        return Ok(());
    }
    let plan = &planned.plan;
    same(&format!("not as before after undo ({:?})", plan.mode), before, &copy.contents(only, &[])?)
}

async fn undone_twice(engine: &mut Engine, outcome: &Outcome) -> Result<(), String> {
    let run = outcome.run_id.to_string();
    match Box::pin(engine.undo(&run, &UndoOptions::default(), &mut Observer::silent())).await {
        Err(Error::Refused(refusal)) if refusal.code == Code::AlreadyUndone => Ok(()),
        Err(other) => Err(format!("a second undo was to be refused but: {other}")),
        Ok(undone) => Err(format!("a second undo {:?}", undone.state)),
    }
}

/// Undoes the undo: the change is there again.
async fn redo(engine: &mut Engine, copy: &Copy, only: &[&str], expected: &Contents) -> Result<(), String> {
    let undo = "select run_id from pgmend.run where undo_of is not null order by started_at desc limit 1";
    let undo = copy.value(undo)?.ok_or("there is no undo")?;
    let redone = Box::pin(engine.undo(&undo, &UndoOptions::default(), &mut Observer::silent())).await;
    let redone = redone.map_err(|e| format!("undo of the undo: {e}"))?;
    if redone.state != RunState::Succeeded || redone.conflict_rows != 0 {
        return Err(format!("undo of the undo ended as {:?} with {} conflicts", redone.state, redone.conflict_rows));
    }
    same("not as changed after the undo of the undo", expected, &copy.contents(only, &[])?)
}

/// Compares, and shows the first rows that differ.
pub fn same(what: &str, expected: &Contents, found: &Contents) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let missing: Vec<&String> = expected.iter().filter(|row| !found.contains(row)).take(4).collect();
    let surplus: Vec<&String> = found.iter().filter(|row| !expected.contains(row)).take(4).collect();
    let counts = format!("{} rows expected, {} found", expected.len(), found.len());
    Err(format!("{what}: {counts}\n    expected {missing:?}\n    found    {surplus:?}"))
}
