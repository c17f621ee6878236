//! From what was typed to a job: finds the file, reads the statement, lets flags override.

use std::path::{Path, PathBuf};

use pgmend::{Code, Job, JobFile, Refusal};
use pgmend_core::dead_letters::DeadLetters;
use pgmend_core::job::Scalar;
use pgmend_core::tenants::TenantMode;

use crate::args::job::LimitFlags;
use crate::args::{JobFlags, JobSource};

/// A job file or statement beyond this is not something that a person wrote and reviewed.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The statement's file when the job file names none.
const STATEMENT_FILE: &str = "change.sql";

/// The job that was typed.
pub fn load(source: &JobSource, flags: &JobFlags) -> Result<Job, Refusal> {
    let found = match (&source.job, &source.command) {
        (Some(path), _) => read(Path::new(path))?,
        (None, Some(sql)) => Found { name: name_of_statement(sql), statement: sql.clone(), file: JobFile::default() },
        (None, None) => return Err(bad("there is no job", "name a folder, a .toml or a .sql, or pass -c \"SQL\"")),
    };
    let name = flags.name.clone().or_else(|| found.file.name.clone()).unwrap_or(found.name);
    if name.trim().is_empty() {
        return Err(bad("the job's name is empty", "pass --name NAME"));
    }
    let file = by_tenants(overridden(found.file, flags), flags)?;
    let params = flags.params.iter().cloned().collect();
    Job::new(name, found.statement, file, &params)
}

struct Found {
    name: String,
    statement: String,
    file: JobFile,
}

fn read(path: &Path) -> Result<Found, Refusal> {
    if path.is_dir() {
        let job_file = path.join("job.toml");
        if !job_file.is_file() {
            let message = format!("the folder `{}` has no job.toml", path.display());
            return Err(bad(message, "make one with `pgmend new NAME`, or name the .sql file itself"));
        }
        return read_job_file(&job_file);
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => read_job_file(path),
        Some("sql") => Ok(Found { name: stem(path), statement: read_text(path)?, file: JobFile::default() }),
        Some(_) | None => {
            let message = format!("`{}` is no folder with job.toml, no .toml and no .sql file", path.display());
            Err(bad(message, "check the path, or make a job with `pgmend new NAME`"))
        }
    }
}

fn read_job_file(path: &Path) -> Result<Found, Refusal> {
    let file = JobFile::parse(&read_text(path)?)
        .map_err(|refusal| Refusal { message: format!("{}: {}", path.display(), refusal.message), ..refusal })?;
    let name = if path.file_name().is_some_and(|f| f == "job.toml") { folder_name(path) } else { stem(path) };
    let statement = match (&file.statement, &file.statement_file) {
        (Some(_), Some(_)) => {
            let message = format!("{}: both `statement` and `statement_file` are given", path.display());
            return Err(bad(message, "keep one of them"));
        }
        (Some(statement), None) => statement.clone(),
        (None, named) => {
            let relative = named.as_deref().unwrap_or(STATEMENT_FILE);
            read_text(&path.parent().map_or_else(|| PathBuf::from(relative), |folder| folder.join(relative)))?
        }
    };
    Ok(Found { name, statement, file })
}

fn read_text(path: &Path) -> Result<String, Refusal> {
    let cannot = |why: String| bad(format!("cannot read `{}`: {why}", path.display()), "check the path and its rights");
    let bytes = std::fs::metadata(path).map_err(|e| cannot(e.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(cannot(format!("it has {bytes} bytes, more than {FILE_BYTES_MAX}")));
    }
    let bytes = std::fs::read(path).map_err(|e| cannot(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        bad(format!("`{}` is not text in UTF-8", path.display()), "save it as UTF-8, which is how its letters are read")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The name of the folder that holds `path`; resolves `.` and `..` where it can.
fn folder_name(path: &Path) -> String {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.file_name().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A name for a statement typed at the prompt, such as `update-users`.
fn name_of_statement(sql: &str) -> String {
    let mut words = sql.split_whitespace();
    let verb = words.next().unwrap_or_default().to_lowercase();
    if !["update", "delete", "insert"].contains(&verb.as_str()) {
        return "command".to_owned();
    }
    let rest = sql.trim_start().get(verb.len()..).unwrap_or_default();
    match named_table(rest).as_str() {
        "" => verb,
        table => format!("{verb}-{table}"),
    }
}

/// The last part of the first name in `rest` that is no keyword before a table; `-` stands for what a quoted name may hold
/// and a word may not.
fn named_table(rest: &str) -> String {
    let mut rest = rest.trim_start();
    let mut schema = false;
    loop {
        let (name, quoted, after) = first_name(rest);
        let keyword = !quoted && !schema && ["only", "from", "into"].contains(&name.to_lowercase().as_str());
        let after = after.trim_start();
        schema = after.starts_with('.');
        if name.is_empty() || !(keyword || schema) {
            let words = name.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
            return words.collect::<Vec<_>>().join("-");
        }
        rest = after.strip_prefix('.').unwrap_or(after).trim_start();
    }
}

/// A name, whether it is quoted, and what follows it.
fn first_name(text: &str) -> (String, bool, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
        return (text[..end].to_owned(), false, &text[end..]);
    };
    let mut name = String::new();
    let mut rest = inner;
    while let Some((part, after)) = rest.split_once('"') {
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (name, true, after),
        }
    }
    (name, true, "")
}

fn overridden(mut file: JobFile, flags: &JobFlags) -> JobFile {
    if let Some(reason) = &flags.no_images {
        file.images.keep = false;
        file.images.reason = Some(reason.clone());
        file.images.recipient = None;
    }
    if let Some(recipient) = &flags.images_recipient {
        file.images.recipient = Some(recipient.clone());
    }
    file.key = flags.key.clone().or(file.key);
    file.mode = flags.mode.or(file.mode);
    file.expect_rows = flags.expect.or(file.expect_rows);
    file.plain.extend(flags.plain.iter().cloned());
    file.trust_functions.extend(flags.trust_functions.iter().cloned());
    if let Some(rows) = flags.dead_letters {
        // What was typed is meant, whatever share the file has.
        file.dead_letters = DeadLetters { rows_max: Some(rows), share_max: None };
    }
    override_limits(&mut file.limits, &flags.limits);
    file
}

/// `--tenant-column`, and what goes with it.
fn by_tenants(mut file: JobFile, flags: &JobFlags) -> Result<JobFile, Refusal> {
    if let Some(column) = &flags.tenant_column {
        file.tenants = Some(match file.tenants {
            Some(mode) => TenantMode { column: column.clone(), ..mode },
            None => TenantMode::by(column),
        });
    }
    let texts = |values: &Vec<String>| values.iter().cloned().map(Scalar::Text).collect::<Vec<_>>();
    match &mut file.tenants {
        Some(mode) => {
            mode.list = flags.tenants.as_ref().map(texts).or(mode.list.take());
            mode.canary = flags.tenant_canary.as_ref().map_or_else(|| mode.canary.clone(), texts);
        }
        None if flags.tenants.is_some() || flags.tenant_canary.is_some() => {
            return Err(bad("tenants are named, but not the column that holds them", "add --tenant-column COLUMN"));
        }
        None => {}
    }
    Ok(file)
}

fn override_limits(limits: &mut pgmend_core::limits::Limits, flags: &LimitFlags) {
    limits.batch_rows = flags.batch_rows.or(limits.batch_rows);
    limits.rows_per_transaction_max = flags.rows_per_transaction_max.unwrap_or(limits.rows_per_transaction_max);
    limits.target_batch_ms = flags.target_batch_ms.unwrap_or(limits.target_batch_ms);
    limits.lock_timeout_ms = flags.lock_timeout_ms.unwrap_or(limits.lock_timeout_ms);
    limits.statement_timeout_ms = flags.statement_timeout_ms.or(limits.statement_timeout_ms);
    limits.lease_seconds = flags.lease_seconds.unwrap_or(limits.lease_seconds);
    limits.workers = flags.workers.or(limits.workers);
    limits.in_halves = flags.in_halves.or(limits.in_halves);
    limits.vacuum_every = flags.vacuum_every.or(limits.vacuum_every);
    limits.count_budget_ms = flags.count_budget_ms.unwrap_or(limits.count_budget_ms);
}

fn bad(message: impl Into<String>, help: &str) -> Refusal {
    Refusal::new(Code::BadJob, message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &Path) -> JobSource {
        JobSource { job: Some(path.display().to_string()), command: None }
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::Builder::new().prefix("job").tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_read_through_its_job_toml_and_named_after_itself() {
        let folder = folder(&[("job.toml", "goal = \"roles\"\n"), ("change.sql", "delete from t")]);
        let job = load(&source(folder.path()), &JobFlags::default()).unwrap();
        assert_eq!(job.name, folder.path().file_name().unwrap().to_string_lossy());
        assert_eq!(job.statement, "delete from t");
        let direct = load(&source(&folder.path().join("job.toml")), &JobFlags::default()).unwrap();
        assert_eq!(direct, job);
    }

    #[test]
    fn a_bare_sql_file_is_a_job_named_after_its_stem() {
        let folder = folder(&[("fix roles.sql", "\u{feff}delete from t")]);
        let job = load(&source(&folder.path().join("fix roles.sql")), &JobFlags::default()).unwrap();
        assert_eq!((job.name.as_str(), job.statement.as_str()), ("fix roles", "delete from t"));
    }

    #[test]
    fn the_name_comes_from_the_flag_then_the_file_then_the_path() {
        let folder = folder(&[("a.toml", "name = \"from-file\"\nstatement = \"delete from t\"\n")]);
        let path = source(&folder.path().join("a.toml"));
        assert_eq!(load(&path, &JobFlags::default()).unwrap().name, "from-file");
        let flags = JobFlags { name: Some("from-flag".into()), ..JobFlags::default() };
        assert_eq!(load(&path, &flags).unwrap().name, "from-flag");
    }

    #[test]
    fn flags_override_the_file() {
        let text = "statement = \"delete from t\"\nmode = \"stream\"\nexpect_rows = 1\n[limits]\nbatch_rows = 10\n";
        let folder = folder(&[("a.toml", text)]);
        let flags = JobFlags {
            mode: Some(pgmend::Mode::Freeze),
            expect: Some(3),
            no_images: Some("scratch table".into()),
            limits: LimitFlags { batch_rows: Some(20), ..LimitFlags::default() },
            ..JobFlags::default()
        };
        let job = load(&source(&folder.path().join("a.toml")), &flags).unwrap();
        assert_eq!(job.file.mode, Some(pgmend::Mode::Freeze));
        assert_eq!((job.file.expect_rows, job.file.limits.batch_rows), (Some(3), Some(20)));
        assert!(!job.file.images.keep);
    }

    #[test]
    fn what_cannot_be_read_is_a_bad_job_that_names_the_path() {
        let folder = folder(&[("a.toml", "statement = \"x\"\nstatement_file = \"y.sql\"\n"), ("b.toml", "")]);
        for path in [folder.path().join("a.toml"), folder.path().join("b.toml"), folder.path().to_owned()] {
            let refusal = load(&source(&path), &JobFlags::default()).unwrap_err();
            assert_eq!(refusal.code, Code::BadJob);
            assert!(refusal.message.contains(&*folder.path().to_string_lossy()), "{}", refusal.message);
        }
    }

    #[test]
    fn a_typed_statement_is_named_after_its_verb_and_table() {
        assert_eq!(name_of_statement("UPDATE only public.\"users\" set a = 1"), "update-users");
        assert_eq!(name_of_statement("delete from session where x"), "delete-session");
        assert_eq!(name_of_statement("insert into t(a) values (1)"), "insert-t");
        assert_eq!(name_of_statement("update \"Weird Schema\" . \"Mixed \"\"Case\" set a = 1"), "update-Mixed-Case");
        assert_eq!(name_of_statement("delete from only \"from\""), "delete-from");
        assert_eq!(name_of_statement("insert into app.\"a.b\" values (1)"), "insert-a-b");
        assert_eq!(name_of_statement(" update"), "update");
        assert_eq!(name_of_statement("with x as (select 1) delete from t"), "command");
    }
}
