use super::duration;
use super::exit::predicate;
use crate::config::signal_name;
use crate::core::ExitStatus;
use std::time::Duration;

#[test]
fn durations_are_short() {
    let shown = |ms| duration(Duration::from_millis(ms));
    assert_eq!(shown(0), "0 ms");
    assert_eq!(shown(800), "800 ms");
    assert_eq!(shown(1_000), "1 s");
    assert_eq!(shown(12_840), "12.8 s");
    assert_eq!(shown(300_000), "5 min");
    assert_eq!(shown(9_000_000), "2.5 h");
}

#[test]
fn signals_have_names_also_the_realtime_ones() {
    assert_eq!(signal_name(15), "SIGTERM");
    assert_eq!(signal_name(nix::libc::SIGRTMIN() + 3), "SIGRTMIN+3");
    assert_eq!(signal_name(0), "signal 0");
}

#[test]
fn an_end_is_a_sentence_behind_a_subject() {
    let killed = ExitStatus::Signal {
        number: 15,
        core_dumped: true,
    };
    assert_eq!(predicate(killed), "was killed by SIGTERM (core dumped)");
    let code = predicate(ExitStatus::Code(3));
    assert_eq!(code, "exited with exit status 3");
}
