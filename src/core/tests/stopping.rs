//! The rules of stopping.

use super::crew::Crew;
use super::*;
use crate::config::Distribute;

/// A process that is stopped acts on SIGTERM when it continues.
const ASKED: [(i32, Scope); 2] = [(SIGTERM, Scope::Process), (18, Scope::Process)];

#[test]
fn a_stop_with_nothing_running_exits_at_once_and_once() {
    let mut rig = Rig::with(2, |_| {});
    rig.give(Input::Stop);
    assert!(rig.ends());
    for input in [Input::Stop, Input::Start, Input::Tick] {
        rig.give(input);
        assert_eq!(rig.effects, []);
    }
}

#[test]
fn a_stop_asks_the_process_and_closes_the_listeners_when_it_has_gone() {
    let mut rig = started(RestartPolicy::Always);
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), ASKED);
    assert!(!rig.ends());
    rig.exited(ExitStatus::Code(0));
    assert!(rig.ends());
}

#[test]
fn a_process_that_does_not_stop_in_time_is_killed_with_its_group() {
    let mut rig = started(RestartPolicy::Always);
    rig.give(Input::Stop);
    rig.pass(Duration::from_millis(29_999));
    assert_eq!(rig.signals(), []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
    assert_eq!(rig.core.deadline(), None);
    rig.exited(killed_by(SIGKILL));
    assert!(rig.ends());
}

#[test]
fn without_a_timeout_it_waits_for_ever() {
    let mut rig = Rig::with(1, |lifecycle| lifecycle.stop_timeout = None);
    rig.give(Input::Start);
    rig.running();
    rig.give(Input::Stop);
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn a_second_stop_kills_every_group_at_once_and_a_third_does_nothing() {
    let mut rig = started(RestartPolicy::Always);
    rig.give(Input::Stop);
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
    rig.give(Input::Stop);
    assert_eq!(rig.effects, []);
}

#[test]
fn a_stop_before_exec_waits_for_it_with_the_signal_but_not_with_the_deadline() {
    let mut rig = Rig::new(RestartPolicy::Always);
    rig.give(Input::Start);
    rig.spawned();
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), []);
    let deadline = Some(rig.now + Duration::from_secs(30));
    rig.pass(Duration::from_secs(10));
    rig.exec_succeeded();
    assert_eq!(rig.signals(), ASKED);
    assert_eq!(rig.core.deadline(), deadline);
}

#[test]
fn a_child_stuck_before_exec_is_killed_in_time() {
    let mut rig = Rig::new(RestartPolicy::Always);
    rig.give(Input::Start);
    rig.spawned();
    rig.give(Input::Stop);
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
    rig.exec_succeeded();
    assert_eq!(rig.signals(), []);
    rig.exited(killed_by(SIGKILL));
    assert!(rig.ends());
}

#[test]
fn a_process_that_appears_after_a_hurried_stop_is_killed_at_once() {
    let mut rig = Rig::new(RestartPolicy::Always);
    rig.give(Input::Start);
    rig.give(Input::Stop);
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), []);
    rig.spawned();
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
}

#[test]
fn a_spawn_that_was_not_taken_is_taken_back_by_a_stop() {
    let mut core = Core::new(
        vec![Lifecycle {
            activation: crate::plan::Activation::Eager,
            instances: 2,
            restart: Restart::default(),
            stop_signal: SIGTERM,
            stop_timeout: None,
            ..Lifecycle::default()
        }],
        WhenDone::Hold,
    );
    core.handle(Mono(0), Input::Start);
    assert!(matches!(core.next_effect(), Some(Effect::Spawn { .. })));
    core.handle(Mono(0), Input::Stop);
    while let Some(effect) = core.next_effect() {
        assert!(!matches!(
            effect,
            Effect::Spawn { .. } | Effect::Exit { .. }
        ));
    }
    let process = ProcessId(0);
    let failure = failure(Stage::Fork);
    core.handle(Mono(0), Input::LaunchFailed { process, failure });
    let effects: Vec<_> = std::iter::from_fn(|| core.next_effect()).collect();
    assert_eq!(effects.last(), Some(&Effect::Exit { code: 0 }));
}

#[test]
fn a_hurried_stop_does_not_wait_for_the_exec_status_of_the_dead() {
    let mut rig = Rig::new(RestartPolicy::Always);
    rig.give(Input::Start);
    rig.spawned();
    rig.exited(killed_by(SIGKILL));
    rig.give(Input::Stop);
    assert!(!rig.ends());
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), []);
    assert!(rig.ends());
}

#[test]
fn a_stop_ends_what_waits_for_its_restart() {
    let mut rig = started(RestartPolicy::Always);
    rig.exited(ExitStatus::Code(1));
    rig.give(Input::Stop);
    assert_eq!(rig.state(), State::Stopped);
    assert!(rig.ends());
}

fn ending_rig(policy: RestartPolicy) -> Rig {
    let mut rig = Rig::new(policy);
    rig.core = Core::new(
        vec![Lifecycle {
            activation: crate::plan::Activation::Eager,
            instances: 1,
            restart: Restart {
                policy,
                ..Restart::default()
            },
            stop_signal: SIGTERM,
            stop_timeout: None,
            ..Lifecycle::default()
        }],
        WhenDone::Exit,
    );
    rig.give(Input::Start);
    rig
}

fn exit_code(rig: &Rig) -> Option<u8> {
    rig.effects.iter().find_map(|effect| match effect {
        Effect::Exit { code } => Some(*code),
        _ => None,
    })
}

#[test]
fn where_that_is_wanted_listend_ends_with_the_exit_status_of_its_worker() {
    for (status, code) in [
        (ExitStatus::Code(0), 0),
        (ExitStatus::Code(3), 3),
        (
            ExitStatus::Signal {
                number: 9,
                core_dumped: false,
            },
            137,
        ),
    ] {
        let mut rig = ending_rig(RestartPolicy::Never);
        rig.running();
        assert_eq!(exit_code(&rig), None, "while it runs");
        let process = rig.process();
        rig.give(Input::Exited { process, status });
        assert_eq!(exit_code(&rig), Some(code), "{status:?}");
    }
}

#[test]
fn an_instance_that_will_be_restarted_is_not_the_end() {
    let mut rig = ending_rig(RestartPolicy::OnFailure);
    rig.running();
    let process = rig.process();
    let status = ExitStatus::Code(1);
    rig.give(Input::Exited { process, status });
    assert_eq!(exit_code(&rig), None);
    rig.pass(rig.delay().unwrap());
    rig.running();
    let process = rig.process();
    let status = ExitStatus::Code(0);
    rig.give(Input::Exited { process, status });
    assert_eq!(exit_code(&rig), Some(0));
}

#[test]
fn a_request_to_stop_ends_with_0_whatever_came_before() {
    let mut rig = ending_rig(RestartPolicy::Never);
    rig.running();
    rig.give(Input::Stop);
    let process = rig.process();
    let status = ExitStatus::Code(7);
    rig.give(Input::Exited { process, status });
    assert_eq!(exit_code(&rig), Some(0));
}

/// The rest of a process group.
const ALL_ASKED: [(i32, Scope); 2] = [(SIGTERM, Scope::Group), (18, Scope::Group)];

#[test]
fn what_is_left_of_a_group_that_was_asked_has_the_rest_of_the_time() {
    let mut rig = started(RestartPolicy::Always);
    rig.give(Input::Stop);
    rig.pass(Duration::from_secs(10));
    rig.main_exited(ExitStatus::Code(0));
    assert_eq!(rig.signals(), [], "it finishes what it does");
    assert!(!rig.ends());
    rig.pass(Duration::from_millis(19_999));
    assert_eq!(rig.signals(), []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
    rig.exited(ExitStatus::Code(0));
    assert!(rig.ends());
}

#[test]
fn an_instance_is_over_when_its_group_is() {
    let mut rig = started(RestartPolicy::Always);
    rig.give(Input::Stop);
    rig.main_exited(ExitStatus::Code(0));
    assert!(!rig.ends());
    rig.exited(ExitStatus::Code(0));
    assert!(rig.ends());
}

#[test]
fn what_a_crash_leaves_behind_is_asked_to_end_and_the_restart_follows_its_end() {
    let mut rig = started(RestartPolicy::Always);
    rig.main_exited(killed_by(SIGSEGV));
    assert_eq!(rig.signals(), ALL_ASKED);
    assert_eq!(rig.delay(), None);
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
    rig.exited(killed_by(SIGSEGV));
    assert_eq!(rig.delay(), Some(Duration::from_millis(100)));
}

#[test]
fn what_is_left_after_a_good_end_is_not_disturbed() {
    let mut rig = started(RestartPolicy::OnFailure);
    rig.main_exited(ExitStatus::Code(0));
    assert_eq!(rig.signals(), []);
    assert_eq!(rig.core.deadline(), Some(rig.now + Duration::from_secs(30)));
    rig.exited(ExitStatus::Code(0));
    assert_eq!(rig.state(), State::Stopped);
}

#[test]
fn how_the_main_process_ended_decides_although_the_rest_was_killed() {
    let mut rig = started(RestartPolicy::OnFailure);
    rig.main_exited(ExitStatus::Code(0));
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
    rig.exited(ExitStatus::Code(0));
    assert_eq!(rig.state(), State::Stopped);
}

#[test]
fn with_kill_mode_group_everybody_is_asked_once() {
    let mut rig = Rig::with(1, |life| life.kill_mode = KillMode::Group);
    rig.give(Input::Start);
    rig.running();
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), ALL_ASKED);
    rig.main_exited(ExitStatus::Code(0));
    assert_eq!(rig.signals(), []);
}

#[test]
fn with_kill_mode_group_the_rest_is_asked_however_the_main_process_ended() {
    let mut rig = Rig::with(1, |life| life.kill_mode = KillMode::Group);
    rig.give(Input::Start);
    rig.running();
    rig.main_exited(ExitStatus::Code(0));
    assert_eq!(rig.signals(), ALL_ASKED);
}

#[test]
fn a_stop_while_the_rest_of_a_crash_ends_is_a_stop() {
    let mut rig = started(RestartPolicy::Always);
    rig.main_exited(killed_by(SIGSEGV));
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), []);
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
    rig.exited(killed_by(SIGSEGV));
    assert!(rig.ends());
}

#[test]
fn who_says_that_it_stops_has_the_time_of_a_stop_and_no_more() {
    let mut rig = started(RestartPolicy::OnFailure);
    rig.says(Notice::Stopping);
    assert_eq!(rig.signals(), [], "it knows");
    assert!(matches!(rig.state(), State::Stopping { .. }));
    rig.says(Notice::Stopping);
    assert_eq!(rig.effects, []);
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.signals(), [(SIGKILL, Scope::Group)]);
    rig.exited(killed_by(SIGKILL));
    assert!(rig.delay().is_some(), "that is no good end");
}

#[test]
fn who_says_that_it_stops_and_does_so_has_ended_by_itself() {
    for (policy, stays) in [
        (RestartPolicy::Always, false),
        (RestartPolicy::OnFailure, true),
    ] {
        let mut rig = started(policy);
        rig.says(Notice::Stopping);
        rig.exited(ExitStatus::Code(0));
        assert_eq!(rig.state() == State::Stopped, stays, "{policy:?}");
    }
}

#[test]
fn who_says_that_it_stops_is_asked_all_the_same_when_somebody_wants_it() {
    let mut rig = started(RestartPolicy::Always);
    rig.says(Notice::Stopping);
    let deadline = rig.core.deadline();
    rig.pass(Duration::from_secs(10));
    rig.give(Input::Stop);
    assert_eq!(rig.signals(), ASKED);
    assert_eq!(
        rig.core.deadline(),
        deadline,
        "it has no more time for that"
    );
    rig.exited(ExitStatus::Code(0));
    assert!(rig.ends());
}

#[test]
fn who_says_that_it_stops_may_ask_for_more_time() {
    let mut rig = started(RestartPolicy::Always);
    rig.says(Notice::Stopping);
    rig.says(Notice::ExtendTimeout(Duration::from_secs(100)));
    assert_eq!(
        rig.core.deadline(),
        Some(rig.now + Duration::from_secs(100))
    );
}

#[test]
fn the_end_of_a_main_process_is_heard_once() {
    let mut rig = started(RestartPolicy::Always);
    rig.main_exited(ExitStatus::Code(3));
    rig.main_exited(ExitStatus::Code(0));
    assert_eq!(rig.core.ignored_inputs(), 1);
    assert_eq!(rig.effects, []);
}

#[test]
fn whoever_says_that_it_stops_has_the_time_since_then() {
    let left = |rig: &Rig| {
        rig.effects.iter().find_map(|effect| match effect {
            Effect::Emit(Event::Process(_, _, ProcessEvent::Stopping { timeout, .. })) => *timeout,
            _ => None,
        })
    };
    for (said, expected) in [(false, 30), (true, 20)] {
        let mut rig = started(RestartPolicy::Always);
        if said {
            rig.says(Notice::Stopping);
        }
        rig.pass(Duration::from_secs(10));
        rig.give(Input::Stop);
        assert_eq!(left(&rig), Some(Duration::from_secs(expected)));
    }
}

#[test]
fn the_last_process_at_a_stop_leaves_the_listeners_in_order_and_each_its_shard() {
    for distribute in [Distribute::Shared, Distribute::Shards] {
        let mut crew = Crew::new(|life| {
            life.instances = 2;
            life.distribute = distribute;
        });
        let shares = distribute == Distribute::Shared;
        let leaves = |crew: &Crew, has_others| {
            let process = crew.program(APP_0);
            crew.core.leaves_listeners_to_others(process, has_others)
        };
        assert!(!leaves(&crew, true));
        crew.give(Input::Stop);
        assert_eq!(leaves(&crew, true), shares);
        assert!(!leaves(&crew, false));
        // Who is not known has shared with nobody.
        let stranger = ProcessId(4711);
        assert!(!crew.core.leaves_listeners_to_others(stranger, true));
    }
}

#[test]
fn it_is_told_that_the_time_to_stop_is_over_unless_the_process_has_ended() {
    let is_told = |rig: &Rig| {
        let is_it = |event: &ProcessEvent| matches!(event, ProcessEvent::StopTimedOut { .. });
        rig.effects.iter().any(
            |effect| matches!(effect, Effect::Emit(Event::Process(_, _, event)) if is_it(event)),
        )
    };
    let mut rig = started(RestartPolicy::Always);
    rig.give(Input::Stop);
    rig.pass(Duration::from_secs(30));
    assert!(is_told(&rig));
    let mut rig = Rig::new(RestartPolicy::Always);
    rig.give(Input::Start);
    rig.spawned();
    rig.give(Input::Stop);
    rig.exited(ExitStatus::Code(0));
    rig.pass(Duration::from_secs(30));
    assert!(!is_told(&rig));
}
