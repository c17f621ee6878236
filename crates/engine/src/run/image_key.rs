//! The key that a worker's images are encrypted with: made before its first batch, forgotten after an error.

use pgmend_pg::PgError;

use super::fault;
use super::worker::Worker;
use crate::encryption::new_image_key;

impl Worker<'_, '_> {
    /// Makes the key that images are encrypted with, where they are and there is none: at the start of this process's
    /// part of the run, and after an error, since what memory holds is then worth nothing. One key for all batches in
    /// between: whoever learned one from this process's memory would have them all.
    pub(super) async fn need_image_key(&mut self) -> Result<(), PgError> {
        let Some(recipient) = self.plan.images.recipient.as_ref().filter(|_| self.plan.images.layout.is_some()) else {
            return Ok(());
        };
        if self.scene.image_key.is_none() {
            self.scene.image_key = Some(new_image_key(self.session(), &self.lease, recipient).await?);
            fault::point("image_key_kept");
        }
        Ok(())
    }
}
