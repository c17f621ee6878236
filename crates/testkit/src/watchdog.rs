//! A small process that removes a server once the process that started it is gone.
//!
//! A test can be killed at any time: by nextest after its time limit, by Ctrl-C, by its own
//! abort. No `Drop` runs then. The watchdog waits for the end of a pipe that only the starting
//! process holds open, so every way to end leads to the same clean-up.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of the pipe, stops the server at once, removes its folder.
const SCRIPT: &str = r#"
cat > /dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null)
if [ -n "$pid" ]; then
    kill -QUIT "$pid" 2> /dev/null
    tries=0
    while [ -e "$1/data/postmaster.pid" ] && [ "$tries" -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    [ -e "$1/data/postmaster.pid" ] && kill -KILL "$pid" 2> /dev/null
fi
rm -rf "$1"
"#;

/// Removes the server's folder, and stops the server, when dropped or when we die.
#[derive(Debug)]
pub(crate) struct Watchdog {
    process: Child,
}

impl Watchdog {
    /// Watches over the server in `folder`.
    pub(crate) fn over(folder: &Path) -> io::Result<Self> {
        let process = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("pgmend-testkit-watchdog")
            .arg(folder)
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
