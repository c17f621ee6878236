//! Rehearses a streamed change: each batch in a transaction of its own, rolled back.

use std::time::Instant;

use pgmend_core::plan::{Ranged, RunSql};
use pgmend_pg::PgError;
use pgmend_pg::readtx::ReadTx;

use super::notes::{Notes, Timing, millis};
use super::places::{Place, Places};
use super::{Rehearsing, watch};
use crate::error::Error;

/// A batch within a rehearsed transaction.
struct Applied {
    to: Vec<String>,
    rows: i64,
    took_ms: f64,
}

impl Rehearsing<'_> {
    /// Tries the batches, each at its place.
    pub(super) async fn stream(&self) -> Result<Notes, PgError> {
        let mut notes = Notes::default();
        let tx = self.session.read(&self.scene, self.params.clone()).await?;
        let places = self.places(&tx).await;
        tx.end().await?;
        let places = match places {
            Ok(Some(places)) => places,
            Ok(None) => return Ok(notes),
            Err(Error::Database { doing, message, sqlstate }) => {
                notes.failed("start", &PgError::new(&doing, &sqlstate, message));
                return Ok(notes);
            }
            Err(error) => {
                notes.failed("start", &PgError::new("find places for the batches", "", error.to_string()));
                return Ok(notes);
            }
        };
        notes.scan_row_ms = places.scan_row_ms;
        // The first batch of a session reads catalogs and functions for the first time: it measures nothing.
        let warm_up = Place { name: "first", after: None, to_end: false };
        self.at_place(&warm_up, &places, &mut Notes::default(), true).await?;
        let mut left = self.batches;
        for place in &places.list {
            if left == 0 {
                break;
            }
            let before = notes.timings.len();
            let found_rows = self.at_place(place, &places, &mut notes, false).await?;
            left -= u32::from(found_rows);
            if let Some(timing) = notes.timings.get(before) {
                notes.flushes.push((timing.wal_bytes, self.commit_ms().await?));
            }
        }
        Ok(notes)
    }

    /// One transaction at one place; tells whether there was something to try. An error of the change is noted; a
    /// lost connection ends the rehearsal.
    async fn at_place(
        &self,
        place: &Place,
        places: &Places,
        notes: &mut Notes,
        warm_up: bool,
    ) -> Result<bool, PgError> {
        let tx = self.session.freeze(&self.scene, self.params.clone()).await?;
        let tried = self.try_batches(&tx.read, place, places, notes, warm_up).await;
        let found_rows = match tried {
            Err(error) if error.is_connection() => return Err(error),
            Err(error) => {
                notes.failed(place.name, &error);
                true
            }
            Ok(found_rows) => found_rows,
        };
        tx.rollback().await?;
        Ok(found_rows)
    }

    /// A small batch, then one of full size behind it.
    async fn try_batches(
        &self,
        tx: &ReadTx<'_>,
        place: &Place,
        places: &Places,
        notes: &mut Notes,
        warm_up: bool,
    ) -> Result<bool, PgError> {
        self.create_images(tx).await?;
        let wal_at_first = watch::wal_position(tx).await?;
        let Some(few) = self.batch(tx, 1, place.after.as_deref(), &places.upper, Some(self.few())).await? else {
            return Ok(false);
        };
        if warm_up {
            return Ok(true);
        }
        let wal_before = watch::wal_position(tx).await?;
        let rows = if place.to_end { None } else { Some(self.rows) };
        let full = self.batch(tx, 2, Some(&few.to), &places.upper, rows).await?.filter(|full| full.rows > 0);
        let wal_bytes = watch::wal_position(tx).await? - wal_before;
        notes.saw(watch::look(tx).await?);
        let Some(full) = full else {
            // Fewer rows than the small batch takes: it is all there is.
            let (full, wal_bytes) = ((few.rows, few.took_ms), wal_before - wal_at_first);
            let timing = Timing { few: (0, 0.0), full, scanned_rows: None, wal_bytes };
            notes.batch(place.name, timing);
            return Ok(true);
        };
        let scanned_rows = self.scanned(tx, Some(&few.to), &full.to).await?;
        let again = self.count(tx, Some(&few.to), &full.to).await.unwrap_or(0);
        notes.matches_again |= again * 2 > full.rows;
        notes.batch(
            place.name,
            Timing { few: (few.rows, few.took_ms), full: (full.rows, full.took_ms), scanned_rows, wal_bytes },
        );
        Ok(true)
    }

    /// One batch as the run makes it: bound, images, change; `rows` of `None` means to the end. What would be
    /// checked at its commit is checked at once.
    async fn batch(
        &self,
        tx: &ReadTx<'_>,
        number: u32,
        after: Option<&[String]>,
        upper: &[String],
        rows: Option<i64>,
    ) -> Result<Option<Applied>, PgError> {
        let RunSql::Stream { bound, image, change, .. } = &self.plan.sql else { return Ok(None) };
        let of =
            |ranged: &Ranged| self.over_temporary(if after.is_some() { &ranged.after } else { &ranged.from_start });
        let own = |number: String, to: &[String]| -> Vec<String> {
            std::iter::once(number).chain(to.iter().cloned()).chain(after.unwrap_or(&[]).iter().cloned()).collect()
        };
        let began = Instant::now();
        let wanted = rows.unwrap_or(i64::MAX).to_string();
        let found = tx.query_job("find the next rows", &of(bound), own(wanted, upper)).await?;
        let Some(to) =
            found.rows.first().map(|row| row.iter().take(upper.len()).flatten().cloned().collect::<Vec<_>>())
        else {
            return Ok(None);
        };
        if let Some(image) = image {
            tx.query_job("save the images of a batch", &of(image), own(number.to_string(), &to)).await?;
        }
        let changed = tx.query_job("change a batch", &of(change), own(number.to_string(), &to)).await?;
        tx.query("check what commit would check", "set constraints all immediate", vec![]).await?;
        Ok(Some(Applied { to, rows: changed.affected as i64, took_ms: millis(began) }))
    }
}
