//! The made-up shell: does what the core wants, and complains where it may not want it.

use crate::sim::kernel::Proc;
use crate::sim::life::{Due, Grammar, Life, Mood, Spawn};
use crate::sim::random::{signal, stop_scope};
use listend::core::{DaemonEvent, Effect, Event, Mono, ProcessEvent, ProcessId, Scope};

pub(crate) const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;

impl<G: Grammar> Life<G> {
    pub(crate) fn perform(&mut self, effect: Effect, at: Mono) {
        assert!(!self.exited, "{effect:?} after Exit");
        G::wants(self, &effect, at);
        match effect {
            Effect::Spawn {
                process,
                instance,
                revision,
                task,
                connection,
                ..
            } => self.spawn(Spawn {
                process,
                instance,
                revision,
                task,
                connection,
            }),
            Effect::Signal {
                process,
                signal,
                scope,
            } => self.signal(process, signal, scope, at),
            Effect::LookForEvidence { process } => self.owe(Due::Evidence(process)),
            Effect::Bind { listener } => {
                assert!(!self.bound.contains(&listener), "{listener:?} is bound");
                self.owe(Due::Bind(listener));
            }
            Effect::Unbind { listener } => {
                assert!(self.bound.remove(&listener), "{listener:?} is not bound");
            }
            Effect::Repair { listener, socket } => self.owe(Due::Repair(listener, socket)),
            Effect::Watch { listener, socket } => drop(self.watched.insert((listener, socket))),
            Effect::Unwatch { listener, socket } => {
                self.watched.remove(&(listener, socket));
            }
            Effect::Accept { connection, .. } => self.owe(Due::Accept(connection)),
            Effect::LookForClients { worker } => self.owe(Due::Look(worker)),
            Effect::LookAtQueues { .. } => unreachable!("nothing follows the queues here"),
            Effect::LookForUse { worker } => self.owe(Due::Use(worker)),
            Effect::CloseListeners => {
                let left = self.processes.values().find(|proc| !proc.exit_told);
                assert!(left.is_none(), "{left:?} is left");
                assert!(!self.closed, "closed again");
                self.closed = true;
            }
            Effect::Exit { code } => {
                assert_eq!(code, 0);
                assert!(self.closed && self.stop_at.is_some());
                self.exited = true;
            }
            Effect::Emit(Event::Process(_, _, ProcessEvent::StopTimedOut { .. })) => {
                self.counts.stop_timed_out += 1
            }
            Effect::Emit(Event::Daemon(
                event @ (DaemonEvent::StopRequested { .. } | DaemonEvent::StopHurried { .. }),
            )) => {
                let is_new = self.announced.insert(std::mem::discriminant(&event));
                assert!(is_new, "{event:?} came before");
            }
            Effect::Emit(_)
            | Effect::Close { .. }
            | Effect::WatchAddresses { .. }
            | Effect::Answer { .. }
            | Effect::HoldShards { .. }
            | Effect::ReadAgain
            | Effect::Steer { .. }
            | Effect::LookAtShard { .. }
            | Effect::TakeFlows { .. }
            | Effect::WatchFlows { .. }
            | Effect::EndFlows { .. }
            | Effect::Retire { .. } => {}
        }
    }

    /// The shell owes an answer. As a rule it comes at once.
    fn owe(&mut self, due: Due) {
        self.due.push_back(due);
        if self.is_prompt() {
            while !self.due.is_empty() {
                self.answer();
            }
        }
    }

    fn is_prompt(&mut self) -> bool {
        !G::AT_ONCE && (self.mood != Mood::Wild || !self.rng.one_in(4))
    }

    fn spawn(&mut self, spawn: Spawn) {
        let process = spawn.process;
        let is_fresh = self.last_process.is_none_or(|last| last < process);
        assert!(is_fresh, "{process:?} comes again");
        self.last_process = Some(process);
        let role = G::spawn(self, &spawn);
        let deaf = self.rng.one_in(5);
        let proc = Proc::new(spawn, role, deaf, self.now);
        self.processes.insert(process, proc);
        if self.is_prompt() {
            self.happens(process);
        }
    }

    fn signal(&mut self, process: ProcessId, number: i32, scope: Scope, at: Mono) {
        // It may be gone by the time the effect is taken, but the core must have known it.
        assert!(self.last_process >= Some(process), "{process:?} never was");
        let Some(proc) = self.processes.get(&process) else {
            return;
        };
        assert!(proc.known, "{process:?} does not exist yet");
        let life = self.own.lifecycle(proc);
        if number == SIGKILL {
            assert_eq!(scope, Scope::Group);
            assert!(!proc.killed, "killed twice: {proc:?}");
            let in_time = G::may_kill(self, proc, at);
            let told = in_time || self.hurried;
            assert!(told, "SIGKILL before its time: {proc:?}");
            self.counts.killed_late += u64::from(in_time);
            let proc = self.processes.get_mut(&process).expect("just seen");
            proc.killed = true;
            if proc.exit.is_none() {
                proc.exit = Some(signal(SIGKILL));
                proc.exec.get_or_insert(Ok(()));
            }
        } else if number == SIGCONT {
            assert!(proc.asked.is_some(), "SIGCONT follows the stop signal");
        } else if number == life.stop_signal {
            // What is left of its process group is asked once more; taken late, an effect may be
            // older than the end of the main process.
            let again = proc.rest_due || G::AT_ONCE && proc.main_told.is_some();
            assert_eq!(scope, stop_scope(life, again));
            assert!(proc.exec_told, "a signal before exec may be lost");
            assert!(
                G::may_stop(self, process, proc, at),
                "asked unasked: {proc:?}"
            );
            assert!(proc.asked.is_none() || again, "asked twice: {proc:?}");
            let proc = self.processes.get_mut(&process).expect("just seen");
            proc.rest_due = false;
            proc.asked = Some(at);
        } else {
            G::signal(self, process, number);
        }
    }
}
