//! The folder that `pgmend new` makes. Never overwrites a file.

use std::io::Write as _;
use std::path::Path;

use crate::failure::Failure;

/// File and content, in the order in which they are written.
const FILES: [(&str, &str); 5] = [
    ("job.toml", include_str!("scaffold/job.toml")),
    ("change.sql", include_str!("scaffold/change.sql")),
    ("README.md", include_str!("scaffold/README.md")),
    (".env.example", include_str!("scaffold/env.example")),
    (".gitignore", include_str!("scaffold/gitignore")),
];
/// Stands for the job's name in the files.
const NAME: &str = "{{name}}";

/// Writes the folder's files and gives their names.
pub fn write(folder: &Path) -> Result<Vec<&'static str>, Failure> {
    let name = name_of(folder)?;
    if let Some((file, _)) = FILES.iter().find(|(file, _)| folder.join(file).symlink_metadata().is_ok()) {
        let message = format!("`{}` exists already", folder.join(file).display());
        return Err(Failure::usage(message, "choose another name; nothing is ever overwritten"));
    }
    std::fs::create_dir_all(folder).map_err(|e| Failure::io(&format!("make the folder `{}`", folder.display()), &e))?;
    for (file, content) in FILES {
        let path = folder.join(file);
        let writing = |e: std::io::Error| Failure::io(&format!("write `{}`", path.display()), &e);
        let mut made = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(writing)?;
        made.write_all(content.replace(NAME, name).as_bytes()).map_err(writing)?;
    }
    Ok(FILES.map(|(file, _)| file).to_vec())
}

/// The last part of the path, if it can stand in a file, a URL and a table's name without quoting.
fn name_of(folder: &Path) -> Result<&str, Failure> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) && name.len() <= 63 {
        return Ok(name);
    }
    let help = "letters, digits, `-` and `_`, a letter or digit first, 63 at most; such as `fix-roles`";
    Err(Failure::usage(format!("`{}` does not end in a job's name", folder.display()), help))
}

#[cfg(test)]
mod tests {
    use pgmend::JobFile;

    use super::*;
    use crate::args::{JobFlags, JobSource};
    use crate::job_file;

    #[test]
    fn a_new_job_can_be_read_at_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("fix-roles");
        assert_eq!(write(&folder).unwrap().len(), 5);
        let source = JobSource { job: Some(folder.display().to_string()), command: None };
        let job = job_file::load(&source, &JobFlags::default()).unwrap();
        assert_eq!(job.name, "fix-roles");
        assert_eq!(job.file.limits, pgmend_core::limits::Limits::default());
    }

    #[test]
    fn every_commented_key_of_the_scaffold_is_a_key_that_is_known() {
        let uncommented: Vec<&str> = FILES[0]
            .1
            .lines()
            .filter_map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") || rest.starts_with('[') => Some(rest),
                Some(_) => None,
                None => Some(line),
            })
            .filter(|line| !line.starts_with("statement_file") && !line.starts_with("name = "))
            .collect();
        JobFile::parse(&uncommented.join("\n")).unwrap();
    }

    #[test]
    fn nothing_is_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("fix");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(".gitignore"), "mine").unwrap();
        assert!(write(&folder).is_err());
        assert!(!folder.join("job.toml").exists());
        assert_eq!(std::fs::read_to_string(folder.join(".gitignore")).unwrap(), "mine");
    }

    #[test]
    fn a_name_needs_no_quoting() {
        for name in ["", "..", "a b", "-x", "a;b", "é"] {
            assert!(name_of(Path::new(name)).is_err(), "{name}");
        }
        assert_eq!(name_of(Path::new("jobs/2026-03-fix_roles")).ok(), Some("2026-03-fix_roles"));
    }
}
