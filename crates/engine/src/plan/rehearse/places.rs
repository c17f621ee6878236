//! Where a streamed change is rehearsed: at the first rows, the last, some random ones, and where matches
//! are densest among a few windows.

use std::time::Instant;

use pgmend_core::plan::RunSql;
use pgmend_core::table::{Key, quote_ident};
use pgmend_pg::PgError;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::Range;

use super::Rehearsing;
use super::notes::millis;
use crate::error::Error;

/// Windows in which matches are counted.
const WINDOWS: usize = 6;
/// Rows of a window.
const WINDOW_ROWS: i64 = 10_000;
/// Rows of the sample from which windows are drawn.
const SAMPLE_ROWS: f64 = 3_000.0;
/// How often the end of the table is looked for before the last rows are given up.
const LAST_TRIES: u32 = 5;
/// Rows from the end that are looked at for the last matches, at most.
const LAST_ROWS_MAX: i64 = 1_000_000;

/// Where to begin: after a key, or at the start.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub name: &'static str,
    pub after: Option<Vec<String>>,
    /// The range ends with the table rather than with a number of rows.
    pub to_end: bool,
}

/// What was looked up before the first batch.
pub(super) struct Places {
    /// In the order in which they are tried.
    pub list: Vec<Place>,
    /// The greatest key.
    pub upper: Vec<String>,
    /// Milliseconds for which a scanned row keeps a query busy.
    pub scan_row_ms: f64,
}

struct Counted {
    after: Vec<String>,
    matches: i64,
}

impl Rehearsing<'_> {
    /// Finds places for the batches; `None` for an empty table.
    pub(super) async fn places(&self, tx: &ReadTx<'_>) -> Result<Option<Places>, Error> {
        let RunSql::Stream { greatest_key, .. } = &self.plan.sql else { return Ok(None) };
        let greatest = tx.query("read the greatest key", greatest_key, vec![]).await?;
        let Some(upper) = greatest.rows.first().map(|row| row.iter().flatten().cloned().collect::<Vec<_>>()) else {
            return Ok(None);
        };
        let starts = self.random_keys(tx).await?;
        let (windows, scan_row_ms) = self.count_windows(tx, &starts, &upper).await?;
        let densest = windows.iter().max_by_key(|w| w.matches).filter(|w| w.matches > 0);
        // Windows known to hold matches come first among the random ones; the densest has a place of its own.
        let is_densest = |w: &&Counted| densest.is_some_and(|d| d.after == w.after);
        let full = windows.iter().filter(|w| w.matches > 0 && !is_densest(w)).map(|w| &w.after);
        let uncounted = starts.iter().skip(WINDOWS);
        let mut random =
            full.chain(uncounted).map(|key| Place { name: "random", after: Some(key.clone()), to_end: false });
        let mut list = vec![Place { name: "first", after: None, to_end: false }];
        list.extend(match self.last(tx, &upper).await? {
            Some(place) => Some(place),
            None => self.last_of_matches(tx, &upper).await?,
        });
        list.extend(random.next());
        list.extend(densest.map(|w| Place { name: "densest", after: Some(w.after.clone()), to_end: false }));
        list.extend(random);
        Ok(Some(Places { list, upper, scan_row_ms }))
    }

    /// Keys of rows from random pages.
    async fn random_keys(&self, tx: &ReadTx<'_>) -> Result<Vec<Vec<String>>, Error> {
        let (table, key) = (&self.bound.table, self.bound.key()?);
        let columns: Vec<String> =
            table.key_columns(key).map(|c| format!("t.{}::text", quote_ident(&c.name))).collect();
        let wanted = WINDOWS + self.batches as usize;
        let mut percent = 100.0 * SAMPLE_ROWS / (self.plan.counts.scanned_rows.value.max(1) as f64);
        loop {
            let sql = format!(
                "select {} from {} as t tablesample pg_catalog.system ({}) order by pg_catalog.random() limit {wanted}",
                columns.join(", "),
                table.alone(),
                percent.clamp(0.0001, 100.0)
            );
            let answer = tx.query("choose random rows", &sql, vec![]).await?;
            if !answer.rows.is_empty() || percent >= 100.0 {
                return Ok(answer.rows.into_iter().map(|row| row.into_iter().flatten().collect()).collect());
            }
            percent *= 10.0;
        }
    }

    /// Counts the matches in a window after each key, and times it.
    async fn count_windows(
        &self,
        tx: &ReadTx<'_>,
        starts: &[Vec<String>],
        upper: &[String],
    ) -> Result<(Vec<Counted>, f64), Error> {
        let RunSql::Stream { window, .. } = &self.plan.sql else { return Ok((Vec::new(), 0.0)) };
        let mut windows = Vec::new();
        let (mut rows, mut took_ms) = (0, 0.0);
        for start in starts.iter().take(WINDOWS) {
            let own: Vec<String> = std::iter::once(WINDOW_ROWS.to_string())
                .chain(upper.iter().cloned())
                .chain(start.iter().cloned())
                .collect();
            let end = tx.query_job("find the end of a window", &window.after, own).await?;
            let Some(end) = end.rows.first().map(|r| r.iter().take(upper.len()).flatten().cloned().collect::<Vec<_>>())
            else {
                continue;
            };
            // An empty range takes as long to plan, and scans nothing.
            let began = Instant::now();
            self.count(tx, Some(start), start).await?;
            let empty_ms = millis(began);
            let began = Instant::now();
            let matches = self.count(tx, Some(start), &end).await?;
            took_ms += (millis(began) - empty_ms).max(0.0);
            rows += WINDOW_ROWS;
            windows.push(Counted { after: start.clone(), matches });
        }
        let scan_row_ms = if rows == 0 { 0.0 } else { took_ms / rows as f64 };
        Ok((windows, scan_row_ms))
    }

    /// A key after which about a batch of matches is left.
    async fn last(&self, tx: &ReadTx<'_>, upper: &[String]) -> Result<Option<Place>, Error> {
        let counts = &self.plan.counts;
        let density = counts.changed_rows.value.max(1) as f64 / counts.scanned_rows.value.max(1) as f64;
        let mut distance = ((self.rows as f64 / density) as i64).clamp(1, LAST_ROWS_MAX);
        for _ in 0..LAST_TRIES {
            let Some(after) = self.key_from_end(tx, distance).await? else { return Ok(None) };
            let matches = self.count(tx, Some(&after), upper).await?;
            let place = Place { name: "last", after: Some(after), to_end: true };
            if matches > self.rows * 3 / 2 {
                distance = (distance * self.rows / matches).max(1);
            } else if matches == 0 && distance < LAST_ROWS_MAX {
                distance = (distance * 10).min(LAST_ROWS_MAX);
            } else {
                return Ok((matches > 0).then_some(place));
            }
        }
        Ok(None)
    }

    /// The same where the end of the table holds no matches: walks all of them, if there is time.
    async fn last_of_matches(&self, tx: &ReadTx<'_>, upper: &[String]) -> Result<Option<Place>, Error> {
        let RunSql::Stream { bound, .. } = &self.plan.sql else { return Ok(None) };
        let skipped = self.plan.counts.changed_rows.value - self.rows;
        if skipped <= 0 {
            return Ok(None);
        }
        let own = std::iter::once(skipped.to_string()).chain(upper.iter().cloned()).collect();
        let found = match tx.attempt("find the last rows", &bound.from_start, own).await {
            Err(error) if error.is_connection() => return Err(error.into()),
            Err(_) => return Ok(None),
            Ok(found) => found,
        };
        let key = |row: &Vec<Option<String>>| row.iter().take(upper.len()).flatten().cloned().collect();
        let after = found.rows.first().map(key);
        Ok(after.map(|after| Place { name: "last", after: Some(after), to_end: false }))
    }

    /// The key of the n-th row from the end; `None` when the table is shorter.
    async fn key_from_end(&self, tx: &ReadTx<'_>, distance: i64) -> Result<Option<Vec<String>>, Error> {
        let (table, key) = (&self.bound.table, self.bound.key()?);
        let list = |suffix: &str| {
            let columns = table.key_columns(key).map(|c| format!("t.{}{suffix}", quote_ident(&c.name)));
            columns.collect::<Vec<_>>().join(", ")
        };
        let sql = format!(
            "select {} from {} as t order by {} offset $1::text::bigint limit 1",
            list("::text"),
            table.alone(),
            list(" desc")
        );
        let answer = tx.query("find the last rows", &sql, vec![distance.to_string()]).await?;
        Ok(answer.rows.into_iter().next().map(|row| row.into_iter().flatten().collect()))
    }

    /// Rows in a range of keys that the statement would change.
    pub(super) async fn count(&self, tx: &ReadTx<'_>, after: Option<&[String]>, to: &[String]) -> Result<i64, Error> {
        let empty = Key { index: String::new(), primary: false, columns: Vec::new() };
        let rewriter = self.bound.rewriter(&empty)?;
        let upper = rewriter.first_param() + 1;
        let range = Range { lower: after.map(|_| upper + to.len()), upper: Some(upper), ..Range::default() };
        let sql = rewriter.count(range)?;
        let own = std::iter::once("0")
            .chain(to.iter().map(String::as_str))
            .chain(after.unwrap_or(&[]).iter().map(String::as_str));
        let answer = tx.query_job("count matches in a range", &sql, own.map(str::to_owned).collect()).await?;
        let row = answer.rows.into_iter().next().unwrap_or_default();
        let cell = |i: usize| row.get(i).cloned().flatten().and_then(|n| n.parse().ok());
        Ok(cell(1).or(cell(0)).unwrap_or(0))
    }

    /// Rows of any kind in a range of keys; `None` if that cannot be counted in time.
    pub(super) async fn scanned(
        &self,
        tx: &ReadTx<'_>,
        after: Option<&[String]>,
        to: &[String],
    ) -> Result<Option<i64>, PgError> {
        let table = &self.bound.table;
        let Some(key) = &self.bound.key else { return Ok(None) };
        let columns: Vec<String> = table.key_columns(key).map(|c| format!("t.{}", quote_ident(&c.name))).collect();
        let values = |from: usize| {
            let values =
                table.key_columns(key).enumerate().map(|(i, c)| format!("${}::text::{}", from + i, c.base_type.sql));
            values.collect::<Vec<_>>().join(", ")
        };
        let first = self.params.len() + 1;
        let mut conditions = format!("({}) <= ({})", columns.join(", "), values(first));
        if after.is_some() {
            conditions.push_str(&format!(" and ({}) > ({})", columns.join(", "), values(first + to.len())));
        }
        let sql = format!("select count(*)::text from {} as t where {conditions}", table.alone());
        let own = to.iter().chain(after.unwrap_or(&[])).cloned().collect();
        match tx.attempt("count the rows of a range", &sql, own).await {
            Ok(answer) => answer.number().map(Some),
            Err(error) if error.is_connection() => Err(error),
            Err(_) => Ok(None),
        }
    }
}
