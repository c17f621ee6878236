//! `pgmend pause`, `tune`, `resume` and `cancel`: what people ask of a run, from any machine.

use pgmend::{RunOptions, Status};
use pgmend_core::dead_letters::DeadLetters;
use pgmend_core::exit;

use super::run::{Driving, end};
use crate::Done;
use crate::args::{Pause, Resume, Tune, Wish};
use crate::failure::Failure;
use crate::render::{status, tune};
use crate::shell::Shell;

/// Stops a run at its next batch boundary.
pub async fn pause(shell: &Shell, args: &Pause) -> Done {
    let (mut engine, wish) = (shell.engine().await?, &args.wish);
    let runs = match &args.tenant {
        Some(tenant) => engine.pause_tenant(&wish.run, tenant, &wish.reason).await?,
        None => engine.pause(&wish.run, &wish.reason).await?,
    };
    show(shell, runs)
}

/// Changes the pace of a live run.
pub async fn tune(shell: &Shell, args: &Tune) -> Done {
    if args.list {
        let in_force = shell.engine().await?.in_force(&args.run).await?;
        shell.show(&in_force, |paint| tune::in_force(&in_force, paint))?;
        return Ok(exit::DONE);
    }
    let tuning = args.tuning()?;
    let reason = args.reason.as_deref().unwrap_or_default();
    let runs = shell.engine().await?.tune(&args.run, &tuning, reason).await?;
    show(shell, runs)
}

/// Gives a run up.
pub async fn cancel(shell: &Shell, args: &Wish) -> Done {
    let driving = Driving::begin(shell)?;
    let mut observer = driving.observer;
    let runs = shell.engine().await?.cancel(&args.run, &args.reason, &mut observer).await;
    driving.progress.finish();
    show(shell, runs?)
}

/// Lifts a pause, and goes on with the run from here.
pub async fn resume(shell: &Shell, args: &Resume) -> Done {
    let mut engine = shell.engine().await?;
    if let Some(tenant) = &args.tenant {
        let runs = engine.resume_tenant(&args.run, tenant).await?;
        return show(shell, runs);
    }
    if args.lift_only {
        let runs = engine.unpause(&args.run).await?;
        return show(shell, runs);
    }
    shell.show_errors(&mut engine, args.show_values);
    let options = RunOptions {
        workers: args.workers,
        workers_here: args.workers_here,
        vacuum_every: args.vacuum_every,
        dead_letters: args.dead_letters.map(|rows| DeadLetters { rows_max: Some(rows), share_max: None }),
        ..args.pace.options()?
    };
    let driving = Driving::begin(shell)?;
    let (progress, mut observer) = (driving.progress, driving.observer);
    let ended = engine.resume_with(&args.run, &options, &mut observer).await;
    progress.finish();
    end(shell, &mut engine, &ended?).await
}

fn show(shell: &Shell, mut runs: Vec<Status>) -> Result<u8, Failure> {
    for line in runs.iter_mut().flat_map(|run| &mut run.next).filter(|line| line.starts_with("pgmend ")) {
        *line = shell.line(line);
    }
    shell.show(&runs, |paint| status::status(&runs, paint))?;
    Ok(exit::DONE)
}
