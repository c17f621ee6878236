//! The system account that runs a test server, since PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::KitError;

/// Accounts that exist on most machines and own nothing of value, best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Who runs the server's programs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Account {
    /// The user who runs the tests.
    Own,
    /// Another account, because the tests run as root.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// The account for a server whose files will be in `folder`, which this process just made.
    pub(crate) fn for_owner_of(folder: &Path) -> Result<Self, KitError> {
        // A folder that we made belongs to our effective user: no system call beyond std.
        let metadata = fs::metadata(folder).map_err(KitError::while_doing("read the folder"))?;
        if metadata.uid() != 0 {
            return Ok(Self::Own);
        }
        UNPRIVILEGED.iter().find_map(|name| named(name)).ok_or_else(|| {
            KitError::new(
                "start PostgreSQL as root",
                "the server refuses to run as root, and there is neither an account `postgres` \
                 nor `nobody`; run the tests as another user",
            )
        })
    }

    /// Makes `command` run under this account, from a folder that every account may enter.
    pub(crate) fn apply(self, command: &mut Command) {
        command.current_dir("/");
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Hands `folder` and all below it to this account.
    pub(crate) fn own(self, folder: &Path) -> Result<(), KitError> {
        let Self::Other { uid, gid } = self else { return Ok(()) };
        let doing = "hand the server's folder to its account";
        let status = Command::new("chown")
            .arg("-R")
            .arg(format!("{uid}:{gid}"))
            .arg(folder)
            .status()
            .map_err(KitError::while_doing(doing))?;
        if status.success() { Ok(()) } else { Err(KitError::new(doing, status)) }
    }
}

fn named(name: &str) -> Option<Account> {
    Some(Account::Other { uid: id_of("-u", name)?, gid: id_of("-g", name)? })
}

fn id_of(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").arg(which).arg(name).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
