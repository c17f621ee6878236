//! The figures that the README's table and the plot show, kept in a file of their own: a part that is measured alone
//! replaces its own and leaves the others.

use std::fmt::Write as _;

use crate::error::BenchError;
use crate::part::Part;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Rows a second as a share of the one big UPDATE's: a bar of the plot.
    Speed,
    /// Any other ratio.
    Ratio,
    /// An application's p99 in milliseconds: a bar of the plot.
    Millis,
    /// Seconds.
    Seconds,
    /// Memory.
    Mib,
    /// So many of so many, the bound.
    Count,
}

const UNITS: [(Unit, &str); 6] = [
    (Unit::Speed, "speed"),
    (Unit::Ratio, "ratio"),
    (Unit::Millis, "ms"),
    (Unit::Seconds, "s"),
    (Unit::Mib, "MiB"),
    (Unit::Count, "count"),
];

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub fn met_by(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(limit) => value >= limit,
            Bound::AtMost(limit) => value <= limit,
        }
    }

    /// `≥ 0.95`.
    pub fn sign(self) -> (&'static str, f64) {
        match self {
            Bound::AtLeast(limit) => ("≥", limit),
            Bound::AtMost(limit) => ("≤", limit),
        }
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub part: Part,
    pub unit: Unit,
    pub name: String,
    pub value: f64,
    pub bound: Option<Bound>,
}

impl Figure {
    /// A row of the README's table, where there is a target.
    pub fn row(&self) -> Option<String> {
        let (sign, limit) = self.bound?.sign();
        let name = match self.unit {
            Unit::Speed => format!("{}, rows/s against the one big UPDATE", self.name),
            Unit::Mib => format!("{}, MiB", self.name),
            Unit::Ratio | Unit::Millis | Unit::Seconds | Unit::Count => self.name.clone(),
        };
        let show = |value: f64| match self.unit {
            Unit::Speed | Unit::Ratio => format!("{value:.2}"),
            Unit::Millis => format!("{value:.2} ms"),
            Unit::Seconds => format!("{value:.1} s"),
            Unit::Mib | Unit::Count => format!("{value:.0}"),
        };
        Some(match self.unit {
            Unit::Count => format!("| {name} | {} of {} | all |\n", show(self.value), show(limit)),
            Unit::Speed | Unit::Ratio | Unit::Millis | Unit::Seconds | Unit::Mib => {
                format!("| {name} | {} | {sign} {} |\n", show(self.value), show(limit))
            }
        })
    }

    fn line(&self) -> String {
        let unit = UNITS.iter().find(|(unit, _)| *unit == self.unit).map_or("", |(_, name)| *name);
        let bound = self.bound.map_or(String::new(), |bound| {
            let (sign, limit) = bound.sign();
            format!("{sign} {limit}")
        });
        format!("{}\t{unit}\t{}\t{:.4}\t{bound}\n", self.part.name(), self.name, self.value)
    }

    fn read(line: &str) -> Option<Self> {
        let [part, unit, name, value, bound] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
        let bound = match bound.split_once(' ') {
            Some(("≥", limit)) => Some(Bound::AtLeast(limit.parse().ok()?)),
            Some(("≤", limit)) => Some(Bound::AtMost(limit.parse().ok()?)),
            Some(_) => return None,
            None => None,
        };
        Some(Self {
            part: Part::named(part).ok()?,
            unit: UNITS.iter().find(|(_, known)| *known == unit)?.0,
            name: name.to_owned(),
            value: value.parse().ok()?,
            bound,
        })
    }
}

/// All figures, in the order of their parts.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<Figure>);

const HEAD: &str = "part\tunit\tname\tvalue\ttarget\n";

impl Figures {
    /// Reads what [`Figures::text`] wrote.
    pub fn read(text: &str) -> Result<Self, BenchError> {
        let lines = text.lines().skip(1);
        let read = |line| Figure::read(line).ok_or_else(|| BenchError::new(format!("not a figure: {line}")));
        Ok(Self(lines.map(read).collect::<Result<_, _>>()?))
    }

    pub fn text(&self) -> String {
        self.0.iter().fold(HEAD.to_owned(), |text, figure| text + &figure.line())
    }

    /// Puts a part's figures in the place of those that it had.
    pub fn replace(&mut self, part: Part, figures: Vec<Figure>) {
        self.0.retain(|figure| figure.part != part);
        self.0.extend(figures);
        self.0.sort_by_key(|figure| figure.part);
    }

    /// Those of a unit.
    pub fn of(&self, unit: Unit) -> Vec<&Figure> {
        self.0.iter().filter(|figure| figure.unit == unit).collect()
    }

    /// The README's table.
    pub fn table(&self) -> String {
        let mut table = String::from("| | measured | target |\n|---|---|---|\n");
        for row in self.0.iter().filter_map(Figure::row) {
            let _ = write!(table, "{row}");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(part: Part, name: &str, value: f64, bound: Option<Bound>) -> Figure {
        Figure { part, unit: Unit::Speed, name: name.into(), value, bound }
    }

    #[test]
    fn a_part_that_is_measured_alone_replaces_its_own_figures_only() {
        let mut figures = Figures::default();
        figures.replace(Part::Peers, vec![figure(Part::Peers, "a script", 0.1, None)]);
        figures.replace(Part::Contest, vec![figure(Part::Contest, "stream", 0.5, Some(Bound::AtLeast(0.95)))]);
        let mut again = Figures::read(&figures.text()).expect("its own text");
        assert_eq!(again.0, figures.0);
        again.replace(Part::Contest, vec![figure(Part::Contest, "stream", 0.97, Some(Bound::AtLeast(0.95)))]);
        assert_eq!(again.of(Unit::Speed).len(), 2);
        let row = "| stream, rows/s against the one big UPDATE | 0.97 | ≥ 0.95 |\n";
        assert!(again.table().ends_with(row) && !again.table().contains("script"), "{}", again.table());
    }

    #[test]
    fn a_file_that_is_not_of_figures_is_refused() {
        assert!(Figures::read("part\ncontest\tspeed\tx\tmany\t\n").is_err());
    }
}
