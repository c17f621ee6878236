//! The group roles: who may run, approve, observe. Made by `init`, or existing ones by name where a DBA makes roles.

use pgmend_core::table::quote_ident;

use crate::error::PgError;
use crate::session::{Session, Statement};

const GRANTS: &str = include_str!("../sql/schema/roles.sql");

/// What a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Plans and runs.
    Runner,
    /// Approves, vetoes, reviews.
    Approver,
    /// Reads.
    Observer,
}

impl Part {
    /// Every part.
    pub const ALL: [Part; 3] = [Part::Runner, Part::Approver, Part::Observer];

    /// The word as stored.
    pub fn name(self) -> &'static str {
        match self {
            Part::Runner => "runner",
            Part::Approver => "approver",
            Part::Observer => "observer",
        }
    }

    /// The role that `init` makes where none is named; also its name in `roles.sql`.
    pub fn usual_role(self) -> &'static str {
        match self {
            Part::Runner => "pgmend_runner",
            Part::Approver => "pgmend_approver",
            Part::Observer => "pgmend_observer",
        }
    }
}

/// Existing roles that stand for the groups; the usual ones, or those named earlier, when absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedRoles {
    /// Plans and runs.
    pub runner: Option<String>,
    /// Approves, vetoes, reviews.
    pub approver: Option<String>,
    /// Reads.
    pub observer: Option<String>,
}

impl NamedRoles {
    /// The role that was named for a part.
    pub fn of(&self, part: Part) -> Option<&str> {
        match part {
            Part::Runner => self.runner.as_deref(),
            Part::Approver => self.approver.as_deref(),
            Part::Observer => self.observer.as_deref(),
        }
    }
}

impl Session {
    /// The role that stands for a part.
    /// Lock:  none. Index: `group_role_pkey`.
    pub async fn group_role(&self, part: Part) -> Result<String, PgError> {
        let sql = "select role::text from pgmend.group_role where part = $1";
        let answer = self.run(&Statement::new("read the group roles", sql, vec![part.name().to_owned()])).await?;
        Ok(answer.scalar().unwrap_or(part.usual_role()).to_owned())
    }

    /// Whether there is a role of that name.
    /// Lock:  none. Index: `pg_authid_rolname_index`.
    pub async fn role_exists(&self, role: &str) -> Result<bool, PgError> {
        let sql = "select count(*)::text from pg_catalog.pg_roles where rolname = $1";
        Ok(self.run(&Statement::new("look for a role", sql, vec![role.to_owned()])).await?.scalar() == Some("1"))
    }

    /// Makes the usual roles where none is named, grants each what it may, and remembers who stands for what. Gives
    /// the roles, and what a DBA must do where this role may not.
    pub(crate) async fn install_roles(&self, named: &NamedRoles) -> Result<(Vec<String>, Vec<String>), PgError> {
        let mut notes = Vec::new();
        let mut roles = Vec::new();
        let mut missing = false;
        for part in Part::ALL {
            let before = self.group_role(part).await?;
            let role = named.of(part).unwrap_or(&before).to_owned();
            if role != before {
                notes.extend(self.left_over(&before).await?);
            }
            if !self.role_exists(&role).await? {
                let create = Statement::new(
                    "create a group role",
                    format!("create role {} nologin", quote_ident(&role)),
                    vec![],
                );
                // Another `init` on this server may have been faster.
                if let Err(error) = self.run(&create).await
                    && !self.role_exists(&role).await?
                {
                    missing = true;
                    notes.push(format!(
                        "role {role} is missing ({}); a DBA types: create role {} nologin;",
                        error.message,
                        quote_ident(&role)
                    ));
                    continue;
                }
            }
            self.remember(part, &role).await?;
            roles.push(role);
        }
        if missing {
            notes.push(
                "a DBA also types, for each login: grant pgmend_runner to …; or pgmend_approver, or pgmend_observer"
                    .into(),
            );
            notes.push(
                "then the owner of schema pgmend types `pgmend init` again; until then only that owner can run jobs. \
                 Roles that exist already: pgmend init --runner-role … --approver-role … --observer-role …"
                    .into(),
            );
            return Ok((roles, notes));
        }
        if let Err(error) = self.script(&grants(&roles)).await {
            notes.push(format!(
                "could not grant to the group roles ({}); the owner of schema pgmend can repeat `pgmend init`",
                error.message
            ));
        }
        Ok((roles, notes))
    }

    /// Lock:  one row. Index: `group_role_pkey`.
    async fn remember(&self, part: Part, role: &str) -> Result<(), PgError> {
        let sql = "insert into pgmend.group_role (part, role) values ($1, $2::name) \
                   on conflict (part) do update set role = excluded.role where group_role.role <> excluded.role";
        let params = vec![part.name().to_owned(), role.to_owned()];
        self.run(&Statement::new("remember the group roles", sql, params)).await?;
        Ok(())
    }

    /// A role that stands for a group no more keeps its rights until they are taken: other parts may be its, too.
    async fn left_over(&self, role: &str) -> Result<Option<String>, PgError> {
        if !self.role_exists(role).await? {
            return Ok(None);
        }
        let role = quote_ident(role);
        Ok(Some(format!(
            "{role} keeps what it was granted until the owner of schema pgmend types: \
             revoke all on all tables in schema pgmend from {role}; \
             revoke all on all functions in schema pgmend from {role}; revoke all on schema pgmend from {role};"
        )))
    }
}

/// The grants with the roles in the place of the usual ones. One pass: a role may have the name of another part's.
fn grants(roles: &[String]) -> String {
    let mut script = String::new();
    let mut rest = GRANTS;
    while let Some((at, place)) =
        Part::ALL.iter().enumerate().filter_map(|(n, p)| Some((rest.find(p.usual_role())?, n))).min()
    {
        let part = Part::ALL[place];
        script.push_str(&rest[..at]);
        script.push_str(&roles.get(place).map_or_else(|| part.usual_role().to_owned(), |role| quote_ident(role)));
        rest = &rest[at + part.usual_role().len()..];
    }
    script.push_str(rest);
    script
}

#[cfg(test)]
mod tests {
    use super::grants;

    #[test]
    fn grants_go_to_the_roles_that_were_named_whatever_their_names() {
        let roles = ["pgmend_observer", "Deploy Team", "readers"].map(str::to_owned);
        let script = grants(&roles);
        assert!(script.contains("to \"pgmend_observer\", \"Deploy Team\", \"readers\";"), "{script}");
        assert!(!script.contains("pgmend_runner") && !script.contains("pgmend_approver"), "{script}");
    }
}
