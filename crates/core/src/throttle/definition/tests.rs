use super::*;

fn throttle(text: &str) -> Throttle {
    let throttle: Throttle = toml::from_str(text).unwrap();
    throttle.check().unwrap();
    throttle
}

fn signal(throttle: &Throttle, name: &str) -> Signal {
    throttle.signals().into_iter().find(|signal| signal.name == name).unwrap()
}

#[test]
fn what_is_not_said_has_its_default() {
    let signals = throttle("").signals();
    assert_eq!(signals.len(), Builtin::ALL.len());
    assert_eq!(serde_json::to_string(&Throttle::default()).unwrap(), "{}");
    let tuned = throttle("[signal.replay_lag]\nenter = 4\n[signal.wal_rate]\nenter = 1e8\nleave = 5e7\n");
    assert_eq!((signal(&tuned, "replay_lag").enter, signal(&tuned, "replay_lag").leave), (Some(4.0), 2.0));
    assert_eq!(signal(&tuned, "wal_rate").enter, Some(1e8));
    assert_eq!(throttle("off = \"a scratch database\"").signals(), []);
}

#[test]
fn a_signal_is_switched_off_with_a_reason_only() {
    let off = throttle("[signal.slot_wal]\noff = \"the slot of the old site is gone on Monday\"\n");
    assert_eq!(off.switched_off().len(), 1);
    assert!(off.signals().iter().all(|signal| signal.name != "slot_wal"));
    let silent: Throttle = toml::from_str("[signal.slot_wal]\noff = \" \"\n").unwrap();
    assert_eq!(silent.check().unwrap_err().message, "signal `slot_wal` is switched off without a reason");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let sql = |rest: &str| format!("[[sql]]\nname = \"waiting\"\nquery = \"select 1\"\n{rest}");
    for (text, said) in [
        (sql("enter = 1\nleave = 2\n"), "signal `waiting` leaves a hold above where it enters it"),
        (sql("enter = nan\n"), "a limit of signal `waiting` is no number"),
        (sql("enter = 1\npoll_s = 0\n"), "poll_s = 0 of signal `waiting` is out of range"),
        (sql("enter = 1\npoll_s = 5\nstale_s = 5\n"), "stale_s = 5 of signal `waiting` is out of range"),
        (sql("enter = 1\n").replace("waiting", "replay_lag"), "there are two signals `replay_lag`"),
        (sql("enter = 1\n").replace("waiting", "Wartende"), "`Wartende` is no name of a signal"),
        ("hold_max_s = 0".to_owned(), "throttle.hold_max_s = 0 is out of range"),
        ("[[http]]\nname = \"p99\"\nurl = \"ftp://x\"\nenter = 1\n".to_owned(), "signal `p99` has no address"),
    ] {
        let parsed: Throttle = toml::from_str(&text).unwrap();
        assert_eq!(parsed.check().unwrap_err().message, said);
    }
}

#[test]
fn a_misspelt_signal_is_an_error_that_suggests_the_nearest() {
    let error = crate::job::JobFile::parse("[throttle.signal.replay_lags]\nenter = 1\n").unwrap_err();
    assert_eq!(error.help, "did you mean `replay_lag`?");
}

#[test]
fn a_job_may_be_stricter_than_its_environment_and_never_laxer() {
    let outer = throttle(
        "flag_files = [\"/run/hold\"]\nhold_max_s = 100\n[signal.replay_lag]\nenter = 5\nleave = 2\n\
         [[sql]]\nname = \"waiting\"\nquery = \"select 1\"\nenter = 1\n",
    );
    let own = throttle(
        "flag_files = [\"mine\"]\nhold_max_s = 200\n[signal.replay_lag]\nenter = 60\nleave = 1\n\
         [signal.vacuum]\nenter = 1\nleave = 0\n[[sql]]\nname = \"waiting\"\nquery = \"select 0\"\nenter = 100\n",
    );
    let both = own.within(&outer).unwrap();
    let lag = signal(&both, "replay_lag");
    assert_eq!((lag.enter, lag.leave), (Some(5.0), 1.0));
    assert_eq!(signal(&both, "vacuum").enter, Some(1.0));
    assert_eq!(both.ladder().hold_max, Duration::from_secs(100));
    assert_eq!(both.flag_files, ["/run/hold", "mine"]);
    assert_eq!(both.sql, outer.sql);
    assert_eq!(both.clone().within(&outer).unwrap(), both);
}

#[test]
fn a_job_cannot_switch_off_what_its_environment_sets() {
    let outer = throttle("[signal.replay_lag]\nenter = 5\n");
    for text in ["off = \"I am in a hurry\"", "[signal.replay_lag]\noff = \"I am in a hurry\""] {
        assert_eq!(throttle(text).within(&outer).unwrap_err().code, Code::Throttle);
    }
    assert!(throttle("[signal.vacuum]\noff = \"none here\"").within(&outer).is_ok());
}
