//! `pgmend demo`: a shop in need of repair on a throwaway PostgreSQL, live traffic on it, and pgmend at work, killed in
//! the middle. Everything shown is the real output of this same program, run as a child; every exit code is insisted on,
//! and every result is compared with the plain statement's. Any deviation ends the demo with an error.
//!
//! This is the one part of pgmend that people install which uses the test kit: finding PostgreSQL's programs, starting a
//! server without root's rights and removing it however this process ends is the same work here as in the tests, and the
//! demo's own statements must not go through the code whose results they check. No other module may use it.

mod jobs;
mod proof;
mod shop;
mod stage;
mod story;
mod traffic;

use std::io::IsTerminal as _;

use pgmend_core::exit;
use tokio::signal::unix::{SignalKind, signal};

use crate::Done;
use crate::args::Demo;
use crate::failure::Failure;
use crate::render::paint::Paint;
use crate::shell::print;
use shop::Shop;
use stage::{Running, Stage};

/// Opens the shop, tells the story, closes the shop.
pub fn main(args: &Demo) -> Done {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let paint = Paint { on: std::io::stdout().is_terminal() && !plain };
    print("starting a PostgreSQL of its own …\n")?;
    let shop = Shop::open(args.keep)?;
    let mut stage = Stage::new(&shop, paint)?;
    let stop_lines = if args.keep { shop.stop_lines() } else { Vec::new() };
    end_on_a_signal(stage.running(), stop_lines)?;
    let told = story::tell(&shop, &mut stage, args.orders);
    close(&shop, &stage, args.keep)?;
    told.map(|()| exit::DONE)
}

/// Ctrl-C ends the demo and the child at once, rather than leave the child to look for a server that is gone.
/// The server's watchdog sees our end and removes it.
fn end_on_a_signal(running: Running, stop_lines: Vec<String>) -> Result<(), Failure> {
    let listening = |source| Failure::io("listen for signals", &source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(listening)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(listening)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // Nobody is left to hear of a child that could not be killed.
        drop(running.kill());
        let kept: String = stop_lines.iter().map(|line| format!("  {line}\n")).collect();
        let what = if kept.is_empty() { "the server goes away" } else { "the server keeps running; to stop it:" };
        drop(print(&format!("\nended by a signal; {what}\n{kept}")));
        std::process::exit(exit::PAUSED.into());
    });
    Ok(())
}

fn close(shop: &Shop, stage: &Stage, keep: bool) -> Result<(), Failure> {
    if !keep {
        return stage.say("\nThe server and all that was on it go away now; `pgmend demo --keep` leaves them.");
    }
    stage.say("\nThe server keeps running. Look around:")?;
    stage.say(&format!("  psql {}", shop.url()))?;
    let (jobs, pgmend) = (shop.jobs(), stage.program());
    stage.say(&format!("  cd {} && export DATABASE_URL={} && {pgmend} list", jobs.display(), shop.url()))?;
    stage.say("Stop and remove it:")?;
    shop.stop_lines().iter().try_for_each(|line| stage.say(&format!("  {line}")))
}
