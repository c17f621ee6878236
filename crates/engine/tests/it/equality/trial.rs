//! Runs the cases of a theme and tells all that failed.

use std::time::Instant;

use pgmend_testkit::Server;

use super::case::Case;
use super::check::check;
use super::copies::Copies;

/// Runs every case; panics with a list of those that failed.
pub fn try_all(theme: &str, cases: &[Case]) {
    let wanted = std::env::var("EQUALITY").unwrap_or_default();
    let cases: Vec<&Case> = cases.iter().filter(|c| c.name.contains(&wanted)).collect();
    if cases.is_empty() {
        return;
    }
    let failures = runtime().block_on(async {
        let copies = Copies::create(theme).await.expect("the databases of a theme are created");
        let version = Server::shared().version().major;
        let mut failures = Vec::new();
        for case in &cases {
            if version < case.since {
                eprintln!("{theme}: {} is skipped, it needs PostgreSQL {}", case.name, case.since);
                continue;
            }
            let began = Instant::now();
            if let Err(failure) = Box::pin(check(&copies, case)).await {
                failures.push(format!("{}: {}\n  {failure}\n", case.name, case.statement));
            }
            eprintln!("{theme}: {} took {} ms", case.name, began.elapsed().as_millis());
        }
        failures
    });
    report(theme, cases.len(), &failures);
}

/// What the cases of a theme run on.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

/// Panics if anything failed.
pub fn report(theme: &str, cases: usize, failures: &[String]) {
    assert!(failures.is_empty(), "{} of {cases} cases of {theme} failed:\n\n{}", failures.len(), failures.join("\n"));
}
