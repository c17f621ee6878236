//! Rehearsals: small batches run for real and rolled back.

use pgmend_pg::scene::Scene;

use super::Draft;
use super::bind::Bound;
use crate::engine::Engine;
use crate::error::Error;

impl Engine {
    /// Runs small batches and rolls them back.
    pub(crate) async fn rehearse(
        &mut self,
        _draft: &mut Draft,
        _bound: &Bound,
        _scene: &Scene,
        _params: &[Option<String>],
        _batches: u32,
    ) -> Result<(), Error> {
        Ok(())
    }
}
