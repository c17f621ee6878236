//! Environments: finds `pgmend.toml` upward from the job, and says which database a command means.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgmend::guard::Named;
use pgmend::{Code, Refusal};
use pgmend_core::environment::Environments;

/// The file's name.
const FILE: &str = "pgmend.toml";

/// The environments of the nearest `pgmend.toml`, from `start` upward; none where there is none.
pub fn find(start: &Path) -> Result<Environments, Refusal> {
    let start = start.canonicalize().unwrap_or_else(|_| PathBuf::from("."));
    let Some(file) = start.ancestors().map(|folder| folder.join(FILE)).find(|file| file.is_file()) else {
        return Ok(Environments::default());
    };
    let text = std::fs::read_to_string(&file).map_err(|e| {
        Refusal::new(Code::BadJob, format!("cannot read `{}`: {e}", file.display()), "check its rights")
    })?;
    Environments::parse(&text)
        .map_err(|refusal| Refusal { message: format!("{}: {}", file.display(), refusal.message), ..refusal })
}

/// The environment that is meant: the one named, else the file's default unless a database was typed.
pub fn meant(all: &Environments, name: Option<&str>, database_typed: bool) -> Result<Option<Named>, Refusal> {
    let name = match (name, &all.default) {
        (Some(name), _) => name,
        (None, Some(default)) if !database_typed => default.as_str(),
        (None, _) => return Ok(None),
    };
    let environment = all.named(name)?.clone();
    Ok(Some(Named { name: name.to_owned(), environment }))
}

/// The environments that must be named.
pub fn protected(all: &Environments) -> Vec<Named> {
    let protected = all.environments.iter().filter(|(_, environment)| environment.protected);
    protected.map(|(name, environment)| Named { name: name.clone(), environment: environment.clone() }).collect()
}

/// The connection of an environment.
pub fn database_url(named: &Named) -> Result<Option<String>, Refusal> {
    let Some(variable) = &named.environment.database_url_variable else {
        return Ok(named.environment.database_url.clone());
    };
    match std::env::var(variable) {
        Ok(url) if !url.trim().is_empty() => Ok(Some(url)),
        Ok(_) | Err(_) => {
            let message = format!("environment {} is reached by ${variable}, which is not set", named.name);
            Err(Refusal::new(Code::BadJob, message, format!("type: export {variable}=postgresql://…")))
        }
    }
}

/// The git commit of a job's folder, with ` dirty` where the folder differs from it; none outside of git.
pub fn commit(job: &Path) -> Option<String> {
    let folder =
        if job.is_dir() { job } else { job.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")) };
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--", "."])?;
    Some(if changed.is_empty() { commit } else { format!("{commit} dirty") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "default = \"staging\"\n[environments.staging]\n[environments.production]\nprotected = true\n";

    #[test]
    fn the_nearest_file_upward_counts() {
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("jobs/fix");
        std::fs::create_dir_all(&job).unwrap();
        assert_eq!(find(&job).unwrap(), Environments::default());
        std::fs::write(folder.path().join(FILE), TOML).unwrap();
        assert_eq!(find(&job).unwrap().environments.len(), 2);
        std::fs::write(folder.path().join("jobs").join(FILE), "[environments.other]\n").unwrap();
        assert_eq!(find(&job).unwrap().environments.len(), 1);
        std::fs::write(folder.path().join("jobs").join(FILE), "[enviroments.other]\n").unwrap();
        assert_eq!(find(&job).unwrap_err().help, "did you mean `environments`?");
    }

    #[test]
    fn a_typed_database_is_no_default_environment() {
        let all = Environments::parse(TOML).unwrap();
        assert_eq!(meant(&all, None, false).unwrap().unwrap().name, "staging");
        assert_eq!(meant(&all, None, true).unwrap(), None);
        assert_eq!(meant(&all, Some("production"), true).unwrap().unwrap().name, "production");
        assert!(meant(&all, Some("prod"), true).is_err());
    }
}
