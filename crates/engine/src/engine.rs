//! The engine: one database, all that can be asked of it.

use std::sync::Arc;

use pgmend_core::mask::TokenKey;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::quote_ident;
use pgmend_pg::catalog::Surroundings;
use pgmend_pg::conninfo::Conninfo;
use pgmend_pg::roles::{NamedRoles, Part};
use pgmend_pg::store::ControlSchema;
use pgmend_pg::{PgError, Session};

use crate::error::Error;
use crate::guard::{Named, mismatches};
use crate::outcome::Initialised;
use crate::run::{Away, Equipment, Metered, Slice};

/// One database.
pub struct Engine {
    pub(crate) conninfo: Conninfo,
    pub(crate) session: Session,
    pub(crate) here: Surroundings,
    /// The environment that was named, checked again after every reconnect.
    pub(crate) environment: Option<Named>,
    /// Environments that must be named by whoever writes to their databases.
    pub(crate) protected: Vec<Named>,
    /// What the values of the plan that is being made are masked with.
    pub(crate) plan_key: Option<TokenKey>,
    /// Why the last run stopped by itself, where it will go on by itself.
    pub(crate) away: Option<Away>,
    /// What the command under way has done of its run so far; shared by the connections of its workers.
    pub(crate) slice: Arc<Slice>,
    /// How fast this connection's worker has gone.
    pub(crate) metered: Metered,
    /// What this connection's worker takes along to its next partition.
    pub(crate) equipment: Option<Equipment>,
}

impl Engine {
    /// Connects to `database_url`, or else to what `DATABASE_URL` or libpq's `PG*` variables say.
    pub async fn connect(database_url: Option<&str>) -> Result<Self, Error> {
        let conninfo = Conninfo::resolve(database_url, &|name| std::env::var(name).ok())?;
        let session = Session::connect(&conninfo).await.map_err(cannot_connect)?;
        let here = arrive(&session).await?;
        let slice = Arc::new(Slice::begin());
        Ok(Self {
            conninfo,
            session,
            here,
            environment: None,
            protected: Vec::new(),
            plan_key: None,
            away: None,
            slice,
            metered: Metered::begin(),
            equipment: None,
        })
    }

    /// Another connection to the same database, for one more worker.
    pub(crate) async fn again(&self) -> Result<Self, Error> {
        let mut session = Session::connect(&self.conninfo).await?;
        session.become_self().await?;
        session.show_in_full(self.session.in_full());
        if let Some(named) = &self.environment
            && !mismatches(&session, named).await?.is_empty()
        {
            let message = format!("a second connection does not lead to environment {}", named.name);
            return Err(Refusal::new(Code::WrongEnvironment, message, "check the hosts of the connection").into());
        }
        let (conninfo, here, slice) = (self.conninfo.clone(), self.here.clone(), Arc::clone(&self.slice));
        Ok(Self {
            conninfo,
            session,
            here,
            environment: self.environment.clone(),
            protected: self.protected.clone(),
            plan_key: None,
            away: None,
            slice,
            metered: Metered::begin(),
            equipment: None,
        })
    }

    /// Connects again, with the credentials of now, and refuses a database that is not the environment any more.
    pub(crate) async fn reconnect(&mut self) -> Result<(), PgError> {
        self.conninfo = self.conninfo.again();
        let session = Session::connect(&self.conninfo).await?;
        session.become_self().await?;
        if let Some(named) = &self.environment {
            let mismatches = mismatches(&session, named).await?;
            if !mismatches.is_empty() {
                let message = format!("this is no longer environment {}: {}", named.name, mismatches.join("; "));
                return Err(PgError::new("connect again", Code::WrongEnvironment.as_str(), message));
            }
        }
        let in_full = self.session.in_full();
        session.mark(self.session.marked().as_deref());
        self.session = session;
        self.session.show_in_full(in_full);
        Ok(())
    }

    /// From now on errors of the database are also shown in full, with the values that they hold: to a person who asked
    /// for them. What is logged and kept stays masked.
    pub fn show_errors_in_full(&mut self, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.session.show_in_full(Some(std::sync::Arc::new(tell)));
    }

    /// Installs or upgrades the control schema and its group roles.
    pub async fn init(&mut self) -> Result<Initialised, Error> {
        self.init_for(&NamedRoles::default()).await
    }

    /// The same with existing roles in the place of the groups that `init` makes.
    pub async fn init_for(&mut self, named: &NamedRoles) -> Result<Initialised, Error> {
        self.refuse_standby()?;
        for role in Part::ALL.into_iter().filter_map(|part| named.of(part)) {
            if !self.session.role_exists(role).await? {
                let help =
                    format!("let a DBA type: create role {} nologin; then type the same again", quote_ident(role));
                return Err(Refusal::new(Code::RoleMissing, format!("there is no role `{role}`"), help).into());
            }
        }
        let installed = self.session.install(named).await?;
        Ok(Initialised {
            from_version: installed.from_version,
            to_version: pgmend_pg::schema::VERSION,
            roles: installed.roles,
            notes: installed.notes,
        })
    }

    /// Whether the control schema is there for this role, in the version that this pgmend needs.
    pub(crate) async fn has_control_schema(&self) -> Result<bool, Error> {
        const NEEDED: i32 = pgmend_pg::schema::VERSION;
        match self.session.control_schema().await? {
            ControlSchema::Missing | ControlSchema::Forbidden => Ok(false),
            ControlSchema::Version(NEEDED) => Ok(true),
            ControlSchema::Version(version) => {
                let message = format!("the control schema has version {version}, this pgmend needs {NEEDED}");
                let help = if version < NEEDED { "type: pgmend init" } else { "use a newer pgmend" };
                Err(Refusal::new(Code::ControlSchema, message, help).into())
            }
        }
    }

    /// Refuses unless the control schema is there for this role.
    pub(crate) async fn need_control_schema(&self) -> Result<(), Error> {
        if self.has_control_schema().await? {
            return Ok(());
        }
        if self.session.control_schema().await? == ControlSchema::Forbidden {
            let user = &self.here.session_user;
            let message = format!("role {user} may not use the control schema");
            let help = format!(
                "let the schema's owner type: grant pgmend_runner to {} (pgmend_observer where it only looks)",
                quote_ident(user)
            );
            return Err(Refusal::new(Code::Privilege, message, help).into());
        }
        let message = format!("database {} has no control schema", self.here.database.database);
        Err(Refusal::new(Code::ControlSchema, message, "type: pgmend init").into())
    }

    /// Installs the control schema if it is missing and the role may.
    pub(crate) async fn ensure_control_schema(&mut self) -> Result<(), Error> {
        if self.session.control_schema().await? != ControlSchema::Missing {
            return self.need_control_schema().await;
        }
        self.init().await.map(|_| ()).map_err(|error| match error {
            Error::Refused(Refusal { code: Code::Privilege, message, .. }) => Refusal::new(
                Code::ControlSchema,
                format!("the control schema is missing and this role may not install it ({message})"),
                "let the database's owner type: pgmend init",
            )
            .into(),
            other @ (Error::Refused(_) | Error::Database { .. } | Error::Corrupt(_)) => other,
        })
    }

    pub(crate) fn refuse_standby(&self) -> Result<(), Error> {
        if !self.here.standby {
            return Ok(());
        }
        let message = "this server is a standby";
        let help = "connect to the primary, for example with target_session_attrs=primary in the URL";
        Err(Refusal::new(Code::WrongServer, message, help).into())
    }
}

/// Reads who and where the session is, then lets the role of the URL go: it is part of the frozen
/// settings and set by each transaction that touches a user's table.
pub(crate) async fn arrive(session: &Session) -> Result<Surroundings, Error> {
    let here = session.surroundings().await?;
    session.become_self().await?;
    Ok(here)
}

pub(crate) fn cannot_connect(error: pgmend_pg::PgError) -> Error {
    let help = error.named.hint.clone();
    let help = help.unwrap_or_else(|| "check host, port, database, user and password; see docs/connecting.md".into());
    Refusal::new(Code::Connection, error.to_string(), help).into()
}

/// Operating-system user, host and version, for the record.
pub(crate) fn client() -> String {
    let var = |names: &[&str]| names.iter().find_map(|n| std::env::var(n).ok());
    let user = var(&["USER", "LOGNAME"]).or_else(account).unwrap_or_else(|| "unknown".into());
    let host = std::fs::read_to_string("/etc/hostname").ok().map(|h| h.trim().to_owned());
    let host = host.filter(|h| !h.is_empty()).or_else(|| var(&["HOSTNAME"])).unwrap_or_else(|| "unknown".into());
    format!("{user}@{host}, pgmend {}", env!("CARGO_PKG_VERSION"))
}

/// The account that this process runs as: services and containers often lack `USER`.
fn account() -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = std::fs::metadata("/proc/self").ok()?.uid();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    });
    Some(named.unwrap_or_else(|| format!("uid {uid}")))
}
