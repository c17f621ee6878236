//! Installs and upgrades the control schema and its group roles.

use crate::error::PgError;
use crate::roles::NamedRoles;
use crate::session::{Session, Statement};
use crate::store::ControlSchema;

/// Migrations in order, each with its version.
const MIGRATIONS: &[(i32, &str)] = &[
    (1, include_str!("../sql/schema/001_control_schema.sql")),
    (2, include_str!("../sql/schema/002_guardrails.sql")),
    (3, include_str!("../sql/schema/003_throttle.sql")),
    (4, include_str!("../sql/schema/004_pace.sql")),
    (5, include_str!("../sql/schema/005_dead_letters.sql")),
    (6, include_str!("../sql/schema/006_paper_trail.sql")),
    (7, include_str!("../sql/schema/007_partitions.sql")),
    (8, include_str!("../sql/schema/008_encrypted_images.sql")),
    (9, include_str!("../sql/schema/009_tenants.sql")),
    (10, include_str!("../sql/schema/010_plan_for_readers.sql")),
    (11, include_str!("../sql/schema/011_gentle.sql")),
    (12, include_str!("../sql/schema/012_keys_for_readers.sql")),
    (13, include_str!("../sql/schema/013_gentle.sql")),
    (15, include_str!("../sql/schema/015_what_readers_see.sql")),
    (16, include_str!("../sql/schema/016_unseen_writes.sql")),
    (17, include_str!("../sql/schema/017_change_sets_in_halves.sql")),
];

/// The version that this pgmend needs.
pub const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Publications that take every new table along, in one line.
pub const PUBLICATIONS_OF_ALL: &str =
    "select string_agg(quote_ident(pubname), ', ' order by pubname) from pg_catalog.pg_publication where puballtables";

/// What installing did.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Version before.
    pub from_version: Option<i32>,
    /// Roles that exist now.
    pub roles: Vec<String>,
    /// What could not be done, with the SQL that a DBA can type.
    pub notes: Vec<String>,
}

impl Session {
    /// Brings the control schema to this version. Safe to repeat; two at once wait for each other.
    pub async fn install(&self, named: &NamedRoles) -> Result<Installed, PgError> {
        let from_version = match self.control_schema().await? {
            ControlSchema::Version(version) => Some(version),
            ControlSchema::Missing => None,
            ControlSchema::Forbidden => {
                return Err(PgError::new("install the control schema", "42501", "another role owns schema pgmend"));
            }
        };
        if from_version.is_none_or(|v| v < VERSION) {
            self.migrate().await?;
        }
        let (roles, mut notes) = self.install_roles(named).await?;
        notes.extend(self.published_to_all().await?);
        Ok(Installed { from_version, roles, notes })
    }

    /// A publication FOR ALL TABLES takes the control schema along, and its subscribers stop.
    async fn published_to_all(&self) -> Result<Option<String>, PgError> {
        let answer = self.run(&Statement::new("look for publications", PUBLICATIONS_OF_ALL, vec![])).await?;
        Ok(answer.scalar().map(|names| {
            format!("publication {names} is FOR ALL TABLES and takes schema pgmend along: a subscriber that lacks its tables stops")
        }))
    }

    async fn migrate(&self) -> Result<(), PgError> {
        let run = |sql: &'static str| Statement::new("install the control schema", sql, vec![]);
        self.run(&run("begin")).await?;
        self.dirty.store(true, std::sync::atomic::Ordering::Relaxed);
        let result = self.migrate_within().await;
        self.dirty.store(false, std::sync::atomic::Ordering::Relaxed);
        let end = if result.is_ok() { "commit" } else { "rollback" };
        self.run(&run(end)).await?;
        result
    }

    async fn migrate_within(&self) -> Result<(), PgError> {
        let lock = "select pg_advisory_xact_lock(hashtextextended('pgmend.schema', 0))";
        self.in_transaction(lock).await?;
        // Asked again under the lock: another process may have been faster.
        let there = self.in_transaction("select count(*)::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n \
                                  on n.oid = c.relnamespace where n.nspname = 'pgmend' and c.relname = 'schema_version'");
        let mut version = 0;
        if there.await? == Some("1".to_owned()) {
            let sql = "select coalesce(max(version), 0)::text from pgmend.schema_version";
            version = self.in_transaction(sql).await?.and_then(|v| v.parse().ok()).unwrap_or(0);
        }
        for (_, migration) in MIGRATIONS.iter().filter(|(own, _)| *own > version) {
            self.script(migration).await?;
        }
        Ok(())
    }

    async fn in_transaction(&self, sql: &'static str) -> Result<Option<String>, PgError> {
        let statement = Statement::new("install the control schema", sql, vec![]);
        let answers = self.pipeline(&[statement]).await;
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(answers.first().and_then(|a| a.scalar().map(str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;

    #[test]
    fn every_guard_names_the_schema_so_that_nobody_elses_is_taken_for_one() {
        let mut guards = 0;
        for (version, script) in MIGRATIONS {
            for raise in script.split("raise exception").skip(1) {
                let raise = raise.split(';').next().unwrap_or_default();
                if raise.contains("'PM") {
                    guards += 1;
                    assert!(raise.trim_end().ends_with(", schema = 'pgmend'"), "version {version}: {raise}");
                }
            }
        }
        assert!(guards > 60, "{guards}");
    }
}
