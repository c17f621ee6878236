//! A change set is plain while people review it and batches compare the table with it. When its run ends, succeeded or
//! cancelled, its rows are encrypted, range by range, each in a transaction of its own, and the plain table is dropped.
//! What is cut off goes on where it was: the encrypted rows' ordinals say how far it came.

use pgmend_core::limits::FREEZE_ROWS_MAX;
use pgmend_core::plan::Plan;
use pgmend_core::table::RelationName;
use pgmend_pg::batch::Lease;
use pgmend_pg::scene::Scene;
use pgmend_pg::{PgError, Session};
use pgmend_sql::Window;

use super::new_image_key;
use crate::run::fault;

/// Rows of a transaction. At some ten microseconds a row it takes about as long as a batch.
const ROWS: i64 = 10_000;
/// `query_canceled`: rows that take longer than the statement may, since they are wide.
const QUERY_CANCELED: &str = "57014";

/// Encrypts the change set of a run whose lease is held, if it has a recipient and is plain yet.
pub(crate) async fn encrypt_change_set(session: &Session, lease: &Lease, plan: &Plan) -> Result<(), PgError> {
    let (Some(recipient), Some(change_set)) = (&plan.images.recipient, &plan.change_set) else { return Ok(()) };
    let Some(gathered) = session.begin_encryption(lease).await? else { return Ok(()) };
    fault::point("encryption_begun");
    let scene = Scene::of_batch(&plan.settings, &plan.limits);
    let tx = session.read(&scene, vec![]).await?;
    let pgcrypto = tx.pgcrypto().await;
    tx.end().await?;
    let pgcrypto = pgcrypto?
        .ok_or_else(|| PgError::new("encrypt the change set", "42704", "pgcrypto is not installed any more"))?;
    let key = new_image_key(session, lease, recipient).await?;
    let into = RelationName::new("pgmend", &gathered).sql();
    let window = Window { lower: 1, upper: 2, span: None };
    let sql = pgmend_sql::encrypt_rows(&pgcrypto, &change_set.relation.sql(), &into, &change_set.layout, window);
    let mut done = session.encrypted_up_to(&scene, &gathered).await?;
    let mut rows = ROWS;
    while done < change_set.rows.min(FREEZE_ROWS_MAX) {
        match session.encrypt_range(&scene, &key, &sql, (done, done + rows)).await {
            Ok(_) => done += rows,
            Err(error) if error.sqlstate == QUERY_CANCELED && rows > 1 => rows = (rows / 10).max(1),
            Err(error) => return Err(error),
        }
        fault::point("range_encrypted");
    }
    session.end_encryption(lease).await?;
    fault::point("change_set_encrypted");
    Ok(())
}
