//! Who waits in a shard whose instance does not run, and that nobody has any more.

use super::crew::*;
use super::*;
use crate::config::{Distribute, Order};

/// Two instances with shards, which a reload has made of two that shared a socket. One of them, which a restart of the
/// new definition had asked to stop, has not ended yet; the other is started again.
fn between_two_starts() -> Crew {
    let stop_first = |life: &mut Lifecycle| {
        life.instances = 2;
        life.rollout.order = Order::StopFirst;
        life.rollout.parallel = 2;
        life.rollout.min_ready = Duration::ZERO;
    };
    let mut crew = Crew::new(stop_first);
    let life = life(|life| {
        stop_first(life);
        life.distribute = Distribute::Shards;
        life.rollout.min_ready = seconds(2);
    });
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    for instance in [app(0, 1), app(1, 1)] {
        crew.exits(crew.program(instance), killed_by(SIGTERM));
    }
    let second = Revision(2);
    assert_eq!(crew.programs(), [(app(0, 2), second), (app(1, 2), second)]);
    crew.ask(Command::Restart);
    crew.exits(crew.program(app(0, 2)), killed_by(SIGTERM));
    assert_eq!(crew.programs(), [(app(0, 3), second), (app(1, 2), second)]);
    crew
}

fn drains(crew: &Crew, instance: InstanceId) -> bool {
    crew.count(|effect| {
        let drains = |event: &InstanceEvent| matches!(event, InstanceEvent::Draining { .. });
        matches!(effect, Effect::Emit(Event::Instance(of, event)) if *of == instance && drains(event))
    }) > 0
}

#[test]
fn a_definition_that_is_given_up_is_not_started_again_for_who_waits() {
    let mut crew = between_two_starts();
    crew.exits(crew.program(app(0, 3)), ExitStatus::Code(1));
    crew.exits(crew.program(app(1, 2)), killed_by(SIGTERM));
    crew.pass(seconds(10));
    assert!(!drains(&crew, app(1, 2)));
    let runs: Vec<Revision> = crew.programs().into_iter().map(|(_, by)| by).collect();
    assert_eq!(runs, [Revision(1); 2]);
}

#[test]
fn one_that_a_reload_replaces_is_started_once_more_for_who_waits() {
    let mut crew = between_two_starts();
    let life = life(|life| {
        life.instances = 2;
        life.rollout.order = Order::StopFirst;
        life.rollout.parallel = 2;
    });
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    crew.exits(crew.program(app(1, 2)), killed_by(SIGTERM));
    assert!(drains(&crew, app(1, 2)));
    crew.pass(Duration::ZERO);
    let again = crew.find(app(1, 2), Task::Program).expect("it runs again");
    let process = crew.processes[&again];
    assert_eq!(process.revision, Revision(2));
}

/// Where new clients are sent.
fn steered(crew: &Crew) -> Vec<u32> {
    let mut effects = crew.effects.iter().rev();
    let last = effects.find_map(|effect| match effect {
        Effect::Steer { shards, .. } => Some(shards),
        _ => None,
    });
    last.into_iter().flatten().copied().collect()
}

#[test]
fn a_shard_on_trial_gets_clients_if_what_is_gone_back_to_has_it_too() {
    let of = |distribute| {
        life(|life| {
            life.instances = 3;
            life.distribute = distribute;
        })
    };
    let mut crew = Crew::of(Core::new(vec![of(Distribute::Shards)], WhenDone::Hold));
    let life = of(Distribute::Shared);
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    // Two are replaced, and the rollout is not over.
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    crew.pass(seconds(2));
    let life = of(Distribute::Shards);
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    crew.exits(crew.program(app(2, 2)), killed_by(SIGTERM));
    crew.pass(seconds(2));
    assert_eq!(steered(&crew), [0, 2]);
    crew.exits(crew.program(app(0, 2)), killed_by(SIGTERM));
    assert!(crew.find(app(1, 3), Task::Program).is_some());
    assert_eq!(steered(&crew), [0, 1, 2]);
}

#[test]
fn instances_that_still_share_have_no_shard_to_which_clients_are_sent() {
    let of = |distribute| {
        life(|life| {
            life.instances = 2;
            life.distribute = distribute;
        })
    };
    let mut crew = Crew::of(Core::new(vec![of(Distribute::Shared)], WhenDone::Hold));
    let life = of(Distribute::Shards);
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    // It ends the rollout before anything has been started by the new definition.
    crew.ask(Command::Stop);
    assert_eq!(steered(&crew), [0]);
    crew.ask(Command::Restart);
    assert_eq!(steered(&crew), [0]);
}

/// So many instances with shards.
fn sharded(instances: u32, change: impl Fn(&mut Lifecycle)) -> Crew {
    Crew::new(|life| {
        life.instances = instances;
        life.distribute = Distribute::Shards;
        life.rollout.min_ready = Duration::ZERO;
        change(life);
    })
}

/// There are to be so many, and a look at each shard that drains is due.
fn scale(crew: &mut Crew, instances: u32) {
    crew.forget();
    crew.ask(Command::Scale(instances));
}

fn looked(crew: &mut Crew, instance: InstanceId, clients: bool) {
    let process = crew.program(instance);
    crew.give(Input::ShardLooked { process, clients });
}

fn asked(crew: &Crew, instance: InstanceId) -> bool {
    crew.signals(crew.program(instance)).contains(&SIGTERM)
}

#[test]
fn a_shard_is_given_up_when_nobody_has_come_for_a_while() {
    let mut crew = sharded(2, |_| ());
    scale(&mut crew, 1);
    let limit = Some(seconds(30));
    let draining = InstanceEvent::Draining { limit };
    assert!(crew.told(Event::Instance(app(1, 1), draining)));
    crew.pass(Duration::from_millis(50));
    looked(&mut crew, app(1, 1), false);
    assert!(!asked(&crew, app(1, 1)));
    crew.pass(seconds(1));
    looked(&mut crew, app(1, 1), true);
    assert!(!asked(&crew, app(1, 1)));
    for _ in 0..3 {
        crew.pass(seconds(1));
        looked(&mut crew, app(1, 1), false);
    }
    assert!(asked(&crew, app(1, 1)));
    // What is seen now means nothing.
    let before = crew.core.ignored_inputs();
    looked(&mut crew, app(1, 1), false);
    assert_eq!(crew.core.ignored_inputs(), before + 1);
}

#[test]
fn nobody_is_served_any_more_by_what_is_asked_to_stop() {
    let mut crew = sharded(2, |_| ());
    scale(&mut crew, 1);
    crew.ask(Command::Stop);
    assert!(asked(&crew, app(0, 1)) && asked(&crew, app(1, 1)));
    crew.pass(seconds(20));
    assert_eq!(
        crew.count(|effect| matches!(effect, Effect::LookAtShard { .. })),
        0
    );
}

#[test]
fn the_first_shard_is_there_whatever_there_is_to_be() {
    let mut crew = sharded(2, |_| ());
    scale(&mut crew, 0);
    assert!(asked(&crew, app(0, 1)) && drains(&crew, app(1, 1)));
    assert!(!drains(&crew, app(0, 1)) && !asked(&crew, app(1, 1)));
    // And so it is when all share it.
    let mut crew = sharded(2, |_| ());
    crew.reload(WorkerUpdate::Definition {
        life: life(|life| {
            life.instances = 2;
            life.rollout.order = Order::StopFirst;
            life.rollout.parallel = 2;
        })
        .into(),
    });
    assert!(asked(&crew, app(0, 1)) && drains(&crew, app(1, 1)));
    assert!(!drains(&crew, app(0, 1)) && !asked(&crew, app(1, 1)));
}

#[test]
fn what_has_an_heir_in_its_shard_does_not_wait_for_clients() {
    let mut crew = sharded(2, |_| ());
    crew.ask(Command::Restart);
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    assert!(asked(&crew, app(1, 1)));
    assert!(!drains(&crew, app(0, 1)) && !drains(&crew, app(1, 1)));
}

#[test]
fn a_worker_that_is_removed_serves_and_steers_nobody() {
    let mut crew = sharded(2, |_| ());
    crew.forget();
    crew.reload(WorkerUpdate::Removed);
    for instance in [app(0, 1), app(1, 1)] {
        assert!(asked(&crew, instance) && !drains(&crew, instance));
        crew.exits(crew.program(instance), ExitStatus::Code(0));
    }
    assert_eq!(
        crew.count(|effect| matches!(effect, Effect::Steer { .. })),
        0
    );
}

#[test]
fn what_drains_is_started_again_while_it_is_needed_and_in_time() {
    // It is started again for who waits.
    let mut crew = sharded(2, |_| ());
    scale(&mut crew, 1);
    crew.exits(crew.program(app(1, 1)), ExitStatus::Code(1));
    crew.pass(seconds(1));
    assert!(crew.find(app(1, 1), Task::Program).is_some());
    // Not if somebody else serves them by then.
    crew.exits(crew.program(app(1, 1)), ExitStatus::Code(1));
    scale(&mut crew, 2);
    crew.pass(seconds(10));
    assert_eq!(crew.find(app(1, 1), Task::Program), None);
    assert_eq!(crew.programs().len(), 2);
    // Nor when its time would be over.
    let mut crew = sharded(2, |life| life.stop_timeout = Some(seconds(1)));
    scale(&mut crew, 1);
    crew.pass(Duration::from_millis(950));
    crew.exits(crew.program(app(1, 1)), ExitStatus::Code(1));
    crew.pass(seconds(10));
    assert_eq!(crew.programs().len(), 1);
}

#[test]
fn what_drains_and_crashes_too_often_is_over() {
    let mut crew = sharded(2, |life| {
        life.restart.limit = Some(Rate {
            count: 0,
            interval: seconds(60),
        });
    });
    scale(&mut crew, 1);
    crew.exits(crew.program(app(1, 1)), ExitStatus::Code(1));
    assert_eq!(crew.core.instances_of(APP).count(), 1);
    crew.pass(seconds(60));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1)]));
}

#[test]
fn what_is_cleaned_up_after_is_started_at_once_for_who_waits() {
    let mut crew = sharded(2, |life| life.hooks.after_stop = Some(seconds(5)));
    crew.exits(crew.program(app(1, 1)), ExitStatus::Code(1));
    let hook = crew.hook(app(1, 1), HookKind::AfterStop);
    scale(&mut crew, 1);
    assert!(drains(&crew, app(1, 1)));
    crew.exits(hook, ExitStatus::Code(0));
    crew.pass(Duration::ZERO);
    assert!(crew.find(app(1, 1), Task::Program).is_some());
}

#[test]
fn shards_on_trial_get_no_clients_while_what_is_gone_back_to_shares_a_socket() {
    let of = |distribute| {
        life(|life| {
            life.instances = 2;
            life.distribute = distribute;
            life.rollout.parallel = 2;
            life.rollout.min_ready = seconds(2);
        })
    };
    let mut crew = Crew::of(Core::new(vec![of(Distribute::Shared)], WhenDone::Hold));
    crew.reload(WorkerUpdate::Definition {
        life: of(Distribute::Shards).into(),
    });
    assert_eq!(crew.programs().len(), 4);
    assert_eq!(steered(&crew), [0]);
    crew.pass(seconds(2));
    assert_eq!(steered(&crew), [0, 1]);
}

#[test]
fn what_ends_while_it_drains_is_looked_at_no_more() {
    let mut crew = sharded(2, |life| {
        life.restart.backoff_min = seconds(10);
        life.restart.backoff_max = seconds(20);
    });
    scale(&mut crew, 1);
    let process = crew.program(app(1, 1));
    crew.exits(process, ExitStatus::Code(1));
    assert!(crew.core.deadline().unwrap() > crew.now + seconds(1));
    let before = crew.core.ignored_inputs();
    let clients = false;
    crew.core
        .handle(crew.now, Input::ShardLooked { process, clients });
    assert_eq!(crew.core.ignored_inputs(), before + 1);
    // Nor is one that is about to end, for which nothing but its own time is due.
    let mut crew = sharded(2, |life| life.stop_timeout = Some(seconds(30)));
    scale(&mut crew, 1);
    crew.ask(Command::Stop);
    assert_eq!(crew.core.deadline(), Some(crew.now + seconds(30)));
}
