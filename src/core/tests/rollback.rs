//! What a rollout goes back from finds instances in every state.

use super::crew::*;
use super::demand::{client, listening, on_demand};
use super::*;
use crate::config::{Distribute, Order, Presence, Ready};

const CRASH: ExitStatus = ExitStatus::Code(1);
const FINE: ExitStatus = ExitStatus::Code(0);

/// Replaces every instance by ones of another definition. Its revision.
fn replace(crew: &mut Crew, change: impl Fn(&mut Lifecycle)) -> Revision {
    let life = life(change).into();
    crew.reload(WorkerUpdate::Definition { life });
    crew.core.latest(APP).expect("it is there")
}

/// Asks for the first instance alone.
fn ask_first(crew: &mut Crew, command: Command) {
    crew.give(Input::Operate {
        ticket: Ticket(3),
        worker: APP,
        index: Some(0),
        command,
    });
}

/// The new instance of the second generation crashes: how many are to be replaced back.
fn goes_back(crew: &mut Crew) -> u32 {
    crew.forget();
    crew.exits(crew.program(app(0, 2)), CRASH);
    let again = |effect: &Effect| match effect {
        Effect::Emit(Event::Rollout(_, RolloutEvent::RolledBack { again, .. })) => Some(*again),
        _ => None,
    };
    crew.effects.iter().find_map(again).expect("it goes back")
}

#[test]
fn what_was_stopped_before_the_rollout_is_replaced_when_it_goes_back() {
    let mut crew = Crew::new(|_| {});
    ask_first(&mut crew, Command::Stop);
    replace(&mut crew, |_| {});
    assert_eq!(goes_back(&mut crew), 1);
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(0, 3)]));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    crew.pass(seconds(100));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 3)]));
}

#[test]
fn what_stops_to_come_back_is_left_to_do_so() {
    let mut crew = Crew::new(|_| {});
    ask_first(&mut crew, Command::Stop);
    ask_first(&mut crew, Command::Start);
    replace(&mut crew, |_| {});
    assert_eq!(goes_back(&mut crew), 0);
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    crew.pass(seconds(100));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1)]));
}

#[test]
fn what_is_ended_for_a_fault_is_left_to_its_restart_policy() {
    let notify = |life: &mut Lifecycle| {
        life.ready = Ready::Notify;
        life.start_timeout = Some(seconds(5));
    };
    let mut crew = Crew::new(notify);
    crew.pass(seconds(5));
    assert_eq!(crew.signals(crew.program(app(0, 1)))[0], SIGTERM);
    replace(&mut crew, notify);
    assert_eq!(goes_back(&mut crew), 0);
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    crew.pass(seconds(1));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1)]));
}

#[test]
fn what_is_only_being_prepared_goes_on_unless_it_was_stopped() {
    let prepared = |life: &mut Lifecycle| life.hooks.before_start = Some(seconds(10));
    for stopped in [false, true] {
        let mut crew = Crew::new(prepared);
        let hook = crew.hook(app(0, 1), HookKind::BeforeStart);
        if stopped {
            ask_first(&mut crew, Command::Stop);
        }
        replace(&mut crew, |_| {});
        let again = goes_back(&mut crew);
        assert_eq!(again, u32::from(stopped));
        crew.exits(hook, FINE);
        if stopped {
            crew.exits(crew.hook(app(0, 3), HookKind::BeforeStart), FINE);
        }
        let generation = if stopped { 3 } else { 1 };
        assert_eq!(crew.programs(), Crew::first(&[app(0, generation)]));
    }
}

#[test]
fn what_is_on_its_way_to_its_program_goes_on() {
    let mut core = Core::new(vec![life(|_| {})], WhenDone::Hold);
    core.handle(Mono(0), Input::Start);
    // Nothing is heard of its process.
    while core.next_effect().is_some() {}
    let mut crew = Crew::of(core);
    replace(&mut crew, |_| {});
    assert_eq!(goes_back(&mut crew), 0);
    assert!(matches!(crew.state(app(0, 1)), State::Starting { .. }));
}

#[test]
fn the_other_definition_takes_no_old_instance_that_crashes_meanwhile() {
    let mut crew = Crew::new(|life| life.instances = 2);
    let revision = replace(&mut crew, |life| life.instances = 2);
    crew.exits(crew.program(app(1, 1)), CRASH);
    crew.pass(seconds(1));
    let mut all = Crew::first(&[app(0, 1), app(0, 2), app(1, 1)]);
    all[1].1 = revision;
    assert_eq!(crew.programs(), all);
}

// Its number is that of a process which may still be draining.
#[test]
fn what_was_being_tried_before_comes_back_by_a_number_of_its_own() {
    let two = |life: &mut Lifecycle| life.instances = 2;
    let mut crew = Crew::new(two);
    let second = replace(&mut crew, two);
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    let third = replace(&mut crew, two);
    // The other that was being tried is over.
    crew.exits(crew.program(app(1, 2)), killed_by(SIGTERM));
    assert!(crew.programs().contains(&(app(0, 2), second)));
    assert!(crew.programs().contains(&(app(0, 3), third)));
    crew.exits(crew.program(app(0, 2)), CRASH);
    crew.pass(seconds(1));
    let mut all = Crew::first(&[app(0, 3), app(0, 4), app(1, 1)]);
    all[0].1 = third;
    assert_eq!(crew.programs(), all);
}

#[test]
fn what_came_back_as_it_is_to_be_is_not_replaced_once_more() {
    let mut crew = Crew::new(|life| life.instances = 3);
    replace(&mut crew, |life| life.instances = 3);
    for index in 0..2 {
        crew.pass(seconds(2));
        crew.exits(crew.program(app(index, 1)), killed_by(SIGTERM));
    }
    crew.exits(crew.program(app(2, 2)), CRASH);
    crew.exits(crew.program(app(1, 2)), CRASH);
    crew.pass(seconds(1));
    crew.forget();
    crew.exits(crew.program(app(0, 2)), killed_by(SIGTERM));
    let spawned = |effect: &Effect| matches!(effect, Effect::Spawn { .. });
    assert_eq!(crew.count(spawned), 0);
    assert_eq!(
        crew.programs(),
        Crew::first(&[app(0, 3), app(1, 3), app(2, 1)])
    );
    assert!(!crew.core.is_rolling(APP));
}

#[test]
fn a_new_instance_that_has_served_its_client_is_good() {
    let mut crew = listening(|life| {
        on_demand(life);
        life.ready = Ready::Notify;
    });
    client(&mut crew);
    crew.says(app(0, 1), Notice::Ready);
    crew.ask(Command::Restart);
    crew.exits(crew.program(app(0, 2)), FINE);
    assert_eq!(crew.core.degraded(APP), None);
    assert_eq!(crew.signals(crew.program(app(0, 1)))[0], SIGTERM);
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

#[test]
fn what_makes_room_and_what_has_ended_to_make_room_is_started_again() {
    let order = |life: &mut Lifecycle| {
        life.instances = 3;
        life.rollout.order = Order::StopFirst;
        life.rollout.parallel = 2;
    };
    let mut crew = Crew::new(order);
    replace(&mut crew, order);
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    assert_eq!(goes_back(&mut crew), 2);
    crew.exits(crew.program(app(1, 1)), killed_by(SIGTERM));
    crew.pass(seconds(1));
    assert_eq!(
        crew.programs(),
        Crew::first(&[app(0, 3), app(1, 3), app(2, 1)])
    );
}

#[test]
fn what_has_failed_before_the_rollout_is_started_by_the_old_definition() {
    let strict = |life: &mut Lifecycle| {
        life.instances = 2;
        life.restart = strict();
        life.restart.limit = Some(Rate {
            count: 0,
            interval: seconds(60),
        });
    };
    let mut crew = Crew::new(strict);
    crew.exits(crew.program(app(1, 1)), CRASH);
    assert!(matches!(crew.state(app(1, 1)), State::Failed { .. }));
    replace(&mut crew, strict);
    assert_eq!(goes_back(&mut crew), 1);
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(1, 3)]));
}

#[test]
fn what_got_its_listener_during_the_rollout_is_replaced_too() {
    let two = |life: &mut Lifecycle| life.instances = 2;
    let web = |presence| ListenerLife {
        presence,
        users: vec![APP],
    };
    let wait = Presence::WaitFor(seconds(30));
    let core = Core::new(vec![life(two)], WhenDone::Hold);
    let mut crew = Crew::of(core.with_listeners(vec![web(wait), web(Presence::Required)]));
    let listener = ListenerId(0);
    crew.exits(crew.program(app(1, 1)), CRASH);
    let why = Missing::Other;
    crew.give(Input::ListenerMissing { listener, why });
    crew.pass(seconds(1));
    assert_eq!(crew.state(app(1, 1)), State::Waiting);
    let second = replace(&mut crew, two);
    crew.give(Input::ListenerBound { listener });
    assert!(crew.programs().contains(&(app(1, 2), second)));
    assert_eq!(goes_back(&mut crew), 1);
    crew.pass(Duration::from_nanos(1));
    crew.exits(crew.program(app(1, 2)), killed_by(SIGTERM));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(1, 3)]));
}

#[test]
fn what_still_serves_its_shard_goes_on_when_the_shards_are_kept() {
    let stop_first = |life: &mut Lifecycle| {
        life.instances = 2;
        life.rollout.order = Order::StopFirst;
        life.rollout.parallel = 2;
    };
    let mut crew = Crew::new(|life| {
        stop_first(life);
        life.distribute = Distribute::Shards;
    });
    replace(&mut crew, stop_first);
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    assert_eq!(goes_back(&mut crew), 1);
    crew.pass(seconds(100));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 3), app(1, 1)]));
    assert_eq!(crew.signals(crew.program(app(1, 1))), NONE);
}

#[test]
fn who_waits_in_a_shard_that_goes_is_served_before_that_is_replaced_back() {
    let of = |distribute| {
        move |life: &mut Lifecycle| {
            life.instances = 3;
            life.distribute = distribute;
        }
    };
    let mut crew = Crew::new(of(Distribute::Shared));
    let second = replace(&mut crew, of(Distribute::Shards));
    for index in 0..2 {
        crew.pass(seconds(2));
        crew.exits(crew.program(app(index, 1)), killed_by(SIGTERM));
    }
    replace(&mut crew, of(Distribute::Shared));
    crew.exits(crew.program(app(1, 2)), CRASH);
    crew.exits(crew.program(app(0, 3)), CRASH);
    crew.pass(seconds(1));
    assert!(crew.programs().contains(&(app(1, 2), second)));
}
