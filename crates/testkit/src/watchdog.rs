//! A small process that removes a server, or a pooler, once the process that started it is gone.
//!
//! A test can be killed at any time: by nextest after its time limit, by Ctrl-C, by its own
//! abort. No `Drop` runs then. The watchdog waits for the end of a pipe that only the starting
//! process holds open, so every way to end leads to the same clean-up.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of the pipe, stops what the pid file names and a standby at once, unmounts the folder's small
/// disks, removes it.
const SCRIPT: &str = r#"
cat > /dev/null
for file in "$1/standby/postmaster.pid" "$1/$2"; do
    pid=$(head -n 1 "$file" 2> /dev/null)
    [ -n "$pid" ] || continue
    kill -QUIT "$pid" 2> /dev/null
    tries=0
    while [ -e "$file" ] && kill -0 "$pid" 2> /dev/null && [ "$tries" -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    [ -e "$file" ] && kill -KILL "$pid" 2> /dev/null
done
for disk in "$1"/disk-*; do
    [ -d "$disk" ] && umount -l "$disk" 2> /dev/null
done
rm -rf "$1"
"#;

/// Where a server says which process it is, in its folder.
pub(crate) const POSTMASTER: &str = "data/postmaster.pid";

/// Removes a folder, and stops the process that serves from it, when dropped or when we die.
#[derive(Debug)]
pub(crate) struct Watchdog {
    process: Child,
}

impl Watchdog {
    /// Watches over the process in `folder` whose number is in the first line of `pid_file`, a path below it.
    pub(crate) fn over(folder: &Path, pid_file: &str) -> io::Result<Self> {
        let process = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("pgmend-testkit-watchdog")
            .arg(folder)
            .arg(pid_file)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C and nextest's time limit kill a process group: not this one.
            .process_group(0)
            .spawn()?;
        Ok(Self { process })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _status = self.process.wait();
    }
}
