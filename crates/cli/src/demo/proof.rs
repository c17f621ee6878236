//! The proof that a repair did what its statement says: the same text, run as one plain statement on a copy.
//!
//! `plain` holds a whole copy of each target, made before the run; search_path leads the unchanged text of the statement
//! to the copy. `earlier` holds key and repaired column as they were. The application goes on meanwhile and writes other
//! columns, so exactly key and repaired column are compared, for the rows of the copy, both ways.

use std::time::Instant;

use pgmend_testkit::Sql;

use super::jobs::Repair;
use super::shop::broken;
use crate::failure::Failure;

/// Copies the target of a repair, so that its result can be proved later.
pub fn copy(sql: &mut Sql, repair: &Repair) -> Result<(), Failure> {
    let Repair { table, key, column, .. } = repair;
    // Several statements in one text are one transaction, but each would see rows that arrive in between.
    let copying = format!(
        "create schema if not exists plain;
         create schema if not exists earlier;
         create table plain.{table} as table public.{table};
         create table earlier.{table} as select {key}, {column} from plain.{table}"
    );
    sql.run(&copying).map_err(broken("copy a table"))?;
    sql.run(&format!("vacuum analyze plain.{table}, earlier.{table}")).map(drop).map_err(broken("analyze a copy"))
}

/// Runs the statement on the copy, in one go. Says how many rows it changed and how many seconds it took.
pub fn run_plain(sql: &mut Sql, repair: &Repair) -> Result<(i64, f64), Failure> {
    let Repair { table, key, column, statement, .. } = repair;
    let begun = Instant::now();
    let plain = format!("set local search_path = plain, public; {statement}");
    sql.run(&plain).map_err(broken("run the plain statement"))?;
    let took = begun.elapsed().as_secs_f64();
    let changed = format!(
        "select count(*) from plain.{table} p join earlier.{table} e using ({key}) where p.{column} is distinct from e.{column}"
    );
    Ok((number(sql, &changed)?, took))
}

/// A copy that a table is compared with.
#[derive(Debug, Clone, Copy)]
pub enum Copy {
    /// As the plain statement left it.
    Plain,
    /// As it was.
    Earlier,
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Rows of the copy.
    pub copy_rows: i64,
    /// Rows of the copy that the table does not have.
    pub missing_rows: i64,
    /// Rows of the table, among the copy's keys, that the copy does not have.
    pub surplus_rows: i64,
    /// Rows of the table that arrived after the copy was made; not compared.
    pub later_rows: i64,
}

/// Compares key and repaired column in one statement, which sees one moment.
pub fn compare(sql: &mut Sql, repair: &Repair, copy: Copy, but_for: Option<i64>) -> Result<Difference, Failure> {
    let Repair { table, key, column, .. } = repair;
    let schema = match copy {
        Copy::Plain => "plain",
        Copy::Earlier => "earlier",
    };
    let wanted = but_for.map_or("true".to_owned(), |value| format!("{key} <> {value}"));
    let statement = format!(
        "with theirs as (select {key}, {column} from {schema}.{table} where {wanted}),
              ours as (select {key}, {column} from public.{table} where {wanted}),
              both_keys as (select o.{key}, o.{column} from ours o join theirs t using ({key}))
         select (select count(*) from theirs),
                (select count(*) from (table theirs except table both_keys) as missing),
                (select count(*) from (table both_keys except table theirs) as surplus),
                (select count(*) from ours) - (select count(*) from both_keys)"
    );
    let rows = sql.run(&statement).map_err(broken("compare"))?;
    let numbers: Option<Vec<i64>> = rows.first().and_then(|row| row.iter().map(|v| v.as_ref()?.parse().ok()).collect());
    let Some(&[copy_rows, missing_rows, surplus_rows, later_rows]) = numbers.as_deref() else {
        return Err(broken("compare")("the server did not answer with four numbers"));
    };
    Ok(Difference { copy_rows, missing_rows, surplus_rows, later_rows })
}

impl Difference {
    /// Whether nothing differs among at least one row.
    pub fn is_empty(&self) -> bool {
        self.copy_rows > 0 && self.missing_rows == 0 && self.surplus_rows == 0
    }
}

/// One number.
pub fn number(sql: &mut Sql, statement: &str) -> Result<i64, Failure> {
    let value = sql.value(statement).map_err(broken("count"))?;
    value.and_then(|v| v.parse().ok()).ok_or_else(|| broken("count")("the server did not answer with a number"))
}

#[cfg(test)]
mod tests {
    use super::Difference;

    #[test]
    fn a_comparison_of_no_rows_proves_nothing() {
        let equal = Difference { copy_rows: 3, missing_rows: 0, surplus_rows: 0, later_rows: 9 };
        assert!(equal.is_empty());
        assert!(!Difference { copy_rows: 0, ..equal }.is_empty());
        assert!(!Difference { surplus_rows: 1, ..equal }.is_empty());
    }
}
