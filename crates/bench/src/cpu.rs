//! Processor time of a server with all its processes, and of this one, as Linux tells it.

use std::fs;

/// Clock ticks a second in `/proc`: fixed by the kernel's interface.
const TICKS: f64 = 100.0;

/// Seconds used by the postmaster, its living children, those it has waited for, and this process.
pub fn seconds(postmaster: u32) -> Option<f64> {
    let own = times(std::process::id())?;
    let server = times(postmaster)?;
    let mut ticks = own.used + server.used + server.waited_for;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(child) = times(pid).filter(|child| child.parent == postmaster) {
            ticks += child.used;
        }
    }
    Some(ticks as f64 / TICKS)
}

struct Times {
    parent: u32,
    used: u64,
    waited_for: u64,
}

/// The line of a process in `/proc`; its name, which may hold anything, ends with the last parenthesis.
fn times(pid: u32) -> Option<Times> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some(Times {
        parent: fields.get(1)?.parse().ok()?,
        used: ticks(11)? + ticks(12)?,
        waited_for: ticks(13)? + ticks(14)?,
    })
}
