//! What the control schema tells about runs for people: pace, lease, blockers, images of one row, and the
//! tables that nobody needs any more.

use pgmend_core::id::RunId;
use pgmend_core::mask::MASKED;
use pgmend_core::plan::{ImageColumn, ImageLayout};
use pgmend_core::table::{Column, RelationName, quote_ident};
use serde::Deserialize;

use crate::error::PgError;
use crate::images::ImageTable;
use crate::readtx::ReadTx;
use crate::session::{Session, Statement, array_literal};
use crate::store::{LastCheckpoint, from_json, number, text};

/// Batches that the pace of a run under way is taken over.
const RECENT_BATCHES: u32 = 20;

const PRUNABLE: &str = include_str!("../sql/store/prunable.sql");
const PACE: &str = include_str!("../sql/store/pace.sql");
const BLOCKERS: &str = include_str!("../sql/store/blockers.sql");

/// The lease of a run that somebody drives or drove.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Tenure {
    /// Who, as the process said of itself.
    pub holder: String,
    /// Seconds left; negative once it has run out.
    pub left_s: f64,
    /// Seconds since the last heartbeat.
    pub silent_s: f64,
    /// Seconds of a whole lease.
    pub length_s: f64,
}

/// A session that keeps a worker waiting for a lock.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Blocker {
    /// Its process id.
    pub pid: i32,
    /// Its user.
    pub user: String,
    /// Its `application_name`.
    pub application: String,
    /// `active`, `idle in transaction` …
    pub state: String,
    /// Seconds since its transaction began, where this role may know.
    pub open_s: Option<f64>,
    /// Its last statement, where this role may know.
    pub statement: Option<Sent>,
    /// When its process was started, which tells it from a later one of the same pid; where this role may know.
    #[serde(default)]
    pub backend_start: Option<String>,
}

/// A statement that somebody else sent: it may hold values, and is shown to nobody as it is.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Sent(String);

impl Sent {
    /// The text, to be reduced to its shape.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASKED)
    }
}

/// How fast batches went.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Pace {
    /// Batches.
    pub batches: i64,
    /// Milliseconds of the median batch.
    pub p50_ms: f64,
    /// Milliseconds that nine of ten batches stayed below.
    pub p90_ms: f64,
    /// Milliseconds of the longest batch.
    pub max_ms: f64,
    /// Rows of the largest batch.
    pub rows_max: i64,
    /// Rows per second of execution over the first tenth of the batches.
    pub first_rows_per_s: Option<f64>,
    /// The same over the last tenth.
    pub last_rows_per_s: Option<f64>,
}

/// A row in a table of images or a change set.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRow {
    /// Its batch in a table of images, its ordinal in a change set.
    pub place: i64,
    /// `U`, `D` or `I`.
    pub op: char,
    /// Values before, in the layout's order.
    pub before: Vec<Option<String>>,
    /// Values after, in the layout's order.
    pub after: Vec<Option<String>>,
}

/// A table of images or a change set past its retention.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OldTable {
    /// The table's name in the control schema.
    pub name: String,
    /// The job.
    pub job: String,
    /// The run that it belongs to; `None` for the change set of a plan that was never run.
    pub run_id: Option<RunId>,
    /// `run 1a2b…` or `plan 1a2b…, never run`.
    pub belongs_to: String,
    /// Bytes on disk.
    pub size_bytes: i64,
    /// Since when it may go.
    pub since: String,
}

impl Session {
    /// The last checkpoints of these runs, in one go. A run without a batch is left out.
    pub async fn last_checkpoints(&self, runs: &[RunId]) -> Result<Vec<(RunId, LastCheckpoint)>, PgError> {
        let sql = "select r.run_id::text, sum(b.batch_no)::text, sum(b.changed_total)::text, sum(b.skipped_total)::text, \
                   sum(b.conflict_total)::text, sum(b.dead_total)::text from unnest($1::uuid[]) as r (run_id) \
                   cross join lateral (select 0 as partition_no union all \
                   select p.partition_no from pgmend.partition p where p.run_id = r.run_id) as p \
                   cross join lateral (select b.batch_no, b.changed_total, b.skipped_total, b.conflict_total, b.dead_total \
                   from pgmend.batch b where b.run_id = r.run_id \
                   and b.partition_no = p.partition_no order by b.batch_no desc limit 1) as b group by r.run_id";
        let ids: Vec<String> = runs.iter().map(ToString::to_string).collect();
        let answer = self.run(&Statement::new("read the checkpoints", sql, vec![array_literal(&ids)])).await?;
        let checkpoint = |row: &Vec<Option<String>>| {
            let run = text(row, 0)?.parse().map_err(|_| PgError::corrupt("a run's id is no uuid"))?;
            let at = LastCheckpoint {
                pass: 0,
                batch_no: number(row, 1)?,
                changed_rows: number(row, 2)?,
                skipped_rows: number(row, 3)?,
                conflict_rows: number(row, 4)?,
                dead_rows: number(row, 5)?,
                ..LastCheckpoint::default()
            };
            Ok((run, at))
        };
        answer.rows.iter().map(checkpoint).collect()
    }

    /// Who drives a run, the one with most time left; `None` when the leases were given back or never taken.
    pub async fn tenure(&self, run: RunId) -> Result<Option<Tenure>, PgError> {
        Ok(self.tenures(run).await?.into_iter().next())
    }

    /// Everybody who holds a lease of a run, also one that has run out; those with most time left first.
    /// Lock:  none. Index: `lease_pkey`.
    pub async fn tenures(&self, run: RunId) -> Result<Vec<Tenure>, PgError> {
        let sql = "select json_build_object('holder', holder, \
                   'left_s', extract(epoch from expires_at - clock_timestamp()), \
                   'silent_s', extract(epoch from clock_timestamp() - heartbeat_at), \
                   'length_s', extract(epoch from expires_at - heartbeat_at))::text from pgmend.lease \
                   where run_id = $1::uuid and expires_at > '-infinity' order by expires_at desc limit 64";
        let answer = self.run(&Statement::new("read the leases", sql, vec![run.to_string()])).await?;
        answer.rows.iter().map(|row| from_json(row, 0)).collect()
    }

    /// Rows per second over the last batches, waits included, and seconds since the last one began.
    pub async fn recent_pace(&self, run: RunId) -> Result<Option<(f64, f64)>, PgError> {
        let sql = format!(
            "select (case when count(*) > 1 and max(begun_at) > min(begun_at) \
             then sum(rows) filter (where not newest) / extract(epoch from max(begun_at) - min(begun_at)) \
             else sum(rows) / greatest(max(took_ms) / 1000, 0.001) end)::float8::text, extract(epoch from clock_timestamp() - max(begun_at))::text \
             from (select b.begun_at, b.took_ms, b.changed_rows + b.skipped_rows as rows, \
             row_number() over (order by b.begun_at desc) = 1 as newest from (select 0 as partition_no union all select p.partition_no from pgmend.partition p \
             where p.run_id = $1::uuid) as p cross join lateral (select b.changed_rows, b.skipped_rows, b.begun_at, b.took_ms from pgmend.batch b where b.run_id = $1::uuid \
             and b.partition_no = p.partition_no order by b.batch_no desc limit {RECENT_BATCHES}) as b \
             order by b.begun_at desc limit {RECENT_BATCHES}) as recent having count(*) > 0"
        );
        let answer = self.run(&Statement::new("read the last batches", sql, vec![run.to_string()])).await?;
        let Some(row) = answer.rows.first() else { return Ok(None) };
        let float = |at| text(row, at)?.parse::<f64>().map_err(|_| PgError::corrupt("a number that does not read"));
        Ok(Some((float(0)?, float(1)?)))
    }

    /// How fast the batches of a run went; `None` before the first one.
    pub async fn pace(&self, run: RunId) -> Result<Option<Pace>, PgError> {
        let answer = self.run(&Statement::new("read the batches", PACE, vec![run.to_string()])).await?;
        answer.rows.first().map(|row| from_json(row, 0)).transpose()
    }

    /// Sessions that keep a pgmend of this database waiting for a lock while it works on the table.
    pub async fn blockers(&self, target_oid: u32) -> Result<Vec<Blocker>, PgError> {
        let answer = self.run(&Statement::new("look for blockers", BLOCKERS, vec![target_oid.to_string()])).await?;
        answer.rows.iter().map(|row| from_json(row, 0)).collect()
    }

    /// Bytes of a table of the control schema; `None` when it is gone.
    pub async fn image_bytes(&self, name: &str) -> Result<Option<i64>, PgError> {
        let sql = "select pg_total_relation_size(to_regclass('pgmend.' || quote_ident($1)))::text";
        let answer = self.run(&Statement::new("measure a table of images", sql, vec![name.to_owned()])).await?;
        Ok(answer.scalar().and_then(|bytes| bytes.parse().ok()))
    }

    /// When the batch of a row began: of a table of images, by the batch's number; of a change set, by the row's
    /// ordinal, `None` when no batch has applied it.
    pub async fn batch_begun_at(&self, run: RunId, kind: ImageTable, place: i64) -> Result<Option<String>, PgError> {
        let at = match kind {
            ImageTable::Images => {
                "select b.begun_at from pgmend.batch as b where b.run_id = $1::uuid \
                 and b.partition_no = $2::bigint / 1000000000000 and b.batch_no = $2::bigint % 1000000000000"
            }
            ImageTable::ChangeSet => "select pgmend.ordinal_changed_at($1::uuid, $2::bigint)",
        };
        let sql = format!("select to_char(({at}) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
        let params = vec![run.to_string(), place.to_string()];
        Ok(self.run(&Statement::new("read a batch", sql, params)).await?.scalar().map(str::to_owned))
    }

    /// Runs with pruned images that touched the key of this digest, and when. Rows of a change set that were
    /// conflicts are left out, as far as their key reads as `key`.
    pub async fn runs_touching(
        &self,
        target_oid: u32,
        digest: &str,
        key: &[String],
    ) -> Result<Vec<(RunId, String)>, PgError> {
        let sql = "select t.run_id::text, to_char(t.touched_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
                   from pgmend.runs_touching($1::oid, decode($2, 'hex'), $3::text[]) as t";
        let params = vec![target_oid.to_string(), digest.to_owned(), array_literal(key)];
        let answer = self.run(&Statement::new("look the key up", sql, params)).await?;
        let touch = |row: &Vec<Option<String>>| {
            let run = text(row, 0)?.parse().map_err(|_| PgError::corrupt("a run's id is no uuid"))?;
            Ok((run, text(row, 1)?))
        };
        answer.rows.iter().map(touch).collect()
    }

    /// Tables of images and change sets that are past their retention, oldest first: of ended runs without an
    /// unfinished undo, and of plans that expired unused.
    pub async fn old_tables(&self, days: u32) -> Result<Vec<OldTable>, PgError> {
        let sql = format!(
            "select json_build_object('name', old.name, 'job', old.job, 'run_id', old.run_id, 'belongs_to', old.belongs_to, \
             'size_bytes', pg_total_relation_size(to_regclass('pgmend.' || quote_ident(old.name))), \
             'since', to_char(old.since at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))::text \
             from ({PRUNABLE}) as old order by old.since, old.name"
        );
        let answer = self.run(&Statement::new("look for old images", sql, vec![days.to_string()])).await?;
        answer.rows.iter().map(|row| from_json(row, 0)).collect()
    }

    /// Drops one of them, if it still may go, and tells how many keys were saved; `None` when it stays.
    pub async fn drop_old_table(&self, name: &str, days: u32) -> Result<Option<i64>, PgError> {
        // The same conditions as the list's, checked again in the statement that drops.
        let sql = format!(
            "select pgmend.prune_image_table(old.name, old.run_id, old.target_oid)::text from ({PRUNABLE}) as old where old.name = $2"
        );
        let answer = self.run(&Statement::new("drop old images", sql, vec![days.to_string(), name.to_owned()])).await?;
        answer
            .scalar()
            .map(|keys| keys.parse().map_err(|_| PgError::corrupt("a number that does not read")))
            .transpose()
    }
}

impl ReadTx<'_> {
    /// The rows of a table of images whose key was or became this one; `None` when the layout lacks a column of
    /// the key.
    pub async fn images_of_key(
        &self,
        kind: ImageTable,
        name: &str,
        layout: &ImageLayout,
        key: &[&Column],
        values: &[String],
    ) -> Result<Option<Vec<ImageRow>>, PgError> {
        let Some(matching) = matching_key(layout, key) else { return Ok(None) };
        let place = kind.place();
        let cells =
            layout.before.iter().chain(&layout.after).map(|c| format!(", i.{}::text", quote_ident(&c.image_column)));
        let sql = format!(
            "select i.{place}::text, i.op::text{} from {} as i where {matching} order by 1",
            cells.collect::<String>(),
            RelationName::new("pgmend", name).sql()
        );
        let answer = self.query("read the images of a row", &sql, values.to_vec()).await?;
        let image = |row: &Vec<Option<String>>| {
            let cells = row.get(2..).unwrap_or(&[]);
            let (before, after) = cells.split_at(layout.before.len().min(cells.len()));
            let op = text(row, 1)?.chars().next().unwrap_or('U');
            Ok(ImageRow { place: number(row, 0)?, op, before: before.to_vec(), after: after.to_vec() })
        };
        answer.rows.iter().map(image).collect::<Result<_, _>>().map(Some)
    }

    /// A key's values as the server prints them, in the date style that any session reads back. The transaction outlives
    /// values that are none of these types.
    pub async fn canonical_key(&self, types: &[String], values: &[String]) -> Result<Vec<String>, PgError> {
        let cell = |(i, type_sql): (usize, &String)| canonical(&format!("${}::text::{type_sql}", i + 1), type_sql);
        let cells: Vec<String> = types.iter().enumerate().map(cell).collect();
        let answer = self.attempt_own("read the key", &format!("select {}", cells.join(", ")), values.to_vec()).await?;
        Ok(answer.rows.into_iter().flatten().flatten().collect())
    }

    /// Other columns of the row with this key as it is now, printed like [`Self::canonical_key`]; `None` when there is no
    /// such row, or this role may not read it.
    pub async fn columns_of_row(
        &self,
        table: &RelationName,
        key: &[&Column],
        values: &[String],
        wanted: &[&Column],
    ) -> Result<Option<Vec<String>>, PgError> {
        let cells = wanted.iter().map(|c| canonical(&format!("t.{}", quote_ident(&c.name)), &c.base_type.sql));
        let same = key.iter().enumerate();
        let same = same.map(|(i, c)| format!("t.{} = ${}::text::{}", quote_ident(&c.name), i + 1, c.base_type.sql));
        let sql = format!(
            "select {} from {} as t where {}",
            cells.collect::<Vec<_>>().join(", "),
            table.sql(),
            same.collect::<Vec<_>>().join(" and ")
        );
        match self.attempt_own("look for the row", &sql, values.to_vec()).await {
            Ok(answer) => Ok(answer.rows.into_iter().next().and_then(|row| row.into_iter().collect())),
            Err(error) if error.is_connection() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The digest under which `prune` saved a key. The transaction's settings must be those of
    /// `pgmend.prune_image_table`.
    pub async fn key_digest(&self, types: &[String], values: &[String]) -> Result<String, PgError> {
        let cells: Vec<String> =
            types.iter().enumerate().map(|(i, t)| format!("${}::text::{t}::text", i + 1)).collect();
        let sql = format!("select encode(sha256(convert_to(array[{}]::text, 'UTF8')), 'hex')", cells.join(", "));
        let answer = self.query("digest the key", &sql, values.to_vec()).await?;
        answer.scalar().map(str::to_owned).ok_or_else(|| PgError::corrupt("a key without a digest"))
    }

    /// The root of the partition tree that a table belongs to; itself when it is no partition.
    pub async fn partition_root(&self, oid: u32) -> Result<u32, PgError> {
        let sql = "select coalesce(pg_partition_root($1::oid::regclass)::oid, $1::oid)::bigint::text";
        let answer = self.query("look for the partitioned table", sql, vec![oid.to_string()]).await?;
        answer.scalar().and_then(|oid| oid.parse().ok()).ok_or_else(|| PgError::corrupt("an oid that does not read"))
    }

    /// The oid of a relation as a person types it, quotes and schema included.
    pub async fn relation_as_typed(&self, typed: &str) -> Result<Option<u32>, PgError> {
        let sql = "select to_regclass($1)::oid::bigint::text";
        let answer = match self.attempt_own("look up a relation", sql, vec![typed.to_owned()]).await {
            Ok(answer) => answer,
            Err(error) if error.is_connection() => return Err(error),
            // Not the spelling of a name at all.
            Err(_) => return Ok(None),
        };
        Ok(answer.scalar().and_then(|oid| oid.parse().ok()))
    }

    async fn attempt_own(&self, doing: &'static str, sql: &str, params: Vec<String>) -> Result<crate::Answer, PgError> {
        self.query("set a savepoint", "savepoint pgmend", vec![]).await?;
        let answer = self.query(doing, sql, params).await;
        if answer.is_err() {
            self.query("roll back to a savepoint", "rollback to savepoint pgmend", vec![]).await?;
        }
        answer
    }
}

/// A value as text that any session reads back: JSON has one style for dates, whatever the session's.
fn canonical(expression: &str, type_sql: &str) -> String {
    match type_sql.starts_with("date") || type_sql.starts_with("timestamp") {
        true => format!("to_jsonb({expression}) #>> '{{}}'"),
        false => format!("({expression})::text"),
    }
}

/// The row's key as it was or as it became: a statement may write the key itself.
pub(crate) fn matching_key(layout: &ImageLayout, key: &[&Column]) -> Option<String> {
    let find = |part: &[ImageColumn], column: &Column| part.iter().find(|c| c.attnum == column.attnum).cloned();
    let old: Option<Vec<ImageColumn>> =
        key.iter().map(|c| find(&layout.key, c).or_else(|| find(&layout.before, c))).collect();
    let new: Option<Vec<ImageColumn>> =
        key.iter().map(|c| find(&layout.after, c).or_else(|| find(&layout.key, c))).collect();
    let equal = |columns: Vec<ImageColumn>| {
        let pairs = columns.iter().enumerate();
        let pairs =
            pairs.map(|(i, c)| format!("i.{} = ${}::text::{}", quote_ident(&c.image_column), i + 1, c.type_sql));
        format!("({})", pairs.collect::<Vec<_>>().join(" and "))
    };
    let sides: Vec<String> = old.into_iter().chain(new).map(equal).collect();
    (!sides.is_empty()).then(|| sides.join(" or "))
}
