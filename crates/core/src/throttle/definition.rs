//! `[throttle]` of a job file and of an environment. What an environment says are outer bounds: a job can only be
//! stricter.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ladder::{HOLD_MAX_S, Ladder, RELEASE_AFTER_S};
use super::signal::{Builtin, OnLoss, Signal, Source, Unit};
use crate::refusal::{Code, Refusal};

/// WAL that one batch aims at, in bytes: four segments, for a row with its images writes a kilobyte or more, and a batch that
/// is far away needs some 40,000 of them to be worth its round trips.
pub const WAL_BATCH_BYTES: u64 = 64 * 1_048_576;
/// Signals that a job may add of each kind.
const ADDED_MAX: usize = 20;
/// Seconds between readings, at least and at most.
const POLL_S: (f64, f64) = (0.1, 300.0);
/// Seconds after which a reading says nothing, at most.
const STALE_S_MAX: f64 = 3_600.0;

/// When a run holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Why there is no throttle at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
    /// Files on the worker's machine; while one of them is there, the run holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flag_files: Vec<String>,
    /// Cores of the server; those of this machine when it is the same, else 4, when absent. 1 to 4,096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Why the run keeps full pace and long batches beside an application that works on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_pace: Option<String>,
    /// Seconds of a hold after which the run stops, resumable. 1 to 604,800; four hours when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_max_s: Option<u64>,
    /// Seconds of a hold after which the working connection is given back; 60 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_after_s: Option<u64>,
    /// WAL in bytes that one batch aims at; 64 MiB when absent. 65,536 to 1 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_batch_bytes: Option<u64>,
    /// Built-in signals whose defaults do not fit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signal: BTreeMap<Builtin, Setting>,
    /// Signals that are a query of one number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<SqlSignal>,
    /// Signals that are asked for over HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpSignal>,
}

// Every number was checked to be finite.
impl Eq for Throttle {}

/// What differs from a built-in signal's defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Why it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
    /// From this value on the run holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enter: Option<f64>,
    /// At this value or below it goes on; half of `enter` when only that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<f64>,
    /// Seconds between two readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_s: Option<f64>,
    /// Seconds after which a reading says nothing; five polls when only `poll_s` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<f64>,
    /// What its loss means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<OnLoss>,
    /// Whether the run holds also if it can never be read.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
}

/// A signal that is a query of one number. It repeats fields of [`HttpSignal`]: serde cannot both flatten shared ones and
/// refuse unknown keys, and a misspelt limit must be refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlSignal {
    /// Its name: lower-case letters, digits and underscores.
    pub name: String,
    /// One SELECT of one number.
    pub query: String,
    /// What the number counts, such as `clients`.
    #[serde(default)]
    pub unit: String,
    /// From this value on the run holds.
    pub enter: f64,
    /// At this value or below it goes on; half of `enter` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<f64>,
    /// Seconds between two readings; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_s: Option<f64>,
    /// Seconds after which a reading says nothing; three polls when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<f64>,
    /// What its loss means; `hold` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<OnLoss>,
}

/// A signal that is asked for over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSignal {
    /// Its name: lower-case letters, digits and underscores.
    pub name: String,
    /// The address, `http://` or `https://`.
    pub url: String,
    /// Where the number stands in the JSON that is answered (RFC 6901); the whole answer when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// An instant query of Prometheus; `url` is then Prometheus's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<String>,
    /// What the number counts.
    #[serde(default)]
    pub unit: String,
    /// From this value on the run holds.
    pub enter: f64,
    /// At this value or below it goes on; half of `enter` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<f64>,
    /// Seconds between two readings; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_s: Option<f64>,
    /// Seconds after which a reading says nothing; three polls when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<f64>,
    /// What its loss means; `hold` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<OnLoss>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Throttle {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Throttle::default()
    }

    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), Refusal> {
        let offs = self.signal.iter().map(|(builtin, setting)| (builtin.name(), setting.off.as_deref()));
        for (name, off) in offs.chain([("", self.off.as_deref())]) {
            if off.is_some_and(|reason| reason.trim().is_empty()) {
                let what = if name.is_empty() { "the throttle".into() } else { format!("signal `{name}`") };
                return Err(bad(format!("{what} is switched off without a reason"), "write off = \"why\""));
            }
        }
        if self.full_pace.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
            return Err(bad("full_pace needs a reason", "write full_pace = \"why\""));
        }
        in_range("cores", self.cores.map(u64::from), 1, 4_096)?;
        in_range("hold_max_s", self.hold_max_s, 1, 604_800)?;
        in_range("release_after_s", self.release_after_s, 1, 604_800)?;
        in_range("wal_batch_bytes", self.wal_batch_bytes, 65_536, 1_073_741_824)?;
        if self.sql.len() > ADDED_MAX || self.http.len() > ADDED_MAX || self.flag_files.len() > ADDED_MAX {
            return Err(bad(format!("more than {ADDED_MAX} signals of one kind"), "keep those that matter"));
        }
        for http in &self.http {
            check_http(http)?;
        }
        let added = self.sql.iter().map(|s| &s.name).chain(self.http.iter().map(|s| &s.name));
        let mut names: Vec<&str> = Vec::new();
        for name in added {
            check_name(name, &names)?;
            names.push(name);
        }
        self.signals().iter().try_for_each(check_signal)
    }

    /// What holds when both this job and its environment have a say.
    pub fn within(self, outer: &Throttle) -> Result<Throttle, Refusal> {
        if outer.is_default() {
            return Ok(self);
        }
        if self.off.is_some() && outer.off.is_none() {
            return Err(laxer("switches the throttle off, which its environment sets"));
        }
        let mut signal = self.signal;
        for (builtin, bound) in &outer.signal {
            let own = signal.remove(builtin).unwrap_or_default();
            if own.off.is_some() && bound.off.is_none() {
                return Err(laxer(&format!("switches signal `{}` off, which its environment sets", builtin.name())));
            }
            signal.insert(*builtin, stricter(own, bound, &builtin.signal()));
        }
        Ok(Throttle {
            off: self.off.filter(|_| outer.off.is_some()),
            flag_files: joined(&outer.flag_files, self.flag_files, |path| path),
            cores: outer.cores.or(self.cores),
            // An environment that has a throttle decides this too.
            full_pace: self.full_pace.filter(|_| outer.full_pace.is_some()).or(outer.full_pace.clone()),
            hold_max_s: least(self.hold_max_s, outer.hold_max_s),
            release_after_s: least(self.release_after_s, outer.release_after_s),
            wal_batch_bytes: least(self.wal_batch_bytes, outer.wal_batch_bytes),
            signal,
            // One of the environment wins over one of the job that has its name.
            sql: joined(&outer.sql, self.sql, |sql| &sql.name),
            http: joined(&outer.http, self.http, |http| &http.name),
        })
    }

    /// Every signal that is not switched off, the built-in ones first.
    pub fn signals(&self) -> Vec<Signal> {
        if self.off.is_some() {
            return Vec::new();
        }
        let builtin = Builtin::ALL.into_iter().filter_map(|builtin| match self.signal.get(&builtin) {
            Some(setting) => setting.applied(builtin.signal()),
            None => Some(builtin.signal()),
        });
        let sql = self.sql.iter().map(|sql| {
            let source = Source::Sql { query: sql.query.clone() };
            let given = (sql.enter, sql.leave, sql.poll_s, sql.stale_s, sql.on_loss);
            added(&sql.name, source, &sql.unit, given)
        });
        let http = self.http.iter().map(|http| {
            let (url, pointer, prometheus) = (http.url.clone(), http.pointer.clone(), http.prometheus.clone());
            let given = (http.enter, http.leave, http.poll_s, http.stale_s, http.on_loss);
            added(&http.name, Source::Http { url, pointer, prometheus }, &http.unit, given)
        });
        let flags = self.flag_files.iter().enumerate().map(|(n, path)| {
            let name = if n == 0 { "flag_file".to_owned() } else { format!("flag_file_{}", n + 1) };
            let source = Source::FlagFile { path: path.clone() };
            added(&name, source, "", (1.0, Some(0.0), Some(1.0), Some(5.0), None))
        });
        builtin.chain(sql).chain(http).chain(flags).collect()
    }

    /// Signals that are switched off, and why.
    pub fn switched_off(&self) -> Vec<(&'static str, &str)> {
        let off = self.signal.iter().filter_map(|(builtin, setting)| Some((builtin.name(), setting.off.as_deref()?)));
        off.collect()
    }

    /// When a run that holds goes to the next rung.
    pub fn ladder(&self) -> Ladder {
        Ladder {
            release_after: Duration::from_secs(self.release_after_s.unwrap_or(RELEASE_AFTER_S)),
            hold_max: Duration::from_secs(self.hold_max_s.unwrap_or(HOLD_MAX_S)),
        }
    }

    /// WAL in bytes that one batch aims at.
    pub fn wal_batch_bytes(&self) -> u64 {
        self.wal_batch_bytes.unwrap_or(WAL_BATCH_BYTES)
    }
}

impl Setting {
    fn applied(&self, default: Signal) -> Option<Signal> {
        if self.off.is_some() {
            return None;
        }
        let poll_s = self.poll_s.unwrap_or(default.poll_s);
        Some(Signal {
            enter: self.enter.or(default.enter),
            leave: self.leave.unwrap_or_else(|| self.enter.map_or(default.leave, |enter| enter / 2.0)),
            poll_s,
            stale_s: self.stale_s.unwrap_or_else(|| self.poll_s.map_or(default.stale_s, |poll_s| poll_s * 5.0)),
            on_loss: self.on_loss.unwrap_or(default.on_loss),
            required: self.required,
            ..default
        })
    }
}

type Given = (f64, Option<f64>, Option<f64>, Option<f64>, Option<OnLoss>);

/// A signal that a job brings must be there: nobody adds one that does not matter.
fn added(name: &str, source: Source, unit: &str, (enter, leave, poll_s, stale_s, on_loss): Given) -> Signal {
    let poll_s = poll_s.unwrap_or(5.0);
    Signal {
        name: name.to_owned(),
        source,
        unit: Unit::Of(unit.to_owned()),
        enter: Some(enter),
        leave: leave.unwrap_or(enter / 2.0),
        poll_s,
        stale_s: stale_s.unwrap_or(poll_s * 3.0),
        on_loss: on_loss.unwrap_or(OnLoss::Hold),
        required: true,
    }
}

/// A job's setting, bounded by its environment's.
fn stricter(own: Setting, bound: &Setting, default: &Signal) -> Setting {
    let bound_signal = bound.applied(default.clone());
    let own_signal = own.applied(default.clone());
    let (Some(bounding), Some(asked)) = (bound_signal, own_signal) else {
        // Off in the environment: the job may have it, or also not.
        return if own == Setting::default() { bound.clone() } else { own };
    };
    let enter = match (asked.enter, bounding.enter) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    Setting {
        off: None,
        enter,
        leave: Some(asked.leave.min(bounding.leave)),
        poll_s: Some(asked.poll_s.min(bounding.poll_s)),
        stale_s: Some(asked.stale_s.min(bounding.stale_s)),
        on_loss: Some(if bounding.on_loss == OnLoss::Hold { OnLoss::Hold } else { asked.on_loss }),
        required: own.required || bound.required,
    }
}

fn joined<T: Clone>(outer: &[T], own: Vec<T>, name: impl Fn(&T) -> &String) -> Vec<T> {
    let others: Vec<T> = own.into_iter().filter(|own| outer.iter().all(|o| name(o) != name(own))).collect();
    outer.iter().cloned().chain(others).collect()
}

fn least(own: Option<u64>, outer: Option<u64>) -> Option<u64> {
    match (own, outer) {
        (Some(own), Some(outer)) => Some(own.min(outer)),
        (own, outer) => own.or(outer),
    }
}

fn check_signal(signal: &Signal) -> Result<(), Refusal> {
    let name = &signal.name;
    let numbers = [signal.enter.unwrap_or(0.0), signal.leave, signal.poll_s, signal.stale_s];
    if numbers.iter().any(|number| !number.is_finite()) {
        return Err(bad(format!("a limit of signal `{name}` is no number"), "write a number"));
    }
    if signal.enter.is_some_and(|enter| signal.leave > enter) {
        let message = format!("signal `{name}` leaves a hold above where it enters it");
        return Err(bad(message, "choose `leave` below `enter`"));
    }
    if !(POLL_S.0..=POLL_S.1).contains(&signal.poll_s) {
        let help = format!("choose {} to {} seconds", POLL_S.0, POLL_S.1);
        return Err(bad(format!("poll_s = {} of signal `{name}` is out of range", signal.poll_s), help));
    }
    if signal.stale_s < 2.0 * signal.poll_s || signal.stale_s > STALE_S_MAX {
        let help = format!("choose at least two polls, and {STALE_S_MAX} s at most");
        return Err(bad(format!("stale_s = {} of signal `{name}` is out of range", signal.stale_s), help));
    }
    Ok(())
}

fn check_name(name: &str, taken: &[&str]) -> Result<(), Refusal> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return Err(bad(format!("`{name}` is no name of a signal"), "use lower-case letters, digits and underscores"));
    }
    if Builtin::named(name).is_some() || name.starts_with("flag_file") || taken.contains(&name) {
        return Err(bad(format!("there are two signals `{name}`"), "choose another name"));
    }
    Ok(())
}

fn check_http(http: &HttpSignal) -> Result<(), Refusal> {
    if !http.url.starts_with("http://") && !http.url.starts_with("https://") {
        return Err(bad(format!("signal `{}` has no address", http.name), "write http://… or https://…"));
    }
    if http.pointer.is_some() && http.prometheus.is_some() {
        let message = format!("signal `{}` has both `pointer` and `prometheus`", http.name);
        return Err(bad(message, "keep one of them"));
    }
    if http.pointer.as_ref().is_some_and(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
        let message = format!("the pointer of signal `{}` does not begin with a slash", http.name);
        return Err(bad(message, "write it as in RFC 6901, such as /data/error_rate"));
    }
    Ok(())
}

fn in_range(name: &str, value: Option<u64>, min: u64, max: u64) -> Result<(), Refusal> {
    match value.filter(|value| !(min..=max).contains(value)) {
        None => Ok(()),
        Some(value) => Err(bad(format!("throttle.{name} = {value} is out of range"), format!("choose {min} to {max}"))),
    }
}

fn bad(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadJob, message, help)
}

fn laxer(what: &str) -> Refusal {
    Refusal::new(Code::Throttle, format!("the job {what}"), "remove `off` from the job, or change pgmend.toml")
}

#[cfg(test)]
mod tests;
