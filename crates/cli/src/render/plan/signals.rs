//! What a run holds for, with what it is now.

use pgmend::SurveyedSignal;
use pgmend_core::throttle::Builtin;

use crate::render::page::Page;

/// Every signal: its limits and its value.
pub fn table(page: &mut Page, signals: &[SurveyedSignal]) {
    if signals.is_empty() {
        return;
    }
    page.heading("SIGNALS", "a run holds while one of them is over its limit");
    for surveyed in signals {
        let line = sentence(surveyed);
        let line = if surveyed.holds.is_some() { page.paint.yellow(&line) } else { line };
        page.line(&format!("{:<17}{line}", surveyed.signal.name));
    }
}

/// Those that a run would hold for now.
pub fn over(page: &mut Page, signals: &[SurveyedSignal]) {
    let over: Vec<String> = signals.iter().filter_map(|surveyed| surveyed.holds.clone()).collect();
    if !over.is_empty() {
        let text = page.paint.yellow(&over.join("; "));
        page.pair("would hold now", &text);
    }
}

fn sentence(surveyed: &SurveyedSignal) -> String {
    let signal = &surveyed.signal;
    if let Some(why) = &surveyed.off {
        return format!("switched off: {why}");
    }
    let now = match (surveyed.value, &surveyed.unreadable) {
        (Some(value), _) => format!("now {}", signal.unit.show(value)),
        (None, Some(why)) => format!("cannot be read ({why})"),
        (None, None) if signal.builtin().is_some_and(Builtin::measured_by_worker) => {
            "measured while it runs".to_owned()
        }
        (None, None) => "not read yet".to_owned(),
    };
    let limits = match signal.enter {
        Some(enter) => {
            format!("holds from {} on, goes on at {}", signal.unit.show(enter), signal.unit.bare(signal.leave))
        }
        None => "no limit".to_owned(),
    };
    let idle = surveyed.unreadable.is_some() && !signal.required;
    let counted = if idle { ", and counts for nothing until it can be" } else { "" };
    format!("{now}{counted}; {limits}")
}
