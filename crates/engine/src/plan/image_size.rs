//! What a row takes up beside the table: in images, in a change set, and encrypted. All of it is estimated, from the
//! statistics of the target's columns.

use pgmend_core::plan::{ImageColumn, ImageLayout, Plan};
use pgmend_pg::readtx::ReadTx;

use super::bind::Bound;
use super::cost::{TUPLE_OVERHEAD_BYTES, widths};
use crate::error::Error;

/// The batch's number or the ordinal, and `op`.
const PLACE_BYTES: f64 = 8.0;
/// The number of the image key, and the length of the message.
const ENCRYPTED_BYTES: f64 = 12.0;
/// What OpenPGP adds to the text: a packet without derivation of a key, the cipher's prefix, the literal packet's header
/// and the digest. Measured with pgcrypto of PostgreSQL 14 to 18, which agree: 57 bytes for a short text, 59 for a long one.
const MESSAGE_BYTES: f64 = 58.0;
/// The parentheses of a row as text.
const ROW_BYTES: f64 = 2.0;
/// A comma, and quotes where a value needs them.
const SEPARATOR_BYTES: f64 = 2.0;

/// The tables that a plan writes beside its target.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'p> {
    /// The run's own images.
    pub images: Option<&'p ImageLayout>,
    /// The change set.
    pub change_set: Option<&'p ImageLayout>,
    /// Whether both are encrypted: images from the first row, the change set when its run ends, so that for a moment it
    /// stands there twice.
    pub encrypted: bool,
}

impl<'p> Beside<'p> {
    /// Those of a plan; `change_set` is the layout of the one that it will have.
    pub fn of(plan: &'p Plan, change_set: Option<&'p ImageLayout>) -> Self {
        Self { images: plan.images.layout.as_ref(), change_set, encrypted: plan.images.recipient.is_some() }
    }

    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        self.images.is_some() || self.change_set.is_some()
    }

    /// Bytes of a changed row in all of them.
    /// Lock: none. Index: pg_statistic's own.
    pub async fn row_bytes(&self, tx: &ReadTx<'_>, bound: &Bound) -> Result<f64, Error> {
        let mut bytes = 0.0;
        if let Some(layout) = self.images {
            bytes += match self.encrypted {
                true => encrypted_row(tx, bound, layout).await?,
                false => plain_row(tx, bound, layout).await?,
            };
        }
        if let Some(layout) = self.change_set {
            bytes += plain_row(tx, bound, layout).await?;
            if self.encrypted {
                bytes += encrypted_row(tx, bound, layout).await?;
            }
        }
        Ok(bytes)
    }
}

async fn plain_row(tx: &ReadTx<'_>, bound: &Bound, layout: &ImageLayout) -> Result<f64, Error> {
    let columns = layout.key.iter().chain(&layout.before).chain(&layout.after);
    let values: f64 = widths(tx, bound, &names(columns)).await?.into_iter().sum();
    Ok(TUPLE_OVERHEAD_BYTES + PLACE_BYTES + values)
}

async fn encrypted_row(tx: &ReadTx<'_>, bound: &Bound, layout: &ImageLayout) -> Result<f64, Error> {
    let keys: f64 = widths(tx, bound, &names(layout.key.iter())).await?.into_iter().sum();
    let sides: Vec<&ImageColumn> = layout.before.iter().chain(&layout.after).collect();
    let stored = widths(tx, bound, &names(sides.iter().copied())).await?;
    let columns: Vec<(u32, f64)> = sides.iter().map(|column| column.type_oid).zip(stored).collect();
    Ok(TUPLE_OVERHEAD_BYTES + PLACE_BYTES + keys + ENCRYPTED_BYTES + message_bytes(&columns))
}

fn names<'l>(columns: impl Iterator<Item = &'l ImageColumn>) -> Vec<String> {
    columns.map(|column| column.column.clone()).collect()
}

/// The length of the encrypted message of a row: columns by their type's oid and stored width.
fn message_bytes(columns: &[(u32, f64)]) -> f64 {
    let values: f64 = columns.iter().map(|&(oid, stored)| printed(oid, stored) + SEPARATOR_BYTES).sum();
    MESSAGE_BYTES + ROW_BYTES + values
}

/// About how many bytes a value of a type prints as, from its stored width. Oids are those of `pg_type.dat`, which do
/// not change; what is not listed prints about as wide as it is stored.
fn printed(type_oid: u32, stored: f64) -> f64 {
    match type_oid {
        // boolean
        16 => 1.0,
        // smallint, integer, bigint
        21 => 4.0,
        23 => 7.0,
        20 => 10.0,
        // real, double precision
        700 => 8.0,
        701 => 16.0,
        // numeric: two bytes hold four digits, behind a header
        1700 => (2.0 * stored - 8.0).max(3.0),
        // date, time, timestamp, timestamp with time zone
        1082 => 10.0,
        1083 => 15.0,
        1114 => 28.0,
        1184 => 31.0,
        2950 => 36.0,
        // bytea: two digits a byte, behind an escaped prefix
        17 => 2.0 * stored + 3.0,
        // json, jsonb: each quote is doubled
        114 | 3802 => 1.2 * stored,
        _ => stored,
    }
}

#[cfg(test)]
mod tests {
    use super::{MESSAGE_BYTES, message_bytes};

    #[test]
    fn a_message_is_longer_than_its_text_by_a_fixed_part() {
        assert_eq!(message_bytes(&[]), MESSAGE_BYTES + 2.0);
        // (17,"2026-11-22 00:00:00+00",abcdefgh)
        let row = message_bytes(&[(23, 4.0), (1184, 8.0), (25, 8.0)]);
        assert!((100.0..125.0).contains(&row), "{row}");
        assert!(message_bytes(&[(17, 100.0)]) > message_bytes(&[(25, 100.0)]) + 90.0, "bytes print as two digits each");
    }
}
