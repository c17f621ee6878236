//! `pgmend run JOB|PLAN|RUN [--execute]`.

use pgmend::{Code, Engine, Error, Job, Observer, Outcome, Planned, RunOptions, progress::Stop};
use pgmend_core::exit;
use tokio::sync::watch;

use super::{fix, plan};
use crate::Done;
use crate::args::{JobFlags, Run};
use crate::failure::Failure;
use crate::job_file;
use crate::progress::Progress;
use crate::render;
use crate::shell::Shell;
use crate::signals;

/// Runs a job, a stored plan, or goes on with a run.
pub async fn main(shell: &Shell, args: &Run) -> Done {
    if let Some(id) = plan::stored_id(args.source.job.as_deref()) {
        return stored(shell, args, id).await;
    }
    let job = job_file::load(&args.source, &args.flags)?;
    if let (Some(_), Some(expected)) = (&args.source.command, job.file.expect_rows)
        && (args.execute || shell.interactive())
    {
        return fix::main(shell, &job, expected, args.execute, args.planning.show_values).await;
    }
    let mut engine = shell.engine().await?;
    shell.show_errors(&mut engine, args.planning.show_values);
    let job = plan::with_facts(shell, &args.source, job).await?;
    if args.execute {
        return execute(shell, &mut engine, args, &job).await;
    }
    let planned = engine.plan(&job, &plan::options(&args.planning)).await.map_err(Failure::about(&job))?;
    plan::show(shell, &planned, &next(shell, args, &planned))
}

/// Goes on with the job's unfinished run; or shows the plan that the run will use, and runs it.
async fn execute(shell: &Shell, engine: &mut Engine, args: &Run, job: &Job) -> Done {
    let options = run_options(args)?;
    let mut awaited = None;
    if let Some(planned) = engine.prepare(job, &options).await.map_err(Failure::about(job))? {
        let verdict = plan::exit_code(&planned);
        if verdict != exit::DONE {
            return plan::show(shell, &planned, &next(shell, args, &planned));
        }
        shell.tell(|paint| render::plan::short(&planned, &options.pace, paint))?;
        awaited = Some(planned);
    }
    let driving = Driving::begin(shell)?;
    let (progress, mut observer) = (driving.progress, driving.observer);
    let approved = match awaited.filter(|_| args.wait_approval) {
        Some(planned) => engine.wait_for_approval(&planned, &mut observer).await,
        None => Ok(()),
    };
    let ended = match approved {
        Ok(()) => engine.run(job, &options, &mut observer).await,
        Err(error) => Err(error),
    };
    progress.finish();
    let outcome = ended.map_err(Failure::about(job))?;
    end(shell, engine, &outcome).await
}

/// Shows or runs a stored plan; an id that is no plan's may be an unfinished run's.
async fn stored(shell: &Shell, args: &Run, id: &str) -> Done {
    plan::refuse_changing(id, &args.flags, &args.planning)?;
    let mut engine = shell.engine().await?;
    shell.show_errors(&mut engine, args.planning.show_values);
    let planned = match engine.load_plan(id).await {
        Ok(planned) => planned,
        Err(Error::Refused(refusal)) if refusal.code == Code::NotFound && args.execute => {
            return go_on(shell, &mut engine, id, &run_options(args)?).await;
        }
        Err(error) => return Err(error.into()),
    };
    if !args.execute {
        return plan::show(shell, &planned, &plan::next_of_stored(shell, &planned));
    }
    run_stored(shell, &mut engine, &planned, &run_options(args)?, args.wait_approval).await
}

/// Shows a stored plan in short and runs it.
pub async fn run_stored(
    shell: &Shell,
    engine: &mut Engine,
    planned: &Planned,
    options: &RunOptions,
    wait_approval: bool,
) -> Done {
    shell.tell(|paint| render::plan::short(planned, &options.pace, paint))?;
    let driving = Driving::begin(shell)?;
    let (progress, mut observer) = (driving.progress, driving.observer);
    let approved = match wait_approval {
        true => engine.wait_for_approval(planned, &mut observer).await,
        false => Ok(()),
    };
    let ended = match approved {
        Ok(()) => engine.run_plan(&planned.plan.plan_id.to_string(), options, &mut observer).await,
        Err(error) => Err(error),
    };
    progress.finish();
    let outcome = ended.map_err(|error| Failure::Engine { error, statement: Some(planned.plan.statement.clone()) })?;
    end(shell, engine, &outcome).await
}

/// Goes on with an unfinished run.
pub async fn go_on(shell: &Shell, engine: &mut Engine, run: &str, options: &RunOptions) -> Done {
    let driving = Driving::begin(shell)?;
    let (progress, mut observer) = (driving.progress, driving.observer);
    let ended = engine.resume_with(run, options, &mut observer).await;
    progress.finish();
    end(shell, engine, &ended?).await
}

/// Shows how a run ended, with its conflicts.
pub async fn end(shell: &Shell, engine: &mut Engine, outcome: &Outcome) -> Done {
    let line = |command: &str| shell.line(command);
    shell.show(outcome, |paint| render::outcome::text(outcome, &line, paint))?;
    if outcome.conflict_rows > 0 && !shell.json() {
        let conflicts = engine.conflicts(&outcome.run_id.to_string()).await?;
        shell.tell(|paint| render::status::conflicts(&conflicts, paint))?;
    }
    if outcome.dead_rows > 0 && !shell.json() {
        let letters = engine.dead_letters(&outcome.run_id.to_string(), false).await?;
        shell.tell(|paint| render::dead_letters::open(&letters, paint))?;
    }
    Ok(render::outcome::exit_code(outcome))
}

fn next(shell: &Shell, args: &Run, planned: &Planned) -> Vec<String> {
    plan::next(shell, planned, &args.source, args.flags == JobFlags::default())
}

fn run_options(args: &Run) -> Result<RunOptions, Failure> {
    Ok(RunOptions {
        again: args.reason.clone().filter(|_| args.again),
        plan: plan::options(&args.planning),
        stop_after_batches: args.stop_after_batches,
        pace: args.pace.pace()?,
        until_done: args.pace.until_done,
        dead_letters: None,
        workers: None,
        workers_here: args.workers_here,
        vacuum_every: None,
    })
}

/// A run that is being watched, and can be stopped by signals.
pub struct Driving {
    /// Where its progress goes.
    pub progress: Progress,
    /// What the engine tells and asks.
    pub observer: Observer,
}

impl Driving {
    /// Listens for signals from now on.
    pub fn begin(shell: &Shell) -> Result<Self, Failure> {
        let (driving, stop) = Self::deaf(shell);
        signals::listen(stop, driving.progress.clone())?;
        Ok(driving)
    }

    /// Listens for no signals until the caller hands over the sender.
    pub fn deaf(shell: &Shell) -> (Self, watch::Sender<Stop>) {
        let (sender, receiver) = watch::channel(Stop::None);
        let progress = Progress::new(shell.json(), shell.log.clone());
        shell.beside(&progress);
        let hearing = progress.clone();
        let observer = Observer::with_stop(move |event| hearing.hear(event), receiver);
        (Self { progress, observer }, sender)
    }
}
