//! What programs, clients and the machine do, and when all of it is at rest.

use crate::sim::life::{Due, Life, Mood};
use crate::sim::random::signal;
use crate::sim::rollout::Rollouts;
use crate::sim::rollout::world::{SHARED, Temper, WORKERS};
use listend::config::Ready;
use listend::connection::Source;
use listend::core::{
    Event, Evidence, ExitStatus, Input, InstanceEvent, InstanceId, ListenerEvent, ListenerLife,
    Missing, Mono, NotAccepted, Notice, ProcessEvent, ProcessId, Repaired, State, Waiting,
    WorkerEvent,
};
use listend::plan::{ListenerId, SocketKey, WorkerId};
use std::time::Duration;

impl Life<Rollouts> {
    pub(crate) fn is_calm(&self) -> bool {
        self.mood == Mood::Good
    }

    /// A program does what it is there for, or not.
    pub(crate) fn does(&mut self, process: ProcessId, fate: u64) -> bool {
        let calm = self.is_calm();
        let proc = self.processes.get_mut(&process).expect("just seen");
        let temper = if calm { Temper::Good } else { proc.role.temper };
        if !proc.role.serves {
            match (temper, fate) {
                (Temper::NeverReady, _) => return false,
                (Temper::DiesEarly, _) | (Temper::Mixed, 9) => {
                    proc.exit = Some(ExitStatus::Code(1));
                    return true;
                }
                (Temper::Mixed, 7..9) => return false,
                (Temper::Good | Temper::Mixed | Temper::Flips, _) => {}
            }
            proc.role.serves = true;
            let worker = &self.own.workers[proc.instance.worker.0 as usize];
            let ready = worker.definitions[&proc.revision].life.ready;
            let notice = match ready {
                Ready::Notify | Ready::Fd(_) => Some(Notice::Ready),
                Ready::Einhorn => Some(Notice::Acknowledged),
                Ready::Started | Ready::Accepting(_) => None,
            };
            if let Some(notice) = notice {
                self.give(Input::Notified { process, notice });
            }
            return true;
        }
        if temper == Temper::Flips && fate > 4 || temper == Temper::Mixed && fate == 9 {
            proc.exit = Some(match fate % 3 {
                0 => ExitStatus::Code(1),
                1 => signal(11),
                _ => ExitStatus::Code(0),
            });
            return true;
        }
        if calm {
            return false;
        }
        let notice = match fate {
            0..6 => Notice::Alive,
            6 => Notice::Reloading,
            7 => self.rng.pick(&[Notice::Ready, Notice::Acknowledged]),
            8 => self.rng.pick(&[Notice::Trigger, Notice::Stopping]),
            _ => Notice::ExtendTimeout(Duration::from_secs(3)),
        };
        self.tell(process, notice);
        true
    }

    /// A program says something about itself.
    pub(crate) fn tell(&mut self, process: ProcessId, notice: Notice) {
        let now = self.now;
        let proc = self.processes.get_mut(&process).expect("just seen");
        match notice {
            Notice::Alive => proc.role.alive_at = now,
            Notice::Trigger => proc.role.alive_at = Mono(0),
            Notice::Stopping => proc.ends = true,
            Notice::Ready
            | Notice::Acknowledged
            | Notice::Reloading
            | Notice::Busy(_)
            | Notice::WatchdogInterval(_)
            | Notice::ExtendTimeout(_) => {}
        }
        self.give(Input::Notified { process, notice });
    }

    pub(crate) fn answer_evidence(&mut self, process: ProcessId) {
        let serves = self.processes.get(&process).map(|proc| proc.role.serves);
        let evidence = match serves {
            // It takes more than one look, and of two in three nothing is ever seen; of one in five on good days.
            Some(_) if !self.is_calm() && !process.0.is_multiple_of(3) => Evidence::Hidden,
            Some(true) if process.0.is_multiple_of(5) => Evidence::Hidden,
            Some(true) => Evidence::Seen,
            Some(false) if !self.is_calm() && self.rng.one_in(50) => Evidence::Hidden,
            Some(false) | None => Evidence::NotYet,
        };
        self.give(Input::Evidence { process, evidence });
    }

    pub(crate) fn answer_due(&mut self, due: Due) {
        let fails = !self.is_calm() && self.rng.one_in(3);
        match due {
            Due::Bind(listener) if self.bound.contains(&listener) => {}
            Due::Bind(listener) if fails => {
                let why = self.rng.pick(&[Missing::Address, Missing::Other]);
                self.give(Input::ListenerMissing { listener, why });
            }
            Due::Bind(listener) => {
                self.bound.insert(listener);
                self.watched.insert((listener, SocketKey(0)));
                self.give(Input::ListenerBound { listener });
            }
            Due::Repair(listener, socket) if fails => {
                self.give(Input::RepairFailed { listener, socket });
            }
            Due::Repair(listener, socket) => {
                let by = self
                    .rng
                    .pick(&[Repaired::SameSocket, Repaired::AnotherSocket]);
                self.give(Input::ListenerRepaired {
                    listener,
                    socket,
                    by,
                });
            }
            Due::Evidence(process) => self.answer_evidence(process),
            Due::Use(_) => unreachable!("never wanted"),
            Due::Look(worker) => {
                let waiting = match fails {
                    true => Waiting::TheSame,
                    false => self.rng.pick(&[Waiting::Nobody, Waiting::Others]),
                };
                self.give(Input::Looked { worker, waiting });
            }
            Due::Accept(connection) if fails => {
                let errno = 24;
                let exhausted = NotAccepted::Exhausted { errno };
                let why = self.rng.pick(&[NotAccepted::Gone, exhausted]);
                self.give(Input::NotAccepted { connection, why });
            }
            Due::Accept(connection) => {
                let source = Source::User(1000);
                self.give(Input::Accepted { connection, source });
            }
        }
    }

    /// A client comes.
    pub(crate) fn client(&mut self) {
        let listener = ListenerId(self.rng.below(u64::from(WORKERS) + 1) as u32);
        let socket = SocketKey(0);
        let is_watched = self.watched.contains(&(listener, socket));
        if self.bound.contains(&listener) && is_watched && !self.closed {
            self.give(Input::ClientWaits { listener, socket });
        }
    }

    /// Something happens to a listener.
    pub(crate) fn trouble(&mut self) {
        let listener = self.rng.pick(&[ListenerId(0), ListenerId(1), SHARED]);
        if self.rng.one_in(2) {
            self.give(Input::AddressesChanged);
        } else if self.bound.contains(&listener) {
            let socket = SocketKey(0);
            let what = "shut down".to_owned();
            self.give(Input::ListenerDamaged {
                listener,
                socket,
                what,
                of_rights: false,
            });
        }
    }

    /// Notes what the core told.
    pub(crate) fn count(&mut self, event: &Event) {
        let seen = &mut self.seen;
        let count = match *event {
            Event::Process(_, _, ProcessEvent::Ready { .. }) => &mut seen.ready,
            Event::Process(_, _, ProcessEvent::StartTimedOut { .. }) => &mut seen.start_timed_out,
            Event::Process(_, _, ProcessEvent::WatchdogTimedOut { .. }) => &mut seen.watchdog,
            Event::Process(_, _, ProcessEvent::ReadinessHidden) => &mut seen.hidden,
            Event::Instance(_, InstanceEvent::Failed { .. }) => &mut seen.failed,
            Event::Listener(_, ListenerEvent::Refuses) => &mut seen.refusing,
            Event::Listener(_, ListenerEvent::Bound { .. }) => &mut seen.bound_again,
            Event::Instance(_, InstanceEvent::Refreshed) => &mut seen.refreshed,
            Event::Process(_, _, ProcessEvent::Reloaded { .. }) => &mut seen.reloaded,
            Event::Worker(_, WorkerEvent::Activated { .. }) => &mut seen.activated,
            _ => return,
        };
        *count += 1;
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        let ids = || (0..self.own.workers.len() as u32).map(WorkerId);
        let hooks = self.processes.values().any(|proc| proc.hook().is_some());
        let still = |(_, state): (InstanceId, State)| {
            matches!(
                state,
                State::Running { .. } | State::Waiting | State::Stopped
            ) || matches!(state, State::Failed { until: None, .. })
        };
        // Or there is nobody who could take a client.
        let has_failed = |id: &WorkerId| {
            let known = &self.own.workers[id.0 as usize];
            let nobody = self.core.instances_of(*id).next().is_none();
            nobody && !known.serves_connections()
                || self.core.failed(*id) > 0
                || self.core.is_stopped(*id)
        };
        let is_open = |(listener, life): (&ListenerId, &ListenerLife)| {
            self.bound.contains(listener) || life.users.iter().all(has_failed)
        };
        !hooks
            && self.own.listeners.iter().all(is_open)
            && self.due.is_empty()
            // Whoever asked may wait for what an instance says, for a while.
            && self.own.asked.values().all(|asked| asked.is_over)
            && !self.own.replanning
            && !ids().any(|id| self.core.is_watched(id))
            && self.core.instances().all(still)
    }

    pub(crate) fn check_at_rest(&self) {
        assert!(self.own.is_up, "it is not up: {:#?}", self.core);
        for id in (0..self.own.workers.len() as u32).map(WorkerId) {
            let known = &self.own.workers[id.0 as usize];
            assert_eq!(known.removed, known.gone, "{id:?} is still there");
            // A connection goes on as it began.
            if known.gone || known.gave_up || self.core.connections(id).live > 0 {
                continue;
            }
            assert_eq!(
                known.kept.len(),
                1 + usize::from(known.given_up.is_some()),
                "{id:?} keeps its past: {:?}",
                known.kept
            );
            for proc in self.processes.values().filter(|p| p.instance.worker == id) {
                assert_eq!(proc.revision, known.current, "{proc:?} is of the past");
            }
            let bound = |(listener, life): (&ListenerId, &ListenerLife)| {
                !life.users.contains(&id) || self.bound.contains(listener)
            };
            if known.is_eager() && self.own.listeners.iter().all(bound) {
                let waits = |one: &InstanceId| self.core.state(*one) == Some(State::Waiting);
                let left = self.core.instances_of(id).find(waits);
                assert_eq!(left, None, "left behind");
            }
        }
    }
}
