//! Numbers as people read them: thousands apart, sizes and times in words, certainty always said.

use pgmend::{Certainty, Figure};

/// `1,234,567`.
pub use pgmend_core::digits::thousands as rows;

/// A moment to the second: `2026-11-21T15:10:45Z`.
pub fn moment(at: &str) -> String {
    match (at.split_once('.'), at.ends_with('Z')) {
        (Some((seconds, _)), true) => format!("{seconds}Z"),
        _ => at.to_owned(),
    }
}

/// `1 row`, `2 rows`, for any noun with a regular plural.
pub fn counted(value: i64, noun: &str) -> String {
    let plural = match noun {
        "batch" => "batches".to_owned(),
        other => format!("{other}s"),
    };
    format!("{} {}", rows(value), if value == 1 { noun } else { &plural })
}

/// `exact`, `sampled`, `estimated`.
pub fn certainty(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Exact => "exact",
        Certainty::Sampled => "sampled",
        Certainty::Estimated => "estimated",
    }
}

/// `1,234` when counted, `~1,234` when not.
pub fn figure(figure: Figure) -> String {
    let about = if figure.certainty == Certainty::Exact { "" } else { "~" };
    format!("{about}{}", rows(figure.value))
}

/// `12 kB`, `3.4 GB`: powers of 1024, as `pg_size_pretty` counts.
pub fn bytes(value: i64) -> String {
    let mut size = value as f64;
    let mut unit = "bytes";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if size.abs() < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "bytes" || size.abs() >= 9.95 { format!("{size:.0} {unit}") } else { format!("{size:.1} {unit}") }
}

/// Units of time: name, seconds, and the length below which the next smaller unit reads better.
const UNITS: [(&str, f64, f64); 4] =
    [("days", 86_400.0, 172_800.0), ("h", 3_600.0, 7_200.0), ("min", 60.0, 120.0), ("s", 1.0, 0.0)];

fn unit(seconds: f64) -> (&'static str, f64) {
    let (name, size, _) = UNITS.into_iter().find(|(_, _, least)| seconds >= *least).unwrap_or(("s", 1.0, 0.0));
    (name, size)
}

fn in_unit(seconds: f64, size: f64) -> String {
    let value = seconds / size;
    if value < 9.95 && value.fract() > 0.05 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// `38 ms`, `2.5 s`, `90 s`, `5 min`, `3.2 h`, `4 days`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds * 1_000.0);
    }
    let (name, size) = unit(seconds);
    format!("{} {name}", in_unit(seconds, size))
}

/// `3–5 min`, in the unit of the longer end.
pub fn duration_range(low: f64, high: f64) -> String {
    let (low, high) = (low.max(0.0).min(high), high.max(0.0));
    let (name, size) = unit(high);
    let (low, high) = (in_unit(low, size), in_unit(high, size));
    if low == high { format!("{high} {name}") } else { format!("{low}–{high} {name}") }
}

/// `62 %`; never 100 % before the end.
pub fn percent(done: i64, all: i64) -> String {
    if all <= 0 || done >= all {
        return "100 %".to_owned();
    }
    let share = done.max(0) as f64 / all as f64 * 100.0;
    format!("{:.0} %", share.min(99.0).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_told_in_the_singular() {
        assert_eq!([counted(1, "row"), counted(2, "batch")], ["1 row", "2 batches"]);
    }

    #[test]
    fn a_moment_is_told_to_the_second() {
        assert_eq!(moment("2026-11-21T15:10:45.891512Z"), "2026-11-21T15:10:45Z");
        assert_eq!(moment("2026-11-21T15:10:45Z"), "2026-11-21T15:10:45Z");
    }

    #[test]
    fn sizes_have_two_digits_at_least() {
        assert_eq!(
            [0, 1_023, 1_536, 20 << 20, 3 << 30].map(bytes),
            ["0 bytes", "1023 bytes", "1.5 kB", "20 MB", "3.0 GB"]
        );
    }

    #[test]
    fn times_are_said_in_the_unit_that_people_would_use() {
        assert_eq!(
            [0.42, 2.5, 90.0, 300.0, 11_520.0, 345_600.0].map(duration),
            ["420 ms", "2.5 s", "90 s", "5 min", "3.2 h", "4 days"]
        );
        assert_eq!(duration_range(180.0, 300.0), "3–5 min");
        assert_eq!(duration_range(40.0, 41.0), "40–41 s");
        assert_eq!(duration_range(300.0, 305.0), "5–5.1 min");
    }

    #[test]
    fn a_run_is_not_done_before_it_is_done() {
        assert_eq!(percent(1_999_999, 2_000_000), "99 %");
        assert_eq!(percent(2, 2), "100 %");
    }
}
