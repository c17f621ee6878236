//! Colour, on a terminal only. Meaning never hangs on it.

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    /// On.
    pub on: bool,
}

impl Paint {
    /// No colour.
    #[cfg(test)]
    pub const PLAIN: Paint = Paint { on: false };

    /// Headings and what must be found at a glance.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What may be skipped.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Good ends, values after.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Warnings.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Failures, blockers.
    pub fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
