//! What the audience sees: headings, job files, the lines that are typed, and the real output of a real child process.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::shop::{Shop, broken};
use crate::failure::Failure;
use crate::render::paint::Paint;
use crate::shell::{print, quoted};

/// How often a child is looked at. Waiting for it instead would keep Ctrl-C from killing it.
const POLL: Duration = Duration::from_millis(5);

/// Where the demo is shown.
#[derive(Debug)]
pub struct Stage {
    paint: Paint,
    pgmend: PathBuf,
    jobs: PathBuf,
    url: String,
    begun: Instant,
    scene: u32,
    running: Running,
}

/// The child that was started last. Clones are the same child.
#[derive(Debug, Clone, Default)]
pub struct Running {
    child: Arc<Mutex<Option<Child>>>,
}

impl Stage {
    /// Runs this same program as the audience would: from the folder of the jobs, with `DATABASE_URL` set.
    pub fn new(shop: &Shop, paint: Paint) -> Result<Self, Failure> {
        let pgmend = std::env::current_exe().map_err(broken("find its own program"))?;
        Ok(Self {
            paint,
            pgmend,
            jobs: shop.jobs(),
            url: shop.url(),
            begun: Instant::now(),
            scene: 0,
            running: Running::default(),
        })
    }

    /// Begins the next part.
    pub fn scene(&mut self, title: &str) -> Result<(), Failure> {
        self.scene += 1;
        let heading = format!("{}. {title}", self.scene);
        let rule = "─".repeat(96_usize.saturating_sub(heading.chars().count()));
        let at = self.begun.elapsed().as_secs();
        print(&format!(
            "\n{} {}\n",
            self.paint.bold(&format!("━━ {heading} {rule}")),
            self.paint.dim(&format!("{at} s"))
        ))
    }

    /// Says a sentence of the demo's own.
    pub fn say(&self, sentence: &str) -> Result<(), Failure> {
        print(&format!("{sentence}\n"))
    }

    /// Says that something is as it must be.
    pub fn proved(&self, sentence: &str) -> Result<(), Failure> {
        print(&format!("{} {sentence}\n", self.paint.green("✓")))
    }

    /// Shows a line as if typed, without doing it.
    pub fn typed(&self, line: &str) -> Result<(), Failure> {
        print(&format!("\n{}\n", self.paint.bold(&format!("$ {line}"))))
    }

    /// Shows a job's file.
    pub fn cat(&self, file: &str) -> Result<(), Failure> {
        let path = self.jobs.join(file);
        let content = std::fs::read_to_string(&path).map_err(broken("read a job's file"))?;
        self.typed(&format!("cat {file}"))?;
        print(&content)
    }

    /// Types a pgmend line, waits for its end, and insists on its exit code.
    pub fn pgmend(&self, words: &[&str], expected: u8) -> Result<(), Failure> {
        let status = self.start(words)?.wait()?;
        if status.code() == Some(expected.into()) {
            return Ok(());
        }
        let line = words.join(" ");
        Err(broken("go on")(format!("`pgmend {line}` ended with {status} instead of exit status {expected}")))
    }

    /// Types a pgmend line and does not wait.
    pub fn start(&self, words: &[&str]) -> Result<Running, Failure> {
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        self.typed(&format!("pgmend {}", line.join(" ")))?;
        let mut command = Command::new(&self.pgmend);
        // Settings of other databases must not reach this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.args(words).env("DATABASE_URL", &self.url).current_dir(&self.jobs).stdin(Stdio::null());
        let child = command.spawn().map_err(broken("start pgmend"))?;
        *self.running.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(self.running())
    }

    /// The child that runs, now and later.
    pub fn running(&self) -> Running {
        self.running.clone()
    }

    /// What to type to run this same program.
    pub fn program(&self) -> String {
        quoted(&self.pgmend.display().to_string())
    }

    /// Seconds since the curtain rose.
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> Result<u32, Failure> {
        self.with(|child| Ok(child.id())).map_err(broken("watch pgmend"))
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Result<Option<ExitStatus>, Failure> {
        self.with(Child::try_wait).map_err(broken("watch pgmend"))
    }

    /// Kills it with signal 9; does not wait for its end.
    pub fn kill(&self) -> Result<(), Failure> {
        self.with(Child::kill).map_err(broken("kill pgmend"))
    }

    /// Waits for its end, and says what it was.
    pub fn wait(&self) -> Result<ExitStatus, Failure> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            sleep(POLL);
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Child) -> io::Result<T>) -> io::Result<T> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_mut().map_or_else(|| Err(io::Error::other("nothing was started yet")), act)
    }
}
