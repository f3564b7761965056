//! A worker that nobody uses: everything that can happen around its stop, in every order.

use crate::sim::orders;
use listend::config::Presence;
use listend::core::{
    Command, Configuration, Core, Effect, Event, ExitStatus, Input, ListenerLife, Mono, ProcessId,
    State, Ticket, Use, WhenDone, WorkerEvent, WorkerUpdate,
};
use listend::plan::{Activation, Lifecycle, ListenerId, SocketKey, WorkerId};
use std::collections::BTreeSet;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
const APP: WorkerId = WorkerId(0);
const AT: (ListenerId, SocketKey) = (ListenerId(0), SocketKey(0));

/// A daemon with one worker of two instances, and a shell that does everything at once but for what the
/// test is about.
#[derive(Clone)]
struct Rig {
    core: Core,
    now: Mono,
    life: Lifecycle,
    watched: bool,
    /// Clients that nobody has taken.
    queue: usize,
    running: BTreeSet<ProcessId>,
    asked: BTreeSet<ProcessId>,
    /// Looks that are not answered.
    looks: usize,
    looked_at: Vec<Mono>,
    unused: Vec<Mono>,
    tickets: u64,
    exited: bool,
}

fn life(idle_timeout: Option<Duration>) -> Lifecycle {
    Lifecycle {
        activation: Activation::OnDemand { limit: None },
        instances: 2,
        idle_timeout,
        ..Lifecycle::default()
    }
}

impl Rig {
    fn new() -> Rig {
        let life = life(Some(TIMEOUT));
        let listener = ListenerLife {
            presence: Presence::Required,
            users: vec![APP],
        };
        let core = Core::new(vec![life.clone()], WhenDone::Hold);
        let mut rig = Rig {
            core: core.with_listeners(vec![listener]),
            now: Mono(1_000_000_000),
            life,
            watched: true,
            queue: 0,
            running: BTreeSet::new(),
            asked: BTreeSet::new(),
            looks: 0,
            looked_at: Vec::new(),
            unused: Vec::new(),
            tickets: 0,
            exited: false,
        };
        rig.give(Input::Start);
        rig
    }

    /// One that a client has started, who is served.
    fn started() -> Rig {
        let mut rig = Rig::new();
        rig.comes();
        assert_eq!((rig.running.len(), rig.queue), (2, 0));
        rig
    }

    fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.core.check_invariants().expect("it holds");
        while let Some(effect) = self.core.next_effect() {
            match effect {
                Effect::Spawn { process, .. } => {
                    self.running.insert(process);
                    self.give(Input::Spawned { process });
                    self.give(Input::ExecSucceeded { process });
                    self.queue = 0;
                }
                Effect::Signal { process, .. } => drop(self.asked.insert(process)),
                Effect::Watch { .. } => self.watched = true,
                Effect::Unwatch { .. } => self.watched = false,
                Effect::LookForUse { worker } => {
                    assert_eq!(worker, APP);
                    self.looks += 1;
                    self.looked_at.push(self.now);
                }
                Effect::LookForClients { worker } => {
                    let waiting = listend::core::Waiting::Nobody;
                    self.give(Input::Looked { worker, waiting });
                }
                Effect::Exit { .. } => self.exited = true,
                Effect::Emit(Event::Worker(_, WorkerEvent::Unused { after, .. })) => {
                    assert!(after >= TIMEOUT, "{after:?}");
                    self.unused.push(self.now);
                }
                Effect::Emit(_)
                | Effect::Answer { .. }
                | Effect::TakeFlows { .. }
                | Effect::EndFlows { .. }
                | Effect::Retire { .. }
                | Effect::CloseListeners => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// epoll_wait(2) tells of whoever waits.
    fn poll(&mut self) {
        for _ in 0..10 {
            if !self.watched || self.queue == 0 || self.exited {
                return;
            }
            let (listener, socket) = AT;
            self.give(Input::ClientWaits { listener, socket });
        }
        panic!("it spins: {:#?}", self.core);
    }

    fn comes(&mut self) {
        self.queue += 1;
        self.poll();
        // What runs and is not asked to stop takes whoever comes.
        if self.running.iter().any(|one| !self.asked.contains(one)) {
            self.queue = 0;
        }
    }

    /// Everything that was asked to stop does so.
    fn exits(&mut self) {
        for process in std::mem::take(&mut self.asked) {
            if self.running.remove(&process) {
                let status = ExitStatus::Code(0);
                self.give(Input::Exited { process, status });
            }
        }
        self.poll();
    }

    fn crashes(&mut self) {
        if let Some(process) = self.running.pop_first() {
            self.asked.remove(&process);
            let status = ExitStatus::Code(1);
            self.give(Input::Exited { process, status });
        }
        self.poll();
    }

    fn seen(&mut self, seen: Use) {
        if self.looks > 0 {
            self.looks -= 1;
            let worker = APP;
            self.give(Input::UseSeen { worker, seen });
            self.poll();
        }
    }

    fn operate(&mut self, command: Command) {
        self.tickets += 1;
        let (ticket, worker) = (Ticket(self.tickets), APP);
        self.give(Input::Operate {
            ticket,
            worker,
            index: None,
            command,
        });
        self.poll();
    }

    fn reload(&mut self, idle_timeout: Option<Duration>) {
        self.life.idle_timeout = idle_timeout;
        let life = self.life.clone();
        self.give(Input::Configure(Box::new(Configuration {
            workers: vec![(APP, WorkerUpdate::Settings { life: life.into() })],
            ..Configuration::default()
        })));
        self.poll();
    }

    /// Sleeps until the core wants to be woken; whether it does.
    fn sleeps(&mut self) -> bool {
        let Some(at) = self.core.deadline() else {
            return false;
        };
        self.now = self.now.max(at);
        self.give(Input::Tick);
        self.poll();
        true
    }

    /// The time goes on, and every look shows this, until nothing more is due or so often.
    fn rests(&mut self, seen: Use, most: usize) {
        for _ in 0..most {
            self.seen(seen);
            self.exits();
            if !self.sleeps() {
                return;
            }
        }
    }

    fn state(&self) -> State {
        self.core.instances().next().expect("it has one").1
    }
}

#[test]
fn a_worker_is_stopped_after_two_looks_that_find_nobody() {
    let mut rig = Rig::started();
    let start = rig.now;
    for turn in 1..=2 {
        assert!(rig.sleeps());
        assert_eq!(rig.now.since(start), TIMEOUT * turn);
        assert!(rig.unused.is_empty() && rig.asked.is_empty());
        rig.seen(Use::None);
    }
    assert_eq!((rig.unused.len(), rig.asked.len()), (1, 2));
    assert_eq!(rig.core.unused_since(APP), Some(rig.now));
    rig.exits();
    assert_eq!((rig.state(), rig.core.deadline()), (State::Waiting, None));
    rig.comes();
    assert_eq!((rig.running.len(), rig.queue), (2, 0));
    assert_eq!(rig.core.unused_since(APP), None);
}

#[test]
fn clients_cost_one_look_in_the_time_and_nothing_else() {
    for seen in [Use::Now, Use::Before, Use::Unknown] {
        let mut rig = Rig::started();
        for _ in 0..100 {
            assert!(rig.sleeps());
            rig.seen(seen);
        }
        assert_eq!(rig.looked_at.len(), 100, "{seen:?}");
        let apart = rig.looked_at.windows(2);
        assert!(apart.into_iter().all(|two| two[1].since(two[0]) == TIMEOUT));
        assert!(rig.unused.is_empty());
        // They are gone.
        rig.sleeps();
        rig.seen(Use::None);
        rig.sleeps();
        rig.seen(Use::None);
        assert_eq!(rig.unused.len(), 1, "{seen:?}");
    }
}

#[test]
fn what_takes_long_to_be_seen_is_seen_too_late_and_not_too_early() {
    let mut rig = Rig::started();
    rig.sleeps();
    rig.seen(Use::None);
    rig.sleeps();
    // The look is under way; nothing is due, and nothing follows.
    assert_eq!(rig.core.deadline(), None);
    rig.now = rig.now + TIMEOUT * 5;
    rig.seen(Use::None);
    assert_eq!(rig.unused.len(), 1);
}

#[test]
fn who_says_that_it_is_busy_is_not_even_looked_at() {
    use listend::core::Notice;
    let mut rig = Rig::started();
    let process = *rig.running.first().expect("it runs");
    let notice = |busy| Input::Notified {
        process,
        notice: Notice::Busy(busy),
    };
    rig.give(notice(true));
    for _ in 0..10 {
        assert!(rig.sleeps());
    }
    assert_eq!(rig.looked_at, []);
    rig.give(notice(false));
    rig.rests(Use::None, 10);
    assert_eq!(rig.unused.len(), 1);
}

/// What can happen around the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    Client,
    Nobody,
    Somebody,
    Exit,
    Crash,
    Time,
    StopIt,
    StartIt,
    Scale(u32),
    Restart,
    Reload(Option<Duration>),
    Stop,
}

impl Rig {
    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Client => self.comes(),
            Happens::Nobody => self.seen(Use::None),
            Happens::Somebody => self.seen(Use::Now),
            Happens::Exit => self.exits(),
            Happens::Crash => self.crashes(),
            Happens::Time => drop(self.sleeps()),
            Happens::StopIt => self.operate(Command::Stop),
            Happens::StartIt => self.operate(Command::Start),
            Happens::Scale(count) => self.operate(Command::Scale(count)),
            Happens::Restart => self.operate(Command::Restart),
            Happens::Reload(timeout) => self.reload(timeout),
            Happens::Stop => self.give(Input::Stop),
        }
    }
}

/// Each order of three of these, from the moment at which the second look is under way, and from the one at
/// which the worker is being stopped.
#[test]
fn nothing_that_happens_around_the_stop_loses_a_client_or_the_worker() {
    use Happens::*;
    let all = [
        Client,
        Nobody,
        Somebody,
        Exit,
        Crash,
        Time,
        StopIt,
        StartIt,
        Scale(1),
        Scale(3),
        Restart,
        Reload(None),
        Reload(Some(TIMEOUT)),
        Stop,
    ];
    let mut begun = Rig::started();
    begun.sleeps();
    begun.seen(Use::None);
    begun.sleeps();
    assert_eq!(begun.looks, 1);
    let mut stopping = begun.clone();
    stopping.happens(Nobody);
    assert_eq!((stopping.unused.len(), stopping.asked.len()), (1, 2));
    let mut stopped = 0;
    let orders = orders::of_three(
        vec![(begun, vec![]), (stopping, vec![])],
        &all,
        |rig, what, _| rig.happens(what),
        |rig, done| {
            stopped += usize::from(!rig.unused.is_empty());
            ends_well(rig, done);
        },
    );
    assert_eq!(orders, 2 * all.len().pow(3));
    assert!(stopped > orders / 20, "{stopped} of {orders}");
}

/// A client comes last, and is served unless somebody has stopped what would serve it; then nobody comes any
/// more, and the worker is stopped if it can be.
fn ends_well(mut rig: Rig, done: &[Happens]) {
    rig.comes();
    rig.rests(Use::None, 50);
    if done.contains(&Happens::Stop) {
        assert!(
            rig.exited && rig.running.is_empty(),
            "{done:?}: {:#?}",
            rig.core
        );
        return;
    }
    let last = done
        .iter()
        .rev()
        .find(|what| matches!(what, Happens::StopIt | Happens::StartIt | Happens::Restart));
    if last == Some(&Happens::StopIt) {
        assert!(rig.running.is_empty(), "{done:?}: {:#?}", rig.core);
        rig.operate(Command::Start);
        rig.comes();
        rig.rests(Use::None, 50);
    }
    assert_eq!(rig.queue, 0, "{done:?}: a client waits: {:#?}", rig.core);
    if rig.life.idle_timeout.is_some() {
        assert!(rig.running.is_empty(), "{done:?}: {:#?}", rig.core);
        assert!(rig.watched, "{done:?}: {:#?}", rig.core);
        // And it starts again.
        rig.comes();
        assert!(!rig.running.is_empty(), "{done:?}: {:#?}", rig.core);
    }
}
