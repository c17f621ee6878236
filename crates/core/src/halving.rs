//! Whether changing a stretch of keys in two halves still pays, judged by where the new versions of its rows found room; and
//! where the halves of a change set end, whose order has them built in (docs/design/halves.md).

/// With more of the first half's rows than this on their own pages, there is room for all of them anyway.
const ROOMY: f64 = 0.8;
/// With fewer of the second half's rows than this on their own pages, the versions that the first half left behind are still
/// needed: by an old transaction, most likely.
const CRAMPED: f64 = 0.25;
/// With more of the second half's rows than this on their own pages, they cost about half as much as those of the first, which
/// need a place elsewhere and entries in every index.
const CHEAP: f64 = 0.7;
/// So many batches in a row that did not pay end it for a while: some may just have met a slow transaction.
const BATCHES_IN_VAIN: u32 = 4;
/// Whole batches after which it is tried again.
const BATCHES_WHOLE: u32 = 20;

/// Batches of a stretch's first half before the second begins: each finds its room once what was under way when its
/// counterpart committed, another worker's batch or a transaction of the application, is over. The second half takes two of
/// them at a time, so that two of its own batches lie between. With more their pages would be less likely to be in the
/// server's cache still.
pub const FIRST_BATCHES: usize = 6;

/// What a run has learnt about halves.
#[derive(Debug, Clone, Default)]
pub struct Halving {
    /// The last batch of a first half found room on its own pages.
    roomy: bool,
    /// The last batch of a second half found room for most of its rows, and that of a first half did not.
    cheaper: bool,
    in_vain: u32,
    whole_for: u32,
}

/// A batch of rows, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// All rows of its stretch.
    Whole,
    /// Those that go first.
    First,
    /// The others.
    Second,
}

impl Halving {
    /// Whether the next stretch goes in halves.
    pub fn pays(&self) -> bool {
        self.whole_for == 0
    }

    /// Whether a row of a second half costs about half of what one of a first half does.
    pub fn second_costs_less(&self) -> bool {
        self.cheaper
    }

    /// Learns from a batch that changed `rows` rows, of which `in_place` stayed on their pages; `None` where the server does not
    /// count them, which leaves nothing to judge by.
    pub fn record(&mut self, batch: Batch, rows: i64, in_place: Option<i64>) {
        let share = in_place.filter(|_| rows > 0).map(|n| n as f64 / rows as f64);
        match batch {
            Batch::Whole => self.whole_for = self.whole_for.saturating_sub(1),
            Batch::First => self.roomy = share.is_some_and(|share| share > ROOMY),
            Batch::Second => {
                let paid = !self.roomy && share.is_some_and(|share| share >= CRAMPED);
                self.in_vain = if paid { 0 } else { self.in_vain + 1 };
                self.cheaper = paid && share.is_some_and(|share| share > CHEAP);
                if self.in_vain >= BATCHES_IN_VAIN {
                    *self = Self { whole_for: BATCHES_WHOLE, ..Self::default() };
                }
            }
        }
    }
}

/// Rows of a stretch whose halves shall have so many rows each, where no transaction may have more than `most`.
pub fn stretch_rows(half_rows: u32, most: u32) -> u32 {
    half_rows.min(half_rows_max(most)).saturating_mul(2)
}

/// Rows that a half may be expected to have. Hashes share rows out as coins do, so that it may be larger: this is more than five
/// standard deviations below `most`, the rows that no transaction may exceed.
pub fn half_rows_max(most: u32) -> u32 {
    let margin = (4.0 * f64::from(most).sqrt()).ceil() as u32;
    most.saturating_sub(margin).max(1)
}

/// Rows of each half of a change set's stretches: several batches, so that a transaction of the application that lasts as long
/// as one of them keeps little of the first half's room taken; and few enough for the pages of both to be in the server's cache
/// when the second half comes to them.
pub const CHANGE_SET_HALF_ROWS: i64 = 50_000;

/// The last ordinal of the half that the next one after `ordinal` belongs to, in a change set of `rows` rows whose stretches
/// have halves of `half_rows` rows. Those of the last stretch are shorter, and the first of them may have one row more.
pub fn end_of_half(ordinal: i64, half_rows: i64, rows: i64) -> i64 {
    let stretch = 2 * half_rows;
    let from = ordinal / stretch * stretch;
    let here = (rows - from).min(stretch);
    let middle = from + (here + 1) / 2;
    if ordinal < middle { middle } else { from + here }
}

/// The rows of the next of the batches that share out `left` rows evenly, each of `most` rows or fewer.
pub fn even_share(left: i64, most: i64) -> i64 {
    let batches = ((left + most - 1) / most).max(1);
    (left + batches - 1) / batches
}

#[cfg(test)]
mod tests {
    use super::{BATCHES_IN_VAIN, BATCHES_WHOLE, Batch, Halving, end_of_half, even_share, stretch_rows};

    #[test]
    fn the_halves_of_a_change_set_end_where_its_stretches_do_and_in_their_middles() {
        let ends = |rows| {
            let mut ends = vec![end_of_half(0, 5, rows)];
            while ends.last().is_some_and(|end| *end < rows) {
                ends.extend(ends.last().map(|end| end_of_half(*end, 5, rows)));
            }
            ends
        };
        assert_eq!(ends(20), [5, 10, 15, 20]);
        assert_eq!(ends(23), [5, 10, 15, 20, 22, 23]);
        assert_eq!(ends(3), [2, 3]);
        assert_eq!(ends(1), [1]);
        assert_eq!(end_of_half(7, 5, 23), 10);
    }

    #[test]
    fn batches_share_a_half_out_evenly() {
        assert_eq!(even_share(50_000, 12_000), 10_000);
        assert_eq!(even_share(10_000, 12_000), 10_000);
        assert_eq!(even_share(7, 3), 3);
        assert_eq!(even_share(4, 3), 2);
        assert_eq!(even_share(50_000, 1), 1);
        assert_eq!(even_share(0, 5), 0);
    }

    #[test]
    fn halves_go_on_while_the_second_finds_the_room_that_the_first_left() {
        let mut halving = Halving::default();
        for _ in 0..100 {
            halving.record(Batch::First, 1_000, Some(10));
            halving.record(Batch::Second, 1_000, Some(850));
        }
        assert!(halving.pays());
        assert!(halving.second_costs_less());
        halving.record(Batch::Second, 1_000, Some(500));
        assert!(halving.pays() && !halving.second_costs_less());
    }

    #[test]
    fn an_old_snapshot_ends_them_and_they_are_tried_again_later() {
        let mut halving = Halving::default();
        for _ in 0..BATCHES_IN_VAIN {
            assert!(halving.pays());
            halving.record(Batch::First, 1_000, Some(0));
            halving.record(Batch::Second, 1_000, Some(3));
        }
        assert!(!halving.pays());
        for _ in 0..BATCHES_WHOLE {
            assert!(!halving.pays());
            halving.record(Batch::Whole, 1_000, Some(0));
        }
        assert!(halving.pays());
    }

    #[test]
    fn one_slow_transaction_does_not_end_them() {
        let mut halving = Halving::default();
        for round in 0..9 {
            halving.record(Batch::Second, 1_000, Some(if round % 4 == 0 { 900 } else { 0 }));
        }
        assert!(halving.pays());
    }

    #[test]
    fn pages_with_room_for_all_and_a_server_that_does_not_count_need_no_halves() {
        let mut halving = Halving::default();
        for _ in 0..BATCHES_IN_VAIN {
            halving.record(Batch::First, 1_000, Some(950));
            halving.record(Batch::Second, 1_000, Some(950));
        }
        assert!(!halving.pays());
        let mut halving = Halving::default();
        for _ in 0..BATCHES_IN_VAIN {
            halving.record(Batch::Second, 1_000, None);
        }
        assert!(!halving.pays());
    }

    #[test]
    fn a_half_stays_below_what_a_transaction_may_change() {
        assert_eq!(stretch_rows(500, 50_000), 1_000);
        assert_eq!(stretch_rows(50_000, 50_000), 2 * (50_000 - 895));
        assert_eq!(stretch_rows(10, 10), 2);
    }
}
