//! The made-up shell: does what the core wants, and complains where it may not want it.

use crate::sim::activation::kernel::Proc;
use crate::sim::activation::life::{Answer, Life, Misery, Mood};
use crate::sim::activation::world::{Connection, Stage, is_fresh};
use crate::sim::random::{signal, stop_scope};
use listend::core::{
    ConnectionId, Effect, Event, InstanceId, Mono, NotAccepted, ProcessEvent, ProcessId, Revision,
    Scope, Task, Waiting, WorkerEvent,
};
use listend::core::{Input, Refusal};
use listend::plan::{Activation, ListenerId, WorkerId};
use listend::stage::{LaunchFailure, Stage as LaunchStage};
use std::collections::BTreeSet;

const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;
const EAGAIN: i32 = 11;
const EMFILE: i32 = 24;

impl Life {
    pub(crate) fn perform(&mut self, effect: Effect, at: Mono) {
        match effect {
            Effect::LookForEvidence { .. }
            | Effect::Bind { .. }
            | Effect::Repair { .. }
            | Effect::WatchAddresses { .. }
            | Effect::Answer { .. }
            | Effect::Unbind { .. }
            | Effect::Retire { .. } => {
                panic!("{effect:?}: every listener of this life is whole");
            }
            Effect::Spawn {
                process,
                instance,
                revision,
                task,
                connection,
            } => {
                assert_eq!((revision, task), (Revision(1), Task::Program));
                assert_eq!(instance.generation, 1);
                self.spawn(process, instance, connection);
            }
            Effect::Signal {
                process,
                signal,
                scope,
            } => self.signal(process, signal, scope, at),
            Effect::Watch { listener, socket } => {
                let socket = self.socket(listener, socket.0);
                self.sockets[socket].watched = true;
            }
            Effect::Unwatch { listener, socket } => {
                let socket = self.socket(listener, socket.0);
                self.sockets[socket].watched = false;
            }
            Effect::Accept {
                listener,
                socket,
                connection,
            } => {
                let socket = self.socket(listener, socket.0);
                self.accept(socket, connection, at);
            }
            Effect::Close { connection } => self.close(connection),
            Effect::LookForClients { worker } => {
                self.answers.push_back(Answer::Look(worker));
                self.answer_soon();
            }
            Effect::CloseListeners => {
                let left = self.processes.values().any(|p| !p.exit_told);
                assert!(!left, "workers are left");
                assert!(!self.closed);
                self.closed = true;
            }
            Effect::Exit { code } => {
                assert_eq!(code, 0);
                assert!(self.closed && self.stop_at.is_some());
                for (id, connection) in &self.connections {
                    let over = connection.stage != Stage::Accepting && !connection.open;
                    assert!(over, "{id:?} is left: {connection:?}");
                }
                self.exited = true;
            }
            Effect::Emit(event) => self.heard(event),
        }
    }

    pub(crate) fn socket(&self, listener: ListenerId, index: u32) -> usize {
        let is_it = |socket: &crate::sim::activation::world::Socket| {
            socket.listener == listener && socket.index == index
        };
        let found = self.sockets.iter().position(is_it);
        found.expect("there is no such socket")
    }

    fn spawn(&mut self, process: ProcessId, instance: InstanceId, of: Option<ConnectionId>) {
        assert!(self.stop_at.is_none(), "spawned after a stop");
        let twice = self.processes.values().any(|p| p.instance == instance);
        assert!(!twice, "{instance:?} has a process already");
        let lifecycle = &self.workers[instance.worker.0 as usize];
        let per_connection = matches!(lifecycle.activation, Activation::PerConnection(_));
        assert_eq!(of.is_some(), per_connection, "{instance:?} serves {of:?}");
        if let Some(id) = of {
            let connection = self.connections.get_mut(&id).expect("it was accepted");
            assert_eq!(connection.worker, instance.worker);
            assert!(connection.open, "{id:?} is closed and gets a process");
            match connection.stage {
                Stage::Held { before } => self.seen.held_again += u64::from(before),
                stage => panic!("{id:?} is {stage:?} and gets a process"),
            }
            let started = false;
            connection.stage = Stage::Served { process, started };
        }
        let deaf = self.rng.one_in(4);
        let lazy = self.rng.one_in(3);
        let proc = Proc::new(instance, of, deaf, lazy, self.now);
        self.processes.insert(process, proc);
        let fails = match self.mood {
            Mood::Wild => self.rng.one_in(8),
            Mood::Useless => self.misery == Misery::Launches,
            Mood::Good => false,
        };
        let (stage, errno) = self
            .rng
            .pick(&[(LaunchStage::Fork, EAGAIN), (LaunchStage::Prepare, 2)]);
        self.answers.push_back(if fails {
            let detail = 0;
            let failure = LaunchFailure {
                stage,
                errno,
                detail,
            };
            Answer::NotSpawned(process, failure)
        } else {
            Answer::Spawned(process)
        });
        self.answer_soon();
    }

    fn accept(&mut self, socket: usize, id: ConnectionId, asked_at: Mono) {
        assert!(self.stop_at.is_none(), "accepts after a stop");
        assert!(is_fresh(self.last_connection, id), "{id:?} comes again");
        self.last_connection = Some(id);
        let worker = self.sockets[socket].users[0];
        self.connections.insert(
            id,
            Connection {
                worker,
                socket,
                asked_at,
                stage: Stage::Accepting,
                source: None,
                open: false,
            },
        );
        self.answers.push_back(Answer::Accept(id));
        self.answer_soon();
    }

    fn close(&mut self, id: ConnectionId) {
        let stopped = self.stop_at.is_some();
        let connection = self.connections.get_mut(&id).expect("it was accepted");
        assert!(connection.open, "{id:?} is closed twice");
        connection.open = false;
        match connection.stage {
            // Its process has it, or it is refused, or its process is over.
            Stage::Served { started: true, .. } | Stage::Over => {}
            Stage::Held { .. } | Stage::Served { started: false, .. } => {
                assert!(stopped, "{id:?} is closed unserved: {connection:?}");
                connection.stage = match connection.stage {
                    Stage::Held { .. } => Stage::Over,
                    other => other,
                };
            }
            Stage::Accepting => panic!("{id:?} is closed before it is accepted"),
        }
    }

    fn signal(&mut self, process: ProcessId, number: i32, scope: Scope, at: Mono) {
        // It may be gone by the time the effect is taken, but the core must have known it.
        assert!(
            self.gone.contains(&process) || self.processes.get(&process).is_some_and(|p| p.known),
            "{process:?} does not exist"
        );
        let Some(proc) = self.processes.get_mut(&process) else {
            return;
        };
        let lifecycle = &self.workers[proc.instance.worker.0 as usize];
        let overdue = match &lifecycle.activation {
            Activation::PerConnection(limits) => limits
                .timeout
                .is_some_and(|timeout| proc.exec_told && proc.spawned_at + timeout <= at),
            Activation::Eager | Activation::OnDemand { .. } => false,
        };
        if number == SIGKILL {
            assert_eq!(scope, Scope::Group);
            assert!(!proc.killed, "killed twice");
            let since = [proc.asked, self.stop_at, proc.main_told];
            let since = since.into_iter().flatten().min();
            let since = since.expect("killed without being asked");
            let late = lifecycle.stop_timeout.is_some_and(|t| at >= since + t);
            assert!(self.hurried || late, "SIGKILL before its time");
            self.seen.killed_late += u64::from(late);
            proc.killed = true;
            if proc.exit.is_none() {
                proc.exit = Some(signal(SIGKILL));
                proc.exec.get_or_insert(Ok(()));
            }
        } else if number == SIGCONT {
            assert!(proc.asked.is_some(), "SIGCONT follows the stop signal");
        } else {
            assert_eq!(number, lifecycle.stop_signal);
            assert_eq!(scope, stop_scope(lifecycle, proc.rest_due));
            assert!(
                self.stop_at.is_some() || overdue || proc.rest_due,
                "stopped without reason"
            );
            proc.rest_due = false;
            assert!(proc.exec_told, "a signal before exec may be lost");
            assert!(proc.asked.is_none(), "asked twice");
            proc.asked = Some(at);
        }
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Worker(_, WorkerEvent::ConnectionRefused { why, .. }) => match why {
                Refusal::Connections { .. } => self.seen.refused_full += 1,
                Refusal::OfSource { .. } => self.seen.refused_source += 1,
            },
            Event::Worker(worker, WorkerEvent::RateLimited { .. }) => {
                match self.workers[worker.0 as usize].activation {
                    Activation::OnDemand { .. } => self.seen.trigger_limited += 1,
                    Activation::PerConnection(_) => self.seen.accept_limited += 1,
                    Activation::Eager => panic!("no client starts {worker:?}"),
                }
            }
            Event::Worker(_, WorkerEvent::ConnectionsFull { .. }) => self.seen.full += 1,
            Event::Worker(_, WorkerEvent::SourceFull { .. }) => {}
            Event::Worker(_, WorkerEvent::ConnectionsFailing { .. }) => {}
            Event::Process(_, _, ProcessEvent::ConnectionTimedOut { .. }) => {
                self.seen.timed_out += 1
            }
            _ => {}
        }
    }

    /// As a rule an answer comes at once.
    fn answer_soon(&mut self) {
        if self.mood != Mood::Wild || !self.rng.one_in(4) {
            while !self.answers.is_empty() {
                self.answer();
            }
        }
    }

    /// Gives one of the answers that are due; they come in any order.
    pub(crate) fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let which = self.rng.below(self.answers.len() as u64) as usize;
        match self.answers.remove(which).expect("below the length") {
            Answer::Spawned(process) => {
                let proc = self.processes.get_mut(&process).expect("answered once");
                proc.known = true;
                proc.spawned_at = self.now;
                self.give(Input::Spawned { process });
            }
            Answer::NotSpawned(process, failure) => {
                let proc = self.processes.remove(&process).expect("answered once");
                self.gone.push(process);
                self.launch_failed(&proc);
                self.give(Input::LaunchFailed { process, failure });
            }
            Answer::Accept(connection) => self.answer_accept(connection),
            Answer::Look(worker) => self.answer_look(worker),
        }
    }

    fn answer_accept(&mut self, id: ConnectionId) {
        let exhausted = match self.mood {
            Mood::Wild => self.rng.one_in(10),
            Mood::Useless => self.misery == Misery::Accepts,
            Mood::Good => false,
        };
        let connection = self.connections.get_mut(&id).expect("asked for");
        let queue = &mut self.sockets[connection.socket].queue;
        let why = match queue.front() {
            None => Some(NotAccepted::Gone),
            Some(_) if exhausted => Some(NotAccepted::Exhausted { errno: EMFILE }),
            Some(_) => None,
        };
        if let Some(why) = why {
            connection.stage = Stage::Over;
            match why {
                NotAccepted::Gone => self.seen.gone += 1,
                NotAccepted::Exhausted { .. } => self.seen.exhausted += 1,
            }
            self.give(Input::NotAccepted {
                connection: id,
                why,
            });
            return;
        }
        let source = queue.pop_front().expect("somebody is there").source;
        connection.source = Some(source);
        connection.open = true;
        self.seen.accepted += 1;
        self.give(Input::Accepted {
            connection: id,
            source,
        });
    }

    fn answer_look(&mut self, worker: WorkerId) {
        let users =
            |socket: &&crate::sim::activation::world::Socket| socket.users.contains(&worker);
        let sockets = self.sockets.iter().filter(users);
        let waiting: BTreeSet<u64> = sockets.flat_map(|s| &s.queue).map(|c| c.id).collect();
        let past = &mut self.past[worker.0 as usize];
        let before = std::mem::replace(&mut past.waited, waiting);
        let answer = if past.waited.is_empty() {
            self.seen.looked_nobody += 1;
            Waiting::Nobody
        } else if !before.is_empty() && before.is_subset(&past.waited) {
            self.seen.looked_same += 1;
            past.idle_ends.push(self.now);
            Waiting::TheSame
        } else {
            self.seen.looked_others += 1;
            Waiting::Others
        };
        self.give(Input::Looked {
            worker,
            waiting: answer,
        });
    }
}
