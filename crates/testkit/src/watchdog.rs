//! A small process that removes a server, or a pooler, once the process that started it is gone.
//!
//! A test can be killed at any time: by nextest after its time limit, by Ctrl-C, by its own
//! abort. No `Drop` runs then. The watchdog waits for the end of a pipe that only the starting
//! process holds open, so every way to end leads to the same clean-up. It makes the folder itself, so that there is
//! no moment at which the folder is there and nobody watches over it.

use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Makes the folder and says where, waits for the end of the pipe, stops its own process group at once and then what
/// the pid file and a standby's name, unmounts the folder's small disks, removes it. What was at work in the folder when it was
/// stopped may still write a file: removing is tried for five seconds.
const SCRIPT: &str = r#"
trap '' QUIT
folder=$(mktemp -d "$1/pgmend-XXXXXX") || exit 1
printf '%s\n' "$folder"
set -- "$folder" "$2"
cat > /dev/null
kill -QUIT 0
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
tries=0
while rm -rf "$1" 2> /dev/null; [ -e "$1" ] && [ "$tries" -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
"#;

/// Where a server says which process it is, in its folder.
pub(crate) const POSTMASTER: &str = "data/postmaster.pid";

/// Removes a folder, and stops the process that serves from it, when dropped or when we die.
#[derive(Debug)]
pub(crate) struct Watchdog {
    process: Child,
}

impl Watchdog {
    /// Makes a folder in `parent` and watches over the process in it whose number is in the first line of `pid_file`, a
    /// path below it. Says where the folder is.
    pub(crate) fn over_a_folder_in(parent: &Path, pid_file: &str) -> io::Result<(Self, PathBuf)> {
        let mut process = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("pgmend-testkit-watchdog")
            .arg(parent)
            .arg(pid_file)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C and nextest's time limit kill a process group: not this one.
            .process_group(0)
            .spawn()?;
        let mut folder = Vec::new();
        if let Some(said) = process.stdout.take() {
            BufReader::new(said).read_until(b'\n', &mut folder)?;
        }
        if folder.pop().is_none() {
            return Err(io::Error::other(format!("no folder can be made in {}", parent.display())));
        }
        Ok((Self { process }, PathBuf::from(std::ffi::OsString::from_vec(folder))))
    }

    /// The process group that ends with it: a process that has not yet written its pid file is found by it.
    pub(crate) fn group(&self) -> i32 {
        self.process.id().cast_signed()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _status = self.process.wait();
    }
}
