//! The scene of a transaction: whose rights, which settings, which timeouts. Set locally each time, so
//! that nothing depends on the state of a session.

use pgmend_core::limits::Limits;
use pgmend_core::plan::Settings;

use crate::image_keys::ImageKey;
use crate::session::Statement;
use crate::written::Written;

/// How often the server looks whether its client is still there, where its system can tell: a statement whose pgmend was
/// ended would otherwise go on for minutes, with its locks and its snapshot.
const CLIENT_LOOKED_FOR: &str = "5s";

/// What a transaction that touches a user's table runs under.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Frozen settings.
    pub settings: Settings,
    /// `lock_timeout` in milliseconds.
    pub lock_timeout_ms: u64,
    /// `statement_timeout` in milliseconds; 0 is none.
    pub statement_timeout_ms: u64,
    /// `idle_in_transaction_session_timeout` in milliseconds.
    pub idle_timeout_ms: u64,
    /// What the images of a batch are encrypted with; `None` where they are plain.
    pub image_key: Option<ImageKey>,
    /// What each batch counts as written; `None` where no trigger could write more than the batch.
    pub written: Option<Written>,
}

impl Scene {
    /// The scene of a batch: a third of the lease is what an idle transaction may last, so that a
    /// takeover is never blocked by a half-open worker.
    pub fn of_batch(settings: &Settings, limits: &Limits) -> Self {
        Self {
            settings: settings.clone(),
            lock_timeout_ms: limits.lock_timeout_ms,
            statement_timeout_ms: limits.statement_timeout(),
            idle_timeout_ms: limits.lease_seconds * 1_000 / 3,
            image_key: None,
            written: None,
        }
    }

    /// Everything but the role, which the guards do not run under.
    pub(crate) fn enter(&self) -> Statement {
        let settings = &self.settings;
        Statement::new(
            "set the transaction's settings",
            "select set_config('role', 'none', true), set_config('search_path', $1, true), \
             set_config('timezone', $2, true), set_config('datestyle', $3, true), \
             set_config('intervalstyle', $4, true), set_config('row_security', 'on', true), \
             set_config('lock_timeout', $5, true), set_config('statement_timeout', $6, true), \
             set_config('idle_in_transaction_session_timeout', $7, true), \
             set_config('client_connection_check_interval', case \
                 when version() like '%linux%' and current_setting('client_connection_check_interval') = '0' then $9 \
                 else current_setting('client_connection_check_interval') end, true), \
             (select count(set_config(key, value, true)) from json_each_text($8::json))::text",
            vec![
                settings.search_path.clone(),
                settings.time_zone.clone(),
                settings.date_style.clone(),
                settings.interval_style.clone(),
                self.lock_timeout_ms.to_string(),
                self.statement_timeout_ms.to_string(),
                self.idle_timeout_ms.to_string(),
                serde_json::to_string(&settings.formats).unwrap_or_default(),
                CLIENT_LOOKED_FOR.to_owned(),
            ],
        )
    }

    /// Takes on the job's role.
    pub(crate) fn as_job(&self) -> Statement {
        Statement::new(
            "take on the job's role",
            "select set_config('role', $1, true)",
            vec![self.settings.role.clone()],
        )
    }

    /// Becomes the session's user again.
    pub(crate) fn as_self() -> Statement {
        Statement::new("become the session's user", "select set_config('role', 'none', true)", vec![])
    }
}
