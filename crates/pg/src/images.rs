//! Tables of images and change sets: typed like the target, one per run, readable with plain SQL.

use pgmend_core::plan::{ImageColumn, ImageLayout, PlanImages};
use pgmend_core::table::{Column, Table};

use crate::error::PgError;
use crate::readtx::FreezeTx;
use crate::session::{Session, Statement, array_literal};

/// Longest identifier of PostgreSQL (`NAMEDATALEN` − 1), in bytes.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// What a table of images is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageTable {
    /// Rows as a run found and left them, in batches.
    Images,
    /// Rows as they will be changed, numbered.
    ChangeSet,
}

impl ImageTable {
    /// `image_20261121_fix_roles_1a2b3c4d`: kind, date, job, id; cut to fit.
    pub fn name(self, date: &str, job: &str, short_id: &str) -> String {
        let prefix = match self {
            ImageTable::Images => "image",
            ImageTable::ChangeSet => "change_set",
        };
        let digits: String = date.chars().filter(char::is_ascii_digit).take(8).collect();
        let job: String = job
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .take(30)
            .collect();
        format!("{prefix}_{digits}_{job}_{short_id}")
    }

    /// The column that orders its rows as they are applied.
    pub fn place(self) -> &'static str {
        match self {
            ImageTable::Images => "batch_no",
            ImageTable::ChangeSet => "n",
        }
    }
}

/// The layout of images over `key`, `before` and `after` columns of a table.
pub fn layout(table: &Table, key: &[&Column], before: &[&Column], after: &[&Column]) -> ImageLayout {
    let columns = |part: &str, columns: &[&Column]| columns.iter().map(|c| image_column(part, c)).collect();
    debug_assert!(key.iter().all(|k| table.columns.iter().any(|c| c.attnum == k.attnum)));
    ImageLayout { key: columns("key", key), before: columns("before", before), after: columns("after", after) }
}

fn image_column(part: &str, column: &Column) -> ImageColumn {
    let mut image_column = format!("{part}_{}", column.name);
    if image_column.len() > IDENTIFIER_BYTES_MAX {
        image_column = format!("{part}_{}", column.attnum);
    }
    ImageColumn {
        attnum: column.attnum,
        column: column.name.clone(),
        image_column,
        type_sql: column.base_type.sql.clone(),
        type_oid: column.base_type.oid,
        typmod: column.base_type.typmod,
        collation: column.base_type.collation.clone(),
    }
}

fn plain_columns(layout: &ImageLayout) -> Vec<ImageColumn> {
    layout.key.iter().chain(&layout.before).chain(&layout.after).cloned().collect()
}

/// The columns of images whose values are encrypted: the keys, the number of the image key, one text of values.
fn encrypted_columns(layout: &ImageLayout) -> Vec<ImageColumn> {
    let own = |name: &str, type_sql: &str, type_oid: u32| ImageColumn {
        attnum: 0,
        column: name.to_owned(),
        image_column: name.to_owned(),
        type_sql: type_sql.to_owned(),
        type_oid,
        typmod: -1,
        collation: None,
    };
    // The oids of int8 and bytea, as pg_type.dat fixes them.
    let own = [own("encrypted_with", "bigint", 20), own("encrypted", "bytea", 17)];
    layout.key.iter().cloned().chain(own).collect()
}

/// Lock:  none but on the new table. Index: none; a change set is indexed once it is complete.
fn create(kind: ImageTable, name: &str, columns: &[ImageColumn], role: &str, comment: &str) -> Statement {
    let list = |f: &dyn Fn(&ImageColumn) -> String| array_literal(&columns.iter().map(f).collect::<Vec<_>>());
    Statement::new(
        "create a table of images",
        "select pgmend.create_image_table($1::name, $2::boolean, $3::name[], $4::oid[], $5::int[], \
         (select coalesce(array_agg(coalesce(nullif(c, '')::regcollation::oid, 0) order by at), '{}') \
            from unnest($6::text[]) with ordinality as u (c, at)), $7::name, $8)",
        vec![
            name.to_owned(),
            (kind == ImageTable::ChangeSet).to_string(),
            list(&|c| c.image_column.clone()),
            list(&|c| c.type_oid.to_string()),
            list(&|c| c.typmod.to_string()),
            list(&|c| c.collation.clone().unwrap_or_default()),
            role.to_owned(),
            comment.to_owned(),
        ],
    )
}

impl Session {
    /// Makes a run's table of images, unless it is there already (a run that was cut off before its first batch).
    pub async fn create_images(
        &self,
        name: &str,
        images: &PlanImages,
        role: &str,
        comment: &str,
    ) -> Result<(), PgError> {
        let sql = "select (to_regclass('pgmend.' || quote_ident($1)) is not null)::text";
        if self.run(&Statement::new("look for a table of images", sql, vec![name.to_owned()])).await?.scalar()
            == Some("true")
        {
            return Ok(());
        }
        let Some(layout) = &images.layout else { return Ok(()) };
        let columns = match &images.recipient {
            Some(_) => encrypted_columns(layout),
            None => plain_columns(layout),
        };
        self.run(&create(ImageTable::Images, name, &columns, role, comment)).await?;
        Ok(())
    }

    /// Indexes the keys of a run's images.
    pub async fn index_images(&self, name: &str) -> Result<(), PgError> {
        let sql = "select pgmend.index_images($1::name)";
        self.run(&Statement::new("index the images", sql, vec![name.to_owned()])).await?;
        Ok(())
    }

    /// The number of rows and the hash of a change set's content.
    pub async fn change_set_content(&self, name: &str, hashable: bool) -> Result<(i64, String), PgError> {
        let answer = self.run(&Statement::new("hash the change set", content_sql(name, hashable), vec![])).await?;
        content(&answer)
    }
}

impl FreezeTx<'_> {
    /// Makes the change set's table within this transaction.
    pub async fn create_change_set(
        &self,
        name: &str,
        layout: &ImageLayout,
        role: &str,
        comment: &str,
    ) -> Result<(), PgError> {
        let statement = create(ImageTable::ChangeSet, name, &plain_columns(layout), role, comment);
        let params = statement.params.into_iter().flatten().collect();
        self.read.query("create a change set", &statement.sql, params).await?;
        Ok(())
    }

    /// Closes the gap in the ordinals of a change set in halves, which holds `rows` rows and is not sealed yet.
    pub async fn close_last_stretch(&self, name: &str, half_rows: i64, rows: i64) -> Result<(), PgError> {
        let sql = "select pgmend.close_last_stretch($1::name, $2::text::bigint, $3::text::bigint)";
        let params = vec![name.to_owned(), half_rows.to_string(), rows.to_string()];
        self.read.query("close the last stretch of a change set", sql, params).await?;
        Ok(())
    }

    /// Indexes and analyses the change set, and tells its rows and the hash of its content.
    pub async fn seal(&self, name: &str, hashable: bool) -> Result<(i64, String), PgError> {
        self.read.query("seal a change set", "select pgmend.seal_change_set($1::name)", vec![name.to_owned()]).await?;
        content(&self.read.query("hash a change set", &content_sql(name, hashable), vec![]).await?)
    }
}

/// The sum of the rows' hashes: the ordinal is part of each row, so the sum fixes the order too. Types
/// without a hash function (json, xml, point …) are hashed through their text.
fn content_sql(name: &str, hashable: bool) -> String {
    let table = format!("pgmend.{}", pgmend_core::table::quote_ident(name));
    let hash = if hashable { "hash_record_extended(s, 0)" } else { "hashtextextended(s::text, 0)" };
    format!("select count(*)::text, coalesce(sum({hash}), 0)::text from {table} s")
}

fn content(answer: &crate::session::Answer) -> Result<(i64, String), PgError> {
    let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
    Ok((crate::store::number(row, 0)?, crate::store::text(row, 1)?))
}
