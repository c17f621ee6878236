//! Partitions of a run in the control schema, and the totals over them.

use pgmend_core::id::RunId;
use serde::Deserialize;

use crate::batch::Lease;
use crate::error::PgError;
use crate::session::{Session, Statement};
use crate::store::{LastCheckpoint, from_json, number};

/// Batch numbers of a table of images start anew in each partition, so that they hold its number too: times this.
pub const IMAGE_BATCH_STRIDE: i64 = 1_000_000_000_000;

/// A partition that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Partition {
    /// Its number, from 1.
    pub partition_no: i32,
    /// Starts after this key, or ordinal.
    pub lower: Option<Vec<String>>,
    /// Ends with this one.
    pub upper: Vec<String>,
    /// Of a tenant: how often it was set aside because others held its rows.
    pub rounds: i32,
}

/// Why no tenant of a running run can be taken, although not all are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standstill {
    /// As many have failed as may, or nothing else is left.
    Failed,
    /// Nothing is left but tenants that people have paused.
    Paused,
    /// The canaries are done: somebody is to look at them.
    Look,
}

/// What came of looking for a free partition.
#[derive(Debug, Clone)]
pub enum Taken {
    /// It is ours.
    Partition(Partition, Lease),
    /// Every open one is held by somebody, or as many workers live as may.
    NoneFree,
    /// All are done.
    AllDone,
    /// The run is not running any more.
    Stopped,
    /// The run has to stop here.
    Standstill(Standstill),
}

#[derive(Deserialize)]
struct TakenRow {
    run_state: String,
    open_partitions: i64,
    partition_no: Option<i32>,
    fence: Option<i64>,
    lower: Option<Vec<String>>,
    upper: Option<Vec<String>>,
}

impl Session {
    /// Divides a run whose own lease is held, before its first batch. The number of partitions; 0 if it has begun.
    pub async fn divide(&self, lease: &Lease, uppers: &[Vec<String>]) -> Result<i64, PgError> {
        let json = serde_json::to_string(uppers).unwrap_or_default();
        let sql = "select pgmend.divide_run($1::uuid, $2::bigint, $3::json)::text";
        let params = vec![lease.run.to_string(), lease.fence.to_string(), json];
        self.run(&Statement::new("divide the run", sql, params)).await?.number()
    }

    /// Whether a run is divided.
    pub async fn is_divided(&self, run: RunId) -> Result<bool, PgError> {
        let sql = "select count(*)::text from pgmend.partition where run_id = $1::uuid";
        Ok(self.run(&Statement::new("look for partitions", sql, vec![run.to_string()])).await?.number()? > 0)
    }

    /// Takes a free partition, if fewer than `most` workers of the run live.
    pub async fn take_partition(
        &self,
        run: RunId,
        owner: &str,
        holder: &str,
        seconds: u64,
        most: u32,
    ) -> Result<Taken, PgError> {
        let sql = "select row_to_json(t)::text from pgmend.take_partition($1::uuid, $2, $3, $4::double precision, $5::int) as t";
        let params = vec![run.to_string(), owner.to_owned(), holder.to_owned(), seconds.to_string(), most.to_string()];
        let answer = self.run(&Statement::new("take a partition", sql, params)).await?;
        let row: TakenRow = from_json(answer.rows.first().map_or(&[], Vec::as_slice), 0)?;
        Ok(match (row.partition_no, row.fence, row.upper) {
            (Some(partition_no), Some(fence), Some(upper)) => Taken::Partition(
                Partition { partition_no, lower: row.lower, upper, rounds: 0 },
                Lease { run, partition_no, fence },
            ),
            _ if row.run_state != "running" => Taken::Stopped,
            _ if row.open_partitions == 0 => Taken::AllDone,
            _ => Taken::NoneFree,
        })
    }

    /// A partition is exhausted; gives its lease back.
    pub async fn close_partition(&self, lease: &Lease) -> Result<(), PgError> {
        let sql = "select pgmend.close_partition($1::uuid, $2::int, $3::bigint)";
        let params = vec![lease.run.to_string(), lease.partition_no.to_string(), lease.fence.to_string()];
        self.run(&Statement::new("close a partition", sql, params)).await?;
        Ok(())
    }

    /// The counts of a run over all its partitions. Cursor and pass are partition 0's business, and left out.
    /// Lock: none. Index: batch_pkey, backwards in each partition.
    pub async fn totals(&self, run: RunId) -> Result<LastCheckpoint, PgError> {
        let found = self.last_checkpoints(&[run]).await?;
        Ok(found.into_iter().next().map(|(_, at)| at).unwrap_or_default())
    }

    /// Pages of a table, those of its partitions and inheritance children included.
    pub async fn pages_of(&self, table_oid: u32) -> Result<f64, PgError> {
        let sql = "select coalesce(sum(pg_relation_size(t.relid)), 0)::bigint / current_setting('block_size')::bigint \
                   from (select relid from pg_partition_tree($1::oid::regclass) union select $1::oid::regclass) as t";
        let answer = self.run(&Statement::new("measure the table", sql, vec![table_oid.to_string()])).await?;
        Ok(answer.number()? as f64)
    }

    /// The ranges of ordinals that a divided frozen run has applied: after the first, up to the second.
    pub async fn applied_ranges(&self, run: RunId) -> Result<Vec<(i64, i64)>, PgError> {
        let sql = "select coalesce(p.lower[1], '0'), b.cursor_to[1] from pgmend.partition p cross join lateral (\
                   select b.cursor_to from pgmend.batch b where b.run_id = p.run_id and b.partition_no = p.partition_no \
                   order by b.batch_no desc limit 1) as b where p.run_id = $1::uuid order by p.partition_no";
        let answer = self.run(&Statement::new("read the partitions", sql, vec![run.to_string()])).await?;
        answer.rows.iter().map(|row| Ok((number(row, 0)?, number(row, 1)?))).collect()
    }
}
