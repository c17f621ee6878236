//! `pgmend undo RUN [--execute]`.

use pgmend::UndoOptions;
use pgmend_core::exit;

use super::{plan, run};
use crate::Done;
use crate::args::Undo;
use crate::identity_file;
use crate::shell::{Shell, quoted};

/// Plans the undo; with `--execute` also runs that plan, or goes on with one that has not ended.
pub async fn main(shell: &Shell, args: &Undo) -> Done {
    let run = args.pace.options()?;
    let identity = args.identity.as_deref().map(identity_file::read).transpose()?;
    let planning = plan::options(&args.planning);
    let options = UndoOptions { predicate: args.predicate.clone(), identity, plan: planning, run };
    let mut engine = shell.engine().await?;
    shell.show_errors(&mut engine, args.planning.show_values);
    if args.execute
        && let Some(unfinished) = engine.unfinished_undo(&args.run, &options).await?
    {
        return run::go_on(shell, &mut engine, &unfinished.to_string(), &options.run).await;
    }
    let planned = engine.plan_undo(&args.run, &options).await?;
    let verdict = plan::exit_code(&planned);
    if !args.execute || verdict != exit::DONE {
        return plan::show(shell, &planned, &next(shell, args, verdict));
    }
    run::run_stored(shell, &mut engine, &planned, &options.run, false).await
}

fn next(shell: &Shell, args: &Undo, verdict: u8) -> Vec<String> {
    if verdict != exit::DONE {
        return Vec::new();
    }
    let predicate = args.predicate.as_deref().map(|p| format!(" --where {}", quoted(p))).unwrap_or_default();
    let identity = args
        .identity
        .as_deref()
        .map(|f| format!(" --identity {}", quoted(&f.display().to_string())))
        .unwrap_or_default();
    vec![shell.line(&format!("pgmend undo {}{predicate}{identity} --execute", quoted(&args.run)))]
}
