//! Watches a transaction from within: tables written, locks held, WAL written, sequences moved.

use std::collections::BTreeMap;

use pgmend_core::table::RelationName;
use pgmend_pg::PgError;
use pgmend_pg::readtx::ReadTx;

/// Where each visible sequence stands.
pub(super) type Positions = BTreeMap<RelationName, Option<String>>;

/// Rows inserted, updated and deleted.
pub(super) type Written = [i64; 3];

/// What a transaction did so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub written: Vec<(RelationName, Written)>,
    /// Tables and the modes of their locks.
    pub locks: Vec<(RelationName, String)>,
    pub sequences: Vec<RelationName>,
}

/// Reads what the transaction wrote and locked. Locks come first: reading the others locks the catalog.
pub(super) async fn look(tx: &ReadTx<'_>) -> Result<Seen, PgError> {
    let mut seen = Seen::default();
    let sql = "select n.nspname, c.relname, l.mode, c.relkind::text
                 from pg_catalog.pg_locks l
                 join pg_catalog.pg_class c on c.oid = l.relation
                 join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where l.locktype = 'relation'
                  and l.pid = pg_catalog.pg_backend_pid()
                  and l.granted
                  and c.relkind in ('r', 'p', 'm', 'f', 'S')
                  and n.nspname not in ('pg_catalog', 'information_schema', 'pgmend')
                  and n.nspname !~ '^pg_(toast|temp)'
                order by 1, 2, 3";
    for row in tx.query("read the rehearsal's locks", sql, vec![]).await?.rows {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || cells.next().unwrap_or_default();
        let (relation, mode, kind) = (RelationName::new(next(), next()), next(), next());
        if kind == "S" {
            seen.sequences.push(relation);
        } else {
            seen.locks.push((relation, mode));
        }
    }
    seen.written = written(tx).await?;
    Ok(seen)
}

async fn written(tx: &ReadTx<'_>) -> Result<Vec<(RelationName, Written)>, PgError> {
    let sql = "select schemaname, relname, n_tup_ins, n_tup_upd, n_tup_del
                 from pg_catalog.pg_stat_xact_all_tables
                where n_tup_ins + n_tup_upd + n_tup_del > 0
                  and schemaname not in ('pg_catalog', 'information_schema', 'pgmend')
                  and schemaname !~ '^pg_(toast|temp)'
                order by 1, 2";
    let answer = tx.query("read what the rehearsal wrote", sql, vec![]).await?;
    let read = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || cells.next().unwrap_or_default();
        let relation = RelationName::new(next(), next());
        let mut count = || next().parse().unwrap_or(0);
        (relation, [count(), count(), count()])
    };
    Ok(answer.rows.into_iter().map(read).collect())
}

/// Bytes of WAL that the server has written so far; other sessions' are among them.
pub(super) async fn wal_position(tx: &ReadTx<'_>) -> Result<i64, PgError> {
    let sql = "select pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::bigint";
    tx.query("read the WAL's position", sql, vec![]).await?.number()
}

/// Reads where all sequences stand that this role may see.
pub(super) async fn positions(tx: &ReadTx<'_>) -> Result<Positions, PgError> {
    let sql = "select schemaname, sequencename, last_value
                 from pg_catalog.pg_sequences
                where schemaname <> 'pgmend' and schemaname !~ '^pg_temp'";
    let answer = tx.query("read the sequences", sql, vec![]).await?;
    let read = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter();
        let mut next = || cells.next().flatten();
        let (schema, name) = (next().unwrap_or_default(), next().unwrap_or_default());
        (RelationName::new(schema, name), next())
    };
    Ok(answer.rows.into_iter().map(read).collect())
}

impl Seen {
    /// What came to it after `earlier` of the same transaction: rows written are counted from its beginning,
    /// also those that were rolled back to a savepoint.
    pub fn since(mut self, earlier: Seen) -> Self {
        for (relation, before) in earlier.written {
            if let Some((_, now)) = self.written.iter_mut().find(|(name, _)| *name == relation) {
                now.iter_mut().zip(before).for_each(|(now, before)| *now -= before);
            }
        }
        self.written.retain(|(_, rows)| rows.iter().any(|n| *n > 0));
        self
    }
}
