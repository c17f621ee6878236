//! A failover to a standby that never received the primary's last batches.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

use pgmend::{Event, Observer};
use pgmend_testkit::{Binaries, Server};

use super::network::succeeded;
use super::stage::{DELETE, FREEZE, STREAM, Shape, Stage};
use super::{block_on, run};

/// The batch after which the standby has heard nothing more, and the one after which the primary dies.
const LAST_RECEIVED: i64 = 12;
const LAST_WRITTEN: i64 = 40;
/// The last batch of those that vanish unseen.
const UNSEEN: i64 = 17;
/// For so long the standby answers, but is one: longer than a worker trusts a lease that was not renewed.
const BEFORE_PROMOTION: Duration = Duration::from_millis(2_500);

/// A copy of a server that takes over its port.
pub struct Standby {
    folder: PathBuf,
    owner: (u32, u32),
    port: String,
}

impl Standby {
    /// Copies what the primary has written until now, by the server's own means: `pg_basebackup` is not where only a
    /// server is installed.
    pub fn copy(primary: &Server) -> Self {
        let folder = primary.data_folder().with_file_name("standby");
        let data = fs::metadata(primary.data_folder()).expect("the server has a data folder");
        let standby = Self { folder, owner: (data.uid(), data.gid()), port: primary.port().to_string() };
        let mut sql = primary.sql("postgres").expect("the server is up");
        let (start, stop) = if primary.version().major < 15 {
            ("pg_start_backup('standby', true, false)", "pg_stop_backup(false, false)")
        } else {
            ("pg_backup_start('standby', true)", "pg_backup_stop(false)")
        };
        sql.run(&format!("select {start}")).expect("a backup begins");
        standby.take(primary, "");
        let label =
            sql.value(&format!("select labelfile from {stop}")).expect("a backup ends").expect("it has a label");
        // What was written during the backup, and its end.
        standby.take(primary, "pg_wal/");
        standby.write("backup_label", &label);
        standby.write("standby.signal", "");
        fs::remove_file(standby.folder.join("postmaster.pid")).expect("the primary runs");
        standby
    }

    /// Copies what is below a folder of the primary's data.
    fn take(&self, primary: &Server, below: &str) {
        let (from, to) = (primary.data_folder().join(below).join("."), self.folder.join(below));
        // The server goes on: files that vanish meanwhile are not part of the backup.
        let _some_vanished = Command::new("cp").arg("-a").args([&from, &to]).stderr(Stdio::null()).status();
        assert!(to.is_dir(), "nothing was copied from {}", from.display());
    }

    fn write(&self, name: &str, content: &str) {
        let file = self.folder.join(name);
        fs::write(&file, content).expect("the copy can be written");
        chown(&file, Some(self.owner.0), Some(self.owner.1)).expect("the copy is its owner's");
    }

    /// A copy that streams from its primary as `standby1`, on a port of its own.
    pub fn follow(primary: &Server) -> Self {
        let mut standby = Self::copy(primary);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port is free");
        standby.port = free.port().to_string();
        let settings = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name=standby1'\n\
             wal_receiver_status_interval = 1\n",
            primary.port()
        );
        standby.write("postgresql.auto.conf", &settings);
        standby
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub fn start(&self) {
        let log = self.folder.with_file_name("standby.log").display().to_string();
        self.run("pg_ctl", &["start", "-w", "-l", &log, "-o", &format!("-p {}", self.port)]);
    }

    fn promote(&self) {
        self.run("pg_ctl", &["promote", "-w"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let binaries = Binaries::find().expect("there is a PostgreSQL");
        let status = Command::new(binaries.program(program))
            .args(arguments)
            .arg("-D")
            .arg(&self.folder)
            .current_dir("/")
            .uid(self.owner.0)
            .gid(self.owner.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        let log = fs::read_to_string(self.folder.with_file_name("standby.log")).unwrap_or_default();
        assert!(status.expect("the program starts").success(), "{program} {arguments:?}: {log}");
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if self.folder.join("postmaster.pid").exists() {
            self.run("pg_ctl", &["stop", "-m", "immediate"]);
        }
    }
}

#[test]
fn a_streamed_run_makes_the_batches_again_that_a_failover_lost() {
    survives_failover(STREAM);
}

#[test]
fn a_frozen_run_makes_the_batches_again_that_a_failover_lost() {
    survives_failover(FREEZE);
}

fn survives_failover(shape: Shape) {
    let primary = Arc::new(Server::start().expect("a server starts"));
    let stage = Stage::on(&primary, shape, 200, 2);
    let standby = Arc::new(Mutex::new(None));
    let (dying, heir) = (Arc::clone(&primary), Arc::clone(&standby));
    let again = Arc::new(Mutex::new(Vec::new()));
    let numbers = Arc::clone(&again);
    let mut observer = Observer::new(move |event| {
        let Event::Batch { batch_no, .. } = event else { return };
        numbers.lock().expect("nobody panics holding it").push(*batch_no);
        let mut heir = heir.lock().expect("nobody panics holding it");
        if *batch_no == LAST_RECEIVED && heir.is_none() {
            *heir = Some(Arc::new(Standby::copy(&dying)));
        }
        if *batch_no == LAST_WRITTEN && dying.pid().is_some() {
            dying.stop_immediate().expect("the primary dies");
            let heir = Arc::clone(heir.as_ref().expect("there is a copy by now"));
            thread::spawn(move || {
                heir.start();
                sleep(BEFORE_PROMOTION);
                heir.promote();
            });
        }
    });
    let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
    succeeded(ended).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    stage.check().unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
    let numbers = again.lock().expect("nobody panics holding it");
    let twice = numbers.iter().filter(|n| **n == LAST_WRITTEN).count();
    assert_eq!(twice, 2, "batch {LAST_WRITTEN} was lost and had to be made again: {numbers:?}");
}

/// Behind a pooler a failover looks like nothing at all: the session stays, and the last batches are gone. The
/// batch itself has to notice that its predecessor is not there.
#[test]
fn a_run_whose_last_batches_vanish_unseen_makes_them_again() {
    for shape in [STREAM, FREEZE, DELETE] {
        let stage = Stage::new(shape, 60, 2);
        let mut sql = stage.sql();
        let (mut numbers, images) = (Vec::new(), Arc::new(Mutex::new(String::new())));
        let again = Arc::new(Mutex::new(0));
        let lost = Arc::clone(&again);
        let mut observer = Observer::new(move |event| {
            let Event::Batch { batch_no, .. } = event else { return };
            numbers.push(*batch_no);
            let mut images = images.lock().expect("nobody panics holding it");
            if numbers == (1..=LAST_RECEIVED).collect::<Vec<_>>() {
                let table = "select coalesce('pgmend.' || image_table, 'plain.entry') from pgmend.run";
                *images = sql.value(table).expect("it answers").expect("there is a run");
                let copy = format!(
                    "create schema standby; create table standby.account as table account;
                     create table standby.images as table {images}"
                );
                sql.run(&copy).expect("it is copied");
            }
            if numbers == (1..=UNSEEN).collect::<Vec<_>>() {
                let restore = format!(
                    "begin; delete from account; insert into account table standby.account;
                     delete from {images}; insert into {images} overriding system value table standby.images;
                     delete from pgmend.batch where batch_no > {LAST_RECEIVED}; commit"
                );
                sql.run(&restore).expect("it is the superuser");
            }
            *lost.lock().expect("nobody panics holding it") +=
                i64::from(numbers.iter().filter(|n| *n == batch_no).count() == 2);
        });
        let ended = block_on(run(&stage.database.url(), &stage.errand().job(), &mut observer));
        succeeded(ended).and_then(|()| stage.check()).unwrap_or_else(|failure| panic!("{}: {failure}", shape.name));
        let again = *again.lock().expect("nobody panics holding it");
        assert_eq!(again, UNSEEN - LAST_RECEIVED, "{}: the lost batches were to be made again", shape.name);
    }
}
