//! What is told about workers to whoever asks.

use super::crew::{APP, Crew, app, life, seconds};
use super::demand::{client, listening, on_demand};
use super::*;
use crate::config::{ConnectionLimits, Ready, Scaling};
use crate::connection::Source;
use crate::plan::Activation;

const WEB: ListenerId = ListenerId(0);

fn accepted(crew: &mut Crew) {
    client(crew);
    let accept = |effect: &Effect| match effect {
        Effect::Accept { connection, .. } => Some(*connection),
        _ => None,
    };
    let connection = crew
        .effects
        .iter()
        .rev()
        .find_map(accept)
        .expect("a client");
    crew.give(Input::Accepted {
        connection,
        source: Source::Unknown,
    });
}

/// How the only worker is, whether it is ready, and whether somebody waits for something.
fn told(crew: &Crew) -> (Health, bool, bool) {
    let core = &crew.core;
    (core.health(APP), core.is_ready(APP), core.is_changing())
}

#[test]
fn a_worker_is_ready_when_all_of_it_is_as_it_is_to_be() {
    let mut crew = Crew::new(|life| {
        life.ready = Ready::Notify;
        life.instances = 2;
    });
    assert_eq!(told(&crew), (Health::Starting, false, false));
    crew.says(app(0, 1), Notice::Ready);
    assert_eq!(told(&crew), (Health::Starting, false, false));
    crew.says(app(1, 1), Notice::Ready);
    assert_eq!(told(&crew), (Health::Running, true, false));
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(1));
    assert_eq!(told(&crew), (Health::Backoff, false, false));
    crew.pass(seconds(1));
    assert_eq!(told(&crew), (Health::Retrying, false, false));
    crew.says(app(0, 1), Notice::Ready);
    assert_eq!(told(&crew), (Health::Running, true, false));
    crew.ask(Command::Stop);
    assert_eq!(told(&crew), (Health::Stopping, true, true));
    for instance in [app(0, 1), app(1, 1)] {
        crew.exits(crew.program(instance), ExitStatus::Code(0));
    }
    assert_eq!(told(&crew), (Health::Stopped, true, false));
    assert!(crew.core.is_ready(WorkerId(9)));
    assert_eq!(crew.core.health(WorkerId(9)), Health::Stopped);
}

#[test]
fn what_clients_start_is_ready_without_a_process() {
    let mut crew = listening(on_demand);
    assert_eq!(told(&crew), (Health::Waiting, true, false));
    client(&mut crew);
    assert_eq!(told(&crew), (Health::Running, true, false));
    for _ in 0..2 {
        crew.exits(crew.program(app(0, 1)), ExitStatus::Code(1));
        assert_eq!(told(&crew), (Health::Backoff, false, false));
        crew.pass(seconds(1));
        assert_eq!(told(&crew), (Health::Waiting, true, false));
        client(&mut crew);
    }
}

#[test]
fn a_worker_of_connections_runs_while_there_are_any() {
    let limits = ConnectionLimits::NONE;
    let mut crew = listening(|life| life.activation = Activation::PerConnection(limits.clone()));
    assert_eq!(told(&crew), (Health::Waiting, true, false));
    assert_eq!(crew.core.next_connection(APP), 0);
    for number in 0..2 {
        accepted(&mut crew);
        assert_eq!(told(&crew), (Health::Running, true, false));
        assert_eq!(crew.core.next_connection(APP), number + 1);
        assert_eq!(crew.core.connections(APP).live, 1);
        crew.exits(crew.program(app(number, 1)), ExitStatus::Code(0));
        assert_eq!(told(&crew), (Health::Waiting, true, false));
    }
    assert_eq!(crew.core.next_connection(WorkerId(9)), 0);
}

#[test]
fn a_reload_and_a_rollout_are_changes_until_they_are_over() {
    let mut crew = Crew::new(|life| life.rollout.min_ready = seconds(1));
    assert_eq!(told(&crew), (Health::Running, true, false));
    crew.reload(WorkerUpdate::Definition {
        life: life(|life| life.rollout.min_ready = seconds(2)).into(),
    });
    assert!(crew.core.is_changing() && crew.core.is_rolling(APP));
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    assert!(!crew.core.is_changing() && !crew.core.is_rolling(APP));
    crew.ask(Command::Restart);
    assert!(crew.core.is_changing() && crew.core.is_rolling(APP));
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 2)), ExitStatus::Code(0));
    assert!(!crew.core.is_changing() && !crew.core.is_rolling(APP));
}

#[test]
fn listeners_are_missing_damaged_or_listening_and_taken_by_workers() {
    let mut crew = listening(|_| ());
    assert_eq!(crew.core.takers(WEB), [APP]);
    assert_eq!(crew.core.takers(ListenerId(9)), []);
    let state = |crew: &Crew| crew.core.listener_state(WEB);
    assert_eq!(state(&crew), ListenerCondition::Listening);
    crew.give(damaged(WEB, SocketKey(0)));
    assert_eq!(state(&crew), ListenerCondition::Damaged);
    crew.give(Input::ListenerRepaired {
        listener: WEB,
        socket: SocketKey(0),
        by: Repaired::SameSocket,
    });
    assert_eq!(state(&crew), ListenerCondition::Listening);
    crew.give(Input::SocketHeld {
        listener: WEB,
        socket: SocketKey(0),
    });
    assert_eq!(state(&crew), ListenerCondition::Missing);
}

#[test]
fn every_instance_was_ready_once() {
    let mut crew = Crew::new(|life| life.ready = Ready::Notify);
    assert!(!crew.core.is_up());
    crew.says(app(0, 1), Notice::Ready);
    assert!(crew.core.is_up());
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(1));
    assert!(crew.core.is_up());
}

#[test]
fn what_ends_badly_and_is_not_started_again_has_failed() {
    let never = |life: &mut Lifecycle| life.restart.policy = RestartPolicy::Never;
    let health = |crew: &Crew| {
        let instance = crew.core.facts(app(0, 1)).expect("it is there").health;
        (instance, crew.core.health(APP))
    };
    let (failed, stopped) = (Health::Failed, Health::Stopped);
    for (status, expected) in [
        (ExitStatus::Code(1), (failed, Health::Degraded)),
        (killed_by(SIGSEGV), (failed, Health::Degraded)),
        (ExitStatus::Code(0), (stopped, Health::Running)),
        (killed_by(SIGTERM), (stopped, Health::Running)),
    ] {
        let mut crew = Crew::new(|life| {
            never(life);
            life.instances = 2;
        });
        assert_eq!(health(&crew), (Health::Running, Health::Running));
        crew.exits(crew.program(app(0, 1)), status);
        assert_eq!(health(&crew), expected, "{status:?}");
        crew.exits(crew.program(app(1, 1)), status);
        let all = if expected.0 == failed {
            failed
        } else {
            stopped
        };
        assert_eq!(health(&crew), (expected.0, all), "{status:?}");
        // Whoever has asked for it knows of it.
        crew.ask(Command::Stop);
        assert_eq!(health(&crew), (stopped, stopped), "{status:?}");
    }
    // It was ended because it was not well, and took that well.
    let mut crew = Crew::new(|life| {
        never(life);
        life.watchdog = Some(seconds(1));
    });
    crew.pass(seconds(1));
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    assert_eq!(health(&crew), (failed, failed));
    // All others are started again.
    let mut crew = Crew::new(|life| life.restart.policy = RestartPolicy::OnFailure);
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    assert_eq!(health(&crew), (stopped, stopped));
    let mut crew = Crew::new(never);
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(1));
    crew.give(Input::Stop);
    assert_eq!(health(&crew), (stopped, stopped));
}

#[test]
fn it_stops_from_the_request_on() {
    let mut crew = Crew::new(|_| ());
    assert!(!crew.core.is_stopping());
    crew.give(Input::Stop);
    assert!(crew.core.is_stopping());
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    assert!(crew.core.is_stopping());
}

#[test]
fn what_has_failed_is_counted() {
    let mut crew = Crew::new(|life| {
        life.instances = 2;
        life.restart = Restart {
            limit: Some(Rate {
                count: 0,
                interval: seconds(60),
            }),
            ..strict()
        };
    });
    for failed in [0, 1] {
        assert_eq!(crew.core.failed(APP), failed);
        crew.exits(crew.program(app(failed, 1)), ExitStatus::Code(1));
    }
    assert_eq!(
        (crew.core.failed(APP), crew.core.failed(WorkerId(9))),
        (2, 0)
    );
}

#[test]
fn what_is_wrong_is_ill() {
    let is_ill = |health: &Health| health.is_ill();
    let ill = [
        Health::Backoff,
        Health::Retrying,
        Health::Degraded,
        Health::Failed,
    ];
    assert!(ill.iter().all(is_ill));
    let well = [
        Health::Stopped,
        Health::Waiting,
        Health::Running,
        Health::Starting,
        Health::Stopping,
    ];
    assert!(!well.iter().any(is_ill));
}

/// How many instances there are to be.
fn instances(crew: &Crew) -> usize {
    crew.core.instances_of(APP).count()
}

#[test]
fn what_clients_start_again_begins_with_as_few_as_there_may_be() {
    let mut crew = listening(|life| {
        on_demand(life);
        life.restart.policy = RestartPolicy::Never;
        life.scaling = Some(Scaling {
            max: 3,
            scale_up_at: 10,
        });
    });
    let waits = |crew: &mut Crew| {
        crew.pass(UP_AFTER);
        for _ in 0..2 {
            crew.give(Input::QueuesSeen {
                worker: APP,
                waiting: Some(vec![100]),
            });
            crew.pass(UP_AFTER);
        }
    };
    client(&mut crew);
    waits(&mut crew);
    assert_eq!(instances(&crew), 2);
    for index in 0..2 {
        crew.exits(crew.program(app(index, 1)), ExitStatus::Code(0));
    }
    assert_eq!(instances(&crew), 2);
    crew.give(Input::Looked {
        worker: APP,
        waiting: Waiting::Nobody,
    });
    client(&mut crew);
    assert_eq!((instances(&crew), crew.programs().len()), (1, 1));
    // Unless somebody has said how many.
    crew.ask(Command::Scale(2));
    assert_eq!(crew.programs().len(), 2);
    for index in 0..2 {
        crew.exits(crew.program(app(index, 1)), ExitStatus::Code(0));
    }
    crew.give(Input::Looked {
        worker: APP,
        waiting: Waiting::Nobody,
    });
    client(&mut crew);
    assert_eq!((instances(&crew), crew.programs().len()), (2, 2));
}

#[test]
fn what_is_defined_anew_before_the_start_starts_as_that() {
    let mut crew = Crew::new(|life| life.instances = 1);
    crew.core = Core::new(vec![life(|_| ())], WhenDone::Hold);
    crew.processes.clear();
    crew.reload(WorkerUpdate::Definition {
        life: life(|life| life.instances = 2).into(),
    });
    assert_eq!(crew.programs(), []);
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    crew.give(Input::Start);
    let second = Revision(2);
    assert_eq!(crew.programs(), [(app(0, 1), second), (app(1, 1), second)]);
}
