//! Why a measurement could not be made.

use std::fmt;

/// One sentence; `Debug` prints it too, since `main` shows that.
pub struct BenchError(pub String);

impl BenchError {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

impl From<pgmend::Error> for BenchError {
    fn from(error: pgmend::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<pgmend_testkit::KitError> for BenchError {
    fn from(error: pgmend_testkit::KitError) -> Self {
        Self(error.to_string())
    }
}

impl From<pgmend_testkit::PgErrorText> for BenchError {
    fn from(error: pgmend_testkit::PgErrorText) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for BenchError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}
