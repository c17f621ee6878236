//! A worker in a process of its own, and the test's hold on it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use pgmend::{Engine, Error, Job, JobFile, Observer, RunOptions, UndoOptions};
use pgmend_testkit::FAULT_VARIABLE;
use serde::{Deserialize, Serialize};

/// What the worker is to do, as JSON.
const ERRAND: &str = "PGMEND_CRASH_ERRAND";
/// The "test" below.
const PROCESS: &str = "crash::worker::process";
/// A worker that tells nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Errand {
    pub url: String,
    pub job: String,
    pub statement: String,
    pub file: JobFile,
    /// Undo the job's latest run instead of running it.
    pub undo: bool,
    /// Try the dead letters of the job's latest run again.
    pub retry: bool,
    /// Workers in this process.
    pub here: Option<u32>,
    /// Stop, resumable, after so many batches.
    pub stop_after: Option<u64>,
}

impl Errand {
    pub fn job(&self) -> Job {
        Job { file: self.file.clone(), ..Job::from_statement(self.job.clone(), self.statement.clone()) }
    }

    async fn run(&self) -> Result<serde_json::Value, Error> {
        let mut observer = Observer::new(|event| tell("event", event));
        let mut engine = Box::pin(Engine::connect(Some(&self.url))).await?;
        if self.undo {
            return json(Box::pin(engine.undo(&self.job, &UndoOptions::default(), &mut observer)).await?);
        }
        if self.retry {
            return json(Box::pin(engine.retry_dead_letters(&self.job, &mut observer)).await?);
        }
        let options =
            RunOptions { stop_after_batches: self.stop_after, workers_here: self.here, ..RunOptions::default() };
        json(Box::pin(engine.run(&self.job(), &options, &mut observer)).await?)
    }
}

fn json(ended: impl Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(ended).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Not a test: the process that the tests start and kill.
#[test]
#[ignore = "the process that the crash suite starts and kills"]
fn process() {
    let Ok(errand) = std::env::var(ERRAND) else { return };
    let errand: Errand = serde_json::from_str(&errand).expect("the test wrote the errand");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    match runtime.block_on(errand.run()) {
        Ok(outcome) => tell("outcome", &outcome),
        Err(error) => tell("error", &error.to_string()),
    }
    std::process::exit(0);
}

fn tell(what: &str, content: &impl Serialize) {
    let content = serde_json::to_string(content).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    // Whoever listened may be gone; the run is not to care.
    let _heard = writeln!(out, "{what} {content}").and_then(|()| out.flush());
}

/// What a worker tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Event(serde_json::Value),
    Outcome(serde_json::Value),
    Error(String),
}

impl Said {
    fn read(line: &str) -> Option<Self> {
        // libtest writes the beginning of its own line before the first of ours.
        let at = ["event ", "outcome ", "error "].iter().filter_map(|word| line.find(word)).min()?;
        let (what, content) = line[at..].split_once(' ')?;
        match what {
            "event" => Some(Said::Event(serde_json::from_str(content).ok()?)),
            "outcome" => Some(Said::Outcome(serde_json::from_str(content).ok()?)),
            _ => Some(Said::Error(serde_json::from_str(content).ok()?)),
        }
    }

    pub fn is_batch(&self) -> bool {
        self.is_event("batch")
    }

    pub fn is_event(&self, name: &str) -> bool {
        matches!(self, Said::Event(event) if event["event"] == name)
    }

    pub fn succeeded(&self) -> bool {
        self.ended_as("succeeded")
    }

    pub fn ended_as(&self, state: &str) -> bool {
        matches!(self, Said::Outcome(outcome) if outcome["state"]["state"] == state)
    }
}

/// A running worker; killed when dropped.
pub struct Worker {
    child: Child,
    said: Receiver<Said>,
    pub heard: Vec<Said>,
}

impl Worker {
    /// Starts a worker, with a fault point if one is named.
    pub fn start(errand: &Errand, fault: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a process knows its program"));
        command
            .args([PROCESS, "--exact", "--ignored", "--nocapture"])
            .env(ERRAND, serde_json::to_string(errand).expect("an errand is JSON"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        match fault {
            Some(point) => command.env(FAULT_VARIABLE, point),
            None => command.env_remove(FAULT_VARIABLE),
        };
        let mut child = command.spawn().expect("the test binary starts");
        let out = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, said) = channel();
        thread::spawn(move || {
            for said in out.lines().map_while(Result::ok).filter_map(|line| Said::read(&line)) {
                if sender.send(said).is_err() {
                    return;
                }
            }
        });
        Self { child, said, heard: Vec::new() }
    }

    /// Listens until this is said; false when the worker ended, or is stuck, before it.
    pub fn wait_for(&mut self, wanted: impl Fn(&Said) -> bool) -> bool {
        while let Ok(said) = self.said.recv_timeout(PATIENCE) {
            let found = wanted(&said);
            self.heard.push(said);
            if found {
                return true;
            }
        }
        false
    }

    /// Listens for so many batches; false when the worker ended before.
    pub fn wait_for_batches(&mut self, batches: u32) -> bool {
        (0..batches).all(|_| self.wait_for(Said::is_batch))
    }

    /// Listens for so many batches, or until it has to try one again: a row that the test holds stands in its way.
    pub fn gets_on(&mut self, batches: u32) -> bool {
        (0..batches).all(|_| self.wait_for(|said| said.is_batch() || said.is_event("retrying")))
    }

    /// Whether it has ended by now.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// SIGKILL, now.
    pub fn kill(mut self) {
        self.child.kill().expect("a child that was not waited for can be killed");
        self.child.wait().expect("it ends");
    }

    /// SIGSTOP: the process sleeps, its connections stay open.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.expect("`kill` is a program").success(), "SIG{name}");
    }

    /// Waits for its end and tells the last that it said.
    pub fn end(mut self) -> (ExitStatus, Option<Said>) {
        self.wait_for(|_| false);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return (status, self.heard.pop());
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the worker is stuck; it said {:?}", self.heard);
    }

    /// Waits for an end by a fault point; tells what it said otherwise.
    pub fn aborted(self) -> Result<(), String> {
        match self.end() {
            (status, _) if status.signal().is_some() => Ok(()),
            (_, said) => Err(format!("the point was not reached: {said:?}")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended is what we want.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
