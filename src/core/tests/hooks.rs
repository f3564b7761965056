//! The rules of the commands around an instance.

use super::crew::*;
use super::*;
use crate::core::reload::SAYS_WITHIN;
use crate::plan::ReloadBy;

const FINE: ExitStatus = ExitStatus::Code(0);
const BAD: ExitStatus = ExitStatus::Code(1);

#[test]
fn a_program_starts_when_the_command_before_it_has_gone_well() {
    let mut crew = Crew::new(|life| life.hooks.before_start = Some(seconds(5)));
    assert_eq!(crew.programs(), []);
    crew.exits(crew.hook(APP_0, HookKind::BeforeStart), FINE);
    assert_eq!(crew.programs(), Crew::first(&[APP_0]));
}

#[test]
fn if_it_fails_so_has_the_start() {
    let mut crew = Crew::new(|life| {
        life.hooks.before_start = Some(seconds(5));
        life.restart = strict();
    });
    for _ in 0..5 {
        crew.exits(crew.hook(APP_0, HookKind::BeforeStart), BAD);
        assert!(matches!(crew.state(APP_0), State::Backoff { .. }));
        crew.pass(seconds(2));
    }
    crew.exits(crew.hook(APP_0, HookKind::BeforeStart), BAD);
    assert!(matches!(crew.state(APP_0), State::Failed { .. }));
    assert_eq!(crew.programs(), []);
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    let mut crew = Crew::new(|life| life.hooks.before_start = Some(seconds(5)));
    let hook = crew.hook(APP_0, HookKind::BeforeStart);
    crew.pass(seconds(5) - Duration::from_nanos(1));
    assert_eq!(crew.signals(hook), NONE);
    crew.pass(Duration::from_nanos(1));
    assert_eq!(crew.signals(hook), [SIGKILL]);
    crew.exits(hook, killed_by(SIGKILL));
    let end = HookEnd::TimedOut {
        timeout: seconds(5),
    };
    let failed = crew.count(
        |effect| matches!(effect, Effect::Emit(Event::Process(_, _, ProcessEvent::HookFailed { end: of, .. })) if *of == end),
    );
    assert_eq!(failed, 1);
    assert!(matches!(crew.state(APP_0), State::Backoff { .. }));
}

#[test]
fn a_stop_does_not_wait_for_the_command_before_the_start() {
    let mut crew = Crew::new(|life| life.hooks.before_start = Some(seconds(5)));
    let hook = crew.hook(APP_0, HookKind::BeforeStart);
    crew.ask(Command::Stop);
    assert_eq!(crew.signals(hook), [SIGKILL]);
    crew.exits(hook, FINE);
    assert_eq!(crew.state(APP_0), State::Stopped);
    assert_eq!(crew.programs(), []);
}

#[test]
fn the_command_after_the_end_comes_before_what_follows() {
    let mut crew = Crew::new(|life| life.hooks.after_stop = Some(seconds(5)));
    crew.exits(crew.program(APP_0), BAD);
    crew.pass(seconds(4));
    assert!(matches!(crew.state(APP_0), State::Cleaning { .. }));
    // However it ends.
    crew.exits(crew.hook(APP_0, HookKind::AfterStop), BAD);
    assert!(matches!(crew.state(APP_0), State::Backoff { .. }));
    crew.pass(seconds(1));
    assert_eq!(crew.programs(), Crew::first(&[APP_0]));
}

#[test]
fn the_command_when_it_is_ready_runs_beside_it_and_changes_nothing() {
    let mut crew = Crew::new(|life| life.hooks.after_ready = Some(seconds(5)));
    crew.exits(crew.hook(APP_0, HookKind::AfterReady), BAD);
    assert!(matches!(crew.state(APP_0), State::Running { .. }));
}

#[test]
fn listend_ends_when_the_last_command_has() {
    let mut crew = Crew::new(|life| life.hooks.after_stop = Some(seconds(5)));
    crew.give(Input::Stop);
    crew.exits(crew.program(APP_0), FINE);
    let ends = |crew: &Crew| crew.effects.contains(&Effect::Exit { code: 0 });
    assert!(!ends(&crew));
    crew.exits(crew.hook(APP_0, HookKind::AfterStop), FINE);
    assert!(ends(&crew));
}

#[test]
fn an_instance_is_reloaded_by_its_command_and_the_answer_waits_for_it() {
    use crate::plan::ReloadBy;
    for (status, answer) in [(FINE, Answer::Done), (BAD, Answer::not_up(APP_0))] {
        let mut crew = Crew::new(|life| life.reload = Some(ReloadBy::Command(seconds(5))));
        crew.ask(Command::Reload);
        assert_eq!(crew.answers(), [Answer::Progress { done: 0, of: 1 }]);
        crew.exits(crew.hook(APP_0, HookKind::Reload), status);
        assert_eq!(crew.answers().last(), Some(&answer));
    }
}

// Only the first was named.
#[test]
fn every_instance_whose_reload_command_fails_is_named() {
    use crate::plan::ReloadBy;
    let mut crew = Crew::new(|life| {
        life.reload = Some(ReloadBy::Command(seconds(5)));
        life.instances = 3;
    });
    crew.ask(Command::Reload);
    for (index, status) in [(2, BAD), (1, FINE), (0, BAD)] {
        crew.exits(crew.hook(app(index, 1), HookKind::Reload), status);
    }
    let bad = [2, 0].map(|index| Bad::NotUp(app(index, 1))).to_vec();
    assert_eq!(crew.answers().last(), Some(&Answer::Failed { bad }));
}

// sd_notify(3): RELOADING=1, and READY=1 when that is over.
#[test]
fn who_says_that_it_reads_its_configuration_again_is_waited_for() {
    use crate::config::Ready;
    use crate::plan::ReloadBy;
    let failed = Answer::not_up(APP_0);
    let by_command = ReloadBy::Command(seconds(5));
    for by in [ReloadBy::Signal(1), by_command] {
        let begun = || {
            let mut crew = Crew::new(|life| {
                life.ready = Ready::Notify;
                life.start_timeout = Some(seconds(30));
                life.reload = Some(by);
            });
            crew.says(APP_0, Notice::Ready);
            crew.ask(Command::Reload);
            crew.says(APP_0, Notice::Reloading);
            if by == by_command {
                crew.exits(crew.hook(APP_0, HookKind::Reload), FINE);
            }
            crew.pass(seconds(29));
            assert_eq!(crew.answers(), [Answer::Progress { done: 0, of: 1 }]);
            crew
        };
        let mut crew = begun();
        crew.says(APP_0, Notice::Ready);
        assert_eq!(crew.answers().last(), Some(&Answer::Done));
        // Nothing is left to wait for.
        let told = crew.answers().len();
        crew.says(APP_0, Notice::Reloading);
        crew.pass(seconds(100));
        assert_eq!(crew.answers().len(), told);
        // It has had its time, and goes on.
        let mut crew = begun();
        crew.pass(seconds(2));
        assert_eq!(crew.answers().last(), Some(&failed));
        assert!(matches!(crew.state(APP_0), State::Running { .. }));
        // It asks for more.
        let mut crew = begun();
        crew.says(APP_0, Notice::ExtendTimeout(seconds(10)));
        crew.pass(seconds(9));
        assert_eq!(crew.answers().len(), 1);
        crew.pass(seconds(2));
        assert_eq!(crew.answers().last(), Some(&failed));
        // It ends.
        let mut crew = begun();
        crew.exits(crew.program(APP_0), BAD);
        assert_eq!(crew.answers().last(), Some(&failed));
    }
}

#[test]
fn who_says_nothing_of_a_signal_is_not_waited_for() {
    use crate::config::Ready;
    use crate::plan::ReloadBy;
    let with = |ready: Ready| {
        let mut crew = Crew::new(|life| {
            life.ready = ready;
            life.reload = Some(ReloadBy::Signal(1));
        });
        crew.says(APP_0, Notice::Ready);
        crew.ask(Command::Reload);
        crew
    };
    assert_eq!(with(Ready::Started).answers().last(), Some(&Answer::Done));
    let mut crew = with(Ready::Notify);
    assert_eq!(crew.answers(), [Answer::Progress { done: 0, of: 1 }]);
    crew.pass(SAYS_WITHIN);
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

#[test]
fn the_command_when_it_is_ready_ends_before_the_one_after_the_end_begins() {
    for asked in [false, true] {
        let mut crew = Crew::new(|life| {
            life.hooks.after_ready = Some(seconds(5));
            life.hooks.after_stop = Some(seconds(5));
        });
        let slow = crew.hook(APP_0, HookKind::AfterReady);
        if asked {
            crew.ask(Command::Stop);
            assert_eq!(
                crew.signals(slow),
                [SIGKILL],
                "with the stop, and not its end"
            );
        }
        crew.exits(crew.program(APP_0), BAD);
        assert_eq!(crew.signals(slow), [SIGKILL]);
        assert!(crew.find(APP_0, Task::Hook(HookKind::AfterStop)).is_none());
        crew.exits(slow, killed_by(SIGKILL));
        crew.exits(crew.hook(APP_0, HookKind::AfterStop), FINE);
        // It was ended, and has not failed.
        let failed = |effect: &Effect| {
            matches!(
                effect,
                Effect::Emit(Event::Process(_, _, ProcessEvent::HookFailed { .. }))
            )
        };
        assert_eq!(crew.count(failed), 0);
        assert_eq!(matches!(crew.state(APP_0), State::Stopped), asked);
    }
}

#[test]
fn no_command_beside_an_instance_outlives_it() {
    use crate::plan::ReloadBy;
    let mut crew = Crew::new(|life| {
        life.hooks.after_ready = Some(seconds(500));
        life.reload = Some(ReloadBy::Command(seconds(500)));
    });
    crew.ask(Command::Reload);
    crew.give(Input::Stop);
    let hooks = [HookKind::AfterReady, HookKind::Reload].map(|kind| crew.hook(APP_0, kind));
    crew.exits(crew.program(APP_0), FINE);
    for hook in hooks {
        assert_eq!(crew.signals(hook), [SIGKILL]);
        assert!(!crew.effects.contains(&Effect::Exit { code: 0 }));
        crew.exits(hook, killed_by(SIGKILL));
    }
    assert!(crew.effects.contains(&Effect::Exit { code: 0 }));
    assert_eq!(crew.answers().last(), Some(&Answer::not_up(APP_0)));
}

#[test]
fn what_ran_before_the_start_is_cleaned_up_although_there_was_no_program() {
    let both = |life: &mut Lifecycle| {
        life.hooks.before_start = Some(seconds(5));
        life.hooks.after_stop = Some(seconds(5));
    };
    // It fails.
    let mut crew = Crew::new(both);
    crew.exits(crew.hook(APP_0, HookKind::BeforeStart), BAD);
    let end = HookEnd::Exited { status: BAD };
    assert_eq!(crew.core.ended(APP_0), Some(LastEnd::NotPrepared { end }));
    crew.exits(crew.hook(APP_0, HookKind::AfterStop), FINE);
    assert!(matches!(crew.state(APP_0), State::Backoff { .. }));
    // It is stopped meanwhile.
    let mut crew = Crew::new(both);
    crew.ask(Command::Stop);
    crew.exits(crew.hook(APP_0, HookKind::BeforeStart), killed_by(SIGKILL));
    assert_eq!(crew.core.ended(APP_0), None);
    crew.exits(crew.hook(APP_0, HookKind::AfterStop), FINE);
    assert_eq!(crew.state(APP_0), State::Stopped);
    // The whole of listend is.
    let mut crew = Crew::new(both);
    crew.give(Input::Stop);
    crew.exits(crew.hook(APP_0, HookKind::BeforeStart), killed_by(SIGKILL));
    crew.exits(crew.hook(APP_0, HookKind::AfterStop), FINE);
    assert!(crew.effects.contains(&Effect::Exit { code: 0 }));
}

#[test]
fn a_program_that_cannot_be_launched_leaves_only_what_ran_before_it() {
    for prepares in [false, true] {
        let mut rig = Rig::with(1, |life| {
            life.hooks.before_start = prepares.then_some(seconds(5));
            life.hooks.after_stop = Some(seconds(5));
        });
        rig.give(Input::Start);
        if let State::Preparing { hook: process, .. } = rig.state() {
            rig.give(Input::Spawned { process });
            let status = FINE;
            rig.give(Input::Exited { process, status });
        }
        rig.launch_failed(Stage::Fork);
        assert_eq!(matches!(rig.state(), State::Cleaning { .. }), prepares);
        assert_eq!(matches!(rig.state(), State::Backoff { .. }), !prepares);
    }
}

#[test]
fn a_stop_takes_no_cleaning_up_back() {
    let mut core = Core::new(
        vec![Lifecycle {
            hooks: crate::plan::HookTimes {
                after_stop: Some(seconds(5)),
                ..crate::plan::HookTimes::default()
            },
            ..Lifecycle::default()
        }],
        WhenDone::Hold,
    );
    core.handle(Mono(0), Input::Start);
    let process = core.state(APP_0).unwrap().process().unwrap();
    while core.next_effect().is_some() {}
    core.handle(Mono(0), Input::Spawned { process });
    core.handle(Mono(0), Input::ExecSucceeded { process });
    core.handle(
        Mono(0),
        Input::Exited {
            process,
            status: BAD,
        },
    );
    core.handle(Mono(0), Input::Stop);
    let mut effects = std::iter::from_fn(|| core.next_effect());
    let is_it = |effect: Effect| {
        let after_stop = Task::Hook(HookKind::AfterStop);
        matches!(effect, Effect::Spawn { task, .. } if task == after_stop)
    };
    assert!(effects.any(is_it));
}

#[test]
fn news_of_a_command_that_cannot_be_true_are_ignored() {
    let life = life(|life| life.hooks.before_start = Some(seconds(5)));
    let mut core = Core::new(vec![life], WhenDone::Hold);
    core.handle(Mono(0), Input::Start);
    let Some(Effect::Spawn { process, .. }) = core.next_effect() else {
        panic!("the command is started first");
    };
    for (input, ignored) in [
        (Input::ExecSucceeded { process }, 1),
        (
            Input::Exited {
                process,
                status: FINE,
            },
            2,
        ),
        (Input::Spawned { process }, 2),
        (Input::Spawned { process }, 3),
        (Input::ExecSucceeded { process }, 3),
        (
            Input::MainExited {
                process,
                status: FINE,
            },
            4,
        ),
    ] {
        core.handle(Mono(0), input.clone());
        core.check_invariants().unwrap();
        assert_eq!(core.ignored_inputs(), ignored, "{input:?}");
        let state = core.state(APP_0);
        assert!(matches!(state, Some(State::Preparing { .. })), "{input:?}");
    }
    core.handle(
        Mono(0),
        Input::Exited {
            process,
            status: FINE,
        },
    );
    assert_eq!(core.ignored_inputs(), 4);
    assert!(matches!(core.state(APP_0), Some(State::Starting { .. })));
}

#[test]
fn a_second_request_to_stop_kills_the_command_after_the_end() {
    let mut crew = Crew::new(|life| life.hooks.after_stop = Some(seconds(5)));
    crew.exits(crew.program(APP_0), FINE);
    let hook = crew.hook(APP_0, HookKind::AfterStop);
    crew.give(Input::Stop);
    assert_eq!(crew.signals(hook), NONE);
    crew.give(Input::Stop);
    assert_eq!(crew.signals(hook), [SIGKILL]);
    crew.give(Input::Stop);
    assert_eq!(crew.signals(hook), [SIGKILL]);
}

#[test]
fn who_waits_for_a_command_that_is_not_started_any_more_is_told() {
    let mut crew = Crew::new(|life| life.reload = Some(ReloadBy::Command(seconds(5))));
    crew.forget();
    let ask = Input::Operate {
        ticket: Ticket(1),
        worker: APP,
        index: None,
        command: Command::Reload,
    };
    crew.core.handle(crew.now, ask);
    crew.core.handle(crew.now, Input::Stop);
    crew.take();
    assert_eq!(crew.find(APP_0, Task::Hook(HookKind::Reload)), None);
    let failed = Answer::not_up(APP_0);
    assert_eq!(crew.answers().last(), Some(&failed));
}

#[test]
fn what_is_removed_is_gone_when_the_command_beside_it_is() {
    let mut crew = Crew::new(|life| life.reload = Some(ReloadBy::Command(seconds(5))));
    crew.ask(Command::Reload);
    let hook = crew.hook(APP_0, HookKind::Reload);
    crew.reload(WorkerUpdate::Removed);
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    let retire = |effect: &Effect| matches!(effect, Effect::Retire { needed: None, .. });
    assert_eq!(crew.count(retire), 0);
    crew.exits(hook, killed_by(SIGKILL));
    assert_eq!(crew.count(retire), 1);
}

#[test]
fn who_was_answered_about_a_reload_hears_no_more() {
    let mut crew = Crew::new(|life| life.reload = Some(ReloadBy::Command(seconds(5))));
    crew.ask(Command::Reload);
    crew.exits(crew.hook(APP_0, HookKind::Reload), ExitStatus::Code(0));
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    crew.forget();
    crew.give(Input::Stop);
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    assert_eq!(crew.answers(), []);
    assert!(crew.core.workers[&APP].reloads.is_empty());
}

#[test]
fn who_reads_its_configuration_unasked_has_no_time_limit() {
    let mut crew = Crew::new(|_| {});
    crew.says(APP_0, Notice::Reloading);
    assert_eq!(crew.core.deadline(), None);
}
