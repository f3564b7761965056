//! The core's events for programs: a word for each, and what it is about.

use super::client::WaitsFor;
use crate::control::{Event as Told, Reply, WatchReply, rfc3339};
use crate::core::{Event, InstanceId, ProcessId};
use crate::plan::{ListenerId, WorkerId};
use crate::shell::token::ClientId;
use crate::shell::turn::Shell;
use crate::shell::{clock, event_text};

/// So many events are kept for those who come later.
const KEPT: usize = 100;

/// What an event is about.
#[derive(Default)]
struct EventSubject {
    listener: Option<ListenerId>,
    worker: Option<WorkerId>,
    instance: Option<InstanceId>,
    process: Option<ProcessId>,
}

impl EventSubject {
    fn listener(listener: ListenerId) -> EventSubject {
        EventSubject {
            listener: Some(listener),
            ..EventSubject::default()
        }
    }

    fn worker(worker: WorkerId) -> EventSubject {
        EventSubject {
            worker: Some(worker),
            ..EventSubject::default()
        }
    }

    fn instance(instance: InstanceId, process: Option<ProcessId>) -> EventSubject {
        EventSubject {
            worker: Some(instance.worker),
            instance: Some(instance),
            process,
            listener: None,
        }
    }
}

/// The word, which never changes its meaning, and what it is about.
fn outline(event: &Event) -> (&'static str, EventSubject) {
    match *event {
        Event::InstanceStarting {
            instance, process, ..
        } => (
            "instance-starting",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::InstanceStarted { instance, process } => (
            "instance-started",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::LaunchFailed {
            instance, process, ..
        } => (
            "launch-failed",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::InstanceExited {
            instance, process, ..
        } => (
            "instance-exited",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::InstanceFailed { instance, .. } => {
            ("instance-failed", EventSubject::instance(instance, None))
        }
        Event::WorkerFailed { worker } => ("worker-failed", EventSubject::worker(worker)),
        Event::StopRequested { .. } => ("stop-requested", EventSubject::default()),
        Event::StopHurried { .. } => ("stop-hurried", EventSubject::default()),
        Event::Stopping {
            instance, process, ..
        } => (
            "instance-stopping",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::StopTimedOut {
            instance, process, ..
        } => (
            "stop-timed-out",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::ListenerAwaited { listener, .. } => {
            ("listener-awaited", EventSubject::listener(listener))
        }
        Event::ListenerOverdue { listener, .. } => {
            ("listener-overdue", EventSubject::listener(listener))
        }
        Event::ListenerMissing { listener, .. } => {
            ("listener-missing", EventSubject::listener(listener))
        }
        Event::ListenerBound { listener, .. } => {
            ("listener-bound", EventSubject::listener(listener))
        }
        Event::InstanceRefreshed { instance } => {
            ("instance-refreshed", EventSubject::instance(instance, None))
        }
        Event::ListenerDamaged { listener, .. } => {
            ("listener-damaged", EventSubject::listener(listener))
        }
        Event::ListenerRepaired { listener, .. } => {
            ("listener-repaired", EventSubject::listener(listener))
        }
        Event::ListenerVacated { listener, .. } => {
            ("listener-vacated", EventSubject::listener(listener))
        }
        Event::RepairFutile { listener, .. } => ("repair-futile", EventSubject::listener(listener)),
        Event::RepairFailed { listener, .. } => ("repair-failed", EventSubject::listener(listener)),
        Event::Activated {
            worker, listener, ..
        } => {
            let about = EventSubject {
                listener: Some(listener),
                ..EventSubject::worker(worker)
            };
            ("worker-activated", about)
        }
        Event::NobodyTaken { instance, .. } => {
            ("nobody-taken", EventSubject::instance(instance, None))
        }
        Event::RateLimited { worker, .. } => ("rate-limited", EventSubject::worker(worker)),
        Event::ConnectionsFull { worker, .. } => ("connections-full", EventSubject::worker(worker)),
        Event::SourceFull { worker, .. } => ("source-full", EventSubject::worker(worker)),
        Event::ConnectionRefused { worker, .. } => {
            ("connection-refused", EventSubject::worker(worker))
        }
        Event::AcceptPaused { worker, .. } => ("accept-paused", EventSubject::worker(worker)),
        Event::ConnectionTimedOut {
            instance, process, ..
        } => (
            "connection-timed-out",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::ConnectionsFailing { instance, .. } => (
            "connections-failing",
            EventSubject::instance(instance, None),
        ),
        Event::AllStopped => ("all-stopped", EventSubject::default()),
        Event::InstanceReady {
            instance, process, ..
        } => (
            "instance-ready",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::ReadinessHidden { instance, process } => (
            "readiness-hidden",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::StartTimedOut {
            instance, process, ..
        } => (
            "start-timed-out",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::WatchdogTimedOut {
            instance, process, ..
        } => (
            "watchdog-timed-out",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::SaysStopping {
            instance, process, ..
        } => (
            "instance-says-stopping",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::MainExited {
            instance, process, ..
        } => (
            "main-exited",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::InstanceReloaded {
            instance, process, ..
        } => (
            "instance-reloaded",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::HookFailed {
            instance, process, ..
        } => (
            "hook-failed",
            EventSubject::instance(instance, Some(process)),
        ),
        Event::Up { .. } => ("up", EventSubject::default()),
        Event::RolloutStarted { worker, .. } => ("rollout-started", EventSubject::worker(worker)),
        Event::RolloutDone { worker, .. } => ("rollout-done", EventSubject::worker(worker)),
        Event::RolledBack { instance, .. } => {
            ("rolled-back", EventSubject::instance(instance, None))
        }
        Event::Replanned => ("reloaded", EventSubject::default()),
        Event::ReplanDone { .. } => ("reload-done", EventSubject::default()),
        Event::ListenerRefuses { listener } => {
            ("listener-refuses", EventSubject::listener(listener))
        }
    }
}

/// The word of an event and the names of what it is about, for those who look for it.
pub(in crate::shell) struct Outline<'a> {
    pub kind: &'static str,
    pub listener: Option<&'a str>,
    pub worker: Option<&'a str>,
    pub instance: Option<String>,
    pub generation: Option<u32>,
    pub pid: Option<u32>,
}

impl Shell {
    /// What an event is about.
    pub(in crate::shell) fn outline(&self, event: &Event) -> Outline<'_> {
        let (kind, about) = outline(event);
        let instance = about.instance;
        Outline {
            kind,
            listener: about.listener.map(|id| &*self.plan.listener(id).name),
            worker: about.worker.map(|id| &*self.definitions.worker(id).name),
            instance: instance.map(|id| event_text::instance_name(&self.definitions, id)),
            generation: instance.map(|id| id.generation),
            pid: about.process.and_then(|id| self.pid_of(id)),
        }
    }

    /// Tells events of the past, and those to come unless nobody wants to hear them.
    pub(super) fn watch_events(&mut self, id: ClientId, last: Option<u32>, no_follow: bool) {
        if !no_follow {
            self.control.waits(id, WaitsFor::Events);
            self.control.watchers.insert(id);
        }
        self.succeed(id, &Reply::continues(&WatchReply::default()));
        let unsaid = if no_follow { KEPT } else { 0 };
        let wanted = last.map_or(unsaid, |last| usize::try_from(last).unwrap_or(KEPT));
        let past = &self.control.past;
        let past = past.iter().skip(past.len().saturating_sub(wanted));
        for event in past.cloned().collect::<Vec<_>>() {
            let event = Some(event);
            self.succeed(id, &Reply::continues(&WatchReply { event }));
        }
        if no_follow {
            self.succeed(id, &Reply::last(&WatchReply::default()));
        }
    }

    /// Keeps an event, and tells it to those who asked for all. `message` is what stands in the log.
    pub(in crate::shell) fn tell_watchers(&mut self, event: &Event, message: String) {
        let about = self.outline(event);
        let status = match *event {
            Event::InstanceExited { status, .. } | Event::MainExited { status, .. } => Some(status),
            _ => None,
        };
        let told = Told {
            time: rfc3339(clock::wall().as_secs()),
            kind: about.kind.to_owned(),
            listener: about.listener.map(str::to_owned),
            worker: about.worker.map(str::to_owned),
            instance: about.instance,
            pid: about.pid,
            exit_status: status.and_then(event_text::exit_code),
            exit_signal: status.and_then(event_text::exit_signal),
            message,
        };
        if self.control.past.len() >= KEPT {
            self.control.past.pop_front();
        }
        self.control.past.push_back(told.clone());
        if self.control.watchers.is_empty() {
            return;
        }
        let reply = Reply::continues(&WatchReply { event: Some(told) });
        let watchers: Vec<_> = self.control.watchers.iter().copied().collect();
        for client in watchers {
            self.control.reply(&self.epoll, client, &reply);
        }
    }

    /// The pid of a process that has not been reaped.
    pub(super) fn main_pid_of(&self, process: ProcessId) -> Option<u32> {
        let known = self.processes.get(process)?;
        let pid = known.rest.is_none().then_some(known.pid)?;
        u32::try_from(pid).ok()
    }

    /// The pid that a process has, or had when others of its process group go on without it.
    pub(super) fn pid_of(&self, process: ProcessId) -> Option<u32> {
        let pid = self.processes.get(process)?.pid;
        u32::try_from(pid).ok()
    }
}
