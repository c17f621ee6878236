//! The key of the tokens that stand for masked values: one for a database that has the control schema, else one for
//! each plan.

use pgmend_core::digest::{Digest, DigestKey};
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
        Ok(self.kept_tokens().await?.unwrap_or_else(fresh))
    }

    /// The key of the plan that is being made.
    pub(crate) fn key_of_plan(&self) -> TokenKey {
        self.plan_key.clone().unwrap_or_else(fresh)
    }
}

/// A signature, by which the database knows the same change again: keyed, since it covers literals and parameters and is
/// for every reader. Under a key that is forgotten with its plan it is like no other; such a plan is not stored.
/// Version 15 of the control schema makes the signatures of older versions the same way.
pub(crate) fn keyed_signature(key: &TokenKey, signed: &impl serde::Serialize) -> Digest {
    key.digest(&Digest::of(signed))
}

/// A key that is forgotten with the plan.
fn fresh() -> TokenKey {
    TokenKey::from_secret(secret().as_bytes())
}

/// A key for the digests of a new plan.
pub(crate) fn digest_key() -> DigestKey {
    DigestKey::from_secret(secret())
}

/// Three version-4 UUIDs hold 366 random bits.
fn secret() -> String {
    [(); 3].map(|()| uuid::Uuid::new_v4().simple().to_string()).concat()
}
