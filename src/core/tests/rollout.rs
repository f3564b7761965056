//! The rules of replacing instances.

use super::crew::*;
use super::*;
use crate::config::Order;
use crate::plan::SocketKey;

const CRASH: ExitStatus = ExitStatus::Code(1);

fn rolling(instances: u32, change: impl Fn(&mut Lifecycle)) -> Crew {
    let mut crew = Crew::new(|life| {
        life.instances = instances;
        change(life);
    });
    crew.forget();
    crew.ask(Command::Restart);
    crew
}

#[test]
fn an_old_instance_is_asked_to_stop_when_the_new_one_has_been_ready_long_enough() {
    let mut crew = rolling(1, |_| {});
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(0, 2)]));
    let old = crew.program(app(0, 1));
    crew.pass(seconds(2) - Duration::from_nanos(1));
    assert_eq!(crew.signals(old), NONE);
    crew.pass(Duration::from_nanos(1));
    assert_eq!(crew.signals(old)[0], SIGTERM);
    assert_eq!(crew.answers(), [progress(0, 1)], "the old one drains");
    crew.exits(old, killed_by(SIGTERM));
    let all = [progress(0, 1), progress(1, 1), Answer::Done];
    assert_eq!(crew.answers(), all);
    assert_eq!(crew.programs(), Crew::first(&[app(0, 2)]));
    assert!(!crew.core.is_rolling(APP));
}

#[test]
fn with_stop_first_the_new_one_starts_when_the_old_one_has_ended() {
    let mut crew = rolling(1, |life| life.rollout.order = Order::StopFirst);
    let old = crew.program(app(0, 1));
    assert_eq!(crew.signals(old)[0], SIGTERM);
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1)]));
    crew.exits(old, killed_by(SIGTERM));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 2)]));
    crew.pass(seconds(2));
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

/// Two instances, and a definition of them that needs O_NONBLOCK the other way.
fn opposed() -> (Crew, Revision) {
    let mut crew = Crew::new(|life| life.instances = 2);
    let revision = Revision(2);
    let life = life(|life| {
        life.instances = 2;
        life.nonblocking = true;
    });
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    (crew, revision)
}

#[test]
fn who_needs_the_flag_of_the_listeners_otherwise_starts_when_all_before_have_ended() {
    let (mut crew, revision) = opposed();
    let old = [app(0, 1), app(1, 1)];
    assert_eq!(crew.programs(), Crew::first(&old));
    for instance in old {
        assert_eq!(crew.signals(crew.program(instance))[0], SIGTERM);
    }
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    assert_eq!(crew.programs(), Crew::first(&[app(1, 1)]));
    crew.exits(crew.program(app(1, 1)), killed_by(SIGTERM));
    let new = [(app(0, 2), revision), (app(1, 2), revision)];
    assert_eq!(crew.programs(), new);
    crew.pass(seconds(2));
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

// It came back as what it was, and the rollout waited for its end for ever.
#[test]
fn what_is_down_does_not_come_back_while_the_others_make_room() {
    let mut crew = Crew::new(|life| life.instances = 2);
    crew.exits(crew.program(app(1, 1)), CRASH);
    let revision = Revision(2);
    let life = life(|life| {
        life.instances = 2;
        life.nonblocking = true;
    });
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    crew.pass(seconds(5));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1)]));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    let new = [(app(0, 2), revision), (app(1, 2), revision)];
    assert_eq!(crew.programs(), new);
    crew.pass(seconds(2));
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

#[test]
fn on_the_way_back_they_are_not_mixed_either() {
    let (mut crew, revision) = opposed();
    for instance in [app(0, 1), app(1, 1)] {
        crew.exits(crew.program(instance), killed_by(SIGTERM));
    }
    crew.exits(crew.program(app(0, 2)), CRASH);
    let left = crew.program(app(1, 2));
    assert_eq!(crew.programs(), [(app(1, 2), revision)]);
    assert_eq!(crew.signals(left)[0], SIGTERM);
    crew.exits(left, killed_by(SIGTERM));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 3), app(1, 3)]));
    crew.pass(seconds(2));
    let instance = app(0, 2);
    let all = crew.answers();
    assert_eq!(all.last(), Some(&Answer::went_back(instance)));
}

#[test]
fn at_most_so_many_are_replaced_at_a_time() {
    for parallel in [1, 2] {
        let mut crew = rolling(3, |life| life.rollout.parallel = parallel);
        assert_eq!(crew.programs().len(), 3 + parallel as usize);
        crew.pass(seconds(2));
        // The next begins when the old one is gone.
        assert_eq!(crew.programs().len(), 3 + parallel as usize);
        crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
        assert_eq!(crew.programs().len(), 3 + parallel as usize);
        assert!(crew.find(app(parallel, 2), Task::Program).is_some());
    }
}

#[test]
fn a_new_instance_that_ends_too_soon_leaves_the_old_ones_as_they_are() {
    let mut crew = rolling(2, |_| {});
    crew.pass(seconds(1));
    let instance = app(0, 2);
    crew.exits(crew.program(instance), CRASH);
    assert!(crew.told(Event::Rollout(
        APP,
        RolloutEvent::RolledBack { instance, again: 0 }
    )));
    assert_eq!(
        crew.answers(),
        [progress(0, 2), Answer::went_back(instance)]
    );
    crew.pass(seconds(100));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(1, 1)]));
    let degraded = crew.core.degraded(APP).expect("it went back");
    assert_eq!(degraded.instance, instance);
}

// The end of one is told before the time of the others, which is over as well.
#[test]
fn no_other_takes_a_place_at_the_moment_that_one_is_no_good() {
    for ends in [0, 1] {
        let mut crew = rolling(2, |life| life.rollout.parallel = 2);
        let old = [app(0, 1), app(1, 1)].map(|instance| crew.program(instance));
        crew.now = crew.core.deadline().expect("they settle");
        crew.exits(crew.program(app(ends, 2)), CRASH);
        assert_eq!(old.map(|process| crew.signals(process).len()), [0, 0]);
        let instance = app(ends, 2);
        crew.exits(crew.program(app(1 - ends, 2)), killed_by(SIGTERM));
        assert_eq!(crew.answers().last(), Some(&Answer::went_back(instance)));
        assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(1, 1)]));
    }
}

#[test]
fn what_was_replaced_already_is_replaced_back() {
    let mut crew = Crew::new(|life| life.instances = 2);
    let revision = Revision(2);
    let life = life(|life| life.instances = 2);
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    assert_eq!(
        crew.programs(),
        [
            (app(0, 2), revision),
            (app(1, 1), Revision(1)),
            (app(1, 2), revision)
        ]
    );
    crew.forget();
    crew.exits(crew.program(app(1, 2)), CRASH);
    let first = Revision(1);
    assert_eq!(
        crew.programs(),
        [
            (app(0, 2), revision),
            (app(0, 3), first),
            (app(1, 1), first)
        ]
    );
    // At once: it was good before.
    let old = crew.program(app(0, 2));
    crew.pass(Duration::from_nanos(1));
    assert_eq!(crew.signals(old)[0], SIGTERM);
    crew.exits(old, killed_by(SIGTERM));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 3), app(1, 1)]));
    let instance = app(1, 2);
    // What went back is not counted as done.
    assert_eq!(crew.answers(), [Answer::went_back(instance)]);
    let retire = Effect::Retire {
        worker: APP,
        needed: Some(first),
    };
    assert_eq!(crew.count(|effect| *effect == retire), 1);
}

// It came back by the definition that was no good.
#[test]
fn what_crashes_on_the_way_back_comes_back_by_the_old_definition() {
    let mut crew = Crew::new(|life| life.instances = 3);
    let life = life(|life| life.instances = 3);
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    for index in 0..2 {
        crew.pass(seconds(2));
        crew.exits(crew.program(app(index, 1)), killed_by(SIGTERM));
    }
    crew.exits(crew.program(app(2, 2)), CRASH);
    // Both that were replaced are to be replaced again, and one at a time.
    crew.exits(crew.program(app(1, 2)), CRASH);
    crew.pass(seconds(1));
    let of_index_1 = |(one, _): &&(InstanceId, Revision)| one.index == 1;
    let programs = crew.programs();
    let revisions = programs.iter().filter(of_index_1);
    assert!(revisions.clone().count() > 0);
    assert!(
        revisions.clone().all(|(_, of)| *of == Revision(1)),
        "{programs:?}"
    );
}

#[test]
fn a_rollout_that_goes_well_makes_up_for_one_that_did_not() {
    let mut crew = rolling(1, |_| {});
    crew.exits(crew.program(app(0, 2)), CRASH);
    assert!(crew.core.degraded(APP).is_some());
    crew.ask(Command::Restart);
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    assert_eq!(crew.core.degraded(APP), None);
}

#[test]
fn a_stop_takes_the_place_of_a_rollout() {
    let mut crew = rolling(1, |_| {});
    crew.ask(Command::Scale(2));
    assert_eq!(crew.answers().last(), Some(&Answer::Refused(Refused::Busy)));
    crew.ask(Command::Stop);
    assert!(
        crew.answers()
            .contains(&Answer::Refused(Refused::Superseded))
    );
    for (instance, _) in crew.programs() {
        crew.exits(crew.program(instance), killed_by(SIGTERM));
    }
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    crew.pass(seconds(100));
    assert_eq!(crew.programs(), []);
}

// The next rollout went back to what the configuration says.
#[test]
fn a_restart_keeps_the_number_that_somebody_asked_for() {
    let mut crew = Crew::new(|_| {});
    crew.ask(Command::Scale(3));
    crew.ask(Command::Restart);
    for index in 0..3 {
        crew.pass(seconds(2));
        crew.exits(crew.program(app(index, 1)), killed_by(SIGTERM));
    }
    assert_eq!(
        crew.programs(),
        Crew::first(&[app(0, 2), app(1, 2), app(2, 2)])
    );
}

// It was due all the time, and the loop span until the command had ended.
#[test]
fn a_new_instance_that_is_cleaned_up_after_is_waited_for_in_peace() {
    let mut crew = rolling(1, |life| life.hooks.after_stop = Some(seconds(10)));
    crew.now = crew.now + seconds(2);
    crew.exits(crew.program(app(0, 2)), CRASH);
    crew.give(Input::Tick);
    assert_eq!(crew.core.deadline(), Some(crew.now + seconds(10)));
}

// Two of one name ran beside each other.
#[test]
fn a_name_is_not_given_again_while_its_process_is_there() {
    let mut crew = Crew::new(|life| life.instances = 2);
    crew.ask(Command::Scale(1));
    let old = crew.program(app(1, 1));
    crew.exits(old, killed_by(SIGTERM));
    crew.ask(Command::Scale(2));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(1, 1)]));
    let shrink = life(|life| life.instances = 1);
    crew.reload(WorkerUpdate::Settings {
        life: shrink.into(),
    });
    crew.ask(Command::Scale(2));
    assert_eq!(crew.programs().len(), 3);
    assert_ne!(crew.programs()[1].0, crew.programs()[2].0);
}

// It was taken for one that is no good; or it was not given the new socket at all.
#[test]
fn a_new_instance_that_is_started_again_for_a_listener_is_still_on_trial() {
    use crate::config::Presence;
    use crate::plan::ListenerId;
    let taken = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let core = Core::new(vec![life(|_| {})], WhenDone::Hold).with_listeners(vec![taken]);
    let mut crew = Crew::of(core);
    crew.ask(Command::Restart);
    crew.pass(seconds(1));
    let (listener, socket, by) = (ListenerId(0), 0, Repaired::AnotherSocket);
    crew.give(damaged(listener, SocketKey(socket)));
    crew.give(Input::ListenerRepaired {
        listener,
        socket: SocketKey(socket),
        by,
    });
    for instance in [app(0, 1), app(0, 2)] {
        crew.exits(crew.program(instance), killed_by(SIGTERM));
    }
    crew.pass(Duration::from_nanos(1));
    assert_eq!(crew.core.degraded(APP), None);
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(0, 2)]));
    crew.forget();
    // Its time begins again.
    let old = crew.program(app(0, 1));
    crew.pass(seconds(2) - Duration::from_nanos(2));
    assert_eq!(crew.signals(old), NONE);
    crew.exits(crew.program(app(0, 2)), CRASH);
    assert!(crew.core.degraded(APP).is_some());
}

#[test]
fn a_new_instance_that_says_it_stops_is_not_relied_on() {
    let mut crew = Crew::new(|life| life.ready = crate::config::Ready::Notify);
    crew.says(app(0, 1), Notice::Ready);
    crew.ask(Command::Restart);
    crew.says(app(0, 2), Notice::Ready);
    crew.says(app(0, 2), Notice::Stopping);
    let (old, new) = (crew.program(app(0, 1)), crew.program(app(0, 2)));
    crew.pass(seconds(3));
    assert_eq!(crew.signals(old), NONE);
    // It does not: it has the time of a stop, and the rollout goes back.
    crew.pass(seconds(27));
    assert_eq!(crew.signals(new), [SIGKILL]);
    crew.exits(new, killed_by(SIGKILL));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1)]));
    assert!(crew.core.degraded(APP).is_some());
}
