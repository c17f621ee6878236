//! Embeds the engine in a program: plan, inspect, run with progress events, undo.
//!
//! ```sh
//! cargo run -p pgmend --example embed -- postgresql:///shop "update users set role = 'member' where role = 'memeber'"
//! ```

use pgmend::{Engine, Error, Event, Job, Observer, Outcome, PlanOptions, RunOptions, Severity, UndoOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(statement)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: embed DATABASE_URL STATEMENT");
        return Ok(());
    };
    embed(&url, &statement).await.map(|_| ())
}

/// Plans, inspects, runs and undoes; gives the outcomes of the run and of its undo.
pub async fn embed(url: &str, statement: &str) -> Result<(Outcome, Outcome), Error> {
    let mut engine = Engine::connect(Some(url)).await?;
    engine.init().await?;

    let job = Job::from_statement("embedded", statement);
    let planned = engine.plan(&job, &PlanOptions::default()).await?;
    let plan = &planned.plan;
    println!(
        "{} of {} rows of {} would change, by {}",
        plan.counts.changed_rows.value,
        plan.counts.scanned_rows.value,
        plan.target,
        plan.mode.name()
    );
    for finding in plan.findings.iter().filter(|f| f.severity != Severity::Note) {
        println!("{}: {}; {}", finding.check, finding.message, finding.help);
    }

    let mut observer = Observer::new(|event| {
        if let Event::Batch { batch_no, rows, changed_rows, planned_rows, .. } = event {
            println!("batch {batch_no}: {rows} rows, {changed_rows} of {planned_rows}");
        }
    });
    let outcome = engine.run_plan(&plan.plan_id.to_string(), &RunOptions::default(), &mut observer).await?;
    println!(
        "run {} has {}: {} rows in {} batches",
        outcome.run_id,
        outcome.state.name(),
        outcome.changed_rows,
        outcome.batches
    );
    for sentence in &outcome.verification {
        println!("  {sentence}");
    }

    let undone = engine.undo(&outcome.run_id.to_string(), &UndoOptions::default(), &mut observer).await?;
    println!(
        "undo {} has {}: {} rows restored, {} conflicts",
        undone.run_id,
        undone.state.name(),
        undone.changed_rows,
        undone.conflict_rows
    );
    Ok((outcome, undone))
}
