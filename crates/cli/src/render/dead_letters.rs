//! Dead letters as people read them.

use std::path::Path;

use pgmend::{DeadLetter, Retried};
use pgmend_core::limits::CONFLICTS_LISTED_MAX;

use super::figure::{counted, rows};
use super::page::Page;
use super::paint::Paint;

/// The dead letters of a run; where a file has them, only how many.
pub fn list(all: &[DeadLetter], file: Option<&Path>, next: &[String], paint: Paint) -> String {
    let mut page = Page::new(paint);
    if all.is_empty() {
        page.push("no row was set aside");
        return page.text();
    }
    let open = all.iter().filter(|letter| letter.state == "open").count();
    page.push(&format!("{} set aside, {open} open", counted(all.len() as i64, "row")));
    match file {
        Some(file) => page.pair("written to", &file.display().to_string()),
        None => each(&mut page, all.iter()),
    }
    page.list("NEXT", next);
    page.text()
}

/// The open dead letters that a run ended with, the first ones of many.
pub fn open(all: &[DeadLetter], paint: Paint) -> String {
    let mut page = Page::new(paint);
    let open: Vec<&DeadLetter> = all.iter().filter(|letter| letter.state == "open").collect();
    if open.is_empty() {
        return page.text();
    }
    page.push("");
    page.push(&paint.bold("DEAD LETTERS"));
    each(&mut page, open.iter().copied().take(CONFLICTS_LISTED_MAX as usize));
    let more = open.len() as i64 - CONFLICTS_LISTED_MAX;
    if more > 0 {
        page.line(&format!("and {} more: `pgmend dead-letters` lists them", rows(more)));
    }
    page.text()
}

fn each<'l>(page: &mut Page, letters: impl Iterator<Item = &'l DeadLetter> + Clone) {
    let width = letters.clone().map(|letter| letter.key.chars().count()).max().unwrap_or(0);
    for letter in letters {
        let state = match letter.state.as_str() {
            "open" => String::new(),
            other => format!("; {} since", other.replace('_', " ")),
        };
        let tried = if letter.attempts > 1 { format!(", tried {} times", letter.attempts) } else { String::new() };
        page.line(&format!("{:<width$}  {} ({}{tried}){state}", letter.key, letter.message, letter.sqlstate));
    }
}

/// What became of dead letters that were tried again.
pub fn retried(done: &Retried, next: &[String], paint: Paint) -> String {
    let mut page = Page::new(paint);
    let headline = if done.open_rows > 0 { paint.yellow("RETRIED, SOME ARE LEFT") } else { paint.green("RETRIED") };
    page.push(&format!("{headline}: {} changed", counted(done.changed_rows, "dead letter")));
    if done.passed_over_rows > 0 {
        page.pair("passed over", &format!("{}: there is nothing to change any more", rows(done.passed_over_rows)));
    }
    if done.conflict_rows > 0 {
        page.pair("conflicts", &format!("{}, left as they are", rows(done.conflict_rows)));
    }
    if done.open_rows > 0 {
        page.pair("still open", &rows(done.open_rows));
        page.list("NEXT", next);
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(state: &str, attempts: i64) -> DeadLetter {
        DeadLetter {
            letter_no: 1,
            batch_no: 1,
            key: format!("id={}", 4_710 + attempts),
            ordinal: None,
            sqlstate: "23514".into(),
            message: "new row for relation \"account\" violates check constraint \"positive\"".into(),
            constraint: Some("positive".into()),
            column: None,
            attempts,
            state: state.into(),
            recorded_at: "2026-11-21T10:00:00Z".into(),
            settled_at: None,
        }
    }

    #[test]
    fn what_a_file_has_is_not_told_twice() {
        let text = list(&[letter("open", 1)], Some(Path::new("letters.jsonl")), &[], Paint::PLAIN);
        assert!(text.contains("1 row set aside, 1 open") && text.contains("letters.jsonl"), "{text}");
        assert!(!text.contains("id="), "{text}");
    }

    #[test]
    fn a_list_says_what_failed_and_what_became_of_it() {
        let letters = [letter("open", 2), letter("changed", 1)];
        insta::assert_snapshot!(list(
            &letters,
            None,
            &["pgmend dead-letters fix --retry --execute".into()],
            Paint::PLAIN
        ));
    }

    #[test]
    fn a_retry_that_leaves_rows_does_not_look_like_a_clean_one() {
        let done = Retried { changed_rows: 3, open_rows: 1, ..Retried::default() };
        insta::assert_snapshot!(retried(&done, &["pgmend dead-letters fix".into()], Paint::PLAIN));
    }
}
