//! Workers that clients start, and connections: random lives with made-up queues and clients.
//!
//! What must hold is told here a second time, without a look at how the core does it: who may be
//! accepted, who must be refused, who may be started, and above all that no client waits for ever.

mod check;
mod clients;
mod scenarios;
mod world;

use crate::sim::kernel::Proc;
use crate::sim::life::{Due, Grammar, Heard, Life, Misery, Mood, Spawn, every_seed, one};
use crate::sim::random::{Rng, signal};
use crate::sim::seeds::{Trace, seen};
use listend::core::{ConnectionId, Core, Effect, ExitStatus, Input, Mono, ProcessId, WhenDone};
use listend::core::{Revision, Task};
use listend::plan::{Activation, Lifecycle};
use std::collections::{BTreeMap, BTreeSet};
use world::{Connection, Past, Socket, Stage, World};

pub(crate) fn one_life(tape: &[u8]) {
    one::<Clients>(tape);
}

#[test]
fn no_client_waits_for_ever_and_no_limit_is_passed() {
    every_seed::<Clients>();
}

seen! {
    activations: "activations",
    pools_started: "pools started whole",
    members_restarted: "members of a pool restarted while others ran",
    trigger_limited: "trigger limits reached",
    accept_limited: "accept rates reached",
    full: "times when all connections were taken",
    refused_full: "connections refused for want of room",
    refused_source: "connections refused because of their source",
    accepted: "connections accepted",
    exhausted: "accepts that found no descriptor",
    gone: "accepts that found nobody",
    vanished: "clients that vanished",
    held: "connections held because of a failed launch",
    lost: "connections whose descriptor was not kept",
    held_again: "held connections started",
    timed_out: "connections that took too long",
    used: "looks that found a worker in use",
    looked_same: "workers that took none of their clients",
    looked_others: "workers whose clients were others",
    looked_nobody: "workers that took all their clients",
    failed: "workers that crashed too often",
    cooled_down: "workers tried again after a cool-down",
    storms: "storms in a stopped time",
    waited: "clients that waited when all was to calm down",
    stop_accepting: "stops with an accept under way",
    stop_starting: "stops with a connection on its way to its program",
    stop_held: "stops with a connection held",
    stop_serving: "stops with a connection being served",
    shared: "lives with a listener that two workers take",
}

/// Workers that clients start, and their clients.
struct Clients {
    workers: Vec<Lifecycle>,
    sockets: Vec<Socket>,
    shared: bool,
    past: Vec<Past>,
    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: Option<ConnectionId>,
    next_client: u64,
    /// Whom the core wanted to be asked to stop, and since when.
    asked: BTreeMap<ProcessId, Mono>,
    /// Whom the core wanted to be killed.
    killed: BTreeSet<ProcessId>,
}

/// What a process serves, and how.
#[derive(Debug, Clone)]
struct Role {
    connection: Option<ConnectionId>,
    /// It takes no clients.
    lazy: bool,
}

impl Grammar for Clients {
    type Role = Role;
    type Seen = Seen;
    const LIFE: u32 = 250;
    const LAUNCHES: [u64; 2] = [6, 9];
    const ERRORS: &'static [i32] = &[2];
    const TOLD: u64 = 6;
    const AT_ONCE: bool = false;
    const TICKS: u32 = 0;

    fn new(rng: &mut Rng) -> (Clients, Core) {
        let World {
            workers,
            listeners,
            sockets,
            shared,
        } = World::new(rng);
        let core = Core::new(workers.clone(), WhenDone::Hold).with_listeners(listeners);
        let own = Clients {
            past: vec![Past::default(); workers.len()],
            workers,
            sockets,
            shared,
            connections: BTreeMap::new(),
            last_connection: None,
            next_client: 0,
            asked: BTreeMap::new(),
            killed: BTreeSet::new(),
        };
        (own, core)
    }

    fn begin(life: &mut Life<Clients>) {
        if life.trace == Trace::Print {
            println!("{:#?} {:?}", life.own.workers, life.own.sockets);
        }
        life.watched = life.own.sockets.iter().map(Socket::id).collect();
        life.seen.shared = u64::from(life.own.shared);
    }

    fn step(life: &mut Life<Clients>, which: u64) {
        match which {
            ..82 => life.arrive(),
            82..85 => life.vanish(),
            _ => life.tell_of_a_client(),
        }
    }

    /// It comes while clients come.
    fn before_stop(life: &mut Life<Clients>) {
        for _ in 0..life.rng.below(6) {
            life.arrive();
            life.tell_of_a_client();
            life.work();
        }
    }

    /// A storm: everything fails, and not a nanosecond passes. What has a limit must come to rest.
    fn after_steps(life: &mut Life<Clients>) {
        if life.rng.one_in(2) {
            life.seen.storms += 1;
            // A program that ends well and has done nothing is the worst of all.
            life.mood = Mood::Useless(life.rng.pick(&[
                Misery::Ends(ExitStatus::Code(0)),
                Misery::Ends(ExitStatus::Code(0)),
                Misery::Ends(signal(15)),
                Misery::Ends(ExitStatus::Code(1)),
                Misery::Ends(signal(9)),
                Misery::Launches,
                Misery::Accepts,
            ]));
            life.settle();
        }
        let waiting = life.own.sockets.iter().map(|s| s.queue.len() as u64);
        life.seen.waited += waiting.sum::<u64>();
    }

    fn rests(life: &Life<Clients>) -> bool {
        life.core.deadline().is_none()
    }

    /// Everybody was served, and every socket is watched again.
    fn check_rest(life: &Life<Clients>) {
        for socket in &life.own.sockets {
            assert!(
                socket.queue.is_empty() && life.watched.contains(&socket.id()),
                "a client waits for ever: {socket:?}\n{:#?}",
                life.core
            );
        }
        assert!(life.processes.is_empty(), "{:?}", life.processes);
        for (id, connection) in &life.own.connections {
            assert!(!connection.open, "{id:?} is left open");
        }
    }

    fn before(life: &mut Life<Clients>, input: &Input) {
        if *input != Input::Stop || life.stop_at.is_some() {
            return;
        }
        for connection in life.own.connections.values() {
            match connection.stage {
                Stage::Accepting => life.seen.stop_accepting += 1,
                Stage::Held { .. } => life.seen.stop_held += 1,
                Stage::Served { started: false, .. } => life.seen.stop_starting += 1,
                Stage::Served { started: true, .. } => life.seen.stop_serving += 1,
                Stage::Over => {}
            }
        }
    }

    fn check(life: &mut Life<Clients>, heard: &Heard<'_>) {
        life.check_heard(heard);
    }

    fn wants(life: &mut Life<Clients>, effect: &Effect, at: Mono) {
        match *effect {
            Effect::Spawn { .. }
            | Effect::Signal { .. }
            | Effect::Watch { .. }
            | Effect::Unwatch { .. }
            | Effect::LookForClients { .. }
            | Effect::CloseListeners => {}
            Effect::LookForUse { worker } => life.look_for_use(worker, at),
            Effect::Accept {
                listener,
                socket,
                connection,
            } => life.accept((listener, socket), connection, at),
            Effect::Close { connection } => life.close(connection),
            Effect::Exit { .. } => {
                for (id, connection) in &life.own.connections {
                    let over = connection.stage != Stage::Accepting && !connection.open;
                    assert!(over, "{id:?} is left: {connection:?}");
                }
            }
            Effect::Emit(ref event) => life.note_event(event.clone()),
            _ => panic!("{effect:?}: every listener of this life is whole"),
        }
    }

    fn spawn(life: &mut Life<Clients>, spawn: &Spawn) -> Role {
        let (instance, process) = (spawn.instance, spawn.process);
        assert_eq!((spawn.revision, spawn.task), (Revision(1), Task::Program));
        assert_eq!(instance.generation, 1);
        assert!(life.stop_at.is_none(), "spawned after a stop");
        let twice = life.processes.values().any(|p| p.instance == instance);
        assert!(!twice, "{instance:?} has a process already");
        let lifecycle = &life.own.workers[instance.worker.0 as usize];
        let per_connection = matches!(lifecycle.activation, Activation::PerConnection(_));
        assert_eq!(spawn.connection.is_some(), per_connection, "{spawn:?}");
        if let Some(id) = spawn.connection {
            let connection = life.own.connections.get_mut(&id);
            let connection = connection.expect("it was accepted");
            assert_eq!(connection.worker, instance.worker);
            assert!(connection.open, "{id:?} is closed and gets a process");
            match connection.stage {
                Stage::Held { before } => life.seen.held_again += u64::from(before),
                stage => panic!("{id:?} is {stage:?} and gets a process"),
            }
            let started = false;
            connection.stage = Stage::Served { process, started };
        }
        Role {
            connection: spawn.connection,
            lazy: life.rng.one_in(3),
        }
    }

    fn may_stop(life: &Life<Clients>, _: ProcessId, proc: &Proc<Role>, at: Mono) -> bool {
        assert!(proc.asked.is_none(), "asked twice: {proc:?}");
        let limits = life.limits(proc.instance.worker);
        let timeout = limits.and_then(|limits| limits.timeout);
        let overdue = timeout.is_some_and(|time| proc.exec_told && proc.spawned_at + time <= at);
        let is_unused = life.own.past[proc.instance.worker.0 as usize].is_unused;
        life.stop_at.is_some() || overdue || proc.rest_due || is_unused
    }

    fn answer(life: &mut Life<Clients>, due: Due) {
        match due {
            Due::Accept(connection) => life.answer_accept(connection),
            Due::Look(worker) => life.answer_look(worker),
            Due::Use(worker) => life.answer_use(worker),
            Due::Bind(_) | Due::Repair(..) | Due::Evidence(_) => unreachable!("never wanted"),
        }
    }

    fn lifecycle(&self, proc: &Proc<Role>) -> &Lifecycle {
        &self.workers[proc.instance.worker.0 as usize]
    }

    /// It takes clients, or ends.
    fn works(life: &mut Life<Clients>, process: ProcessId, fate: u64) -> bool {
        let status = life.any_status();
        let proc = &life.processes[&process];
        let worker = proc.instance.worker;
        let takes = proc.role.connection.is_none();
        let exit = match (life.mood, fate) {
            (Mood::Good, _) => {
                if takes {
                    life.take_clients(worker, u64::MAX);
                }
                Some(ExitStatus::Code(0))
            }
            (Mood::Useless(Misery::Ends(status)), _) => Some(status),
            (Mood::Useless(_), _) => Some(ExitStatus::Code(0)),
            (Mood::Wild, 0..3) => proc.asked.is_none().then_some(status),
            // Nobody is left to serve.
            (Mood::Wild, 3..5) => {
                let ends = proc.role.lazy || !life.somebody_waits(worker);
                ends.then_some(ExitStatus::Code(0))
            }
            (Mood::Wild, _) => {
                if takes && !proc.role.lazy {
                    let some = 1 + life.rng.below(4);
                    life.take_clients(worker, some);
                }
                None
            }
        };
        let proc = life.processes.get_mut(&process).expect("just seen");
        proc.exit = exit;
        exit.is_some()
    }

    fn runs(life: &mut Life<Clients>, process: ProcessId) {
        let connection = life.processes[&process].role.connection;
        if let Some(id) = connection {
            let connection = life.own.connections.get_mut(&id);
            let started = true;
            connection.expect("it was accepted").stage = Stage::Served { process, started };
        }
    }

    fn ended(life: &mut Life<Clients>, process: ProcessId, proc: &Proc<Role>) {
        let worker = proc.instance.worker;
        let mut others = life.processes.iter().filter(|(id, _)| **id != process);
        if others.all(|(_, other)| other.instance.worker != worker) {
            life.own.past[worker.0 as usize].is_unused = false;
        }
        let launched = matches!(proc.exec, Some(Ok(())));
        let stopped = life.stop_at.is_some();
        let connection = proc.role.connection;
        if let Some(id) = connection {
            let connection = life.own.connections.get_mut(&id);
            let connection = connection.expect("it was accepted");
            connection.stage = if !launched && connection.open && !stopped {
                life.seen.held += 1;
                Stage::Held { before: true }
            } else {
                Stage::Over
            };
            return;
        }
        let well = match proc.exit {
            Some(ExitStatus::Code(code)) => code == 0,
            Some(ExitStatus::Signal { number, .. }) => [1, 2, 13, 15].contains(&number),
            Some(ExitStatus::Unknown) | None => false,
        };
        if !well || !launched {
            let past = &mut life.own.past[proc.instance.worker.0 as usize];
            past.crashes.push((life.now, proc.instance));
        }
    }

    /// Every socket is watched again, and limits begin anew.
    fn survived(life: &mut Life<Clients>) {
        life.watched = life.own.sockets.iter().map(Socket::id).collect();
        for past in &mut life.own.past {
            past.starts.clear();
            past.waited.clear();
            past.looked_at = None;
        }
    }

    /// No descriptor of a connection was kept.
    fn lost(life: &mut Life<Clients>) {
        for connection in life.core.open_connections().collect::<Vec<_>>() {
            let known = life.own.connections.get_mut(&connection);
            let known = known.expect("it was accepted");
            assert!(known.open, "{connection:?} was closed");
            known.open = false;
            if let Stage::Held { .. } = known.stage {
                known.stage = Stage::Over;
            }
            life.seen.lost += 1;
            life.give(Input::ConnectionLost { connection });
        }
    }

    /// epoll_wait(2) tells of everybody at this moment.
    fn tell_of_clients(life: &mut Life<Clients>) -> bool {
        let ready = life.ready();
        for socket in &ready {
            life.client_waits(*socket);
            life.catch_up();
        }
        !ready.is_empty()
    }

    fn stale(life: &mut Life<Clients>) -> Option<ConnectionId> {
        let over = life.own.connections.iter();
        let over = over.filter(|(_, connection)| connection.stage == Stage::Over);
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        (!over.is_empty()).then(|| life.rng.pick(&over))
    }
}
