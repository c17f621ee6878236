//! Samples: real rows before and after, and from → to counts, masked unless plain.

use std::collections::BTreeSet;

use pgmend_core::mask::{MASKED, Mask, TokenKey, ValueKind, is_masked};
use pgmend_core::plan::{Certainty, ChangeSet, Counts, ImageColumn, Sample, Transition};
use pgmend_core::table::{Column, quote_ident};
use pgmend_pg::readtx::ReadTx;
use pgmend_sql::{Join, Kind, Matched, Rewriter};

use super::bind::Bound;
use crate::error::Error;

/// Rows shown that will change.
const CHANGED_SAMPLES: usize = 5;
/// From → to pairs shown for one column; more of them mean that it has many values.
const TRANSITIONS_MAX: usize = 20;
/// Time for each of these queries: they are there to help, not to hold the plan up.
pub(super) const SAMPLE_BUDGET_MS: u64 = 10_000;

/// Whether a column's values are plain by themselves: booleans, enums, integer and uuid keys.
pub fn value_kind(column: &Column, key: bool) -> ValueKind {
    let integer_or_uuid = matches!(column.base_type.sql.as_str(), "smallint" | "integer" | "bigint" | "uuid");
    match column.base_type.category {
        'B' | 'E' => ValueKind::Plain,
        _ if key && integer_or_uuid => ValueKind::Plain,
        _ => ValueKind::Sensitive,
    }
}

/// What may be shown of this job's rows. Columns that refer to other tables are keys there.
pub fn mask(
    bound: &Bound,
    plain: &[String],
    constants: BTreeSet<String>,
    show_all: bool,
    key: Option<TokenKey>,
) -> Mask {
    let keys = bound.table.references.iter().flat_map(|fk| fk.from_columns.clone());
    let keys = keys.filter(|name| bound.table.column(name).is_some_and(|c| value_kind(c, true) == ValueKind::Plain));
    Mask { show_all, plain: plain.iter().cloned().chain(keys).collect(), constants, key }
}

/// The values of a key, as they may be shown.
pub fn shown_key(bound: &Bound, mask: &Mask, values: &[Option<String>]) -> Result<String, Error> {
    let columns = bound.table.key_columns(bound.key()?);
    let shown = columns.zip(values).map(|(column, value)| {
        mask.show(&column.name, value_kind(column, true), value.as_deref()).unwrap_or_else(|| "NULL".to_owned())
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

/// Rows read so that those shown can differ in what happens to them.
const LOOKED_AT_ROWS: u32 = 200;

/// Rows that will change, and one that is already right, if the counts know of any.
pub async fn samples(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    counts: &Counts,
    mask: &Mask,
) -> Result<Vec<Sample>, Error> {
    let number = rewriter.first_param();
    let update = bound.statement.kind() == Kind::Update;
    let after = update && rewriter.computable_after();
    let columns: Vec<String> = match (update, after) {
        (true, true) => rewriter.after_columns(),
        (true, false) => bound.statement.assigned(),
        (false, _) => bound.table.columns.iter().map(|c| c.name.clone()).collect(),
    };
    let join = if after { Join::All } else { Join::Exists };
    let spec = Matched {
        before: &columns,
        after,
        join,
        skip_unchanged: after,
        order_by_key: true,
        limit: Some(number),
        ..Matched::default()
    };
    let mut samples = Vec::new();
    let changed = text_of(bound, &rewriter.matched(&spec)?, columns.len(), after, "")?;
    let looked_at = read(tx, bound, &changed, &columns, after, mask, LOOKED_AT_ROWS).await?;
    samples.extend(telling(looked_at, CHANGED_SAMPLES));
    // Where none is already right, looking for one would read every row in vain.
    let none_right = counts.already_right_rows.value == 0 && counts.already_right_rows.certainty == Certainty::Exact;
    if after && !none_right {
        let spec = Matched { skip_unchanged: false, order_by_key: false, limit: None, ..spec };
        let side =
            |kind: char| (1..=columns.len()).map(|i| format!("m.pgmend_{kind}{i}")).collect::<Vec<_>>().join(", ");
        let same =
            format!(" where row({})::record *= row({})::record limit ${number}::text::bigint", side('b'), side('a'));
        let right = text_of(bound, &rewriter.matched(&spec)?, columns.len(), true, &same)?;
        let rows = read(tx, bound, &right, &columns, true, mask, 1).await?;
        samples.extend(rows.into_iter().map(|s| Sample { already_right: true, ..s }));
    }
    Ok(samples)
}

/// Of many rows in the order of their keys, some few that show each kind of change.
fn telling(looked_at: Vec<Sample>, most: usize) -> Vec<Sample> {
    let mut kinds = BTreeSet::new();
    let (mut first, mut rest): (Vec<_>, Vec<_>) =
        looked_at.into_iter().enumerate().partition(|(_, sample)| kinds.insert(kind_of(sample)));
    first.truncate(most);
    rest.truncate(most - first.len());
    let mut chosen: Vec<(usize, Sample)> = first.into_iter().chain(rest).collect();
    chosen.sort_by_key(|(place, _)| *place);
    chosen.into_iter().map(|(_, sample)| sample).collect()
}

/// What happens to a row, whatever its masked values are.
fn kind_of(sample: &Sample) -> Vec<(String, Option<String>, Option<String>)> {
    let alike = |value: &Option<String>| value.clone().map(|v| if is_masked(&v) { MASKED.to_owned() } else { v });
    sample.columns.iter().map(|(name, before, after)| (name.clone(), alike(before), alike(after))).collect()
}

fn text_of(bound: &Bound, matched: &str, columns: usize, after: bool, tail: &str) -> Result<String, Error> {
    let keys = bound.key()?.columns.len();
    let side = |kind: char, n: usize| (1..=n).map(move |i| format!("m.pgmend_{kind}{i}::text"));
    let list: Vec<String> =
        side('k', keys).chain(side('b', columns)).chain(side('a', if after { columns } else { 0 })).collect();
    Ok(format!("select {} from ({matched}) as m{tail}", list.join(", ")))
}

async fn read(
    tx: &ReadTx<'_>,
    bound: &Bound,
    sql: &str,
    columns: &[String],
    after: bool,
    mask: &Mask,
    limit: u32,
) -> Result<Vec<Sample>, Error> {
    tx.limit_to(SAMPLE_BUDGET_MS).await?;
    let answer = tx.attempt("read samples", sql, vec![limit.to_string()]).await;
    tx.limit_to(0).await?;
    let Ok(answer) = answer else { return Ok(Vec::new()) };
    let key: Vec<&Column> = bound.table.key_columns(bound.key()?).collect();
    let is_key = |name: &str| key.iter().any(|k| k.name == name);
    let show = |name: &str, value: &Option<String>| {
        let kind = bound.table.column(name).map_or(ValueKind::Sensitive, |c| value_kind(c, is_key(name)));
        mask.show(name, kind, value.as_deref())
    };
    let sample = |row: &Vec<Option<String>>| {
        let (keys, values) = row.split_at(key.len());
        let (before, after_values) = values.split_at(columns.len());
        let cell = |i: usize| {
            let later = after.then(|| after_values.get(i).cloned().flatten()).flatten();
            (columns[i].clone(), show(&columns[i], &before[i]), show(&columns[i], &later))
        };
        let differs = |i: &usize| !after || after_values.get(*i) != before.get(*i);
        Sample {
            key: key.iter().zip(keys).map(|(c, v)| (c.name.clone(), show(&c.name, v))).collect(),
            columns: (0..columns.len()).filter(differs).map(cell).collect(),
            already_right: false,
        }
    };
    Ok(answer.rows.iter().map(sample).collect())
}

/// From → to counts of the assigned columns that have few values.
pub async fn transitions(
    tx: &ReadTx<'_>,
    bound: &Bound,
    rewriter: &Rewriter<'_>,
    mask: &Mask,
) -> Result<Vec<Transition>, Error> {
    let mut transitions = Vec::new();
    if bound.statement.kind() != Kind::Update || !rewriter.computable_after() {
        return Ok(transitions);
    }
    let columns = rewriter.after_columns();
    let spec = Matched {
        keys: false,
        before: &columns,
        after: true,
        join: Join::All,
        skip_unchanged: true,
        ..Matched::default()
    };
    let matched = rewriter.matched(&spec)?;
    for (i, name) in columns.iter().enumerate() {
        let sql = format!(
            "select m.pgmend_b{0}::text, m.pgmend_a{0}::text, count(*)::text from ({matched}) as m \
             where row(m.pgmend_b{0})::record *<> row(m.pgmend_a{0})::record group by 1, 2 \
             order by count(*) desc, 1, 2 limit {1}",
            i + 1,
            TRANSITIONS_MAX + 1
        );
        tx.limit_to(SAMPLE_BUDGET_MS).await?;
        let answer = tx.attempt("count from → to", &sql, vec![]).await;
        tx.limit_to(0).await?;
        let Ok(answer) = answer else { continue };
        if answer.rows.len() > TRANSITIONS_MAX {
            continue;
        }
        let kind = bound.table.column(name).map_or(ValueKind::Sensitive, |c| value_kind(c, false));
        for row in answer.rows.iter().filter(|r| r.len() == 3) {
            let (from, to) = (mask.show(name, kind, row[0].as_deref()), mask.show(name, kind, row[1].as_deref()));
            let rows = row[2].as_deref().and_then(|n| n.parse().ok()).unwrap_or(0);
            // Values whose tokens are the same are counted together.
            match transitions.iter_mut().find(|t: &&mut Transition| t.column == *name && t.from == from && t.to == to) {
                Some(known) => known.rows += rows,
                None => transitions.push(Transition { column: name.clone(), from, to, rows }),
            }
        }
    }
    Ok(transitions)
}

/// The first rows that an insert proposes and that are not `present`, as the change set `s` has them.
pub async fn proposals(
    tx: &ReadTx<'_>,
    bound: &Bound,
    mask: &Mask,
    change_set: &ChangeSet,
    present: Option<&str>,
) -> Result<Vec<Sample>, Error> {
    let columns: Vec<&ImageColumn> = change_set.layout.after.iter().collect();
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<String> = columns.iter().map(|c| format!("s.{}::text", quote_ident(&c.image_column))).collect();
    let sql = format!(
        "select {} from {} as s where not ({}) order by s.n limit {CHANGED_SAMPLES}",
        list.join(", "),
        change_set.relation.sql(),
        present.unwrap_or("false")
    );
    let answer = tx.query("read samples", &sql, vec![]).await?;
    let cell = |(column, value): (&&ImageColumn, &Option<String>)| {
        let key = bound.key.as_ref().is_some_and(|k| bound.table.key_columns(k).any(|c| c.name == column.column));
        let kind = bound.table.column(&column.column).map_or(ValueKind::Sensitive, |c| value_kind(c, key));
        (column.column.clone(), None, mask.show(&column.column, kind, value.as_deref()))
    };
    let sample = |row: &Vec<Option<String>>| Sample {
        key: Vec::new(),
        columns: columns.iter().zip(row).map(cell).collect(),
        already_right: false,
    };
    Ok(answer.rows.iter().map(sample).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(key: u32, from: &str) -> Sample {
        let columns = vec![("role".to_owned(), Some(from.to_owned()), Some("x".to_owned()))];
        Sample { key: vec![("id".to_owned(), Some(key.to_string()))], columns, already_right: false }
    }

    #[test]
    fn samples_show_each_kind_of_change_before_a_second_of_the_same() {
        let looked_at = (1..=200).map(|key| sample(key, if key == 150 { "rare" } else { "usual" })).collect();
        let keys: Vec<_> = telling(looked_at, 3).into_iter().map(|s| s.key[0].1.clone().unwrap_or_default()).collect();
        assert_eq!(keys, ["1", "2", "150"]);
    }
}
