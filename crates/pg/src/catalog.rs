//! Reads the catalog for the planner: the target, and what a statement reads and calls.

use pgmend_core::plan::{DatabaseIdentity, Settings};
use pgmend_core::table::Table;

use crate::error::PgError;
use crate::readtx::ReadTx;
use crate::session::{Session, Statement, array_literal};
use crate::store::{from_json, text};

const TABLE: &str = include_str!("../sql/catalog/table.sql");
const RELATION: &str = include_str!("../sql/catalog/relation.sql");
const SHADOW: &str = include_str!("../sql/catalog/shadow.sql");
const FUNCTION: &str = include_str!("../sql/catalog/function.sql");

/// From this version on a server tells the version of a database's own collation.
const TELLS_DEFAULT_COLLATION: i32 = 150_000;

/// Settings that a statement's result may depend on, since values become text by them or text values.
const FORMATS: [&str; 10] = [
    "bytea_output",
    "extra_float_digits",
    "xmlbinary",
    "xmloption",
    "default_text_search_config",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "array_nulls",
    "transform_null_equals",
];

/// A relation that the statement reads, as seen from the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRelation {
    /// It is the target, a partition or a parent of it, or a view over one of them.
    pub reads_target: bool,
    /// A view that calls a user's function that is not IMMUTABLE.
    pub calls_unknown: bool,
    /// `pg_class.relkind`.
    pub relkind: String,
    /// The tables that it is, or shows.
    pub tables: Vec<u32>,
}

/// How predictable a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// Depends on its arguments alone.
    Immutable,
    /// The same within one statement.
    Stable,
    /// Anything.
    Volatile,
}

/// A function that the statement calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalledFunction {
    /// The worst among the functions of that name.
    pub volatility: Volatility,
    /// Whether a user defined one of them.
    pub user_defined: bool,
    /// Whether one of them is an aggregate or window function.
    pub aggregate: bool,
}

/// Who and where a session is.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The database.
    pub database: DatabaseIdentity,
    /// The settings to freeze.
    pub settings: Settings,
    /// `session_user`.
    pub session_user: String,
    /// `server_version_num`.
    pub version_num: i32,
    /// Whether the server is a standby.
    pub standby: bool,
    /// `session_replication_role`.
    pub replication_role: String,
    /// `pg_control_checkpoint().timeline_id`.
    pub timeline: String,
    /// The server's time as ISO 8601, and that plus a day.
    pub now: String,
    /// `standard_conforming_strings` is off: a backslash in a plain string escapes what follows.
    pub escapes_in_strings: bool,
}

impl Session {
    /// Who and where this session is, and the settings that a plan freezes.
    pub async fn surroundings(&self) -> Result<Surroundings, PgError> {
        let sql = "select (select system_identifier::text from pg_control_system()), current_database(), \
                   (select oid::bigint::text from pg_database where datname = current_database()), \
                   current_setting('server_version'), current_user, current_setting('search_path'), \
                   current_setting('TimeZone'), current_setting('DateStyle'), current_setting('IntervalStyle'), \
                   session_user, current_setting('server_version_num'), pg_is_in_recovery()::text, \
                   current_setting('session_replication_role'), \
                   (select timeline_id::text from pg_control_checkpoint()), \
                   to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
                   current_setting('standard_conforming_strings'), \
                   (select json_object_agg(name, setting)::text from pg_catalog.pg_settings where name = any ($1::text[]))";
        let formats = vec![array_literal(&FORMATS.map(str::to_owned))];
        let answer = self.run(&Statement::new("read who and where this session is", sql, formats)).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        Ok(Surroundings {
            database: DatabaseIdentity {
                system_identifier: text(row, 0)?,
                database: text(row, 1)?,
                database_oid: text(row, 2)?.parse().map_err(|_| PgError::corrupt("an oid that does not read"))?,
                server_version: text(row, 3)?,
            },
            settings: Settings {
                role: text(row, 4)?,
                search_path: text(row, 5)?,
                time_zone: text(row, 6)?,
                date_style: text(row, 7)?,
                interval_style: text(row, 8)?,
                formats: from_json(row, 16)?,
            },
            session_user: text(row, 9)?,
            version_num: text(row, 10)?.parse().unwrap_or(0),
            standby: text(row, 11)? == "true",
            replication_role: text(row, 12)?,
            timeline: text(row, 13)?,
            now: text(row, 14)?,
            escapes_in_strings: text(row, 15)? == "off",
        })
    }
}

impl ReadTx<'_> {
    /// The oid of a relation by the names of a statement, under the frozen search_path.
    pub async fn resolve(&self, schema: Option<&str>, name: &str) -> Result<Option<u32>, PgError> {
        let sql = "select to_regclass(case when $1 = '' then quote_ident($2) else quote_ident($1) || '.' || quote_ident($2) end)::oid::bigint::text";
        let answer = self.query("look up a relation", sql, vec![schema.unwrap_or("").into(), name.into()]).await?;
        Ok(answer.scalar().and_then(|oid| oid.parse().ok()))
    }

    /// Operators and functions of `pg_catalog` that a schema redefines which the search path names before it, five at most.
    pub async fn shadowing(&self) -> Result<Vec<String>, PgError> {
        let answer = self.query("look through the search path", SHADOW, vec![]).await?;
        Ok(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    /// Everything about a table. Types and expressions come qualified, as under an empty search_path. Without JIT: the
    /// server expects this query to be dear, and would take a second to compile what takes milliseconds.
    pub async fn table(&self, oid: u32, search_path: &str) -> Result<Table, PgError> {
        let set = "select current_setting('jit'), set_config('search_path', $1, true), set_config('jit', $2, true), \
                   current_setting('server_version_num')";
        let answer = self.query("read the catalog", set, vec![String::new(), "off".to_owned()]).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        let (jit, version) = (text(row, 0)?, text(row, 3)?.parse().unwrap_or(0));
        let params = vec![Some(oid.to_string()), self.default_collation_version(version).await?];
        let answer = self.query_with_nulls("read the target's definition", TABLE, params).await?;
        self.query("read the catalog", set, vec![search_path.to_owned(), jit]).await?;
        let row = answer.rows.first().ok_or_else(|| PgError::corrupt("the target is gone from the catalog"))?;
        from_json(row, 0)
    }

    /// The version that the database's own collation has now; `None` where there is none, or the server cannot tell.
    /// Lock:  none. Index: `pg_database_datname_index`.
    async fn default_collation_version(&self, server_version: i32) -> Result<Option<String>, PgError> {
        if server_version < TELLS_DEFAULT_COLLATION {
            return Ok(None);
        }
        let sql = "select pg_catalog.pg_database_collation_actual_version(oid) from pg_catalog.pg_database \
                   where datname = current_database()";
        let answer = self.query("read the version of the database's collation", sql, vec![]).await?;
        Ok(answer.scalar().map(str::to_owned))
    }

    /// How a relation relates to the target.
    pub async fn read_relation(&self, oid: u32, target: u32) -> Result<ReadRelation, PgError> {
        let params = vec![oid.to_string(), target.to_string()];
        let answer = self.query("look up what the statement reads", RELATION, params).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        let relation = ReadRelation {
            reads_target: text(row, 0)? == "true",
            calls_unknown: text(row, 1)? == "true",
            relkind: text(row, 2)?,
            tables: from_json(row, 3)?,
        };
        Ok(relation)
    }

    /// What a function name may mean; `None` when there is none such.
    pub async fn called_function(&self, schema: Option<&str>, name: &str) -> Result<Option<CalledFunction>, PgError> {
        let params = vec![name.to_owned(), schema.unwrap_or("").to_owned()];
        let answer = self.query("look up a function", FUNCTION, params).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        if row.get(1).is_none() {
            return Ok(None);
        }
        Ok(Some(CalledFunction {
            volatility: match row.first().cloned().flatten().as_deref() {
                Some("i") => Volatility::Immutable,
                Some("s") => Volatility::Stable,
                Some(_) | None => Volatility::Volatile,
            },
            user_defined: text(row, 1)? == "true",
            aggregate: text(row, 2)? == "true",
        }))
    }

    /// Whether a user defined an operator of that name over a function that is not IMMUTABLE.
    pub async fn unknown_operator(&self, name: &str) -> Result<bool, PgError> {
        let sql = "select exists (select from pg_catalog.pg_operator o join pg_catalog.pg_proc p on p.oid = o.oprcode \
                   join pg_catalog.pg_namespace n on n.oid = o.oprnamespace \
                   where o.oprname = $1 and n.nspname <> 'pg_catalog' and p.provolatile <> 'i')::text";
        Ok(self.query("look up an operator", sql, vec![name.to_owned()]).await?.scalar() == Some("true"))
    }
}
