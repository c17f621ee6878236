//! The databases that a theme's cases run in, one after the other: one for the plain statement and one for each
//! batch size.

use std::cell::RefCell;
use std::time::Duration;

use pgmend::Engine;
use pgmend_testkit::{Database, Server, Sql};

use super::case::Case;

/// Batch sizes: every row alone, pairs and triples with a rest, and all rows at once.
pub const BATCH_ROWS: [u32; 4] = [1, 2, 3, 1000];

/// Where batches may go in halves, they do with this size.
pub const HALVED: u32 = 3;

/// Every user table, one row each, and partitions rather than their parents.
const TABLES: &str = "select format('%I.%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'r' and n.nspname <> 'pgmend' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
    order by 1";

/// Everything that a case may have left behind.
const CLEAN: &str = "select format('drop schema %I cascade', nspname) from pg_namespace
    where nspname not in ('pgmend', 'information_schema') and nspname !~ '^pg_'";

/// The databases of one theme.
pub struct Copies {
    pub plain: Copy,
    pub batched: Vec<(u32, Copy)>,
}

/// One database, and the sessions in it: a new one has to read the catalog first, which takes longer than most
/// cases.
pub struct Copy {
    database: Database,
    sql: RefCell<Sql>,
    engine: RefCell<Option<Engine>>,
}

/// Contents: rows as text, each behind its table's name.
pub type Contents = Vec<String>;

/// The rows of a query in an order that says nothing of where they lie.
pub fn sorted(query: &str) -> String {
    format!("select q::text from ({query}) as q order by q::text collate \"C\"")
}

impl Copies {
    /// Creates the databases; the batched ones with a control schema.
    pub async fn create(theme: &str) -> Result<Self, String> {
        let base = Database::create(Server::shared(), theme).map_err(text)?;
        Self::of(base, theme).await
    }

    /// Copies of a database and all that it holds.
    pub async fn of(base: Database, theme: &str) -> Result<Self, String> {
        let mut engine = Engine::connect(Some(&base.url())).await.map_err(text)?;
        engine.init().await.map_err(text)?;
        drop(engine);
        // Its connection ends in a task of its own, and a database that anyone is connected to is not copied.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let copy = |hint: String| Copy::over(base.copy(&hint).map_err(text)?);
        let batched = BATCH_ROWS.map(|rows| copy(format!("{theme}_{rows}")).map(|copy| (rows, copy)));
        let batched = batched.into_iter().collect::<Result<_, String>>()?;
        Ok(Self { plain: copy(format!("{theme}_plain"))?, batched })
    }
}

impl Copy {
    fn over(database: Database) -> Result<Self, String> {
        let sql = RefCell::new(database.sql().map_err(text)?);
        Ok(Self { database, sql, engine: RefCell::new(None) })
    }

    /// The engine of the case before, if it ended well and had no connection options either.
    pub async fn engine(&self, options: &str) -> Result<Engine, String> {
        let last = if options.is_empty() { self.engine.borrow_mut().take() } else { None };
        match last {
            Some(engine) => Ok(engine),
            None => self.fresh_engine(options).await,
        }
    }

    /// Leaves an engine without connection options to the next case.
    pub fn keep(&self, engine: Engine, options: &str) {
        if options.is_empty() {
            *self.engine.borrow_mut() = Some(engine);
        }
    }

    async fn fresh_engine(&self, options: &str) -> Result<Engine, String> {
        let encoded: String = options
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
            .collect();
        let url = match options {
            "" => self.database.url(),
            _ => format!("{}?options={encoded}", self.database.url()),
        };
        Engine::connect(Some(&url)).await.map_err(text)
    }

    /// A session of the superuser that may be spoilt.
    pub fn fresh_sql(&self) -> Result<Sql, String> {
        self.database.sql().map_err(text)
    }

    /// The first column of a query's first row.
    pub fn value(&self, query: &str) -> Result<Option<String>, String> {
        self.sql.borrow_mut().value(query).map_err(text)
    }

    /// Empties the database and sets up a case.
    pub fn prepare(&self, case: &Case) -> Result<(), String> {
        let mut sql = self.sql.borrow_mut();
        let mut clean: Vec<String> = sql.run(CLEAN).map_err(text)?.into_iter().flatten().flatten().collect();
        clean.push("create schema public".to_owned());
        sql.run(&clean.join("; ")).map_err(text)?;
        sql.run(case.setup).map_err(|e| format!("setup: {e}"))?;
        Ok(())
    }

    /// Everything in the user's tables, or in these alone, or what these queries give.
    pub fn contents(&self, tables: &[&str], queries: &[&str]) -> Result<Contents, String> {
        let mut sql = self.sql.borrow_mut();
        let mut contents = Contents::new();
        let mut all: Vec<(String, String)> = Vec::new();
        if queries.is_empty() {
            for table in sql.run(TABLES).map_err(text)?.into_iter().flatten().flatten() {
                let wanted = tables.is_empty() || tables.iter().any(|t| table == *t || table == format!("public.{t}"));
                if wanted {
                    all.push((
                        table.clone(),
                        format!("select t::text from only {table} as t order by t::text collate \"C\""),
                    ));
                }
            }
        } else {
            all.extend(queries.iter().map(|query| (String::new(), sorted(query))));
        }
        for (table, query) in all {
            let rows = sql.run(&query).map_err(text)?;
            contents.extend(rows.into_iter().flatten().map(|row| format!("{table} {}", row.unwrap_or_default())));
        }
        Ok(contents)
    }
}

/// Any error as text.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
