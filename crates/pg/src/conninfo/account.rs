//! The operating system's user, PostgreSQL's default role name.

use std::fs;

use super::settings::Settings;

/// The name of the user that this process runs as: by its number in the user database, as libpq does
/// (`USER` may be stale under `su` or sudo), else what the environment says.
pub(super) fn user_name(settings: &Settings<'_>) -> Option<String> {
    by_number().or_else(|| settings.variable("USER")).or_else(|| settings.variable("LOGNAME"))
}

#[cfg(unix)]
fn by_number() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    // The kernel makes this folder owned by the process's effective user.
    let number = fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}

#[cfg(not(unix))]
fn by_number() -> Option<String> {
    None
}
