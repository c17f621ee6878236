//! What governs a run now: its pace, and the limits of its signals.

use pgmend::{InForce, SignalInForce};

use super::page::Page;
use super::paint::Paint;
use super::status::{limited, tuned};

/// The pace, what was changed of it, and every signal.
pub fn in_force(now: &InForce, paint: Paint) -> String {
    let mut page = Page::new(paint);
    page.heading("IN FORCE", "");
    page.pair("pace", &if now.pace.is_empty() { "as fast as it goes".to_owned() } else { now.pace.to_string() });
    page.pairs("tuned", &now.tuned.iter().map(tuned).collect::<Vec<_>>());
    let changed: Vec<String> = now.signals.iter().filter_map(|signal| signal.tuned.as_ref()).map(limited).collect();
    page.pairs("limits", &changed);
    page.list("SIGNALS", &now.signals.iter().map(signal).collect::<Vec<_>>());
    page.text()
}

/// `replay_lag        holds from 10 s on, goes on at 5 s`.
fn signal(now: &SignalInForce) -> String {
    let signal = &now.signal;
    let name = format!("{:<17}", signal.name);
    let changed = if now.tuned.is_some() { "  (changed)" } else { "" };
    match signal.enter {
        None => format!("{name} is only watched"),
        Some(enter) => {
            let (enter, leave) = (signal.unit.show(enter), signal.unit.show(signal.leave));
            format!("{name} holds from {enter} on, goes on at {leave}{changed}")
        }
    }
}

#[cfg(test)]
mod tests {
    use pgmend::{Pace, TunedLimit};
    use pgmend_core::throttle::{Builtin, Limit, Signal};

    use super::*;

    #[test]
    fn what_people_changed_is_marked_and_said_why() {
        let limit = Limit { signal: "replay_lag".into(), enter: 20.0, leave: 10.0 };
        let changed = TunedLimit { limit, reason: "sale".into(), tuned_by: "alice".into(), expires_at: None };
        let lag = Signal { enter: Some(20.0), leave: 10.0, ..Builtin::ReplayLag.signal() };
        let signals = vec![
            SignalInForce { signal: lag, tuned: Some(changed) },
            SignalInForce { signal: Builtin::SlotWal.signal(), tuned: None },
            SignalInForce { signal: Builtin::WalRate.signal(), tuned: None },
        ];
        let now = InForce { pace: Pace { rate: Some(500), ..Pace::default() }, tuned: Vec::new(), signals };
        insta::assert_snapshot!(in_force(&now, Paint::PLAIN), @r"
        IN FORCE
          pace            at most 500 rows/s
          limits          replay_lag 20 (on at 10) to the end, by alice: sale

        SIGNALS
          replay_lag        holds from 20 s on, goes on at 10 s  (changed)
          slot_wal          holds from 4 GiB on, goes on at 2 GiB
          wal_rate          is only watched
        ");
    }
}
