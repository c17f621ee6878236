//! Where a job comes from, and the flags that override its file.

use clap::Args;
use pgmend::Mode;
use pgmend_core::vacuum::Share;

/// Where a job comes from.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct JobSource {
    /// A folder with job.toml, a .toml, or a .sql with one statement; `plan` and `run` also take an id
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// The statement itself
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    pub command: Option<String>,
}

/// Flags that override the job file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Job (each overrides the job file)")]
pub struct JobFlags {
    /// The job's name; the file's or folder's name when absent
    #[arg(long)]
    pub name: Option<String>,
    /// A parameter's value; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param)]
    pub params: Vec<(String, String)>,
    /// Columns of the unique index to use as the key
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub key: Option<Vec<String>>,
    /// How the change reaches the table; chosen by the planner when absent
    #[arg(long, value_name = "stream|freeze", value_parser = mode)]
    pub mode: Option<Mode>,
    /// The number of rows that must change; anything else is refused before it is committed
    #[arg(long, value_name = "N")]
    pub expect: Option<i64>,
    /// Go tenant by tenant: each value of this column has its own progress, and fails or is paused alone
    #[arg(long, value_name = "COLUMN")]
    pub tenant_column: Option<String>,
    /// Only these tenants
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub tenants: Option<Vec<String>>,
    /// These tenants before all others
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub tenant_canary: Option<Vec<String>>,
    /// Rows that cannot be changed and may be set aside, so that the run can go on
    #[arg(long, value_name = "N")]
    pub dead_letters: Option<i64>,
    /// Keep no images: the run cannot be undone
    #[arg(long, value_name = "REASON")]
    pub no_images: Option<String>,
    /// Encrypt the values of images to this age recipient; undo and trace then need its identity
    #[arg(long, value_name = "age1…", conflicts_with = "no_images")]
    pub images_recipient: Option<String>,
    /// A column whose values may be shown; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub plain: Vec<String>,
    /// A function that only reads; may be repeated
    #[arg(long = "trust-function", value_name = "FUNCTION")]
    pub trust_functions: Vec<String>,
    /// The limits.
    #[command(flatten)]
    pub limits: LimitFlags,
}

/// Limits of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Limits (each overrides the job file)")]
pub struct LimitFlags {
    /// Rows of every batch, fixed; adaptive when absent
    #[arg(long, value_name = "ROWS")]
    pub batch_rows: Option<u32>,
    /// Rows that no transaction may exceed
    #[arg(long, value_name = "ROWS")]
    pub rows_per_transaction_max: Option<u32>,
    /// Execution time that one batch aims at
    #[arg(long, value_name = "MS")]
    pub target_batch_ms: Option<u64>,
    /// How long a batch waits for a lock before it retries
    #[arg(long, value_name = "MS")]
    pub lock_timeout_ms: Option<u64>,
    /// How long a statement of a batch may take
    #[arg(long, value_name = "MS")]
    pub statement_timeout_ms: Option<u64>,
    /// Length of the lease
    #[arg(long, value_name = "SECONDS")]
    pub lease_seconds: Option<u64>,
    /// Time for exact counts while planning, before they become estimates
    #[arg(long, value_name = "MS")]
    pub count_budget_ms: Option<u64>,
    /// Workers of the run, in all its processes together
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// Change every other row of a stretch first, so that the others find room on their pages; as the plan finds when absent
    #[arg(long, value_name = "true|false")]
    pub in_halves: Option<bool>,
    /// Vacuum the target on the way, after this share of its rows was changed, such as 10%
    #[arg(long, value_name = "SHARE")]
    pub vacuum_every: Option<Share>,
}

fn param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("write it as {text}=VALUE"))?;
    let well_formed = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !well_formed {
        return Err(format!("`{name}` is not a name: letters, digits and underscores, a letter first"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn mode(text: &str) -> Result<Mode, String> {
    [Mode::Stream, Mode::Freeze]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or_else(|| "choose `stream` or `freeze`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{mode, param};
    use pgmend::Mode;

    #[test]
    fn a_parameter_keeps_everything_after_the_first_equals_sign() {
        assert_eq!(param("filter=a=b"), Ok(("filter".into(), "a=b".into())));
        assert_eq!(param("empty="), Ok(("empty".into(), String::new())));
        assert!(param("2nd=x").is_err() && param("year").is_err());
    }

    #[test]
    fn there_are_two_modes() {
        assert_eq!(mode("freeze"), Ok(Mode::Freeze));
        assert!(mode("batch").is_err());
    }
}
