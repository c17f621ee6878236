//! The EXPLAIN guard: a batch must find its rows by the key's index, or each would read the whole table.

use pgmend_core::finding::Finding;
use pgmend_core::mask::Mask;
use pgmend_core::plan::RunSql;
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::Rewriter;

use super::bind::Bound;
use super::privileges::DENIED;
use crate::error::Error;

/// Below this many rows PostgreSQL rightly reads the whole table, and it does no harm.
const GUARDED_ROWS: f64 = 20_000.0;
/// Rows of the batch that is explained.
const EXPLAINED_ROWS: &str = "500";

/// EXPLAIN of the second batch, and a finding if it does not use the key's index.
pub async fn guard(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    sql: &RunSql,
    mask: &Mask,
) -> Result<(Vec<String>, Option<Finding>), Error> {
    let RunSql::Stream { bound: next, greatest_key, .. } = sql else { return Ok((Vec::new(), None)) };
    let greatest = tx.query("read the greatest key", greatest_key, vec![]).await?;
    let Some(upper) = greatest.rows.first().map(|r| r.iter().flatten().cloned().collect::<Vec<_>>()) else {
        return Ok((Vec::new(), None));
    };
    let own: Vec<String> = std::iter::once(EXPLAINED_ROWS.to_owned()).chain(upper.iter().cloned()).collect();
    let first = tx.query_job("find the first bound", &next.from_start, own.clone()).await?;
    let Some(lower) = first.rows.first().map(|r| r.iter().take(upper.len()).flatten().cloned().collect::<Vec<_>>())
    else {
        return Ok((Vec::new(), None));
    };
    let own: Vec<String> = own.into_iter().chain(lower.iter().cloned()).collect();
    let second = tx.query_job("find the second bound", &next.after, own).await?;
    let batch_upper = second.rows.first().map(|r| r.iter().take(upper.len()).flatten().cloned().collect::<Vec<_>>());
    let own: Vec<String> = std::iter::once("2".to_owned()).chain(batch_upper.unwrap_or(upper)).chain(lower).collect();
    let number = rewriter.first_param();
    let key_len = bound.key()?.columns.len();
    let range = pgmend_sql::Range {
        lower: Some(number + 1 + key_len),
        upper: Some(number + 1),
        ..pgmend_sql::Range::default()
    };
    let change = rewriter.change(range, false, pgmend_sql::Returning::None)?;
    let explained = match tx.attempt("explain a batch", &format!("explain {change}"), own).await {
        // A role that may only read gets a plan without it.
        Err(error) if error.sqlstate == DENIED => return Ok((Vec::new(), None)),
        explained => explained?,
    };
    let lines: Vec<String> = explained.rows.into_iter().filter_map(|r| r.into_iter().next().flatten()).collect();
    let index = bound.key()?.index.clone();
    let by_index = lines.iter().any(|l| l.contains("Index Cond") && l.contains('>'))
        && lines.iter().any(|l| l.contains(&index) || (!bound.table.partitions.is_empty() && l.contains("Index")));
    let large = bound.table.estimated_rows.is_none_or(|rows| rows > GUARDED_ROWS);
    let finding = (!by_index && large).then(|| {
        let message = format!(
            "a batch would not use index {}: each would read much of the table",
            bound.key.as_ref().map_or("", |k| &k.index)
        );
        let help = format!("type: analyze {}; and plan again", bound.table.name.sql());
        Finding::warning("no_index_scan", message, help)
    });
    Ok((lines.iter().map(|line| masked(line, mask)).collect(), finding))
}

/// The server prints the values of keys and parameters into the conditions: as quoted literals with a cast, numbers
/// with a fraction bare. Lines with costs hold no values.
fn masked(line: &str, mask: &Mask) -> String {
    if line.contains("(cost=") {
        return line.to_owned();
    }
    let mut shown = String::new();
    let mut rest = line;
    while let Some(open) = rest.find('\'') {
        let (before, quoted) = rest.split_at(open);
        let length = literal_length(quoted);
        let (literal, after) = quoted.split_at(length);
        let value = literal.trim_matches('\'').replace("''", "'");
        let cast = after.strip_prefix("::").unwrap_or_default();
        let end = cast.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(cast.len());
        let told = if mask.constants.contains(&value) { value } else { mask.show_param("", &cast[..end], &value) };
        shown.push_str(&format!("{}'{}'", without_fractions(before, mask), told.replace('\'', "''")));
        rest = after;
    }
    shown.push_str(&without_fractions(rest, mask));
    shown
}

fn without_fractions(text: &str, mask: &Mask) -> String {
    let digit = |c: char| c.is_ascii_digit() || c == '.';
    let mut shown = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(begin);
        let (number, after) = number.split_at(number.find(|c| !digit(c)).unwrap_or(number.len()));
        let plain = !number.contains('.') || mask.show_all || mask.constants.contains(number);
        shown.push_str(before);
        shown.push_str(&if plain { number.to_owned() } else { mask.conceal(number) });
        rest = after;
    }
    shown.push_str(rest);
    shown
}

/// Bytes of the literal that `quoted` begins with, its quotes included; a doubled quote is part of it.
fn literal_length(quoted: &str) -> usize {
    let mut marks = quoted.match_indices('\'').map(|(at, _)| at).skip(1).peekable();
    while let Some(at) = marks.next() {
        if marks.next_if(|next| *next == at + 1).is_none() {
            return at + 1;
        }
    }
    quoted.len()
}

#[cfg(test)]
mod tests {
    use pgmend_core::mask::{MASKED, Mask};

    use super::masked;

    #[test]
    fn values_in_conditions_are_masked_unless_they_are_constants_numbers_or_times() {
        let mask = Mask { constants: ["memeber".to_owned()].into(), ..Mask::default() };
        for (line, shown) in [
            ("Filter: (role = 'memeber'::text)", "Filter: (role = 'memeber'::text)".to_owned()),
            ("Index Cond: (email > 'o''brien@x'::text)", format!("Index Cond: (email > '{MASKED}'::text)")),
            (
                "Filter: (a = '' AND d < '2026-01-01'::date)",
                format!("Filter: (a = '{MASKED}' AND d < '2026-01-01'::date)"),
            ),
            ("Index Cond: (id > 500)", "Index Cond: (id > 500)".to_owned()),
            ("Filter: (amount < 918.5)", format!("Filter: (amount < {MASKED})")),
            (
                "Seq Scan on t  (cost=0.00..8.50 rows=1 width=8)",
                "Seq Scan on t  (cost=0.00..8.50 rows=1 width=8)".to_owned(),
            ),
            ("Filter: (x = 'open", format!("Filter: (x = '{MASKED}'")),
        ] {
            assert_eq!(masked(line, &mask), shown);
        }
    }
}
