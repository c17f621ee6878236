//! Whether the values of images fit a column that has another type now. The types decide where they prove it; else the
//! values do: each must be the same after a cast to the type of now and back.

use pgmend_core::plan::ImageColumn;
use pgmend_core::table::{Column, Table, quote_ident};
use pgmend_pg::readtx::ReadTx;

use super::source::Source;
use crate::error::Error;

/// How the values of an image column become values of the column as it is now.
pub enum Fit {
    /// As they are: every value of the old type is one of the new.
    Always,
    /// By a cast, which loses nothing of any value that there is.
    Cast,
    /// Not all of them do; why, with an example.
    Not(String),
}

impl Fit {
    /// Judges one image column.
    pub async fn of(
        tx: &ReadTx<'_>,
        table: &Table,
        source: &Source,
        old: &ImageColumn,
        now: &Column,
    ) -> Result<Fit, Error> {
        if holds(tx, old, now).await? {
            return Ok(Fit::Always);
        }
        let value = format!("pgmend_i.{}", quote_ident(&old.image_column));
        let back = format!("({value}::{})::{}", now.base_type.sql, old.type_sql);
        let lost = format!("row({value})::record *<> row({back})::record");
        let answer = match tx.attempt("compare old values with the column's type", &source.lost(&lost), vec![]).await {
            Ok(answer) => answer,
            Err(error) if error.sqlstate.starts_with("22") || error.sqlstate.starts_with("23") => {
                return Ok(Fit::Not(format!("an old value is none of that type: {}", error.message)));
            }
            // No such cast.
            Err(error) if error.sqlstate.starts_with("42") => {
                return Ok(Fit::Not("to which there is no cast".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(row) = answer.rows.first() else { return Ok(Fit::Cast) };
        let lost_rows = row.first().cloned().flatten().unwrap_or_default();
        let rows = if lost_rows == "1" { "1 row".to_owned() } else { format!("{lost_rows} rows") };
        let key = source.shown_key(table, row.get(1..).unwrap_or_default());
        Ok(Fit::Not(format!("which cannot hold what {rows} had, for example the one with key {key}")))
    }
}

/// Whether the column's type now holds every value of the type then: the same type at least as wide, or one
/// that PostgreSQL casts to implicitly.
async fn holds(tx: &ReadTx<'_>, old: &ImageColumn, now: &Column) -> Result<bool, Error> {
    let then = (old.type_oid, old.typmod);
    if then == (now.base_type.oid, now.base_type.typmod) {
        return Ok(true);
    }
    if old.type_oid == now.base_type.oid {
        let numeric = old.type_sql.starts_with("numeric");
        // numeric is wider if both its parts are; the length of other types compares plainly.
        let (p, s) = precision_and_scale(now.base_type.typmod);
        let (p0, s0) = precision_and_scale(old.typmod);
        let wider =
            if numeric { s >= s0 && p - s >= p0 - s0 } else { now.base_type.typmod >= old.typmod && old.typmod != -1 };
        return Ok(now.base_type.typmod == -1 || wider);
    }
    let sql = "select exists (select from pg_catalog.pg_cast where castsource = $1::oid and casttarget = $2::oid and castcontext = 'i')::text";
    let answer = tx.query("compare types", sql, vec![old.type_oid.to_string(), now.base_type.oid.to_string()]).await?;
    Ok(answer.scalar() == Some("true") && now.base_type.typmod == -1)
}

/// numeric's modifier packs both, above a header of four (`numeric_typmod_precision` in numeric.c).
fn precision_and_scale(typmod: i32) -> (i32, i32) {
    (((typmod - 4) >> 16) & 0xffff, (typmod - 4) & 0x7ff)
}
