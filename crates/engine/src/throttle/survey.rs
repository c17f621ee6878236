//! The signals of a plan with what they measure now, for people to look at before a run.

use std::time::Duration;

use pgmend_core::plan::{CompanySeen, Plan};
use pgmend_core::refusal::Refusal;
use pgmend_core::throttle::{Board, Builtin, Reading, Signal, Source, Throttle, Verdict, glimpse};
use pgmend_pg::health::{Probe, Sampled};
use serde::Serialize;

use super::meter::Meter;
use super::{cores, flag, http, signals_of};
use crate::engine::Engine;
use crate::error::Error;

/// Time for each reading, in milliseconds.
const STATEMENT_MS: u64 = 2_000;

/// A signal with its value while planning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SurveyedSignal {
    /// The signal and its limits.
    #[serde(flatten)]
    pub signal: Signal,
    /// Its value now; none where it cannot be read, or is known only while a run works.
    pub value: Option<f64>,
    /// What the value belongs to.
    pub detail: String,
    /// Why it cannot be read.
    pub unreadable: Option<String>,
    /// Why a run would hold for it now.
    pub holds: Option<String>,
    /// Why it is switched off.
    pub off: Option<String>,
}

impl Engine {
    /// What a job says of its throttle, within what its environment allows.
    pub(crate) fn throttle_within(&self, throttle: Throttle) -> Result<Throttle, Refusal> {
        match &self.environment {
            Some(named) => throttle.within(&named.environment.throttle),
            None => Ok(throttle),
        }
    }

    /// Every signal of a plan with its value now.
    pub(crate) async fn survey(&self, plan: &Plan) -> Result<Vec<SurveyedSignal>, Error> {
        let signals = signals_of(plan);
        if signals.is_empty() {
            return Ok(Vec::new());
        }
        let mut board = Board::new(signals.clone(), Duration::ZERO);
        let mut meter = Meter::new(cores(plan.throttle.cores, &self.conninfo));
        let mut probes: Vec<Probe> = signals.iter().filter_map(Signal::builtin).filter_map(Probe::of).collect();
        probes.sort();
        probes.dedup();
        let version_num = self.session.server_version_num().await?;
        let found = self.session.probe(&probes, plan.target_oid, version_num, STATEMENT_MS).await?;
        for (probe, sampled) in probes.into_iter().zip(found) {
            match sampled {
                Ok(sampled) => {
                    for read in meter.read(Duration::ZERO, probe, sampled) {
                        if let Some(most) = read.most {
                            board.lower(read.builtin.name(), most);
                        }
                        board.record(read.builtin.name(), Duration::ZERO, read.reading);
                    }
                }
                Err(error) => {
                    for signal in signals.iter().filter(|s| s.builtin().and_then(Probe::of) == Some(probe)) {
                        let why = error.message.clone();
                        board.record(&signal.name, Duration::ZERO, Reading::Unreadable { why });
                    }
                }
            }
        }
        for signal in &signals {
            if let Some(reading) = self.ask(signal).await {
                board.record(&signal.name, Duration::ZERO, reading);
            }
        }
        Ok(told(&mut board, plan))
    }

    /// Who is at work on the server, by one look; nobody where the job says that its run need not care.
    pub(crate) async fn company_beside(&self, throttle: &Throttle) -> Result<Option<CompanySeen>, Error> {
        if throttle.full_pace.is_some() {
            return Ok(None);
        }
        let version_num = self.session.server_version_num().await?;
        let mut found = self.session.probe(&[Probe::Company], 0, version_num, STATEMENT_MS).await?;
        let (sessions, working) = match found.pop() {
            Some(Ok(Sampled::Company { sessions, working })) => (sessions, working),
            // What cannot be seen is there.
            Some(_) | None => (f64::INFINITY, 0.0),
        };
        let pace = glimpse(cores(throttle.cores, &self.conninfo), sessions, working);
        let sessions = sessions.is_finite().then_some(sessions as i64);
        Ok(pace.map(|pace_max| CompanySeen { sessions, pace_max }))
    }

    /// Asks for a signal that the job brings.
    async fn ask(&self, signal: &Signal) -> Option<Reading> {
        match &signal.source {
            Source::Builtin { .. } => None,
            Source::Sql { query } => Some(match self.session.ask_number(query, STATEMENT_MS).await {
                Ok(value) => Reading::Value { value, detail: String::new() },
                Err(error) => Reading::Unreadable { why: error.message },
            }),
            Source::Http { .. } => Some(match http::look(&http::agent(), signal).await {
                Ok(reading) => reading,
                Err(why) => Reading::Unreadable { why },
            }),
            Source::FlagFile { path } => flag::look(path.clone(), Duration::from_secs(1)).await,
        }
    }
}

fn told(board: &mut Board, plan: &Plan) -> Vec<SurveyedSignal> {
    let reasons = match board.verdict(Duration::ZERO) {
        Verdict::Hold(reasons) => reasons,
        Verdict::Go | Verdict::Unread => Vec::new(),
    };
    let surveyed = board.gauges().iter().map(|gauge| {
        let signal = gauge.signal().clone();
        let (value, detail, unreadable) = match gauge.last() {
            Some(Reading::Value { value, detail }) => (Some(*value), detail.clone(), None),
            Some(Reading::Unreadable { why }) => (None, String::new(), Some(why.clone())),
            None => (None, String::new(), None),
        };
        let holds = reasons.iter().find(|reason| reason.signal == signal.name).map(|reason| reason.text.clone());
        SurveyedSignal { signal, value, detail, unreadable, holds, off: None }
    });
    let off = plan.throttle.switched_off().into_iter().filter_map(|(name, why)| {
        let signal = Builtin::named(name)?.signal();
        let off = Some(why.to_owned());
        Some(SurveyedSignal { signal, value: None, detail: String::new(), unreadable: None, holds: None, off })
    });
    surveyed.chain(off).collect()
}
