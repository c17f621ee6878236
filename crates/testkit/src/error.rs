//! What went wrong around a test server, as one sentence.

use std::fmt;

/// The test equipment itself failed; never a failure of the code under test.
///
/// `Debug` prints the sentence too, since `expect` and a failed test show `Debug`.
pub struct KitError {
    doing: String,
    detail: String,
}

impl KitError {
    pub(crate) fn new(doing: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { doing: doing.into(), detail: detail.to_string() }
    }

    /// Turns any error into a `KitError` that says what was being done.
    pub(crate) fn while_doing<E: fmt::Display>(doing: &str) -> impl FnOnce(E) -> Self + '_ {
        move |source| Self::new(doing, source)
    }
}

impl fmt::Display for KitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.detail)
    }
}

impl fmt::Debug for KitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for KitError {}
