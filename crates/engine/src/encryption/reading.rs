//! Encrypted images read again: by an undo as a whole, into a table that lives as long as its transaction; by `trace`
//! one row, whose text is taken apart here.

use pgmend_core::composite;
use pgmend_core::limits::FREEZE_MS_MAX;
use pgmend_core::plan::{ImageLayout, Plan, Settings};
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{Column, RelationName};
use pgmend_pg::PgError;
use pgmend_pg::archive::ImageRow;
use pgmend_pg::images::ImageTable;
use pgmend_pg::readtx::{FreezeTx, ReadTx};
use pgmend_pg::scene::Scene;

use super::pgcrypto;
use crate::error::Error;
use crate::plan::privileges::DENIED;

/// `external_routine_invocation_exception`: pgcrypto's wrong key or corrupt data.
const WRONG_KEY: &str = "39000";

/// Encrypted images of a run with the keys that open them.
pub(crate) struct Encrypted {
    name: String,
    kind: ImageTable,
    layout: ImageLayout,
    /// Under which the values became text.
    settings: Settings,
    keys: Vec<(i64, String)>,
}

impl Encrypted {
    /// The temporary table that stands for encrypted images; one for each transaction.
    pub const NAME: &str = "pgmend_decrypted";

    /// The images of that name, kept by this plan's run.
    pub fn new(forward: &Plan, kind: ImageTable, name: &str, layout: &ImageLayout, keys: Vec<(i64, String)>) -> Self {
        Self { name: name.to_owned(), kind, layout: layout.clone(), settings: forward.settings.clone(), keys }
    }

    /// The relation that stands for them once they are decrypted.
    pub fn relation() -> RelationName {
        RelationName::new("pg_temp", Self::NAME)
    }

    /// Decrypts them into a table that the transaction's end drops. `scene` is the transaction's own.
    pub async fn decrypt(&self, tx: &FreezeTx<'_>, scene: &Scene) -> Result<(), Error> {
        let settings = Settings { role: scene.settings.role.clone(), ..self.settings.clone() };
        tx.under(&Scene { settings, ..scene.clone() }).await?;
        tx.read.limit_to(FREEZE_MS_MAX).await?;
        self.decrypt_within(&tx.read).await?;
        tx.under(scene).await?;
        Ok(())
    }

    /// Refuses where rows are encrypted with a key that is not among these.
    pub async fn refuse_lost_keys(tx: &ReadTx<'_>, name: &str, keys: &[(i64, String)]) -> Result<(), Error> {
        let used = tx.keys_used(name).await?;
        let Some(lost) = used.iter().find(|no| keys.iter().all(|(own, _)| own != *no)) else { return Ok(()) };
        let message = format!("rows of pgmend.{name} are encrypted with image key {lost}, which is not there");
        let help = "pgmend.image_key has lost a row; a backup of schema pgmend has it";
        Err(Refusal::new(Code::UnreadableImages, message, help).into())
    }

    async fn decrypt_within(&self, tx: &ReadTx<'_>) -> Result<(), Error> {
        let pgcrypto = pgcrypto(tx).await?;
        Self::refuse_lost_keys(tx, &self.name, &self.keys).await?;
        tx.open_image_keys(&self.keys).await?;
        tx.create_decrypted(self.kind, Self::NAME, &self.layout).await.map_err(no_temporary_table)?;
        let values: Vec<_> = self.layout.before.iter().chain(&self.layout.after).collect();
        let row_type = pgmend_sql::decrypted_type(&tx.declared(&values).await?);
        tx.query("make a type for decrypted rows", &row_type, vec![]).await?;
        let encrypted = RelationName::new("pgmend", &self.name).sql();
        let into = Self::relation().sql();
        let sql = pgmend_sql::decrypt_rows(&pgcrypto, &encrypted, &into, self.kind.place(), &self.layout);
        tx.query("decrypt the images", &sql, vec![]).await.map_err(|error| unreadable(error, &self.name))?;
        tx.query("analyse the decrypted images", &format!("analyze {into}"), vec![]).await?;
        Ok(())
    }
}

/// The encrypted images of one row: with its values where a key for them was opened, else without any.
pub(crate) async fn rows_of_key(
    tx: &ReadTx<'_>,
    kind: ImageTable,
    name: &str,
    layout: &ImageLayout,
    key: (&[&Column], &[String]),
    keys: &[(i64, String)],
) -> Result<Option<Vec<ImageRow>>, PgError> {
    let text = match tx.pgcrypto().await? {
        Some(schema) if !keys.is_empty() => {
            tx.open_image_keys(keys).await?;
            pgmend_sql::decrypt_if_opened(&schema, "i")
        }
        Some(_) | None => "null::text".to_owned(),
    };
    let Some(found) = tx.encrypted_images_of_key(kind, name, layout, key.0, key.1, &text).await? else {
        return Ok(None);
    };
    let row = |(place, op, text): (i64, char, Option<String>)| {
        let cells = match text {
            None => Vec::new(),
            Some(text) => composite::fields(&text).ok_or_else(|| PgError::corrupt("an image that does not read"))?,
        };
        let (before, after) = cells.split_at(layout.before.len().min(cells.len()));
        Ok(ImageRow { place, op, before: before.to_vec(), after: after.to_vec() })
    };
    found.into_iter().map(row).collect::<Result<_, _>>().map(Some)
}

fn no_temporary_table(error: PgError) -> Error {
    if error.sqlstate != DENIED {
        return error.into();
    }
    let help = "let the database's owner type: grant temporary on database … to …";
    let message = "encrypted images are decrypted into a temporary table, which this role may not make";
    Refusal::new(Code::Privilege, message, help).into()
}

/// Decryption fails for an altered row; reading back fails where a type means something else than it did.
fn unreadable(error: PgError, name: &str) -> Error {
    let help = "docs/encrypted-images.md says how to read single rows by hand";
    let why = match error.sqlstate.as_str() {
        WRONG_KEY => "a row is not as it was written",
        state if state.starts_with("22") || state.starts_with("42") => "a type has changed since they were written",
        _ => return error.into(),
    };
    let message = format!("the encrypted images in pgmend.{name} cannot be read back: {why} ({error})");
    Refusal::new(Code::UnreadableImages, message, help).into()
}
