//! Image keys: what the server encrypts images with. A key lives in the memory of its worker and, for the length of a
//! transaction, in a setting of the session; in the database it is only encrypted to its recipient
//! (`008_encrypted_images.sql`). It is bound in a statement of its own, which does no work and raises nothing: a server
//! that logs the parameters of slow or of failing statements does not log it.

use pgmend_core::id::RunId;
use pgmend_core::plan::{ImageColumn, ImageLayout};
use pgmend_core::table::Column;

use crate::archive::matching_key;
use crate::batch::Lease;
use crate::error::PgError;
use crate::images::ImageTable;
use crate::readtx::{FreezeTx, ReadTx};
use crate::scene::Scene;
use crate::session::{Answer, Session, Statement, array_literal};

/// The key of a worker, and its number in `pgmend.image_key`. Prints a placeholder.
#[derive(Clone)]
pub struct ImageKey {
    /// The run.
    pub run: RunId,
    /// Its number.
    pub key_no: i64,
    secret: String,
}

/// A key as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptKey {
    /// Its number.
    pub key_no: i64,
    /// Whom it is encrypted to.
    pub recipient: String,
    /// The age file.
    pub encrypted: Vec<u8>,
}

impl std::fmt::Debug for ImageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageKey({}, ‹masked›)", self.key_no)
    }
}

impl ImageKey {
    /// A key that was kept under this number.
    pub fn new(run: RunId, key_no: i64, secret: String) -> Self {
        Self { run, key_no, secret }
    }

    /// The key must be there, or what it encrypts would be lost; then the transaction may use it.
    /// Lock: none (one row is read). Index: `image_key_pkey`.
    pub(crate) fn hold(&self) -> [Statement; 2] {
        let number = self.key_no.to_string();
        [
            Statement::new(
                "look for the image key",
                "select pgmend.need_image_key($1::uuid, $2::bigint)",
                vec![self.run.to_string(), number.clone()],
            ),
            Statement::new(
                "set the image key",
                "select set_config('pgmend.image_key', $1, true), set_config('pgmend.image_key_no', $2, true)",
                vec![self.secret.clone(), number],
            ),
        ]
    }
}

impl Session {
    /// Keeps a new key, encrypted; gives its number. Committed before any row needs it.
    pub async fn keep_image_key(&self, lease: &Lease, recipient: &str, encrypted: &[u8]) -> Result<i64, PgError> {
        let sql = "select pgmend.keep_image_key($1::uuid, $2::int, $3::bigint, $4, decode($5, 'hex'))::text";
        let params = vec![
            lease.run.to_string(),
            lease.partition_no.to_string(),
            lease.fence.to_string(),
            recipient.to_owned(),
            encrypted.iter().map(|byte| format!("{byte:02x}")).collect(),
        ];
        self.run(&Statement::new("keep the image key", sql, params)).await?.number()
    }

    /// The keys of a run, as they are kept.
    /// Lock: none. Index: `image_key_run_id`.
    pub async fn image_keys(&self, run: RunId) -> Result<Vec<KeptKey>, PgError> {
        let sql = "select key_no::text, recipient, encode(encrypted, 'hex') from pgmend.image_key \
                   where run_id = $1::uuid order by image_key.key_no";
        let answer = self.run(&Statement::new("read the image keys", sql, vec![run.to_string()])).await?;
        answer.rows.iter().map(|row| kept(row)).collect()
    }

    /// Whether the rows of a table of images or of a change set are encrypted.
    pub async fn is_encrypted(&self, name: &str) -> Result<bool, PgError> {
        let sql = "select pgmend.is_encrypted($1::name)::text";
        let answer = self.run(&Statement::new("look whether images are encrypted", sql, vec![name.to_owned()])).await?;
        Ok(answer.scalar() == Some("true"))
    }

    /// Begins to encrypt a run's change set, or goes on: the table to fill, `None` if there is nothing to encrypt.
    pub async fn begin_encryption(&self, lease: &Lease) -> Result<Option<String>, PgError> {
        let sql = "select pgmend.begin_encryption($1::uuid, $2::int, $3::bigint)::text";
        let answer = self.run(&Statement::new("begin to encrypt the change set", sql, owner(lease))).await?;
        Ok(answer.scalar().map(str::to_owned))
    }

    /// Drops the plain change set, every row of which is encrypted; the rows.
    pub async fn end_encryption(&self, lease: &Lease) -> Result<Option<i64>, PgError> {
        let sql = "select pgmend.end_encryption($1::uuid, $2::int, $3::bigint)::text";
        let answer = self.run(&Statement::new("end the encryption of the change set", sql, owner(lease))).await?;
        let rows = answer.scalar().map(str::parse);
        rows.transpose().map_err(|_| PgError::corrupt("a number that does not read"))
    }

    /// The greatest ordinal of a change set that is being encrypted; 0 before the first.
    pub async fn encrypted_up_to(&self, scene: &Scene, name: &str) -> Result<i64, PgError> {
        let sql = format!("select coalesce(max(n), 0)::text from {}", relation(name));
        let tx = self.read(scene, vec![]).await?;
        let answer = tx.query("look how far the encryption came", &sql, vec![]).await;
        tx.end().await?;
        answer?.number()
    }

    /// Encrypts a range of a change set in a transaction of its own. Another worker that does the same meets the rows'
    /// primary key; one that lost its lease is stopped when it ends.
    pub async fn encrypt_range(
        &self,
        scene: &Scene,
        key: &ImageKey,
        sql: &str,
        range: (i64, i64),
    ) -> Result<u64, PgError> {
        let tx = self.freeze(scene, vec![]).await?;
        let filled = tx.encrypt(scene, key, sql, range).await;
        match filled {
            Ok(answer) => {
                tx.commit().await?;
                Ok(answer.affected)
            }
            Err(error) => {
                tx.rollback().await?;
                Err(error)
            }
        }
    }
}

impl FreezeTx<'_> {
    async fn encrypt(&self, scene: &Scene, key: &ImageKey, sql: &str, range: (i64, i64)) -> Result<Answer, PgError> {
        self.as_self().await?;
        for statement in key.hold() {
            self.read.send_statement(statement).await?;
        }
        self.as_job(scene).await?;
        self.read.query("encrypt the change set", sql, vec![range.0.to_string(), range.1.to_string()]).await
    }

    /// Takes the scene of another time, for the rest of the transaction or until the next: what a value's text meant.
    pub async fn under(&self, scene: &Scene) -> Result<(), PgError> {
        for statement in [scene.enter(), scene.as_job()] {
            self.read.send_statement(statement).await?;
        }
        Ok(())
    }
}

impl ReadTx<'_> {
    /// The schema that pgcrypto is in, ready for SQL; `None` where it is not installed.
    pub async fn pgcrypto(&self) -> Result<Option<String>, PgError> {
        let sql = "select quote_ident(n.nspname) from pg_catalog.pg_extension e join pg_catalog.pg_namespace n \
                   on n.oid = e.extnamespace where e.extname = 'pgcrypto'";
        Ok(self.query("look for pgcrypto", sql, vec![]).await?.scalar().map(str::to_owned))
    }

    /// Lets the transaction read what these keys encrypted: pairs of a number and a secret.
    pub async fn open_image_keys(&self, keys: &[(i64, String)]) -> Result<(), PgError> {
        let Statement { doing, sql, params } = opening(keys);
        self.query(doing, &sql, params.into_iter().flatten().collect()).await?;
        Ok(())
    }

    /// The numbers of the keys that the rows of a table are encrypted with.
    pub async fn keys_used(&self, name: &str) -> Result<Vec<i64>, PgError> {
        let sql = format!("select distinct encrypted_with::text from {}", relation(name));
        let answer = self.query("look which image keys are needed", &sql, vec![]).await?;
        answer.rows.iter().map(|row| crate::store::number(row, 0)).collect()
    }

    /// The rows of encrypted images with this key: place, operation, and what `text` (SQL over `i`) makes of the values.
    /// Found by the key before the change alone: another that was written is among the values.
    pub async fn encrypted_images_of_key(
        &self,
        kind: ImageTable,
        name: &str,
        layout: &ImageLayout,
        key: &[&Column],
        values: &[String],
        text: &str,
    ) -> Result<Option<Vec<(i64, char, Option<String>)>>, PgError> {
        let keys = ImageLayout { key: layout.key.clone(), ..ImageLayout::default() };
        let Some(matching) = matching_key(&keys, key) else { return Ok(None) };
        let place = kind.place();
        let sql = format!(
            "select i.{place}::text, i.op::text, {text} from {} as i where {matching} order by i.{place}",
            relation(name)
        );
        let answer = self.query("read the encrypted images of a row", &sql, values.to_vec()).await?;
        let row = |row: &Vec<Option<String>>| {
            let op = crate::store::text(row, 1)?.chars().next().unwrap_or('U');
            Ok((crate::store::number(row, 0)?, op, row.get(2).cloned().flatten()))
        };
        answer.rows.iter().map(row).collect::<Result<_, _>>().map(Some)
    }

    /// `key_id bigint, before_note text …`: columns of a layout as they are declared, by the types' identities, since a
    /// type may have another name by now.
    pub async fn declared(&self, columns: &[&ImageColumn]) -> Result<String, PgError> {
        let sql = "select string_agg(format('%I %s%s', c.name, format_type(c.type, c.typmod), \
                   case when c.coll <> '' then ' collate ' || c.coll else '' end), ', ' order by c.at) \
                   from unnest($1::text[], $2::oid[], $3::int[], $4::text[]) with ordinality as c (name, type, typmod, coll, at)";
        let list =
            |f: &dyn Fn(&ImageColumn) -> String| array_literal(&columns.iter().map(|c| f(c)).collect::<Vec<_>>());
        let params = vec![
            list(&|c| c.image_column.clone()),
            list(&|c| c.type_oid.to_string()),
            list(&|c| c.typmod.to_string()),
            list(&|c| c.collation.clone().unwrap_or_default()),
        ];
        let answer = self.query("declare the columns of images", sql, params).await?;
        answer.scalar().map(str::to_owned).ok_or_else(|| PgError::corrupt("images without columns"))
    }

    /// Makes the temporary table that stands for a table of encrypted images, decrypted.
    pub async fn create_decrypted(&self, kind: ImageTable, name: &str, layout: &ImageLayout) -> Result<(), PgError> {
        let sql = self.decrypted_table(kind, name, layout).await?;
        self.query("make a table for decrypted images", &sql, vec![]).await?;
        Ok(())
    }

    /// The statement that makes it.
    pub async fn decrypted_table(&self, kind: ImageTable, name: &str, layout: &ImageLayout) -> Result<String, PgError> {
        let columns: Vec<&ImageColumn> = layout.key.iter().chain(&layout.before).chain(&layout.after).collect();
        let columns = self.declared(&columns).await?;
        let place = kind.place();
        Ok(format!(
            "create temporary table {name} ({place} bigint not null, op \"char\" not null, {columns}) on commit drop"
        ))
    }
}

/// Lets a transaction read what these keys encrypted: pairs of a number and a secret. Does no work and raises no error, so
/// that it is in no log of slow or failing statements.
pub fn opening(keys: &[(i64, String)]) -> Statement {
    let sql = "select count(set_config('pgmend.image_key_' || k.no, k.secret, true))::text \
               from unnest($1::text[], $2::text[]) as k (no, secret)";
    let (numbers, secrets): (Vec<String>, Vec<String>) =
        keys.iter().map(|(no, secret)| (no.to_string(), secret.clone())).unzip();
    Statement::new("set the image keys", sql, vec![array_literal(&numbers), array_literal(&secrets)])
}

fn owner(lease: &Lease) -> Vec<String> {
    vec![lease.run.to_string(), lease.partition_no.to_string(), lease.fence.to_string()]
}

fn relation(name: &str) -> String {
    format!("pgmend.{}", pgmend_core::table::quote_ident(name))
}

fn kept(row: &[Option<String>]) -> Result<KeptKey, PgError> {
    let hex = crate::store::text(row, 2)?;
    let byte = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let encrypted: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    let encrypted = encrypted.ok_or_else(|| PgError::corrupt("an image key that does not read"))?;
    Ok(KeptKey { key_no: crate::store::number(row, 0)?, recipient: crate::store::text(row, 1)?, encrypted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let key = ImageKey::new(RunId::from_uuid(uuid::Uuid::nil()), 7, "wyvern".into());
        assert_eq!(format!("{key:?}"), "ImageKey(7, ‹masked›)");
    }
}
