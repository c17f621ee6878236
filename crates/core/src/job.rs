//! Jobs: what a user writes. A folder with `job.toml`, a `.toml`, or a bare `.sql` file.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dead_letters::DeadLetters;
use crate::expect::{Canary, Expect};
use crate::limits::Limits;
use crate::pace::Pace;
use crate::recipient::Recipient;
use crate::refusal::{Code, Refusal};
use crate::tenants::TenantMode;
use crate::throttle::Throttle;

/// How the change reaches the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each batch computes its changes in its own transaction.
    Stream,
    /// One snapshot computes the change set; batches apply it with compare-and-set.
    Freeze,
}

impl Mode {
    /// The word as printed and stored.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Stream => "stream",
            Mode::Freeze => "freeze",
        }
    }
}

/// The kind of a parameter, which is also its SQL type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// SQL type, such as `int`, `numeric`, `text`, `date`, `uuid`, `text[]`.
    #[serde(rename = "type")]
    pub type_sql: String,
    /// The value; `--param name=value` overrides it.
    #[serde(default)]
    pub value: Option<Scalar>,
    /// Least value allowed, compared as the type's number.
    #[serde(default)]
    pub min: Option<Scalar>,
    /// Greatest value allowed.
    #[serde(default)]
    pub max: Option<Scalar>,
}

/// A value of a job file, kept as the text that PostgreSQL will read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction; write it as a string to keep every digit.
    Float(f64),
    /// Anything else.
    Text(String),
}

impl Eq for Scalar {}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Bool(value) => value.fmt(f),
            Scalar::Integer(value) => value.fmt(f),
            Scalar::Float(value) => value.fmt(f),
            Scalar::Text(value) => value.fmt(f),
        }
    }
}

/// Whether images are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// Keep before- and after-images. Off makes the run irreversible.
    #[serde(default = "yes")]
    pub keep: bool,
    /// Why not, when off.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whom their values are encrypted to; plain when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
}

impl Images {
    /// The recipient, if there is one and it has the form of one.
    pub fn recipient(&self) -> Result<Option<Recipient>, Refusal> {
        let Some(text) = &self.recipient else { return Ok(None) };
        if !self.keep {
            let message = "images are switched off, and have a recipient";
            return Err(Refusal::new(Code::Recipient, message, "leave one of `keep` and `recipient` out"));
        }
        Recipient::parse(text).map(Some)
    }
}

fn yes() -> bool {
    true
}

impl Default for Images {
    fn default() -> Self {
        Self { keep: true, reason: None, recipient: None }
    }
}

/// A job file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// The job's name; the folder's or file's name when absent.
    pub name: Option<String>,
    /// What the job is for, in a sentence; shown in plan and report.
    pub goal: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Ticket, shown in the report.
    pub ticket: Option<String>,
    /// The file with the statement, relative to the job file; `change.sql` when absent.
    pub statement_file: Option<String>,
    /// The statement itself, instead of a file.
    pub statement: Option<String>,
    /// Named parameters.
    #[serde(default)]
    pub params: BTreeMap<String, Param>,
    /// Columns of the unique index to use as the key.
    pub key: Option<Vec<String>>,
    /// Stream or freeze; chosen by the planner when absent.
    pub mode: Option<Mode>,
    /// Bounds of the run.
    #[serde(default)]
    pub limits: Limits,
    /// How fast it may go, and when it stops for today.
    #[serde(default)]
    pub pace: Pace,
    /// Images.
    #[serde(default)]
    pub images: Images,
    /// Columns whose values may be shown.
    #[serde(default)]
    pub plain: Vec<String>,
    /// Functions declared to read only: not to write, and to give the same answer within a statement.
    #[serde(default)]
    pub trust_functions: Vec<String>,
    /// The number of rows that must change; anything else is refused before it is committed.
    pub expect_rows: Option<i64>,
    /// What the job says of its own result.
    #[serde(default)]
    pub expect: Expect,
    /// A first, small batch to look at.
    pub canary: Option<Canary>,
    /// How many rows that cannot be changed may be set aside.
    #[serde(default)]
    pub dead_letters: DeadLetters,
    /// When the run holds, and for how long.
    #[serde(default)]
    pub throttle: Throttle,
    /// The column whose values are the tenants, where each is to have its own progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<TenantMode>,
}

impl JobFile {
    /// Reads a job file. Unknown keys are errors that name the nearest known one.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let file: JobFile = toml::from_str(text).map_err(|error| {
            let help =
                suggestion(error.message()).unwrap_or_else(|| "see `pgmend new` for a commented job.toml".to_owned());
            Refusal::new(Code::BadJob, error.to_string().trim_end().to_owned(), help)
        })?;
        Ok(file)
    }
}

/// For "unknown field `x`, expected one of `a`, `b`" (or variant): the nearest of the expected ones.
pub(crate) fn suggestion(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    (message.starts_with("unknown field") || message.starts_with("unknown variant")).then_some(())?;
    let nearest = quoted.min_by_key(|known| distance(unknown, known))?;
    // Further apart, one is no slip of the other.
    let most = (unknown.len().max(nearest.len()) / 2).min(4);
    (distance(unknown, nearest) <= most).then(|| format!("did you mean `{nearest}`?"))
}

/// Levenshtein distance, for suggestions.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = usize::from(x != *y);
            let next = (diagonal + cost).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

/// A parameter with the value that will be bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundParam {
    /// The name after the colon.
    pub name: String,
    /// Its SQL type.
    pub type_sql: String,
    /// Its value as text.
    pub value: String,
}

/// A job, ready to plan: the file's content, the statement's text and the parameters' values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The job's name.
    pub name: String,
    /// The statement as typed.
    pub statement: String,
    /// Parameters in name order.
    pub params: Vec<BoundParam>,
    /// The rest of the file.
    pub file: JobFile,
    /// What is known about where the job comes from, such as its git `commit`; shown in plan and report.
    pub facts: BTreeMap<String, String>,
}

impl Job {
    /// A job from a statement alone, with everything else at its default.
    pub fn from_statement(name: impl Into<String>, statement: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            statement: statement.into(),
            params: Vec::new(),
            file: JobFile::default(),
            facts: BTreeMap::new(),
        }
    }

    /// A job from a file, its statement, and `--param` overrides.
    pub fn new(
        name: String,
        statement: String,
        file: JobFile,
        overrides: &BTreeMap<String, String>,
    ) -> Result<Self, Refusal> {
        let file = JobFile { limits: file.limits.clone().checked()?, pace: file.pace.clone().checked()?, ..file };
        if !file.images.keep && file.images.reason.as_deref().is_none_or(|r| r.trim().is_empty()) {
            let help = "give a reason (`images.reason`, or --no-images REASON), or keep images";
            return Err(Refusal::new(Code::BadJob, "images are switched off without a reason", help));
        }
        file.images.recipient()?;
        file.expect.check()?;
        file.dead_letters.checked()?;
        if file.expect_rows.is_some() && file.dead_letters.allowed(i64::MAX) > 0 {
            let message = "expect_rows and dead_letters contradict each other";
            let help = "leave one of them out: a run that must change an exact number of rows sets none aside";
            return Err(Refusal::new(Code::BadJob, message, help));
        }
        file.throttle.check()?;
        if let Some(tenants) = &file.tenants {
            tenants.check()?;
        }
        if let Some(canary) = file.canary.as_ref().filter(|c| !(1..=50_000).contains(&c.rows)) {
            let message = format!("canary.rows = {} is out of range", canary.rows);
            return Err(Refusal::new(Code::BadJob, message, "choose 1 to 50000"));
        }
        let params = bind(&file.params, overrides)?;
        Ok(Self { name, statement, params, file, facts: BTreeMap::new() })
    }
}

fn bind(declared: &BTreeMap<String, Param>, overrides: &BTreeMap<String, String>) -> Result<Vec<BoundParam>, Refusal> {
    let mut all = declared.clone();
    for (name, value) in overrides {
        let param = all.entry(name.clone()).or_insert_with(|| Param {
            type_sql: guess_type(value).to_owned(),
            value: None,
            min: None,
            max: None,
        });
        param.value = Some(Scalar::Text(value.clone()));
    }
    all.into_iter().map(|(name, param)| bound(name, &param)).collect()
}

/// `--param day=2026-01-31` without a declaration: the type that a value of this shape most likely has, since a
/// comparison of a date with a text is an error. A declaration, or a cast in the statement, says otherwise.
fn guess_type(value: &str) -> &'static str {
    // `9` stands for any digit, `f` for a hexadecimal one that is none.
    let shape: String = value.chars().map(shape_of).collect();
    let digits = value.strip_prefix('-').unwrap_or(value);
    let decimal = digits.split_once('.').is_some_and(|(whole, part)| is_number(whole) && is_number(part));
    match shape.as_str() {
        _ if value.parse::<i64>().is_ok() => "bigint",
        _ if decimal || is_number(digits) => "numeric",
        "9999-99-99" => "date",
        _ if shape.starts_with("9999-99-99 99:99") || shape.starts_with("9999-99-99T99:99") => "timestamptz",
        _ if is_uuid(&shape) => "uuid",
        _ => "text",
    }
}

fn shape_of(letter: char) -> char {
    match letter {
        '0'..='9' => '9',
        'a'..='f' | 'A'..='F' => 'f',
        other => other,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_uuid(shape: &str) -> bool {
    let groups: Vec<&str> = shape.split('-').collect();
    let hexadecimal = |group: &&str| group.bytes().all(|b| b == b'9' || b == b'f');
    groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(hexadecimal)
}

fn bound(name: String, param: &Param) -> Result<BoundParam, Refusal> {
    let help = |what: &str| format!("{what} under [params.{name}] or pass --param {name}=VALUE");
    let Some(value) = &param.value else {
        return Err(Refusal::new(Code::Parameter, format!("parameter `{name}` has no value"), help("give `value`")));
    };
    let value = value.to_string();
    for (limit, beyond, said) in
        [(&param.min, Ordering::Less, "below its minimum"), (&param.max, Ordering::Greater, "above its maximum")]
    {
        let Some(limit) = limit else { continue };
        let Some(found) = compared(&value, &limit.to_string()) else {
            let message = format!("parameter `{name}` cannot be compared with its limit {limit}");
            return Err(Refusal::new(Code::Parameter, message, help("write the value in the same form")));
        };
        if found == beyond {
            let message = format!("parameter `{name}` is {said} {limit}");
            return Err(Refusal::new(Code::Parameter, message, help("change the limit or `value`")));
        }
    }
    Ok(BoundParam { name, type_sql: param.type_sql.clone(), value })
}

/// How a value stands to its limit: numbers compare as numbers, dates and times as text of the same form, other text as text.
/// `None` where that says nothing: the server reads `0xFF`, ` 50` and `2024-1-5` too, and a limit must hold for what
/// it reads.
fn compared(value: &str, limit: &str) -> Option<Ordering> {
    if let (Ok(value), Ok(limit)) = (value.parse::<i128>(), limit.parse::<i128>()) {
        return Some(value.cmp(&limit));
    }
    if let Ok(limit) = limit.parse::<f64>() {
        return value.parse::<f64>().ok()?.partial_cmp(&limit);
    }
    let form = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect::<String>();
    let (form_of_value, form_of_limit) = (form(value), form(limit));
    let alike = form_of_value.starts_with(&form_of_limit) || form_of_limit.starts_with(&form_of_value);
    (alike || !form_of_limit.starts_with(['9', '+', '-'])).then(|| value.cmp(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_held_to_its_limits_however_it_is_written() {
        for (value, limit, found) in [
            ("9", "10", Some(Ordering::Less)),
            ("+50", "10", Some(Ordering::Greater)),
            ("9.5", "10", Some(Ordering::Less)),
            ("1e3", "10", Some(Ordering::Greater)),
            ("inf", "10", Some(Ordering::Greater)),
            ("NaN", "10", None),
            (" 50", "10", None),
            ("0xFF", "10", None),
            ("1_000", "10", None),
            ("twelve", "10", None),
            ("2024-03-01", "2024-02-28", Some(Ordering::Greater)),
            ("2024-02-28 12:00", "2024-02-28", Some(Ordering::Greater)),
            ("2024-3-1", "2024-12-01", None),
            ("now", "2024-12-01", None),
            ("b", "a", Some(Ordering::Greater)),
        ] {
            assert_eq!(compared(value, limit), found, "{value} and {limit}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_suggests_the_nearest() {
        let error = JobFile::parse("[limits]\nbatch_row = 5\n").unwrap_err();
        assert_eq!(error.help, "did you mean `batch_rows`?");
        let error = JobFile::parse("[canary]\npause = true\n").unwrap_err();
        assert!(error.help.contains("pgmend new"), "{}", error.help);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("user", "user"), 0);
    }

    #[test]
    fn a_parameter_outside_its_range_is_refused() {
        let file = JobFile::parse("[params.year]\ntype = \"int\"\nvalue = 1999\nmin = 2000\n").unwrap();
        let error = Job::new("j".into(), "select 1".into(), file, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.code, Code::Parameter);
    }

    #[test]
    fn a_flag_overrides_the_file() {
        let file = JobFile::parse("[params.year]\ntype = \"int\"\nvalue = 1999\n").unwrap();
        let job = Job::new("j".into(), "select 1".into(), file, &[("year".into(), "2001".into())].into()).unwrap();
        assert_eq!(job.params[0].value, "2001");
    }

    #[test]
    fn a_value_without_a_declaration_has_the_type_that_it_looks_like() {
        let day = "2026-01-31";
        let uuid = "0199C2e1-6f3a-7c11-9d40-5be2a1c00f17";
        let numbers = [("5", "bigint"), ("-5", "bigint"), ("9223372036854775808", "numeric"), ("-1.50", "numeric")];
        let times = [(day, "date"), ("2026-01-31 10:00", "timestamptz"), ("2026-01-31T10:00:00Z", "timestamptz")];
        let texts =
            [("", "text"), ("5.", "text"), ("1e5", "text"), ("2026-01", "text"), ("Kim", "text"), (uuid, "uuid")];
        for (value, expected) in numbers.into_iter().chain(times).chain(texts) {
            assert_eq!(guess_type(value), expected, "{value}");
        }
    }

    #[test]
    fn images_off_needs_a_reason() {
        let file = JobFile::parse("[images]\nkeep = false\n").unwrap();
        assert_eq!(Job::new("j".into(), String::new(), file, &BTreeMap::new()).unwrap_err().code, Code::BadJob);
    }
}
