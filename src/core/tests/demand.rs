//! Workers that clients start, and connections that listend accepts for a worker.

use super::crew::{APP, Crew, app, life, seconds};
use super::*;
use crate::config::{ConnectionLimits, Overflow, Presence, Scaling};
use crate::connection::Source;
use crate::core::backoff::STABLE_AFTER;
use crate::core::connections::FAILING_AFTER;
use crate::plan::Activation;

const WEB: ListenerId = ListenerId(0);
const AT: SocketKey = SocketKey(0);

/// A crew of a worker that takes a listener.
pub(super) fn listening(change: impl Fn(&mut Lifecycle)) -> Crew {
    let web = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let core = Core::new(vec![life(change)], WhenDone::Hold);
    Crew::of(core.with_listeners(vec![web]))
}

fn pool(instances: u32) -> Crew {
    let mut crew = listening(|life| {
        on_demand(life);
        life.instances = instances;
        life.restart.policy = RestartPolicy::Always;
    });
    client(&mut crew);
    crew.forget();
    crew
}

pub(super) fn on_demand(life: &mut Lifecycle) {
    life.activation = Activation::OnDemand { limit: None };
}

pub(super) fn client(crew: &mut Crew) {
    crew.give(Input::ClientWaits {
        listener: WEB,
        socket: AT,
    });
}

/// What the last end of a process leads to.
fn next(crew: &Crew) -> Next {
    let next = |effect: &Effect| match effect {
        Effect::Emit(Event::Process(_, _, ProcessEvent::Exited { next, .. })) => Some(*next),
        _ => None,
    };
    let mut effects = crew.effects.iter().rev();
    effects.find_map(next).expect("a process has ended")
}

fn looks(crew: &Crew) -> usize {
    crew.count(|effect| matches!(effect, Effect::LookForClients { .. }))
}

#[test]
fn one_of_a_pool_that_crashes_comes_back_while_another_runs() {
    let mut crew = pool(2);
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(1));
    assert!(matches!(next(&crew), Next::RestartIn(_)));
    crew.pass(seconds(1));
    assert_eq!(crew.programs().len(), 2);
    // The last one waits for a client.
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    crew.exits(crew.program(app(1, 1)), ExitStatus::Code(1));
    assert!(matches!(next(&crew), Next::AtNextClient { .. }));
    crew.pass(seconds(1));
    assert_eq!(crew.programs(), []);
    client(&mut crew);
    assert_eq!(crew.programs().len(), 2);
}

#[test]
fn who_waits_is_looked_at_when_the_last_of_a_pool_has_ended_soon() {
    for (uptime, wanted) in [
        (STABLE_AFTER - Duration::from_millis(1), 1),
        (STABLE_AFTER, 0),
    ] {
        let mut crew = pool(2);
        crew.pass(uptime);
        crew.exits(crew.program(app(1, 1)), ExitStatus::Code(0));
        assert_eq!(looks(&crew), 0, "the other runs");
        crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
        assert_eq!(looks(&crew), wanted, "{uptime:?}");
    }
}

#[test]
fn a_worker_that_took_somebody_is_as_well_as_ever() {
    let mut crew = pool(1);
    let mut ends = |waiting| {
        crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
        crew.give(Input::Looked {
            worker: APP,
            waiting,
        });
        let until = crew.core.deadline().unwrap_or(crew.now);
        let delay = until.since(crew.now);
        crew.pass(delay);
        client(&mut crew);
        delay
    };
    let first = ends(Waiting::TheSame);
    assert!(first > Duration::ZERO && ends(Waiting::TheSame) > first);
    assert_eq!(ends(Waiting::Nobody), Duration::ZERO);
    assert_eq!(ends(Waiting::TheSame), first);
}

impl Rig {
    /// A worker of connections.
    fn accepting(limits: ConnectionLimits) -> Rig {
        let activation = Activation::PerConnection(limits);
        let web = ListenerLife {
            presence: Presence::Required,
            users: vec![APP],
        };
        let life = life(|life| {
            life.activation = activation.clone();
            life.instances = 0;
        });
        let core = Core::new(vec![life], WhenDone::Hold).with_listeners(vec![web]);
        let mut this = Rig {
            core,
            now: Mono(0),
            effects: Vec::new(),
        };
        this.give(Input::Start);
        this
    }

    /// A client waits: whether it is accepted, and its process asked for.
    fn comes(&mut self) -> Option<ProcessId> {
        self.give(Input::ClientWaits {
            listener: WEB,
            socket: AT,
        });
        let accept = |effect: &Effect| match effect {
            Effect::Accept { connection, .. } => Some(*connection),
            _ => None,
        };
        let connection = self.effects.iter().find_map(accept)?;
        self.give(Input::Accepted {
            connection,
            source: Source::Unknown,
        });
        self.wanted()
    }

    /// The process that is asked for.
    fn wanted(&self) -> Option<ProcessId> {
        let spawn = |effect: &Effect| match effect {
            Effect::Spawn { process, .. } => Some(*process),
            _ => None,
        };
        self.effects.iter().find_map(spawn)
    }
}

#[test]
fn after_a_launch_that_failed_one_is_tried_at_a_time() {
    let mut all = Rig::accepting(ConnectionLimits::NONE);
    let first = all.comes().expect("it is taken");
    assert!(all.comes().is_some(), "while another one starts");
    let failure = failure(Stage::Fork);
    all.give(Input::LaunchFailed {
        process: first,
        failure,
    });
    assert!(all.comes().is_none(), "while it is put off");
    all.pass(all.core.deadline().unwrap().since(all.now));
    let again = all.wanted().expect("it is tried again");
    assert!(all.comes().is_none(), "while it starts");
    all.give(Input::Spawned { process: again });
    all.give(Input::ExecSucceeded { process: again });
    assert!(all.comes().is_some());
}

/// As many as wait in the queue of a worker that follows it, one second after the other.
fn followed(waiting: u64, seconds_long: u64) -> Crew {
    let mut crew = listening(|life| {
        life.instances = 1;
        life.scaling = Some(Scaling {
            max: 3,
            scale_up_at: 10,
        });
    });
    crew.pass(seconds(1));
    let seen = |crew: &mut Crew, waiting, times| {
        for _ in 0..times {
            crew.give(Input::QueuesSeen {
                worker: APP,
                waiting: Some(vec![waiting]),
            });
            crew.pass(seconds(1));
        }
    };
    seen(&mut crew, 100, 4);
    crew.forget();
    seen(&mut crew, waiting, seconds_long);
    crew
}

fn scaled(crew: &Crew) -> Vec<(u32, u32, u64)> {
    let scaled = |effect: &Effect| match effect {
        Effect::Emit(Event::Worker(
            _,
            WorkerEvent::Scaled {
                before,
                instances,
                limit,
                ..
            },
        )) => Some((*before, *instances, *limit)),
        _ => None,
    };
    crew.effects.iter().filter_map(scaled).collect()
}

#[test]
fn one_more_is_added_above_the_limit_and_removed_at_half_of_it() {
    assert_eq!(scaled(&followed(10, 100)), []);
    assert_eq!(scaled(&followed(11, 5)), [(2, 3, 10)]);
    assert_eq!(scaled(&followed(6, 100)), []);
    assert_eq!(scaled(&followed(5, 100)), [(2, 1, 5)]);
}

fn told(all: &Rig, what: impl Fn(&Event) -> bool) -> bool {
    let is_it = |effect: &Effect| matches!(effect, Effect::Emit(event) if what(event));
    all.effects.iter().any(is_it)
}

#[test]
fn connections_whose_processes_fail_make_their_worker_ill_until_one_goes_well() {
    let mut all = Rig::accepting(ConnectionLimits::NONE);
    let failing = |all: &Rig| {
        told(all, |event| {
            matches!(
                event,
                Event::Worker(_, WorkerEvent::ConnectionsFailing { .. })
            )
        })
    };
    let serves = |all: &mut Rig, code| {
        let process = all.comes().expect("it is taken");
        all.give(Input::Spawned { process });
        all.give(Input::ExecSucceeded { process });
        let status = ExitStatus::Code(code);
        all.give(Input::Exited { process, status });
        let counts = all.core.connections(APP);
        (counts.failures, counts.is_failing)
    };
    for failures in 1..FAILING_AFTER {
        assert_eq!(serves(&mut all, 1), (failures, false));
        assert!(!failing(&all));
    }
    assert_eq!(serves(&mut all, 1), (FAILING_AFTER, true));
    assert!(failing(&all));
    assert_eq!(serves(&mut all, 1), (FAILING_AFTER + 1, true));
    assert!(!failing(&all), "it is told once in a while");
    assert_eq!(all.core.health(APP), Health::Degraded);
    assert_eq!(serves(&mut all, 0), (0, false));
    assert_eq!(all.core.health(APP), Health::Waiting);
    // Nor is it held against it when somebody says so.
    for _ in 0..FAILING_AFTER {
        serves(&mut all, 1);
    }
    all.give(Input::Operate {
        ticket: Ticket(1),
        worker: APP,
        index: None,
        command: Command::Reset,
    });
    assert!(!all.core.connections(APP).is_failing);
}

#[test]
fn a_connection_that_cannot_be_launched_makes_its_worker_ill() {
    let mut all = Rig::accepting(ConnectionLimits::NONE);
    let process = all.comes().expect("it is taken");
    assert!(!all.core.connections(APP).is_failing);
    let failure = failure(Stage::Fork);
    all.give(Input::LaunchFailed { process, failure });
    assert!(all.core.connections(APP).is_failing);
    assert_eq!(all.core.health(APP), Health::Degraded);
}

#[test]
fn a_connection_has_its_time_and_no_more() {
    let mut all = Rig::accepting(ConnectionLimits {
        timeout: Some(seconds(5)),
        ..ConnectionLimits::NONE
    });
    let process = all.comes().expect("it is taken");
    all.give(Input::Spawned { process });
    all.give(Input::ExecSucceeded { process });
    let timed_out = |all: &Rig| {
        told(all, |event| {
            let is_it =
                |event: &ProcessEvent| matches!(event, ProcessEvent::ConnectionTimedOut { .. });
            matches!(event, Event::Process(_, _, event) if is_it(event))
        })
    };
    all.pass(seconds(5) - Duration::from_nanos(1));
    assert_eq!(all.effects, []);
    all.pass(Duration::from_nanos(1));
    assert!(timed_out(&all));
    let is_asked = |effect: &Effect| {
        matches!(
            effect,
            Effect::Signal {
                signal: SIGTERM,
                ..
            }
        )
    };
    assert!(all.effects.iter().any(is_asked));
}

#[test]
fn no_command_is_run_for_a_connection() {
    let web = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let life = life(|life| {
        life.activation = Activation::PerConnection(ConnectionLimits::NONE);
        life.hooks.before_start = Some(seconds(5));
        life.hooks.after_stop = Some(seconds(5));
    });
    let mut crew = Crew::of(Core::new(vec![life], WhenDone::Hold).with_listeners(vec![web]));
    client(&mut crew);
    let accept = |effect: &Effect| match effect {
        Effect::Accept { connection, .. } => Some(*connection),
        _ => None,
    };
    let connection = crew.effects.iter().find_map(accept).expect("it is taken");
    crew.give(Input::Accepted {
        connection,
        source: Source::Unknown,
    });
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    assert!(crew.processes.is_empty());
}

#[test]
fn what_listend_is_short_of_is_no_crash_of_what_clients_start() {
    let mut rig = Rig::with(1, on_demand);
    let web = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    rig.core = rig.core.with_listeners(vec![web]);
    rig.give(Input::Start);
    let mut delays = Vec::new();
    for _ in 0..20 {
        rig.give(Input::ClientWaits {
            listener: WEB,
            socket: AT,
        });
        let process = rig.process();
        let failure = LaunchFailure {
            errno: 24,
            ..failure(Stage::Fork)
        };
        rig.give(Input::LaunchFailed { process, failure });
        delays.push(rig.delay().expect("it is put off"));
        rig.pass(delays[delays.len() - 1]);
    }
    assert!(delays[0] < delays[1] && delays[1] < delays[19]);
}

#[test]
fn what_there_is_no_room_for_is_refused_and_counted() {
    let mut all = Rig::accepting(ConnectionLimits {
        max: Some(1),
        overflow: Overflow::Close,
        ..ConnectionLimits::NONE
    });
    assert!(all.comes().is_some());
    for refused in 1..4 {
        assert!(all.comes().is_none());
        assert_eq!(all.core.connections(APP).refused, refused);
    }
}

#[test]
fn it_is_told_when_there_is_no_room_for_more() {
    let mut all = Rig::accepting(ConnectionLimits {
        max: Some(2),
        overflow: Overflow::Wait,
        ..ConnectionLimits::NONE
    });
    for is_full in [false, true] {
        assert!(all.comes().is_some());
        let told = told(&all, |event| {
            matches!(event, Event::Worker(_, WorkerEvent::ConnectionsFull { .. }))
        });
        assert_eq!(told, is_full);
    }
}

#[test]
fn connections_that_cannot_be_launched_together_are_tried_together() {
    let mut all = Rig::accepting(ConnectionLimits::NONE);
    let failure = failure(Stage::Fork);
    let until = |all: &Rig, index| {
        let instance = app(index, 1);
        match all.core.state(instance) {
            Some(State::Backoff { until }) => until,
            state => panic!("{state:?}"),
        }
    };
    let (one, other) = (all.comes().unwrap(), all.comes().unwrap());
    for process in [one, other] {
        all.pass(Duration::from_millis(50));
        let failure = failure.clone();
        all.give(Input::LaunchFailed { process, failure });
    }
    assert_eq!(until(&all, 0), until(&all, 1));
}

#[test]
fn a_client_that_cannot_be_accepted_puts_off_nothing_when_all_is_stopped() {
    let mut all = Rig::accepting(ConnectionLimits::NONE);
    all.give(Input::ClientWaits {
        listener: WEB,
        socket: AT,
    });
    let accept = |effect: &Effect| match effect {
        Effect::Accept { connection, .. } => Some(*connection),
        _ => None,
    };
    let connection = all.effects.iter().find_map(accept).expect("it is taken");
    all.give(Input::Stop);
    all.give(Input::NotAccepted {
        connection,
        why: NotAccepted::Exhausted { errno: 24 },
    });
    assert!(!told(&all, |event| matches!(event, Event::Worker(..))));
    assert!(all.effects.contains(&Effect::Exit { code: 0 }));
    assert_eq!(all.core.deadline(), None);
}

#[test]
fn a_connection_that_gives_no_sign_of_life_has_not_timed_out() {
    let mut all = Rig::accepting(ConnectionLimits {
        timeout: Some(seconds(60)),
        ..ConnectionLimits::NONE
    });
    let life = life(|life| {
        life.activation = Activation::PerConnection(ConnectionLimits {
            timeout: Some(seconds(60)),
            ..ConnectionLimits::NONE
        });
        life.watchdog = Some(seconds(1));
        life.instances = 0;
    });
    let change = (APP, WorkerUpdate::Definition { life: life.into() });
    all.give(Input::Configure(Box::new(Configuration {
        workers: vec![change],
        ..Configuration::default()
    })));
    let process = all.comes().expect("it is taken");
    all.give(Input::Spawned { process });
    all.give(Input::ExecSucceeded { process });
    all.pass(seconds(1));
    assert!(!all.effects.is_empty());
    assert!(!told(&all, |event| {
        let is_it = |event: &ProcessEvent| matches!(event, ProcessEvent::ConnectionTimedOut { .. });
        matches!(event, Event::Process(_, _, event) if is_it(event))
    }));
}
