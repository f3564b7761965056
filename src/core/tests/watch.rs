//! What follows from a crash of what a rollout has put there, and what a command means afterwards.

use super::crew::*;
use super::*;
use crate::plan::ListenerId;

const CRASH: ExitStatus = ExitStatus::Code(1);
const OLD: Revision = Revision(1);
const NEW: Revision = Revision(2);

/// A worker with so many instances, of which the first so many have been replaced by a new
/// definition; the rollout goes on.
fn replaced(instances: u32, count: u32, change: impl Fn(&mut Lifecycle)) -> Crew {
    let life = |life: &mut Lifecycle| {
        life.instances = instances;
        change(life);
    };
    let mut crew = Crew::new(life);
    crew.reload(WorkerUpdate::Definition {
        life: super::crew::life(life).into(),
    });
    for index in 0..count {
        crew.pass(seconds(2));
        crew.exits(crew.program(app(index, 1)), killed_by(SIGTERM));
    }
    crew
}

fn revisions(crew: &Crew) -> Vec<Revision> {
    crew.programs()
        .iter()
        .map(|(_, revision)| *revision)
        .collect()
}

fn rolled_back(crew: &Crew) -> usize {
    crew.count(|effect| {
        matches!(
            effect,
            Effect::Emit(Event::Rollout(_, RolloutEvent::RolledBack { .. }))
        )
    })
}

// The last old one was stopped when the three new ones had already crashed.
#[test]
fn a_crash_of_what_was_promoted_fails_the_rollout_while_it_lasts() {
    let mut crew = replaced(4, 1, |_| {});
    crew.pass(seconds(1));
    assert_eq!(revisions(&crew), [NEW, OLD, NEW, OLD, OLD]);
    crew.exits(crew.program(app(0, 2)), CRASH);
    assert_eq!(rolled_back(&crew), 1);
    let instance = app(0, 2);
    assert_eq!(
        crew.core.degraded(APP).map(|bad| bad.instance),
        Some(instance)
    );
    let trial = crew.program(app(1, 2));
    assert_eq!(crew.signals(trial)[0], SIGTERM);
    crew.exits(trial, killed_by(SIGTERM));
    crew.pass(seconds(100));
    assert_eq!(
        crew.programs(),
        Crew::first(&[app(0, 3), app(1, 1), app(2, 1), app(3, 1)])
    );
    assert_eq!(crew.answers().last(), Some(&Answer::went_back(instance)));
}

#[test]
fn a_crash_soon_after_the_rollout_has_it_go_back_by_itself() {
    let mut crew = replaced(2, 2, |_| {});
    assert_eq!(
        crew.answers().last(),
        Some(&Answer::Done),
        "nobody waits for the watch"
    );
    assert!(!crew.core.is_rolling(APP));
    crew.pass(seconds(29));
    crew.forget();
    crew.exits(crew.program(app(1, 2)), CRASH);
    assert_eq!(rolled_back(&crew), 1);
    assert!(crew.core.is_rolling(APP));
    crew.pass(seconds(1));
    crew.exits(crew.program(app(0, 2)), killed_by(SIGTERM));
    crew.pass(seconds(100));
    assert_eq!(revisions(&crew), [OLD, OLD]);
    assert!(crew.core.degraded(APP).is_some());
}

#[test]
fn what_is_no_crash_or_comes_too_late_is_answered_by_the_restart_policy() {
    let own = ExitStatus::Code(75);
    let change = |life: &mut Lifecycle| {
        life.restart.success = vec![crate::config::Success::Code(75)];
    };
    for (after, status) in [
        (1, ExitStatus::Code(0)),
        (1, own),
        (1, killed_by(SIGKILL)),
        (30, CRASH),
    ] {
        let mut crew = replaced(1, 1, change);
        crew.pass(seconds(after));
        crew.exits(crew.program(app(0, 2)), status);
        assert_eq!(rolled_back(&crew), 0, "{status:?} after {after} s");
        crew.pass(seconds(1));
        assert_eq!(revisions(&crew), [NEW]);
    }
}

#[test]
fn what_could_not_serve_any_more_is_not_gone_back_to() {
    for (watch, is_final) in [(0, false), (30, true)] {
        let mut crew = Crew::new(|_| {});
        let life = life(|life| life.rollout.watch = seconds(watch));
        let configuration = Configuration {
            workers: vec![(APP, WorkerUpdate::Definition { life: life.into() })],
            final_for: is_final.then_some(APP).into_iter().collect(),
            ..Configuration::default()
        };
        crew.give(Input::Configure(Box::new(configuration)));
        crew.pass(seconds(2));
        let retire = Effect::Retire {
            worker: APP,
            needed: Some(NEW),
        };
        crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
        assert_eq!(crew.count(|effect| *effect == retire), 1);
        assert!(crew.told(Event::Rollout(
            APP,
            RolloutEvent::Done {
                generation: 2,
                is_final
            }
        )));
        crew.exits(crew.program(app(0, 2)), CRASH);
        assert_eq!(rolled_back(&crew), 0);
    }
}

// They were restarted for nothing: by the same definition.
#[test]
fn a_restart_that_goes_wrong_stops_and_leaves_what_runs() {
    let mut crew = Crew::new(|life| life.instances = 3);
    crew.ask(Command::Restart);
    for index in 0..2 {
        crew.pass(seconds(2));
        crew.exits(crew.program(app(index, 1)), killed_by(SIGTERM));
    }
    crew.exits(crew.program(app(0, 2)), CRASH);
    crew.exits(crew.program(app(2, 2)), killed_by(SIGTERM));
    crew.pass(seconds(10));
    assert_eq!(
        crew.programs(),
        Crew::first(&[app(0, 3), app(1, 2), app(2, 1)])
    );
    assert!(crew.core.degraded(APP).is_some());
}

// It restarted the old definition, said so, and cleared `degraded`.
#[test]
fn a_restart_after_a_rollback_is_by_the_configuration_in_force() {
    let mut crew = replaced(1, 0, |_| {});
    crew.exits(crew.program(app(0, 2)), CRASH);
    assert_eq!(revisions(&crew), [OLD]);
    crew.forget();
    crew.ask(Command::Restart);
    assert_eq!(revisions(&crew), [OLD, NEW]);
    let new = crew.programs()[1].0;
    crew.exits(crew.program(new), CRASH);
    assert_eq!(crew.answers().last(), Some(&Answer::went_back(new)));
    assert!(crew.core.degraded(APP).is_some());
    crew.ask(Command::Restart);
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    assert_eq!(revisions(&crew), [NEW]);
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    assert_eq!(crew.core.degraded(APP), None);
    // And so is a start, if nothing is left of the old one.
    let mut crew = replaced(1, 0, |_| {});
    crew.exits(crew.program(app(0, 2)), CRASH);
    crew.ask(Command::Stop);
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    crew.ask(Command::Start);
    assert_eq!(revisions(&crew), [NEW]);
    crew.pass(seconds(2));
    assert_eq!(crew.core.degraded(APP), None);
}

// It waited for ever, and the other instances stayed as they were.
#[test]
fn a_restart_of_what_does_not_run_ends_with_the_first_crash() {
    let mut crew = Crew::new(|life| {
        life.instances = 2;
        life.restart.limit = None;
    });
    crew.ask(Command::Stop);
    for (instance, _) in crew.programs() {
        crew.exits(crew.program(instance), killed_by(SIGTERM));
    }
    crew.ask(Command::Restart);
    assert_eq!(crew.programs().len(), 2);
    let (instance, _) = crew.programs()[0];
    crew.exits(crew.program(instance), CRASH);
    // The other runs at once, as it does not tell when it is ready.
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    let mut crew = Crew::new(|life| life.ready = crate::config::Ready::Notify);
    crew.ask(Command::Stop);
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    crew.ask(Command::Restart);
    crew.exits(crew.program(APP_0), CRASH);
    assert_eq!(crew.answers().last(), Some(&Answer::not_up(APP_0)));
}

// It waited for the limit of the old definition, or for ever without one.
#[test]
fn the_way_back_does_not_wait_for_what_crashes() {
    let mut crew = replaced(2, 1, |life| life.restart.limit = None);
    crew.exits(crew.program(app(0, 2)), CRASH);
    crew.exits(crew.program(app(1, 2)), killed_by(SIGTERM));
    crew.exits(crew.program(app(0, 3)), CRASH);
    assert!(!crew.core.is_rolling(APP));
    let instance = app(0, 2);
    assert_eq!(crew.answers().last(), Some(&Answer::went_back(instance)));
    crew.pass(seconds(1));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 3), app(1, 1)]));
}

// It had returned before anything had happened.
#[test]
fn a_reload_waits_for_the_instances_that_it_adds_and_takes_away() {
    let more = |count| WorkerUpdate::Settings {
        life: life(|life| {
            life.instances = count;
            life.ready = crate::config::Ready::Notify;
        })
        .into(),
    };
    let mut crew = Crew::new(|life| life.ready = crate::config::Ready::Notify);
    crew.says(APP_0, Notice::Ready);
    crew.reload(more(2));
    assert!(!crew.answers().contains(&Answer::Done));
    crew.says(app(1, 1), Notice::Ready);
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    crew.forget();
    crew.reload(more(1));
    assert!(!crew.answers().contains(&Answer::Done));
    crew.exits(crew.program(app(1, 1)), killed_by(SIGTERM));
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    crew.forget();
    crew.reload(more(2));
    let instance = app(1, 1);
    crew.exits(crew.program(instance), CRASH);
    assert_eq!(crew.answers().last(), Some(&Answer::not_up(instance)));
    assert!(crew.told(Event::Daemon(DaemonEvent::ReplanDone {
        bad: vec![instance]
    })));
}

#[test]
fn a_reload_waits_for_the_instances_that_it_adds_when_it_rolls() {
    let mut crew = Crew::new(|_| {});
    crew.reload(WorkerUpdate::Definition {
        life: life(|life| {
            life.instances = 2;
            life.ready = crate::config::Ready::Notify;
        })
        .into(),
    });
    crew.says(app(0, 2), Notice::Ready);
    crew.pass(seconds(2));
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    assert!(!crew.answers().contains(&Answer::Done));
    crew.says(app(1, 2), Notice::Ready);
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

// It was refused, as another was under way.
#[test]
fn a_command_that_was_interrupted_can_be_asked_again() {
    let mut crew = Crew::new(|life| life.ready = crate::config::Ready::Notify);
    let again = |crew: &mut Crew, ticket, command| {
        crew.give(Input::Operate {
            ticket: Ticket(ticket),
            worker: APP,
            index: None,
            command,
        });
    };
    let to = |crew: &Crew, ticket: u64| -> Vec<Answer> {
        let of_it = |effect: &Effect| match effect {
            Effect::Answer {
                ticket: Ticket(it),
                answer,
            } if *it == ticket => Some(answer.clone()),
            _ => None,
        };
        crew.effects.iter().filter_map(of_it).collect()
    };
    let superseded = Answer::Refused(Refused::Superseded);
    again(&mut crew, 10, Command::Start);
    again(&mut crew, 11, Command::Start);
    crew.says(APP_0, Notice::Ready);
    assert_eq!(to(&crew, 10).last(), Some(&Answer::Done));
    assert_eq!(to(&crew, 11).last(), Some(&Answer::Done));
    again(&mut crew, 12, Command::Scale(2));
    again(&mut crew, 13, Command::Scale(2));
    assert_eq!(to(&crew, 12).last(), Some(&superseded));
    crew.says(app(1, 1), Notice::Ready);
    assert_eq!(to(&crew, 13).last(), Some(&Answer::Done));
    again(&mut crew, 20, Command::Scale(1));
    again(&mut crew, 21, Command::Scale(1));
    assert_eq!(to(&crew, 21).last(), Some(&progress(0, 1)));
    crew.exits(crew.program(app(1, 1)), killed_by(SIGTERM));
    assert_eq!(to(&crew, 21).last(), Some(&Answer::Done));
    again(&mut crew, 14, Command::Restart);
    again(&mut crew, 15, Command::Start);
    again(&mut crew, 16, Command::Restart);
    assert_eq!(to(&crew, 14).last(), Some(&superseded));
    assert_eq!(to(&crew, 15).last(), Some(&superseded));
    crew.ask(Command::Stop);
    assert_eq!(to(&crew, 16).last(), Some(&superseded));
}

// It waited without a word for as long as somebody else had the address.
#[test]
fn a_start_ends_if_the_listener_cannot_be_bound_again() {
    let listener = ListenerId(0);
    let taken = ListenerLife {
        presence: crate::config::Presence::Required,
        users: vec![APP],
    };
    let life = life(|life| {
        life.on_failure = crate::config::OnFailure::Refuse;
        life.restart.limit = Some(Rate {
            count: 1,
            interval: seconds(60),
        });
    });
    let core = Core::new(vec![life], WhenDone::Hold).with_listeners(vec![taken]);
    let mut crew = Crew::of(core);
    for _ in 0..2 {
        crew.exits(crew.program(APP_0), CRASH);
        crew.pass(seconds(1));
    }
    for command in [Command::Start, Command::Restart] {
        crew.ask(command);
        crew.forget();
        crew.give(Input::ListenerMissing {
            listener,
            why: Missing::Other,
        });
        let answers = crew.answers();
        assert!(
            matches!(
                answers[..],
                [Answer::NotBound {
                    listener: ListenerId(0),
                    again_in: Some(_)
                }]
            ),
            "{answers:?}"
        );
    }
    crew.give(Input::ListenerBound { listener });
    assert_eq!(crew.programs(), Crew::first(&[APP_0]));
}

// The old definition came beside what was being cleaned up after; when it failed once, the place
// stayed empty.
#[test]
fn what_is_cleaned_up_after_makes_room_on_the_way_back() {
    let mut crew = replaced(1, 1, |life| life.hooks.after_stop = Some(seconds(5)));
    let cleaned = |crew: &mut Crew, instance| {
        let hook = crew.hook(instance, HookKind::AfterStop);
        crew.exits(hook, ExitStatus::Code(0));
    };
    cleaned(&mut crew, app(0, 1));
    crew.pass(seconds(1));
    crew.exits(crew.program(app(0, 2)), CRASH);
    assert_eq!(rolled_back(&crew), 1);
    assert_eq!(crew.programs(), []);
    cleaned(&mut crew, app(0, 2));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 3)]));
    crew.exits(crew.program(app(0, 3)), CRASH);
    cleaned(&mut crew, app(0, 3));
    crew.pass(seconds(1));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 3)]));
    assert!(!crew.core.is_rolling(APP));
}

#[test]
fn a_stop_ends_the_watch_and_a_stop_of_what_is_not_watched_ends_nothing() {
    let retires = |crew: &Crew| crew.count(|effect| matches!(effect, Effect::Retire { .. }));
    let mut crew = replaced(1, 1, |_| {});
    assert!(crew.core.is_watched(APP));
    crew.forget();
    crew.ask(Command::Stop);
    assert!(!crew.core.is_watched(APP));
    crew.exits(crew.program(app(0, 2)), ExitStatus::Code(0));
    assert_eq!(retires(&crew), 1);
    let mut crew = Crew::new(|_| ());
    crew.forget();
    crew.ask(Command::Stop);
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    assert_eq!(retires(&crew), 0);
}

#[test]
fn what_is_watched_is_not_final_and_a_restart_has_nothing_to_go_back_to() {
    let is_final = |crew: &Crew| {
        crew.effects.iter().rev().find_map(|effect| match effect {
            Effect::Emit(Event::Rollout(_, RolloutEvent::Done { is_final, .. })) => Some(*is_final),
            _ => None,
        })
    };
    let mut crew = replaced(1, 1, |_| {});
    assert_eq!(is_final(&crew), Some(false));
    crew.pass(seconds(60));
    crew.forget();
    crew.ask(Command::Restart);
    crew.pass(seconds(60));
    for (process, _) in crew.processes.clone() {
        if crew.signals(process).contains(&SIGTERM) {
            crew.exits(process, ExitStatus::Code(0));
        }
    }
    assert_eq!(is_final(&crew), Some(false));
}

#[test]
fn what_listend_is_short_of_fails_no_rollout_that_is_watched() {
    for (errno, goes_back) in [(24, 0), (2, 1)] {
        let mut crew = replaced(1, 1, |_| {});
        crew.exits(crew.program(app(0, 2)), killed_by(SIGTERM));
        crew.forget();
        let at = crew.core.deadline().expect("it is started again");
        crew.now = at;
        crew.core.handle(at, Input::Tick);
        let spawn =
            std::iter::from_fn(|| crew.core.next_effect()).find_map(|effect| match effect {
                Effect::Spawn { process, .. } => Some(process),
                _ => None,
            });
        let process = spawn.expect("it is started");
        let failure = LaunchFailure {
            errno,
            ..failure(Stage::Fork)
        };
        crew.give(Input::LaunchFailed { process, failure });
        assert_eq!(rolled_back(&crew), goes_back, "{errno}");
    }
}
