//! Transcripts of the command that need no database: arguments, files, pages, exit codes.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::tempdir;

fn pgmend(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgmend"))
        .args(args)
        .current_dir(folder)
        .env_clear()
        .output()
        .expect("the binary under test was built by cargo")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn new_makes_a_job_once() {
    let folder = tempdir().expect("a temporary folder");
    let made = pgmend(folder.path(), &["new", "fix-roles"]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    insta::assert_snapshot!(out(&made), @r"
    made fix-roles: job.toml, change.sql, README.md, .env.example, .gitignore

    NEXT
      write the statement into fix-roles/change.sql, then type
      pgmend plan fix-roles
    ");
    let again = pgmend(folder.path(), &["new", "fix-roles"]);
    assert_eq!(again.status.code(), Some(2));
    insta::assert_snapshot!(err(&again), @r"
    error: `fix-roles/job.toml` exists already
      help: choose another name; nothing is ever overwritten
    ");
}

#[test]
fn a_missing_job_is_wrong_use_and_says_what_to_type() {
    let folder = tempdir().expect("a temporary folder");
    let output = pgmend(folder.path(), &["plan", "no-such-job"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(err(&output), @r"
    error: `no-such-job` is no folder with job.toml, no .toml and no .sql file
      help: check the path, or make a job with `pgmend new NAME`
      see: pgmend explain PM109
    ");
}

#[test]
fn a_statement_may_begin_with_a_comment() {
    let folder = tempdir().expect("a temporary folder");
    let args = ["run", "-c", "-- three rows\nupdate t set a = 1", "--database-url", "postgresql://127.0.0.1:1/none"];
    let output = pgmend(folder.path(), &args);
    assert!(err(&output).starts_with("error: connect to 127.0.0.1:1"), "{}", err(&output));
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempdir().expect("a temporary folder");
    let page = out(&pgmend(folder.path(), &["man", "run"]));
    assert!(page.contains(".TH pgmend-run 1"), "{page}");
    assert!(page.contains("\\-\\-execute") && page.contains("\\-\\-database\\-url"), "{page}");
    assert!(out(&pgmend(folder.path(), &["man"])).contains("pgmend\\-undo"));
    assert_eq!(pgmend(folder.path(), &["man", "migrate"]).status.code(), Some(2));
}

#[test]
fn an_unknown_key_suggests_the_nearest_and_names_the_file() {
    let folder = tempdir().expect("a temporary folder");
    let job = "statement = \"delete from t\"\n[limits]\nbatch_row = 5\n";
    std::fs::write(folder.path().join("a.toml"), job).expect("the folder can be written");
    let output = pgmend(folder.path(), &["plan", "a.toml", "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let answer: serde_json::Value = serde_json::from_str(&out(&output)).expect("JSON on stdout");
    assert_eq!(answer["error"]["code"], "PM109");
    assert_eq!(answer["error"]["help"], "did you mean `batch_rows`?");
    assert!(answer["error"]["message"].as_str().is_some_and(|m| m.starts_with("a.toml: ")));
    assert!(err(&output).is_empty());
}

/// The commands of pgmend on a page: in code spans, and as lines of code blocks; words of a shell line each.
fn commands_on(page: &str) -> Vec<Vec<String>> {
    let texts = page.split("```").enumerate();
    let spans = texts.flat_map(|(place, text)| match place % 2 {
        1 => text.lines().collect::<Vec<_>>(),
        _ => text.split('`').skip(1).step_by(2).collect(),
    });
    let lines = spans.map(|span| span.rsplit("| ").next().unwrap_or(span)).filter(|span| span.starts_with("pgmend "));
    let words = |line: &str| {
        let line = line.replace('\n', " ");
        // A remark stands apart.
        let line = line.split("  ").next().unwrap_or_default();
        // What stands in quotes is one word.
        let parts: Vec<&str> = line.split('"').collect();
        let mut words = Vec::new();
        for (place, part) in parts.into_iter().enumerate() {
            match place % 2 {
                1 => words.push(part.to_owned()),
                // Dots stand for what is left out.
                _ => words.extend(part.split_whitespace().filter(|word| *word != "…").map(str::to_owned)),
            }
        }
        words.into_iter().take_while(|word| !word.starts_with('#') && word != ">" && word != "<").skip(1).collect()
    };
    lines.map(words).collect()
}

#[test]
fn every_page_of_a_refusal_at_run_time_has_a_command_and_every_command_on_a_page_exists() {
    let folder = tempdir().expect("a temporary folder");
    let list = out(&pgmend(folder.path(), &["explain"]));
    let codes: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let codes: Vec<&str> = codes.into_iter().filter(|word| word.starts_with("PM")).collect();
    assert!(codes.len() > 70, "{list}");
    let (mut tried, mut wrong) = (std::collections::BTreeSet::new(), Vec::new());
    for code in codes {
        let commands = commands_on(&out(&pgmend(folder.path(), &["explain", code])));
        assert!(!commands.is_empty() || !["PM5", "PM6", "PM7"].contains(&&code[..3]), "{code} has no line to type");
        for words in commands.into_iter().filter(|words| tried.insert(words.clone())) {
            // Every word before it is read: an option that does not exist is an error, whatever is missing.
            let args: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
            let output = pgmend(folder.path(), &args);
            if output.status.code() != Some(0) {
                wrong.push(format!("{code}: {args:?}: {}", err(&output)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried.len() > 60, "{}", tried.len());
}

#[test]
fn explain_prints_a_page_in_any_case_of_its_code() {
    let folder = tempdir().expect("a temporary folder");
    let page = pgmend(folder.path(), &["explain", "pm204"]);
    assert_eq!(page.status.code(), Some(0));
    assert!(out(&page).starts_with("# PM204: "));
    let wrong = pgmend(folder.path(), &["explain", "PM2040"]);
    assert_eq!(wrong.status.code(), Some(2));
    insta::assert_snapshot!(err(&wrong), @r"
    error: there is no code `PM2040`
      help: did you mean PM204? `pgmend explain` lists all codes
    ");
}

#[test]
fn flags_do_not_change_a_stored_plan() {
    let folder = tempdir().expect("a temporary folder");
    let output = pgmend(folder.path(), &["run", "0199c2e1-6f3a", "--batch-rows", "5", "--execute"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(err(&output), @r"
    error: `0199c2e1-6f3a` is a stored plan or run, which no flag can change
      help: run it as it was reviewed, or change the job and plan it again
    ");
}

#[test]
fn completions_and_version_are_printed() {
    let folder = tempdir().expect("a temporary folder");
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&pgmend(folder.path(), &["completions", shell])).contains("pgmend"), "{shell}");
    }
    let version = pgmend(folder.path(), &["--version"]);
    assert_eq!(out(&version), format!("pgmend {}\n", env!("CARGO_PKG_VERSION")));
}
