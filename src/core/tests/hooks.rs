//! The rules of the commands around an instance.

use super::crew::*;
use super::*;

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
        |effect| matches!(effect, Effect::Emit(Event::HookFailed { end: of, .. }) if *of == end),
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
    for (status, answer) in [
        (FINE, Answer::Done),
        (BAD, Answer::Failed { instance: APP_0 }),
    ] {
        let mut crew = Crew::new(|life| life.reload = Some(ReloadBy::Command(seconds(5))));
        crew.ask(Command::Reload);
        assert_eq!(crew.answers(), [Answer::Progress { done: 0, of: 1 }]);
        crew.exits(crew.hook(APP_0, HookKind::Reload), status);
        assert_eq!(crew.answers().last(), Some(&answer));
    }
}
