//! The crash suite: the exactly-once contract (design.md, section 4), broken on purpose at every place.
//! Each statement adds to what it finds, so that a row changed twice, or not at all, differs from the plain
//! statement's result, which every test ends by comparing with.
//!
//! A worker is a process of its own, since only a process can be killed: this test binary again, told to run
//! the one "test" in [`worker`].

mod audit;
mod stage;
mod vacuums;
mod worker;

mod contention;
mod dead_letters;
mod disk_full;
mod encryption;
mod failover;
mod fault_points;
mod gates;
mod kills;
mod network;
mod obstacles;
mod partitions;
mod pooler;
mod restarts;
mod sweeps;
mod takeover;

use std::thread;

use pgmend::{Engine, Error, Job, Observer, Outcome, RunOptions};

use stage::Shape;

/// Any error as text.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Blocks on the engine; the testkit is not asynchronous, and heartbeats go on beside it.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(work)
}

/// The same for each of these shapes, side by side: most of it is waiting.
fn each(shapes: &[Shape], test: impl Fn(Shape) + Sync) {
    thread::scope(|scope| {
        for &shape in shapes {
            let test = &test;
            scope.spawn(move || test(shape));
        }
    });
}

/// Runs a job in this process.
async fn run(url: &str, job: &Job, observer: &mut Observer) -> Result<Outcome, Error> {
    let mut engine = Box::pin(Engine::connect(Some(url))).await?;
    Box::pin(engine.run(job, &RunOptions::default(), observer)).await
}
