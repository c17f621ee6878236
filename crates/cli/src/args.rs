//! What can be typed. Parsing only: nothing here acts, and every bound is checked by `core`. Long, since it is the one list
//! of all commands that help, completions and manual pages are made from.

pub mod job;
pub mod pace;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pgmend_core::dead_letters::DEAD_LETTERS_MAX;
use pgmend_core::vacuum::Share;

pub use job::{JobFlags, JobSource};
pub use pace::{PaceFlags, Tune};

/// Change data in a live PostgreSQL database as if it were a reviewed, resumable, reversible deploy.
#[derive(Debug, Parser)]
#[command(name = "pgmend", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  pgmend plan fix.sql                     what would change; writes to no table of yours
  pgmend run fix.sql --execute            do it: small batches, resumable, with images for undo
  pgmend undo fix --execute               put every row back that nobody changed since
  pgmend run -c \"update …\" --expect 3     a small fix: shows the rows, asks, commits exactly 3

Nothing writes to your tables without --execute or a typed confirmation; `resume` goes on with a run
that had one.
Exit codes: 0 done, 1 internal, 2 usage, 3 stopped by a check, 4 approval missing, 5 run failed,
6 paused or declined, 7 finished with conflicts or dead letters, 8 nothing to change.")]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The database: a URL or key=value; without it, libpq's PG* variables
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// The environment of pgmend.toml; a protected one must be named
    #[arg(long, global = true, value_name = "NAME")]
    pub env: Option<String>,
    /// Text for people or JSON for programs
    #[arg(long, global = true, value_enum, value_name = "text|json", hide_possible_values = true, default_value_t = Output::Text)]
    pub output: Output,
    /// What a run writes to stderr: progress for people, or each event as a line of JSON
    #[arg(long, global = true, value_enum, value_name = "human|json", hide_possible_values = true, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// Also append each event as a line of JSON to this file
    #[arg(long, global = true, value_name = "PATH")]
    pub log_file: Option<std::path::PathBuf>,
}

/// Who reads stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// People.
    Human,
    /// A log collector.
    Json,
}

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install or upgrade the control schema and its roles
    #[command(after_help = "\
Examples:
  pgmend init --database-url postgresql://owner@db/shop
  pgmend init --runner-role deploy --approver-role leads --observer-role staff
                                              where a DBA made the roles")]
    Init(Init),
    /// Scaffold a job folder: job.toml, change.sql, README.md, .env.example, .gitignore
    #[command(after_help = "Example:\n  pgmend new fix-roles && pgmend plan fix-roles")]
    New(New),
    /// Dry run: show what a job would change
    #[command(after_help = "\
Examples:
  pgmend plan fix-roles                       a folder with job.toml
  pgmend plan fix.sql --by country            counts per country
  pgmend plan -c \"delete from session where expires_at < :day\" --param day=2024-01-01
  pgmend plan fix.sql --rehearse              run a few batches for real and roll them back
  pgmend plan 4dbd6c4f                        a stored plan again, by the end of its id")]
    Plan(Box<Plan>),
    /// Run a job or a stored plan; without --execute this is `plan`
    #[command(after_help = "\
Examples:
  pgmend run fix-roles --execute              plan it, run it, or go on with it after a stop
  pgmend run 0199c2e1-6f3a-7c11-9d40-5be2a1c00f17 --execute
                                              run exactly the plan that was reviewed
  pgmend run fix.sql --batch-rows 500 --execute
  pgmend run fix.sql --execute --log-file run.jsonl
                                              each event as a line of JSON, too
  pgmend run fix.sql --rate 500 --stop-after 20min --execute
                                              gently, and only for a while; the same command goes on
  pgmend run fix-roles --execute --wait-approval --until-done
                                              waits for its approvals, then night after night
  pgmend run -c \"update users set role = 'admin' where id in (4, 8, 15)\" --expect 3
                                              shows the rows and asks for the number

Ctrl-C finishes the batch and stops, resumable; a second Ctrl-C cancels the batch at once.")]
    Run(Box<Run>),
    /// Validate a job without a database: its file, its statement, and what its environment asks of it
    #[command(after_help = "Example:\n  pgmend check fix-roles --env production")]
    Check(Box<Check>),
    /// Say yes (or, with --veto, no) to a plan, after it was shown
    #[command(after_help = "\
Examples:
  pgmend approve 0199c2e1 --reason \"compared ten rows with the ledger\"
  pgmend approve 0199c2e1 --veto --reason \"not on a Friday\"
  pgmend approve 0199c2e1 --revoke --reason \"wrong month\"      also stops a run that is under way")]
    Approve(Approve),
    /// Let another login run a plan without its approvals, for some minutes
    #[command(after_help = "Example:\n  pgmend break-glass 0199c2e1 --to alice --reason \"outage\" --ticket OPS-7")]
    BreakGlass(BreakGlass),
    /// Reviews that wait for somebody; closes one with a note
    #[command(after_help = "Examples:\n  pgmend review\n  pgmend review fix-roles --close \"balances compared\"")]
    Review(Review),
    /// Stop a run at its next batch boundary, from any machine
    #[command(after_help = "\
Examples:
  pgmend pause fix-roles --reason \"checkout is slow\"
  pgmend pause fix-roles --tenant 7 --reason \"they are importing\"      the other tenants go on")]
    Pause(Pause),
    /// Lift a pause and go on with the run
    #[command(
        after_help = "Examples:\n  pgmend resume fix-roles\n  pgmend resume fix-roles --rate 200 --until-done   gently, night after night\n  pgmend resume fix-roles --lift-only               whoever drives it goes on\n  pgmend resume fix-roles --tenant 7                the same for one tenant"
    )]
    Resume(Resume),
    /// Change the pace of a live run, from any machine; in the ledger, and for an hour unless pinned
    #[command(after_help = "\
Examples:
  pgmend tune fix-roles --rate 200 --reason \"checkout is slow\"
  pgmend tune fix-roles --nice 1 --for 2h --reason \"sale begins\"
  pgmend tune fix-roles --limit replay_lag=20s/10s --reason \"standby2 is being rebuilt\"
  pgmend tune fix-roles --list                              what counts now, and who said so
  pgmend tune fix-roles --reset --reason \"all quiet\"      back to what the run was started with")]
    Tune(Tune),
    /// Give a run up; what is committed stays, and can be undone
    #[command(after_help = "Example:\n  pgmend cancel fix-roles --reason \"wrong month\"")]
    Cancel(Wish),
    /// The audit trail: verify its chains, export it, keep a checkpoint of it elsewhere
    #[command(subcommand)]
    #[command(after_help = "\
Examples:
  pgmend ledger verify --against heads.json
  pgmend ledger checkpoint > heads.json           keep it where nobody who can write the database can write
  pgmend ledger export > ledger.jsonl")]
    Ledger(Ledger),
    /// What runs do now, why they wait, and what to type next
    #[command(after_help = "Examples:\n  pgmend status\n  pgmend status fix-roles")]
    Status(Status),
    /// All runs, the newest first
    #[command(after_help = "Examples:\n  pgmend list\n  pgmend list --output json")]
    List,
    /// Restore the rows of a run that nobody changed since; without --execute only the plan of it
    #[command(after_help = "\
Examples:
  pgmend undo fix-roles                       what would be restored, and which rows are conflicts
  pgmend undo fix-roles --execute
  pgmend undo fix-roles --where \"country = 'NO'\" --execute
  pgmend undo fix-roles --rate 500 --until-done --execute
                                              gently, and only in the allowed hours")]
    Undo(Undo),
    /// Rows that a run could not change and has set aside; tries them again with --retry --execute
    #[command(after_help = "\
Examples:
  pgmend dead-letters fix-roles                        which rows, and why
  pgmend dead-letters fix-roles --export letters.jsonl
  pgmend dead-letters fix-roles --retry --execute      once they are mended; `undo` covers them too")]
    DeadLetters(DeadLetters),
    /// The paper trail of a run, as Markdown to paste into a ticket
    #[command(after_help = "Example:\n  pgmend report fix-roles > report.md")]
    Report(Report),
    /// Every run that touched one row, with before and after
    #[command(after_help = "\
Examples:
  pgmend trace users 4711
  pgmend trace users email=ann@example.org               by another key
  pgmend trace sales.order_line 17 3 --show-values      a key of two columns, in key order")]
    Trace(Trace),
    /// Old images and change sets; drops them with --execute
    #[command(after_help = "Examples:\n  pgmend prune\n  pgmend prune --older-than 30 --execute")]
    Prune(Prune),
    /// Explain an error code
    #[command(after_help = "Examples:\n  pgmend explain              all codes\n  pgmend explain PM204")]
    Explain(Explain),
    /// Watch it work: a shop in need of repair on a PostgreSQL of its own, gone afterwards
    #[command(after_help = "\
Examples:
  pgmend demo                   about a minute; needs PostgreSQL's server programs, touches no database of yours
  pgmend demo --keep            leaves the server running, to look around")]
    Demo(Demo),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  pgmend completions bash > ~/.local/share/bash-completion/completions/pgmend")]
    Completions(Completions),
    /// Print the manual page, or a command's
    #[command(after_help = "Examples:\n  pgmend man > pgmend.1\n  pgmend man run | man -l -")]
    Man(Man),
}

impl Command {
    /// The job that was typed, if the command takes one.
    pub fn job(&self) -> Option<&str> {
        if let Command::Plan(args) = self {
            return args.source.job.as_deref();
        }
        if let Command::Run(args) = self {
            return args.source.job.as_deref();
        }
        if let Command::Check(args) = self {
            return args.source.job.as_deref();
        }
        None
    }
}

/// `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// An existing role whose members plan and run, instead of pgmend_runner
    #[arg(long, value_name = "ROLE")]
    pub runner_role: Option<String>,
    /// An existing role whose members approve, instead of pgmend_approver
    #[arg(long, value_name = "ROLE")]
    pub approver_role: Option<String>,
    /// An existing role whose members read, instead of pgmend_observer
    #[arg(long, value_name = "ROLE")]
    pub observer_role: Option<String>,
}

/// `new`.
#[derive(Debug, Args)]
pub struct New {
    /// The folder to make; its last part is the job's name
    pub name: String,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The job.
    #[command(flatten)]
    pub source: JobSource,
    /// Flags that override the job file.
    #[command(flatten)]
    pub flags: JobFlags,
    /// How to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// Print the plan without storing it, even if there is a control schema
    #[arg(long)]
    pub print_only: bool,
}

/// How to plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Planning")]
pub struct Planning {
    /// Break the counts down by this column of the target
    #[arg(long, value_name = "COLUMN")]
    pub by: Option<String>,
    /// Run this many small batches for real and roll them back
    #[arg(long, value_name = "BATCHES", num_args = 0..=1, default_value_t = 0, default_missing_value = "4", hide_default_value = true)]
    pub rehearse: u32,
    /// Show all values in samples and errors instead of masking them
    #[arg(long)]
    pub show_values: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The job, or the id of a plan or of an unfinished run.
    #[command(flatten)]
    pub source: JobSource,
    /// Write. Without it nothing is changed
    #[arg(long)]
    pub execute: bool,
    /// Make the same change again although it has been made
    #[arg(long, requires = "reason")]
    pub again: bool,
    /// Why it is made again; goes into the report
    #[arg(long, requires = "again", value_name = "TEXT")]
    pub reason: Option<String>,
    /// Workers in this process, of those that the run may have in all; the others may run elsewhere
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub workers_here: Option<u32>,
    /// Stop, resumable, after this many batches
    #[arg(long, value_name = "N")]
    pub stop_after_batches: Option<u64>,
    /// Wait for the approvals that are missing, as long as the plan is fresh
    #[arg(long, requires = "execute")]
    pub wait_approval: bool,
    /// The pace.
    #[command(flatten)]
    pub pace: PaceFlags,
    /// Flags that override the job file.
    #[command(flatten)]
    pub flags: JobFlags,
    /// How to plan.
    #[command(flatten)]
    pub planning: Planning,
}

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The job.
    #[command(flatten)]
    pub source: JobSource,
    /// Flags that override the job file.
    #[command(flatten)]
    pub flags: JobFlags,
}

/// `approve`.
#[derive(Debug, Args)]
pub struct Approve {
    /// The plan's id, or the beginning or end of it
    pub plan: String,
    /// Why; kept with the approval
    #[arg(long)]
    pub reason: String,
    /// Say no: nobody runs the plan until the veto is taken back
    #[arg(long, conflicts_with = "revoke")]
    pub veto: bool,
    /// Take back what this login has said
    #[arg(long)]
    pub revoke: bool,
}

/// `break-glass`.
#[derive(Debug, Args)]
pub struct BreakGlass {
    /// The plan's id, or the beginning or end of it
    pub plan: String,
    /// The login that may run it
    #[arg(long, value_name = "LOGIN")]
    pub to: String,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// The ticket
    #[arg(long)]
    pub ticket: String,
    /// How long the leave lasts, 1 to 240
    #[arg(long, default_value_t = 30)]
    pub minutes: u32,
}

/// `review`.
#[derive(Debug, Args)]
pub struct Review {
    /// A run's id or a job's name; all open reviews when absent
    #[arg(value_name = "RUN|JOB", requires = "close")]
    pub run: Option<String>,
    /// Close it, with a note on what was found
    #[arg(long, value_name = "NOTE", requires = "run")]
    pub close: Option<String>,
}

/// `pause`.
#[derive(Debug, Args)]
pub struct Pause {
    /// The run, and why.
    #[command(flatten)]
    pub wish: Wish,
    /// Pause this tenant only; the others go on
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}

/// `cancel`, and what `pause` shares with it.
#[derive(Debug, Args)]
pub struct Wish {
    /// A run's id, or a job's name for its latest run
    #[arg(value_name = "RUN|JOB")]
    pub run: String,
    /// Why; shown to whoever wonders
    #[arg(long)]
    pub reason: String,
}

/// `resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// A run's id, or a job's name for its latest run
    #[arg(value_name = "RUN|JOB")]
    pub run: String,
    /// Lift the pause without driving the run from here
    #[arg(long, conflicts_with_all = ["rate", "nice", "rows_max", "stop_after", "until_done", "workers", "workers_here", "vacuum_every", "dead_letters"])]
    pub lift_only: bool,
    /// Accepted, since `run` wants it: whoever goes on with a run means it
    #[arg(long, hide = true, conflicts_with = "lift_only")]
    pub execute: bool,
    /// Show errors with the values in them
    #[arg(long)]
    pub show_values: bool,
    /// Lift the pause of this tenant, or try it again if it has failed; whoever drives the run goes on with it
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Workers of the run, in all its processes together; for a run that was divided
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub workers: Option<u32>,
    /// Workers in this process, of those that the run may have in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub workers_here: Option<u32>,
    /// Vacuum the target on the way, after this share of its rows was changed, such as 10%
    #[arg(long, value_name = "SHARE")]
    pub vacuum_every: Option<Share>,
    /// Rows that may be set aside in all, instead of what the plan says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=DEAD_LETTERS_MAX))]
    pub dead_letters: Option<i64>,
    /// The pace.
    #[command(flatten)]
    pub pace: PaceFlags,
}

/// `ledger`.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Verify every chain
    Verify {
        /// A checkpoint that was kept elsewhere: also finds chains that were rewritten as a whole
        #[arg(long, value_name = "FILE")]
        against: Option<std::path::PathBuf>,
    },
    /// Print the heads of all chains, to be kept elsewhere
    Checkpoint,
    /// Print every entry as JSON Lines
    Export,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// A run's id or a job's name; all unfinished runs when absent
    #[arg(value_name = "RUN|JOB")]
    pub run: Option<String>,
}

/// `undo`.
#[derive(Debug, Args)]
pub struct Undo {
    /// A run's id, or a job's name for its latest run
    #[arg(value_name = "RUN|JOB")]
    pub run: String,
    /// Restore only rows for which this predicate holds now
    #[arg(long = "where", value_name = "PREDICATE")]
    pub predicate: Option<String>,
    /// The age identity file that opens encrypted images, or `-` for standard input; it stays on this machine
    #[arg(long, value_name = "FILE")]
    pub identity: Option<std::path::PathBuf>,
    /// Write. Without it nothing is changed
    #[arg(long)]
    pub execute: bool,
    /// The pace.
    #[command(flatten)]
    pub pace: PaceFlags,
    /// How to plan.
    #[command(flatten)]
    pub planning: Planning,
}

/// `dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLetters {
    /// A run's id, or a job's name for its latest run
    #[arg(value_name = "RUN|JOB")]
    pub run: String,
    /// Also write them to this new file, as JSON Lines
    #[arg(long, value_name = "FILE", conflicts_with = "retry")]
    pub export: Option<std::path::PathBuf>,
    /// Show all values of keys and errors instead of masking them
    #[arg(long)]
    pub show_values: bool,
    /// Try those that are open again; without --execute they are only listed
    #[arg(long)]
    pub retry: bool,
    /// Write. Without it nothing is changed
    #[arg(long, requires = "retry")]
    pub execute: bool,
    /// The age identity file that opens an encrypted change set, or `-` for standard input; it stays on this machine
    #[arg(long, value_name = "FILE", requires = "retry")]
    pub identity: Option<std::path::PathBuf>,
}

/// `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// A run's id, or a job's name for its latest run
    #[arg(value_name = "RUN|JOB")]
    pub run: String,
}

/// `trace`.
#[derive(Debug, Args)]
pub struct Trace {
    /// The table, with its schema where the search path does not find it
    pub table: String,
    /// The row's key, one value for each column of it, or COLUMN=VALUE for each column of a key
    #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
    pub key: Vec<String>,
    /// Show all values instead of masking them
    #[arg(long)]
    pub show_values: bool,
    /// The age identity file that opens encrypted images, or `-` for standard input; it stays on this machine
    #[arg(long, value_name = "FILE")]
    pub identity: Option<std::path::PathBuf>,
}

/// `prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Only what is older than this many days, instead of the retention of each run
    #[arg(long, value_name = "DAYS")]
    pub older_than: Option<u32>,
    /// Drop. Without it the list is only shown
    #[arg(long)]
    pub execute: bool,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Such as PM204; all codes when absent
    pub code: Option<String>,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Leave the server running, and say how to reach and how to stop it
    #[arg(long)]
    pub keep: bool,
    /// Orders of the shop; it gets as many users and authorizations
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(6_000..=10_000_000))]
    pub orders: u32,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The command; without it, the page of pgmend itself
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, Command};

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("pgmend "), "{} has no example", command.get_name());
        }
    }

    #[test]
    fn a_job_or_a_statement_is_needed_but_not_both() {
        assert!(Cli::try_parse_from(["pgmend", "plan"]).is_err());
        assert!(Cli::try_parse_from(["pgmend", "plan", "fix.sql", "-c", "delete from t"]).is_err());
        assert!(Cli::try_parse_from(["pgmend", "plan", "-c", "delete from t"]).is_ok());
    }

    #[test]
    fn options_of_every_command_may_stand_after_it() {
        let cli = Cli::try_parse_from(["pgmend", "list", "--database-url", "postgresql:///shop"]).unwrap();
        assert_eq!(cli.global.database_url.as_deref(), Some("postgresql:///shop"));
        assert!(matches!(cli.command, Command::List));
    }

    #[test]
    fn a_rehearsal_without_a_number_takes_four_batches() {
        let cli = Cli::try_parse_from(["pgmend", "plan", "fix.sql", "--rehearse"]).unwrap();
        let Command::Plan(plan) = cli.command else { unreachable!("`plan` was typed") };
        assert_eq!(plan.planning.rehearse, 4);
    }
}
