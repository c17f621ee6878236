//! Exit codes of the command line; public, stable.

/// Done.
pub const DONE: u8 = 0;
/// A fault of pgmend itself.
pub const INTERNAL: u8 = 1;
/// Wrong arguments or a wrong job file.
pub const USAGE: u8 = 2;
/// Stopped by a finding or a gate; nothing was written.
pub const STOPPED: u8 = 3;
/// An approval is missing.
pub const APPROVAL_MISSING: u8 = 4;
/// The run failed; what is committed stays, and the run can be resumed.
pub const RUN_FAILED: u8 = 5;
/// Paused or cancelled.
pub const PAUSED: u8 = 6;
/// Finished, with dead letters or conflicts.
pub const FINISHED_WITH_EXCEPTIONS: u8 = 7;
/// Nothing to change.
pub const NOTHING_TO_CHANGE: u8 = 8;
