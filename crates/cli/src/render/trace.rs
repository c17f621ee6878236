//! The story of one row.

use pgmend::Touch;

use super::page::Page;
use super::paint::Paint;
use super::plan::value;

/// Every run that touched the row.
pub fn text(table: &str, key: &[String], touches: &[Touch], paint: Paint) -> String {
    let mut page = Page::new(paint);
    let row = format!("{table} ({})", key.join(", "));
    if touches.is_empty() {
        page.push(&format!("no run touched {row}"));
        return page.text();
    }
    page.push(&paint.bold(&row));
    for touch in touches {
        page.heading(
            &touch.changed_at,
            &format!("{} by {}, job {}, run {}", touch.kind, touch.changed_by, touch.job, touch.run_id),
        );
        if touch.pruned {
            page.line("its images are pruned: what changed is no longer known");
        }
        if let Some(recipient) = &touch.encrypted_to {
            page.line(&format!("its values are encrypted to {recipient}: add --identity FILE"));
        }
        let width = touch.columns.iter().map(|(name, _, _)| name.chars().count()).max().unwrap_or(0);
        for (name, before, after) in &touch.columns {
            let (before, after) = (value(before.as_deref()), value(after.as_deref()));
            page.line(&format!("{name:<width$}  {before} → {}", paint.green(&after)));
        }
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::example::run_id;

    #[test]
    fn a_row_tells_who_changed_what_and_when() {
        let touch = Touch {
            run_id: run_id(),
            job: "fix-roles".into(),
            kind: "update".into(),
            changed_at: "2026-03-01T03:12:11Z".into(),
            changed_by: "alice".into(),
            columns: vec![
                ("role".into(), Some("memeber".into()), Some("member".into())),
                ("note".into(), None, Some("x".into())),
            ],
            pruned: false,
            encrypted_to: None,
        };
        let pruned = Touch { columns: Vec::new(), pruned: true, kind: "undo".into(), ..touch.clone() };
        insta::assert_snapshot!(text("users", &["17".into()], &[touch, pruned], Paint::PLAIN));
    }

    #[test]
    fn an_untouched_row_says_so() {
        assert_eq!(text("users", &["17".into()], &[], Paint::PLAIN), "no run touched users (17)\n");
    }
}
