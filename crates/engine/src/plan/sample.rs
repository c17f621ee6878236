//! Samples: real rows before and after, and from → to counts, masked unless plain.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use pgmend_core::mask::{MASKED, Mask, TokenKey, ValueKind};
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
/// Time for all counts of from → to, of which there is one for each assigned column: a statement may assign hundreds.
const TRANSITIONS_BUDGET: Duration = Duration::from_secs(30);

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
    let telling = Telling::new(bound, &columns, after, mask)?;
    let changed = text_of(bound, &rewriter.matched(&spec)?, columns.len(), after, "")?;
    let looked_at = read(tx, &changed, LOOKED_AT_ROWS).await?;
    let mut samples = telling.samples(&looked_at, CHANGED_SAMPLES);
    // Where none is already right, looking for one would read every row in vain.
    let none_right = counts.already_right_rows.value == 0 && counts.already_right_rows.certainty == Certainty::Exact;
    if after && !none_right {
        let spec = Matched { skip_unchanged: false, order_by_key: false, limit: None, ..spec };
        let side =
            |kind: char| (1..=columns.len()).map(|i| format!("m.pgmend_{kind}{i}")).collect::<Vec<_>>().join(", ");
        let same =
            format!(" where row({})::record *= row({})::record limit ${number}::text::bigint", side('b'), side('a'));
        let right = text_of(bound, &rewriter.matched(&spec)?, columns.len(), true, &same)?;
        let rows = read(tx, &right, 1).await?;
        samples.extend(rows.iter().map(|row| Sample { already_right: true, ..telling.sample(row) }));
    }
    Ok(samples)
}

/// A row as the server gives it: the key, the values before, and those after where they are computed.
type Row = Vec<Option<String>>;

/// What happens to one column of a row: its place, and its values before and after.
type Cell<'r> = (usize, Option<&'r str>, Option<&'r str>);

/// How rows are told. Of the many that are looked at only the chosen ones are masked: a token is dear, and a table may have
/// 1,600 columns.
struct Telling<'a> {
    key: Vec<(&'a str, ValueKind)>,
    columns: Vec<(&'a str, ValueKind)>,
    after: bool,
    mask: &'a Mask,
}

impl<'a> Telling<'a> {
    fn new(bound: &'a Bound, columns: &'a [String], after: bool, mask: &'a Mask) -> Result<Self, Error> {
        let known: HashMap<&str, &Column> = bound.table.columns.iter().map(|c| (c.name.as_str(), c)).collect();
        let key: Vec<_> =
            bound.table.key_columns(bound.key()?).map(|c| (c.name.as_str(), value_kind(c, true))).collect();
        let is_key = |name: &str| key.iter().any(|(key, _)| *key == name);
        let kind = |name: &str| known.get(name).map_or(ValueKind::Sensitive, |c| value_kind(c, is_key(name)));
        let columns = columns.iter().map(|name| (name.as_str(), kind(name))).collect();
        Ok(Self { key, columns, after, mask })
    }

    /// The columns that change, or all of them where values after are not computed.
    fn cells<'r>(&self, row: &'r [Option<String>]) -> impl Iterator<Item = Cell<'r>> {
        let values = row.get(self.key.len()..).unwrap_or_default();
        let (before, after) = values.split_at_checked(self.columns.len()).unwrap_or_default();
        let computed = self.after;
        let cell = move |(i, value): (usize, &'r Option<String>)| {
            let later = if computed { after.get(i).and_then(Option::as_deref) } else { None };
            (i, value.as_deref(), later)
        };
        before.iter().enumerate().map(cell).filter(move |(_, before, after)| !computed || before != after)
    }

    /// What happens to a row, whatever its masked values are.
    fn kind_of<'r>(&self, row: &'r [Option<String>]) -> Vec<Cell<'r>> {
        let alike = |i: usize, value: Option<&'r str>| {
            let (name, kind) = self.columns[i];
            value.map(|value| if self.mask.hides(name, kind, value) { MASKED } else { value })
        };
        self.cells(row).map(|(i, before, after)| (i, alike(i, before), alike(i, after))).collect()
    }

    /// A row as it may be shown.
    fn sample(&self, row: &[Option<String>]) -> Sample {
        let show = |(name, kind): (&str, ValueKind), value: Option<&str>| self.mask.show(name, kind, value);
        let key = self.key.iter().zip(row);
        let cell = |(i, before, after): Cell<'_>| {
            let column = self.columns[i];
            (column.0.to_owned(), show(column, before), show(column, after))
        };
        Sample {
            key: key.map(|(key, value)| (key.0.to_owned(), show(*key, value.as_deref()))).collect(),
            columns: self.cells(row).map(cell).collect(),
            already_right: false,
        }
    }

    /// Of many rows in the order of their keys, some few that show each kind of change.
    fn samples(&self, looked_at: &[Row], most: usize) -> Vec<Sample> {
        let mut kinds = BTreeSet::new();
        let (mut first, mut rest): (Vec<_>, Vec<_>) =
            looked_at.iter().enumerate().partition(|(_, row)| kinds.insert(self.kind_of(row)));
        first.truncate(most);
        rest.truncate(most - first.len());
        let mut chosen: Vec<(usize, &Row)> = first.into_iter().chain(rest).collect();
        chosen.sort_by_key(|(place, _)| *place);
        chosen.into_iter().map(|(_, row)| self.sample(row)).collect()
    }
}

fn text_of(bound: &Bound, matched: &str, columns: usize, after: bool, tail: &str) -> Result<String, Error> {
    let keys = bound.key()?.columns.len();
    let side = |kind: char, n: usize| (1..=n).map(move |i| format!("m.pgmend_{kind}{i}::text"));
    let list: Vec<String> =
        side('k', keys).chain(side('b', columns)).chain(side('a', if after { columns } else { 0 })).collect();
    Ok(format!("select {} from ({matched}) as m{tail}", list.join(", ")))
}

/// At most so many rows, or none where they cannot be read in time.
async fn read(tx: &ReadTx<'_>, sql: &str, limit: u32) -> Result<Vec<Row>, Error> {
    tx.limit_to(SAMPLE_BUDGET_MS).await?;
    let answer = tx.attempt("read samples", sql, vec![limit.to_string()]).await;
    tx.limit_to(0).await?;
    Ok(answer.map(|answer| answer.rows).unwrap_or_default())
}

/// From → to counts of the assigned columns that have few values, as far as there is time.
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
    let begun = Instant::now();
    for (i, name) in columns.iter().enumerate().take_while(|_| begun.elapsed() < TRANSITIONS_BUDGET) {
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

    /// Rows of one column, by key and value before.
    fn rows(values: impl IntoIterator<Item = (u32, &'static str)>) -> Vec<Row> {
        let row = |(key, from): (u32, &str)| vec![Some(key.to_string()), Some(from.to_owned()), Some("x".to_owned())];
        values.into_iter().map(row).collect()
    }

    fn telling(mask: &Mask) -> Telling<'_> {
        let (key, columns) = (vec![("id", ValueKind::Plain)], vec![("role", ValueKind::Sensitive)]);
        Telling { key, columns, after: true, mask }
    }

    fn keys(samples: Vec<Sample>) -> Vec<String> {
        samples.into_iter().map(|s| s.key[0].1.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn samples_show_each_kind_of_change_before_a_second_of_the_same() {
        let mask = Mask { show_all: true, ..Mask::default() };
        let looked_at = rows((1..=200).map(|key| (key, if key == 150 { "rare" } else { "usual" })));
        assert_eq!(keys(telling(&mask).samples(&looked_at, 3)), ["1", "2", "150"]);
    }

    #[test]
    fn masked_values_are_of_one_kind_and_a_row_that_stays_as_it_is_shows_no_column() {
        let mask = Mask { constants: ["rare".to_owned()].into(), ..Mask::default() };
        let looked_at = rows([(1, "a"), (2, "b"), (3, "c"), (4, "rare"), (5, "x")]);
        let samples = telling(&mask).samples(&looked_at, 3);
        assert_eq!(samples[0].columns, [("role".to_owned(), Some(MASKED.to_owned()), Some(MASKED.to_owned()))]);
        assert_eq!(samples[1].columns[0].1.as_deref(), Some("rare"));
        assert_eq!(samples[2].columns, []);
        assert_eq!(keys(samples), ["1", "4", "5"]);
    }
}
