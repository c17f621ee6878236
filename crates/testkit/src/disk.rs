//! A disk so small that it can be filled: a file system in memory with a bound, mounted for one server.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::KitError;
use crate::server::Server;

/// What fills it.
const BALLAST: &str = "ballast";
const BLOCK: [u8; 4_096] = [0; 4_096];

/// A mounted disk. It goes with its server, also when the test process is killed.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of so many MiB beside a server's data, for the server's account. `None`, with the reason on standard
    /// error, where this process may not mount anything: that takes root.
    pub fn mount(server: &Server, name: &str, mib: u32) -> Result<Option<Self>, KitError> {
        let doing = "mount a small disk";
        let folder = server.data_folder().with_file_name(format!("disk-{name}"));
        let owner = fs::metadata(server.data_folder()).map_err(KitError::while_doing(doing))?;
        fs::create_dir(&folder).map_err(KitError::while_doing(doing))?;
        let options = format!("size={mib}m,mode=0700,uid={},gid={}", owner.uid(), owner.gid());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "pgmend-testkit"])
            .arg(&folder)
            .stdin(Stdio::null())
            .output()
            .map_err(KitError::while_doing(doing))?;
        if mounted.status.success() {
            return Ok(Some(Self { folder }));
        }
        eprintln!("no small disk: {}", String::from_utf8_lossy(&mounted.stderr).trim());
        Ok(None)
    }

    /// Where it is mounted; writable for the server.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes all room that is left on it.
    pub fn fill(&self) -> Result<(), KitError> {
        let doing = "fill the small disk";
        let mut ballast = File::options()
            .append(true)
            .create(true)
            .open(self.folder.join(BALLAST))
            .map_err(KitError::while_doing(doing))?;
        loop {
            match ballast.write_all(&BLOCK) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(KitError::new(doing, error)),
            }
        }
    }

    /// Gives that room back.
    pub fn free(&self) -> Result<(), KitError> {
        fs::remove_file(self.folder.join(BALLAST)).map_err(KitError::while_doing("free the small disk"))
    }
}
