//! What a user would try first, step by step.

use crate::sim::random::SECOND;
use listend::config::{ConnectionLimits, Overflow, Presence, Rate, Restart};
use listend::connection::Source;
use listend::core::{
    Core, Effect, Event, ExitStatus, Input, ListenerLife, Mono, NotAccepted, ProcessId, State,
    Waiting, WhenDone, WorkerEvent,
};
use listend::plan::{Activation, Lifecycle, ListenerId, WorkerId};
use listend::stage::{LaunchFailure, Stage};
use std::collections::VecDeque;
use std::time::Duration;

const WELL: ExitStatus = ExitStatus::Code(0);
const CRASHED: ExitStatus = ExitStatus::Code(1);
const EMFILE: i32 = 24;
const ME: Source = Source::User(1000);
const YOU: Source = Source::User(1001);
const NO_LIMITS: ConnectionLimits = ConnectionLimits {
    max: None,
    max_per_source: None,
    overflow: Overflow::Wait,
    rate: None,
    timeout: None,
};

/// A daemon with one socket, and a kernel that does everything at once.
struct Rig {
    core: Core,
    now: Mono,
    queue: VecDeque<Source>,
    watched: bool,
    /// accept4(2) finds no descriptor.
    exhausted: bool,
    /// fork(2) or what follows it fails.
    launch: Option<Stage>,
    /// What a look at the queue says.
    waiting: Waiting,
    running: Vec<ProcessId>,
    events: Vec<Event>,
    closed: usize,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Rig {
    fn new(activations: Vec<Activation>) -> Rig {
        let users: Vec<_> = (0..activations.len() as u32).map(WorkerId).collect();
        let lifecycles = activations.into_iter().map(|activation| Lifecycle {
            instances: u32::from(matches!(activation, Activation::OnDemand { .. })),
            activation,
            restart: Restart::default(),
            stop_signal: 15,
            stop_timeout: Some(seconds(30)),
            ..Lifecycle::default()
        });
        let presence = Presence::Required;
        let core = Core::new(lifecycles, WhenDone::Hold);
        let mut rig = Rig {
            core: core.with_listeners(vec![ListenerLife { presence, users }]),
            now: Mono(SECOND),
            queue: VecDeque::new(),
            watched: true,
            exhausted: false,
            launch: None,
            waiting: Waiting::Nobody,
            running: Vec::new(),
            events: Vec::new(),
            closed: 0,
        };
        rig.give(Input::Start);
        rig
    }

    fn on_demand() -> Rig {
        Rig::new(vec![Activation::OnDemand { limit: None }])
    }

    fn per_connection(limits: ConnectionLimits) -> Rig {
        Rig::new(vec![Activation::PerConnection(limits)])
    }

    fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.core.check_invariants().unwrap();
        while let Some(effect) = self.core.next_effect() {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Watch { .. } => self.watched = true,
            Effect::Unwatch { .. } => self.watched = false,
            Effect::Spawn { process, .. } => match self.launch {
                Some(stage) => {
                    let (errno, detail) = (2, 0);
                    let failure = LaunchFailure {
                        stage,
                        errno,
                        detail,
                        reason: None,
                    };
                    if stage != Stage::Fork {
                        self.give(Input::Spawned { process });
                    }
                    self.give(Input::LaunchFailed { process, failure });
                    if stage != Stage::Fork {
                        let status = ExitStatus::Code(127);
                        self.give(Input::Exited { process, status });
                    }
                }
                None => {
                    self.running.push(process);
                    self.give(Input::Spawned { process });
                    self.give(Input::ExecSucceeded { process });
                }
            },
            Effect::Accept { connection, .. } => {
                let why = NotAccepted::Exhausted { errno: EMFILE };
                if self.exhausted {
                    return self.give(Input::NotAccepted { connection, why });
                }
                match self.queue.pop_front() {
                    Some(source) => self.give(Input::Accepted { connection, source }),
                    None => {
                        let why = NotAccepted::Gone;
                        self.give(Input::NotAccepted { connection, why });
                    }
                }
            }
            Effect::Close { .. } => self.closed += 1,
            Effect::LookForClients { worker } => {
                let waiting = self.waiting;
                self.give(Input::Looked { worker, waiting });
            }
            Effect::Emit(event) => self.events.push(event),
            effect => panic!("{effect:?}"),
        }
    }

    fn come(&mut self, count: usize, from: Source) {
        self.queue.extend(std::iter::repeat_n(from, count));
        self.poll();
    }

    /// Tells of clients as long as epoll_wait(2) would.
    fn poll(&mut self) {
        let (listener, socket) = (ListenerId(0), 0);
        for _ in 0..1000 {
            if !self.watched || self.queue.is_empty() {
                return;
            }
            self.give(Input::ClientWaits {
                listener,
                socket: listend::plan::SocketKey(socket),
            });
        }
        panic!("it spins: {:#?}", self.core);
    }

    /// Sleeps until the core wants to be woken; how long that was.
    fn sleep(&mut self) -> Duration {
        let at = self.core.deadline().expect("it will never wake up");
        let slept = at.since(self.now);
        self.now = at;
        self.give(Input::Tick);
        self.poll();
        slept
    }

    fn exits(&mut self, status: ExitStatus) {
        let process = self.running.remove(0);
        self.give(Input::Exited { process, status });
        self.poll();
    }

    fn state(&self) -> State {
        self.core.instances().next().expect("it has one").1
    }

    fn told(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is_it(event)).count()
    }
}

#[test]
fn a_flood_is_served_at_the_rate_and_to_the_last_client() {
    let rate = Some(Rate {
        count: 3,
        interval: seconds(10),
    });
    let mut rig = Rig::per_connection(ConnectionLimits { rate, ..NO_LIMITS });
    let start = rig.now;
    rig.come(100, ME);
    let mut served = 3;
    assert_eq!(rig.running.len(), served);
    while !rig.queue.is_empty() {
        rig.sleep();
        let allowed = 3 * (1 + rig.now.since(start).as_secs() / 10);
        served = rig.running.len();
        assert!(served as u64 <= allowed, "{served} after {:?}", rig.now);
    }
    assert_eq!(served, 100);
    assert_eq!(rig.now.since(start), seconds(330));
    assert!(rig.watched);
}

#[test]
fn a_flood_of_starts_is_slowed_down_and_goes_on() {
    let limit = Some(Rate {
        count: 3,
        interval: seconds(10),
    });
    let mut rig = Rig::new(vec![Activation::OnDemand { limit }]);
    let start = rig.now;
    // Each start serves one client of those that wait.
    for served in 0..20 {
        rig.queue.resize(20 - served, ME);
        rig.waiting = Waiting::Others;
        rig.poll();
        while rig.running.is_empty() {
            rig.sleep();
        }
        assert_eq!(rig.now.since(start), seconds(10 * (served as u64 / 3)));
        rig.queue.pop_front();
        rig.exits(WELL);
    }
    assert_eq!(
        rig.told(|event| matches!(event, Event::Worker(_, WorkerEvent::Activated { .. }))),
        20
    );
}

#[test]
fn a_worker_that_takes_nobody_fails_and_is_tried_again() {
    let mut rig = Rig::on_demand();
    rig.queue.push_back(ME);
    rig.waiting = Waiting::TheSame;
    rig.poll();
    for _ in 0..10 {
        rig.exits(WELL);
        assert!(
            matches!(rig.state(), State::Backoff { .. }),
            "{:?}",
            rig.state()
        );
        rig.sleep();
        assert_eq!(rig.running.len(), 1, "the client starts it again");
    }
    rig.exits(WELL);
    let failed = matches!(rig.state(), State::Failed { until: Some(_), .. });
    assert!(failed, "{:?}", rig.state());
    assert_eq!(rig.running.len(), 0);
    assert_eq!(rig.sleep(), seconds(60), "the cool-down");
    assert_eq!(rig.running.len(), 1, "the client that still waits");
    // It has been repaired.
    rig.queue.clear();
    rig.waiting = Waiting::Nobody;
    rig.exits(WELL);
    assert_eq!(rig.state(), State::Waiting);
    rig.come(1, ME);
    assert_eq!(rig.running.len(), 1);
}

#[test]
fn clients_that_vanish_are_no_crash() {
    let mut rig = Rig::on_demand();
    for _ in 0..50 {
        rig.come(1, ME);
        rig.queue.clear();
        rig.exits(WELL);
        assert_eq!(rig.state(), State::Waiting);
        assert_eq!(rig.core.deadline(), None);
    }
}

#[test]
fn beyond_max_connections_clients_wait() {
    let max = Some(2);
    let mut rig = Rig::per_connection(ConnectionLimits { max, ..NO_LIMITS });
    rig.come(5, ME);
    assert_eq!((rig.running.len(), rig.queue.len()), (2, 3));
    assert!(!rig.watched, "it would be told of them all the time");
    for waiting in [2, 1, 0, 0] {
        rig.exits(CRASHED);
        assert_eq!(rig.queue.len(), waiting);
    }
    assert_eq!(rig.running.len(), 1);
    assert!(rig.watched);
}

#[test]
fn beyond_max_connections_clients_are_closed() {
    let limits = ConnectionLimits {
        max: Some(2),
        overflow: Overflow::Close,
        ..NO_LIMITS
    };
    let mut rig = Rig::per_connection(limits);
    rig.come(5, ME);
    assert_eq!((rig.running.len(), rig.queue.len()), (2, 0));
    // Two because their processes have them, three because nobody will.
    assert_eq!(rig.closed, 5);
    let refused = rig.told(|event| {
        matches!(
            event,
            Event::Worker(_, WorkerEvent::ConnectionRefused { .. })
        )
    });
    assert_eq!(refused, 3);
    rig.exits(WELL);
    rig.come(1, ME);
    assert_eq!(rig.running.len(), 2);
}

#[test]
fn a_source_that_has_too_many_is_told_once_a_minute() {
    let limits = ConnectionLimits {
        max_per_source: Some(1),
        ..NO_LIMITS
    };
    let mut rig = Rig::per_connection(limits);
    let full = |event: &Event| matches!(event, Event::Worker(_, WorkerEvent::SourceFull { source, max: 1, .. }) if *source == ME);
    rig.come(4, ME);
    assert_eq!(rig.told(full), 1);
    rig.now = rig.now + seconds(59);
    rig.come(1, ME);
    assert_eq!(rig.told(full), 1);
    rig.now = rig.now + seconds(1);
    rig.come(1, ME);
    assert_eq!(rig.told(full), 2);
}

#[test]
fn a_source_is_counted_until_its_process_is_gone_whatever_ends_it() {
    let limits = ConnectionLimits {
        max_per_source: Some(1),
        timeout: Some(seconds(5)),
        ..NO_LIMITS
    };
    let refused = |event: &Event| {
        matches!(
            event,
            Event::Worker(_, WorkerEvent::ConnectionRefused { .. })
        )
    };
    let killed = ExitStatus::Signal {
        number: 9,
        core_dumped: true,
    };
    for launch in [None, Some(Stage::Fork), Some(Stage::Exec)] {
        for (end, times_out) in [
            (WELL, false),
            (CRASHED, false),
            (killed, false),
            (killed, true),
        ] {
            let mut rig = Rig::per_connection(limits.clone());
            rig.launch = launch;
            rig.come(1, ME);
            rig.launch = None;
            if launch.is_some() {
                assert_eq!(rig.running.len(), 0, "it is held");
                rig.sleep();
            }
            assert_eq!(rig.running.len(), 1);
            rig.come(1, ME);
            assert_eq!((rig.running.len(), rig.told(refused)), (1, 1));
            rig.come(1, YOU);
            assert_eq!((rig.running.len(), rig.told(refused)), (2, 1));
            if times_out {
                rig.now = rig.now + seconds(5);
                rig.core.handle(rig.now, Input::Tick);
                let mut asked = 0;
                while let Some(effect) = rig.core.next_effect() {
                    asked += u32::from(matches!(effect, Effect::Signal { signal: 15, .. }));
                }
                assert_eq!(asked, 2);
            }
            rig.exits(end);
            rig.come(1, ME);
            assert_eq!((rig.running.len(), rig.told(refused)), (2, 1));
        }
    }
}

#[test]
fn without_descriptors_clients_wait_and_are_tried_again() {
    let mut rig = Rig::per_connection(NO_LIMITS);
    rig.exhausted = true;
    rig.come(3, ME);
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        assert!(!rig.watched, "it would be told of them all the time");
        let slept = rig.sleep();
        assert!(slept > Duration::ZERO && slept <= seconds(30), "{slept:?}");
        longest = longest.max(slept);
    }
    assert!(longest >= seconds(1), "it is tried too often: {longest:?}");
    assert_eq!(
        rig.told(|event| matches!(event, Event::Worker(_, WorkerEvent::AcceptPaused { .. }))),
        {
            let minutes = rig.now.since(Mono(SECOND)).as_secs() / 60;
            1 + minutes as usize
        }
    );
    rig.exhausted = false;
    rig.sleep();
    assert_eq!((rig.running.len(), rig.queue.len()), (3, 0));
    assert!(rig.watched);
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn two_workers_take_one_listener() {
    let on_demand = Activation::OnDemand { limit: None };
    let mut rig = Rig::new(vec![on_demand.clone(), on_demand]);
    rig.come(1, ME);
    assert_eq!(rig.running.len(), 2, "each may be the one to take it");
    assert!(!rig.watched);
    // One ends while the client waits: it is started for it again, whatever the other does.
    rig.waiting = Waiting::Others;
    rig.exits(WELL);
    assert_eq!(rig.running.len(), 2);
    rig.queue.clear();
    rig.waiting = Waiting::Nobody;
    rig.exits(WELL);
    rig.exits(WELL);
    assert_eq!(rig.running.len(), 0);
    assert!(rig.watched);
    rig.come(1, ME);
    assert_eq!(rig.running.len(), 2);
}
