//! The cursor as people may see it: keys can be personal data.

use pgmend_core::job::Mode;

use super::worker::Worker;
use crate::control::key_text;

impl Worker<'_, '_> {
    /// Where the cursor stands, `column=value`, masked; empty before the first batch.
    pub(super) fn shown_cursor(&self) -> String {
        match (&self.at.cursor, self.plan.mode) {
            (None, Mode::Stream | Mode::Freeze) => String::new(),
            (Some(cursor), Mode::Stream) => key_text(self.plan.key.as_ref(), cursor, &self.shown),
            // An ordinal of the change set.
            (Some(cursor), Mode::Freeze) => format!("n={}", cursor.join(", ")),
        }
    }
}
