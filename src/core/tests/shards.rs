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
    crew.reload(WorkerUpdate::Definition { life });
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
    crew.reload(WorkerUpdate::Definition { life });
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
    crew.reload(WorkerUpdate::Definition { life });
    // Two are replaced, and the rollout is not over.
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    crew.pass(seconds(2));
    let life = of(Distribute::Shards);
    crew.reload(WorkerUpdate::Definition { life });
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
    crew.reload(WorkerUpdate::Definition { life });
    // It ends the rollout before anything has been started by the new definition.
    crew.ask(Command::Stop);
    assert_eq!(steered(&crew), [0]);
    crew.ask(Command::Restart);
    assert_eq!(steered(&crew), [0]);
}
