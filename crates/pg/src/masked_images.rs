//! Images of one row for whoever may not read images: the database masks their values before it gives them.

use pgmend_core::id::RunId;
use pgmend_core::table::Column;
use serde::Deserialize;

use crate::archive::ImageRow;
use crate::error::PgError;
use crate::readtx::ReadTx;
use crate::session::array_literal;
use crate::store::{number, text};

/// What the server says of a row's parts: nothing where they are encrypted.
#[derive(Deserialize)]
struct Parts(#[serde(default)] Vec<Option<String>>, #[serde(default)] Vec<Option<String>>);

impl ReadTx<'_> {
    /// What a run kept of a row, as its readers may see it, by `pgmend.masked_images`; `PM310` where the key is not plain
    /// and this role may not read the row itself.
    /// Lock:  none. Index: none of the images, which are read from end to end.
    pub async fn masked_images(
        &self,
        run: RunId,
        key: &[&Column],
        values: &[String],
    ) -> Result<Vec<ImageRow>, PgError> {
        let sql = "select i.place::text, i.op, jsonb_build_array(coalesce(to_jsonb(i.before), '[]'), coalesce(to_jsonb(i.after), '[]'))::text \
                   from pgmend.masked_images($1::uuid, $2::smallint[], $3::text[]) as i order by i.place";
        let columns: Vec<String> = key.iter().map(|column| column.attnum.to_string()).collect();
        let params = vec![run.to_string(), array_literal(&columns), array_literal(values)];
        let answer = self.query("ask for the masked images of a row", sql, params).await?;
        let image = |row: &Vec<Option<String>>| {
            let Parts(before, after) = serde_json::from_str(&text(row, 2)?)
                .map_err(|e| PgError::corrupt(format!("the masked image of a row does not read: {e}")))?;
            let op = text(row, 1)?.chars().next().unwrap_or('U');
            Ok(ImageRow { place: number(row, 0)?, op, before, after })
        };
        answer.rows.iter().map(image).collect()
    }
}
