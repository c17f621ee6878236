//! The job files of the demo: what a person would have written.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A repair, with what the proof of its result needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Repair {
    /// What is typed after `pgmend run`.
    pub job: &'static str,
    /// The files, below the folder of the jobs, in the order in which they are shown.
    pub files: &'static [(&'static str, &'static str)],
    /// The statement alone.
    pub statement: &'static str,
    /// The target.
    pub table: &'static str,
    /// The target's key.
    pub key: &'static str,
    /// The column that is repaired.
    pub column: &'static str,
}

const SWAP_SQL: &str = include_str!("jobs/swap-roles/change.sql");
const FILL_SQL: &str = include_str!("jobs/fill-provider.sql");
const DEDUPE_SQL: &str = include_str!("jobs/one-primary.sql");

/// Swaps two roles. Not idempotent: twice is as if it had never run.
pub const SWAP_ROLES: Repair = Repair {
    job: "swap-roles",
    files: &[("swap-roles/job.toml", include_str!("jobs/swap-roles/job.toml")), ("swap-roles/change.sql", SWAP_SQL)],
    statement: SWAP_SQL,
    table: "users",
    key: "user_id",
    column: "role",
};

/// Fills what a table of rules tells.
pub const FILL_PROVIDER: Repair = Repair {
    job: "fill-provider.sql",
    files: &[("fill-provider.sql", FILL_SQL)],
    statement: FILL_SQL,
    table: "authorizations",
    key: "authorization_id",
    column: "provider_id",
};

/// Keeps the newest of several rows: needs the whole table at once, so its change set is frozen.
pub const ONE_PRIMARY: Repair = Repair {
    job: "one-primary.sql",
    files: &[("one-primary.sql", DEDUPE_SQL)],
    statement: DEDUPE_SQL,
    table: "assignment",
    key: "assignment_id",
    column: "active",
};

/// All of them.
pub const ALL: [Repair; 3] = [SWAP_ROLES, FILL_PROVIDER, ONE_PRIMARY];

/// Batches of the run that is killed: enough that a kill at any moment is far from both ends.
const BATCHES: u32 = 300;

/// Writes the files of all repairs below `folder`.
pub fn write(folder: &Path, rows: u32) -> Result<(), Failure> {
    for (file, content) in ALL.iter().flat_map(|repair| repair.files) {
        let path: PathBuf = folder.join(file);
        let writing = |e: std::io::Error| Failure::io(&format!("write `{}`", path.display()), &e);
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(writing)?;
        let batch_rows = format!("{:<4}", (rows / BATCHES).clamp(10, 2_000));
        fs::write(&path, content.replace("{{batch_rows}}", &batch_rows)).map_err(writing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{JobFlags, JobSource};
    use crate::job_file;

    #[test]
    fn every_job_of_the_demo_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 300_000).unwrap();
        for repair in ALL {
            let path = folder.path().join(repair.job).display().to_string();
            let job = job_file::load(&JobSource { job: Some(path), command: None }, &JobFlags::default()).unwrap();
            assert_eq!(job.statement, repair.statement);
        }
    }

    #[test]
    fn the_run_that_is_killed_has_many_small_batches() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 300_000).unwrap();
        let text = fs::read_to_string(folder.path().join("swap-roles/job.toml")).unwrap();
        assert!(text.contains("batch_rows    = 1000 "), "{text}");
    }
}
