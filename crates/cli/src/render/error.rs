//! Errors: what is wrong, where in the statement, what to type instead, where to read more.

use std::fmt::Write as _;

use pgmend::Error;
use serde_json::json;

use super::paint::Paint;
use crate::failure::Failure;

/// Columns of the statement shown on either side of a position.
const AROUND_MAX: usize = 60;

/// The error for people.
pub fn text(failure: &Failure, paint: Paint) -> String {
    let mut text = format!("{} {}\n", paint.red("error:"), failure.message());
    let mut add = |line: &str| writeln!(text, "  {line}").expect("writing to a string does not fail");
    if let Failure::Engine { error: Error::Refused(refusal), statement: Some(statement) } = failure
        && let Some(position) = refusal.position
    {
        for line in pointer(statement, position) {
            add(&line);
        }
    }
    if let Some(help) = failure.help() {
        add(&format!("{} {help}", paint.green("help:")));
    }
    match failure {
        Failure::Engine { error: Error::Refused(refusal), .. } => add(&format!("see: pgmend explain {}", refusal.code)),
        Failure::Engine { error: Error::Corrupt(_), .. } => add("see: pgmend explain corrupt"),
        Failure::Engine { error: Error::Database { sqlstate, .. }, .. } if !sqlstate.is_empty() => {
            add(&format!("sqlstate: {sqlstate}"));
        }
        Failure::Engine { error: Error::Database { .. }, .. } | Failure::Usage { .. } | Failure::Io { .. } => {}
    }
    text
}

/// The error for programs.
pub fn json(failure: &Failure) -> serde_json::Value {
    let mut error = json!({ "code": failure.code(), "message": failure.message(), "help": failure.help() });
    if let Some(position) = failure.refusal().and_then(|refusal| refusal.position) {
        error["position"] = position.into();
    }
    json!({ "error": error })
}

/// The line of the statement that holds byte `position`, and a caret under it.
fn pointer(statement: &str, position: usize) -> Vec<String> {
    let mut position = position.min(statement.len());
    while !statement.is_char_boundary(position) {
        position -= 1;
    }
    let start = statement[..position].rfind('\n').map_or(0, |newline| newline + 1);
    let end = statement[position..].find('\n').map_or(statement.len(), |newline| position + newline);
    let number = statement[..start].matches('\n').count() + 1;
    let clean = |part: &str| -> Vec<char> { part.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() };
    let (before, after) = (clean(&statement[start..position]), clean(&statement[position..end]));
    let cut = before.len().saturating_sub(AROUND_MAX);
    let mut shown = String::from(if cut > 0 { "…" } else { "" });
    shown.extend(&before[cut..]);
    let column = shown.chars().count();
    shown.extend(after.iter().take(AROUND_MAX));
    if after.len() > AROUND_MAX {
        shown.push('…');
    }
    let gutter = format!("{number} | ");
    let caret = format!("{}| {}^", " ".repeat(gutter.len() - 2), " ".repeat(column));
    vec![format!("{gutter}{shown}").trim_end().to_owned(), caret]
}

#[cfg(test)]
mod tests {
    use pgmend::{Code, Job, Refusal};

    use super::*;

    fn refused(statement: &str, at: Option<usize>) -> Failure {
        let mut refusal = Refusal::new(
            Code::AmbiguousSource,
            "12 rows of `users` have several matches in `import` with different values",
            "join on a unique column, or pick one row with `select distinct on (…)`",
        );
        refusal.position = at;
        Failure::about(&Job::from_statement("j", statement))(refusal.into())
    }

    #[test]
    fn a_refusal_shows_the_place_the_way_out_and_the_page() {
        let statement = "update users u\n   set role = i.role\n  from import i\n where i.user_id = u.id";
        let position = statement.find("import");
        insta::assert_snapshot!(text(&refused(statement, position), Paint::PLAIN), @r"
        error: 12 rows of `users` have several matches in `import` with different values
          3 |   from import i
            |        ^
          help: join on a unique column, or pick one row with `select distinct on (…)`
          see: pgmend explain PM204
        ");
    }

    #[test]
    fn a_database_error_shows_its_sqlstate() {
        let error = Error::Database {
            doing: "commit a batch of `fix-roles`".into(),
            message: "could not extend file".into(),
            sqlstate: "53100".into(),
        };
        insta::assert_snapshot!(text(&error.into(), Paint::PLAIN), @r"
        error: commit a batch of `fix-roles`: could not extend file
          sqlstate: 53100
        ");
    }

    #[test]
    fn a_program_gets_the_same_content() {
        insta::assert_snapshot!(json(&refused("update users", Some(7))).to_string(), @r#"{"error":{"code":"PM204","help":"join on a unique column, or pick one row with `select distinct on (…)`","message":"12 rows of `users` have several matches in `import` with different values","position":7}}"#);
    }

    #[test]
    fn a_corrupt_control_schema_says_to_stop() {
        insta::assert_snapshot!(text(&Error::Corrupt("entry 3 does not follow entry 2".into()).into(), Paint::PLAIN), @r"
        error: the control schema holds a value that pgmend did not write: entry 3 does not follow entry 2
          help: stop, keep the database as it is, and read docs/errors/corrupt.md
          see: pgmend explain corrupt
        ");
    }

    #[test]
    fn any_position_is_shown_without_a_crash() {
        let statement = format!("{}é\n\tx", "a".repeat(100));
        for position in 0..=statement.len() + 2 {
            assert_eq!(pointer(&statement, position).len(), 2);
        }
        assert_eq!(pointer("update t set\n\tx = é ;", 21), ["2 |  x = é ;", "  |        ^"]);
    }
}
