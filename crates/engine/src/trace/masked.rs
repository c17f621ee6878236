//! A row's story for whoever may not read images, an observer for example: who changed it, when, by which run, and what, with
//! tokens in the place of values that are not plain.

use pgmend_core::plan::Plan;
use pgmend_core::table::Table;
use pgmend_pg::scene::Scene;
use pgmend_pg::store::StoredRun;

use super::{Found, Place, RowKey, not_theirs, place};
use crate::engine::Engine;
use crate::error::Error;

impl Engine {
    /// A run's images of the row, masked by the database; `None` when it kept nothing that these keys find.
    pub(super) async fn masked_images_of(
        &self,
        scene: &Scene,
        run: StoredRun,
        plan: Plan,
        table: &Table,
        keys: &[RowKey],
    ) -> Result<Option<Found>, Error> {
        let Some(Place { kind, name, layout }) = place(&run, &plan) else { return Ok(None) };
        let layout = layout.clone();
        let encrypted_to = match self.session.is_encrypted(name).await? {
            true => self.session.image_keys(run.run_id).await?.first().map(|key| key.recipient.clone()),
            false => None,
        };
        let tx = self.session.read(scene, vec![]).await?;
        let mut rows = Ok(Vec::new());
        for key in keys {
            let Some(columns) = key.columns_in(table) else { continue };
            rows = tx.masked_images(run.run_id, &columns, &key.values).await;
            if !matches!(&rows, Ok(found) if found.is_empty()) {
                break;
            }
        }
        tx.end().await?;
        let rows = rows.map_err(|error| not_theirs(error, table))?;
        Ok((!rows.is_empty()).then_some(Found { run, plan, kind, rows, layout, encrypted_to }))
    }
}
