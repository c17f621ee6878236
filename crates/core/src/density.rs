//! Whether the end of the next batch may be found by counting keys, which the index alone can do, instead of rows that match,
//! each of which has to be visited.

/// With this share of the target's rows matching, a batch of so many keys is nearly a batch of so many rows.
const DENSE: f64 = 0.9;
/// With less than this share of a batch's keys matching, batches become too small to be worth it.
const THIN: f64 = 0.5;
/// Batches whose rows are counted before keys are tried again.
const BATCHES_BY_ROWS: u32 = 50;

/// What a run knows of how many of the rows in its way match.
#[derive(Debug, Clone)]
pub struct Density {
    dense: bool,
    by_rows_for: u32,
}

impl Density {
    /// By the plan's counts: rows of the target, and those of them that match.
    pub fn new(scanned_rows: i64, matched_rows: i64) -> Self {
        Self { dense: scanned_rows > 0 && matched_rows as f64 >= DENSE * scanned_rows as f64, by_rows_for: 0 }
    }

    /// Whether the next batch's end may be found by keys.
    pub fn by_keys(&self) -> bool {
        self.dense && self.by_rows_for == 0
    }

    /// Learns from a batch that changed `rows` rows of a stretch of `keys` keys, `None` where rows were counted.
    pub fn record(&mut self, keys: Option<u32>, rows: i64) {
        match keys {
            Some(keys) if (rows as f64) < THIN * f64::from(keys) => self.by_rows_for = BATCHES_BY_ROWS,
            Some(_) => {}
            None => self.by_rows_for = self.by_rows_for.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCHES_BY_ROWS, Density};

    #[test]
    fn keys_are_counted_where_the_plan_found_nearly_every_row_to_match() {
        assert!(Density::new(1_000, 900).by_keys());
        assert!(!Density::new(1_000, 899).by_keys());
        assert!(!Density::new(0, 0).by_keys());
    }

    #[test]
    fn a_thin_stretch_ends_it_for_a_while() {
        let mut density = Density::new(1_000, 1_000);
        density.record(Some(100), 50);
        assert!(density.by_keys());
        density.record(Some(100), 49);
        for _ in 0..BATCHES_BY_ROWS {
            assert!(!density.by_keys());
            density.record(None, 100);
        }
        assert!(density.by_keys());
    }

    #[test]
    fn a_sparse_change_never_counts_keys() {
        let mut density = Density::new(1_000, 100);
        for _ in 0..2 * BATCHES_BY_ROWS {
            density.record(None, 100);
            assert!(!density.by_keys());
        }
    }
}
