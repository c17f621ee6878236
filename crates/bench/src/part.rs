//! The parts of the measurement: each can be made alone, and has a section of the page.

use crate::error::BenchError;

/// A part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Every way of making the change, against the one big statement.
    Contest,
    /// Other people's ways, on a smaller table.
    Peers,
    /// An application beside a run.
    Beside,
    /// A slow standby.
    Lag,
    /// What the plan says, and what comes.
    Forecast,
    /// The same with an index in random order.
    Scattered,
    /// Resident memory.
    Memory,
    /// Resident memory at a large table.
    Large,
}

impl Part {
    pub const ALL: [Part; 8] = [
        Part::Contest,
        Part::Peers,
        Part::Beside,
        Part::Lag,
        Part::Forecast,
        Part::Scattered,
        Part::Memory,
        Part::Large,
    ];

    /// As typed, and as the page's marks say.
    pub fn name(self) -> &'static str {
        match self {
            Part::Contest => "contest",
            Part::Peers => "peers",
            Part::Beside => "beside",
            Part::Lag => "lag",
            Part::Forecast => "forecast",
            Part::Scattered => "scattered",
            Part::Memory => "memory",
            Part::Large => "large",
        }
    }

    /// The part of that name.
    pub fn named(name: &str) -> Result<Self, BenchError> {
        let known = || Part::ALL.map(Part::name).join(", ");
        Part::ALL
            .into_iter()
            .find(|part| part.name() == name)
            .ok_or_else(|| BenchError::new(format!("no part is called {name}; there are {}", known())))
    }
}
