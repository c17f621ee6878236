//! The key of the tokens that stand for masked values: one for a database that has the control schema, else one for
//! each plan.

use pgmend_core::digest::Digest;
use pgmend_core::mask::TokenKey;
use pgmend_core::plan::Plan;

use crate::engine::Engine;
use crate::error::Error;

impl Engine {
    /// The database's key, for values that were not in a plan; `None` for a role that may not try guesses.
    pub(crate) async fn kept_tokens(&self) -> Result<Option<TokenKey>, Error> {
        if !self.has_control_schema().await? {
            return Ok(None);
        }
        Ok(self.session.token_secret().await?.map(|secret| TokenKey::from_secret(secret.as_bytes())))
    }

    /// What a run changes, for the ledger: a keyed digest of the statement as understood and its parameters, so that
    /// literals are not in the chain, nor can be guessed from it.
    pub(crate) async fn change_digest(&self, plan: &Plan) -> Result<Option<Digest>, Error> {
        let key = self.kept_tokens().await?;
        let params: Vec<&str> = plan.params.iter().map(|p| p.value.as_str()).collect();
        Ok(key.map(|key| key.digest(&(&plan.canonical, params))))
    }

    /// The key of a plan: that of the database, or one that is forgotten with the plan.
    pub(crate) async fn plan_tokens(&self) -> Result<TokenKey, Error> {
        let fresh = || {
            let secret = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
            TokenKey::from_secret(&secret.concat())
        };
        Ok(self.kept_tokens().await?.unwrap_or_else(fresh))
    }
}
