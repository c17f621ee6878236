//! A copy of a server: one that takes over its port, or one that streams from it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::binaries::Binaries;
use crate::cluster::free_port;
use crate::error::KitError;
use crate::server::Server;

/// A copy beside its primary's data; stopped when dropped, and gone with its primary.
#[derive(Debug)]
pub struct Standby {
    folder: PathBuf,
    owner: (u32, u32),
    port: u16,
}

impl Standby {
    /// Copies what the primary has written until now, by the server's own means: `pg_basebackup` is not where only a
    /// server is installed. The copy knows no primary; it serves on this one's port once that is free.
    pub fn copy(primary: &Server) -> Result<Self, KitError> {
        let doing = "copy a server";
        let folder = primary.data_folder().with_file_name("standby");
        let data = fs::metadata(primary.data_folder()).map_err(KitError::while_doing(doing))?;
        let standby = Self { folder, owner: (data.uid(), data.gid()), port: primary.port() };
        let mut sql = primary.sql("postgres").map_err(KitError::while_doing(doing))?;
        let (start, stop) = if primary.version().major < 15 {
            ("pg_start_backup('standby', true, false)", "pg_stop_backup(false, false)")
        } else {
            ("pg_backup_start('standby', true)", "pg_backup_stop(false)")
        };
        sql.run(&format!("select {start}")).map_err(KitError::while_doing(doing))?;
        standby.take(primary, "")?;
        let label = sql.value(&format!("select labelfile from {stop}")).map_err(KitError::while_doing(doing))?;
        let label = label.ok_or_else(|| KitError::new(doing, "the backup has no label"))?;
        // What was written during the backup, and its end.
        standby.take(primary, "pg_wal/")?;
        standby.write("backup_label", &label)?;
        standby.write("standby.signal", "")?;
        fs::remove_file(standby.folder.join("postmaster.pid")).map_err(KitError::while_doing(doing))?;
        Ok(standby)
    }

    /// A copy that streams from its primary as `standby1`, on a port of its own.
    pub fn follow(primary: &Server) -> Result<Self, KitError> {
        let mut standby = Self::copy(primary)?;
        standby.port = free_port()?;
        let settings = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name=standby1'\n\
             wal_receiver_status_interval = 1\n",
            primary.port()
        );
        standby.write("postgresql.auto.conf", &settings)?;
        Ok(standby)
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Serves it, and waits until it answers.
    pub fn start(&self) -> Result<(), KitError> {
        let log = self.folder.with_file_name("standby.log").display().to_string();
        self.control(&["start", "-w", "-l", &log, "-o", &format!("-p {}", self.port)])
    }

    /// Makes it a primary, and waits until it is.
    pub fn promote(&self) -> Result<(), KitError> {
        self.control(&["promote", "-w"])
    }

    /// Copies what is below a folder of the primary's data.
    fn take(&self, primary: &Server, below: &str) -> Result<(), KitError> {
        let (from, to) = (primary.data_folder().join(below).join("."), self.folder.join(below));
        // The server goes on: files that vanish meanwhile are not part of the backup.
        let _some_vanished = Command::new("cp").arg("-a").args([&from, &to]).stderr(Stdio::null()).status();
        if to.is_dir() { Ok(()) } else { Err(KitError::new("copy a server", format!("no {}", from.display()))) }
    }

    fn write(&self, name: &str, content: &str) -> Result<(), KitError> {
        let file = self.folder.join(name);
        fs::write(&file, content)
            .and_then(|()| chown(&file, Some(self.owner.0), Some(self.owner.1)))
            .map_err(KitError::while_doing("write a standby's settings"))
    }

    fn control(&self, arguments: &[&str]) -> Result<(), KitError> {
        let doing = format!("pg_ctl {}", arguments.join(" "));
        let status = Command::new(Binaries::find()?.program("pg_ctl"))
            .args(arguments)
            .arg("-D")
            .arg(&self.folder)
            .current_dir("/")
            .uid(self.owner.0)
            .gid(self.owner.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(KitError::while_doing(&doing))?;
        let log = || fs::read_to_string(self.folder.with_file_name("standby.log")).unwrap_or_default();
        if status.success() { Ok(()) } else { Err(KitError::new(doing, log())) }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if self.folder.join("postmaster.pid").exists() {
            let _stopped = self.control(&["stop", "-m", "immediate"]);
        }
    }
}
