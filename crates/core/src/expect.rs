//! Expectations: what a job says of its own result, checked while planning, while running and at the end.

use serde::{Deserialize, Serialize};

use crate::job::Scalar;
use crate::refusal::{Code, Refusal};

/// Rows that a job may watch: more of them are a query of `expect.after`.
pub const WATCHED_MAX: usize = 20;
/// Rows of a canary batch where the job does not say.
pub const CANARY_ROWS: u32 = 50;

/// What the job expects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Rows that change, at least and at most. A plan outside is blocked, a run that leaves it stops itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Band>,
    /// A predicate that every changed row must satisfy, such as `tenant_id in (4, 7)`. A plan with other rows is blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Queries of one value that must give the same before and after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<String>,
    /// Queries of one value and what they must give at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Answer>,
    /// Rows to look at before and after; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<Watch>,
}

/// A row that people look at before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Watched")]
pub struct Watch {
    /// What people call it; shown, so not somebody's name.
    pub name: String,
    /// Its key, one value for each column in the order of the key.
    pub key: Vec<Scalar>,
}

/// How a job may name a row: with a name, or by its key alone, which is its name then. A key of text can be somebody's name,
/// and such a row has none until it is given one.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a key (17), the columns of one ([\"acme\", 17]), or { name = \"…\", key = [17] }"
)]
enum Watched {
    Key(Scalar),
    Columns(Vec<Scalar>),
    Named(Named),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    key: Vec<Scalar>,
}

impl From<Watched> for Watch {
    fn from(watched: Watched) -> Self {
        let unnamed = |key: Vec<Scalar>| {
            let values: Vec<String> = key.iter().map(ToString::to_string).collect();
            let telling =
                key.iter().any(|value| matches!(value, Scalar::Text(text) if uuid::Uuid::parse_str(text).is_err()));
            Self { name: if telling { String::new() } else { values.join(", ") }, key }
        };
        match watched {
            Watched::Key(key) => unnamed(vec![key]),
            Watched::Columns(key) => unnamed(key),
            Watched::Named(Named { name, key }) => Self { name, key },
        }
    }
}

impl Watch {
    /// The key's values as text.
    pub fn values(&self) -> Vec<String> {
        self.key.iter().map(ToString::to_string).collect()
    }
}

/// A range of rows, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// At least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// At most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// A query of one value and the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// One SELECT of one value.
    pub query: String,
    /// Its answer, as text.
    pub equals: String,
}

/// A first, small batch to look at before the rest goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Its rows; 1 to 50,000.
    #[serde(default = "canary_rows")]
    pub rows: u32,
    /// What follows when the `unchanged` queries still give the same.
    #[serde(default)]
    pub then: Then,
}

/// What follows a canary batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The rest.
    #[default]
    Go,
    /// A pause, for somebody to look.
    Pause,
}

fn canary_rows() -> u32 {
    CANARY_ROWS
}

impl Band {
    /// Why so many rows are not expected, if they are not.
    pub fn refuses(&self, rows: i64) -> Option<String> {
        let wanted = match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => return None,
        };
        let outside = self.min.is_some_and(|min| rows < min) || self.max.is_some_and(|max| rows > max);
        outside.then(|| format!("{rows} rows, expected are {wanted}"))
    }

    /// Why a run that has changed so many rows so far must not go on.
    pub fn exceeded(&self, rows: i64) -> Option<String> {
        let max = self.max.filter(|max| rows > *max)?;
        Some(format!("{rows} rows are changed, expected are at most {max}"))
    }
}

impl Expect {
    /// Whether the job expects nothing.
    pub fn is_empty(&self) -> bool {
        *self == Expect::default()
    }

    /// The expectations, if they make sense.
    pub fn check(&self) -> Result<(), Refusal> {
        let band = self.rows.unwrap_or_default();
        if let (Some(min), Some(max)) = (band.min, band.max)
            && min > max
        {
            let message = format!("expect.rows has min = {min} above max = {max}");
            return Err(Refusal::new(Code::BadJob, message, "exchange them"));
        }
        if self.watch.len() > WATCHED_MAX {
            let message = format!("expect.watch names {} rows, {WATCHED_MAX} are watched at most", self.watch.len());
            return Err(Refusal::new(Code::BadJob, message, "keep those that tell most"));
        }
        for (place, row) in self.watch.iter().enumerate() {
            if row.name.trim().is_empty() || row.key.is_empty() {
                let message = format!("row {} of expect.watch has no name or no key", place + 1);
                return Err(Refusal::new(
                    Code::BadJob,
                    message,
                    "write { name = \"…\", key = [value, …] }, with a name that is nobody's",
                ));
            }
            if self.watch[..place].iter().any(|other| other.name == row.name) {
                let message = format!("two rows of expect.watch are called `{}`", row.name);
                return Err(Refusal::new(Code::BadJob, message, "give each a name of its own"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Band, Expect, Scalar, WATCHED_MAX, Watch};

    #[test]
    fn a_watched_row_has_a_name_of_its_own_and_a_key_and_there_are_few() {
        let row = |name: &str, key: &[i64]| Watch {
            name: name.into(),
            key: key.iter().map(|n| Scalar::Integer(*n)).collect(),
        };
        let check = |watch: Vec<Watch>| Expect { watch, ..Expect::default() }.check().is_ok();
        assert!(check(vec![row("first", &[1]), row("last", &[1, 9])]));
        assert!(!check(vec![row("first", &[1]), row("first", &[2])]));
        assert!(!check(vec![row(" ", &[1])]) && !check(vec![row("first", &[])]));
        let many = |n: usize| (0..n).map(|n| row(&n.to_string(), &[1])).collect();
        assert!(check(many(WATCHED_MAX)) && !check(many(WATCHED_MAX + 1)));
    }

    #[test]
    fn a_watched_row_may_be_named_by_its_key_alone() {
        let read = |text: &str| {
            let expect: Expect = toml::from_str(text)?;
            let rows = expect.watch.into_iter().map(|row| (row.name.clone(), row.values().join("|")));
            Ok::<Vec<_>, toml::de::Error>(rows.collect())
        };
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let rows = read(&format!(r#"watch = [3, "{id}", [4, 17], "ann@mail", {{ name = "the oldest", key = [1] }}]"#));
        let named = |name: &str, key: &str| (name.to_owned(), key.to_owned());
        let wanted =
            [named("3", "3"), named(id, id), named("4, 17", "4|17"), named("", "ann@mail"), named("the oldest", "1")];
        assert_eq!(rows.unwrap(), wanted);
        let error = read("watch = [{ nme = \"x\", key = [1] }]").unwrap_err().to_string();
        assert!(error.contains("or { name"), "{error}");
    }

    #[test]
    fn both_ends_of_a_band_are_in_it() {
        let band = Band { min: Some(2), max: Some(4) };
        assert_eq!([2, 4].map(|rows| band.refuses(rows)), [None, None]);
        assert_eq!(band.refuses(5).as_deref(), Some("5 rows, expected are 2 to 4"));
        assert_eq!(band.refuses(1).as_deref(), Some("1 rows, expected are 2 to 4"));
        assert_eq!(band.exceeded(1), None);
    }
}
