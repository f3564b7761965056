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
struct About {
    listener: Option<ListenerId>,
    worker: Option<WorkerId>,
    instance: Option<InstanceId>,
    process: Option<ProcessId>,
}

impl About {
    fn listener(listener: ListenerId) -> About {
        About {
            listener: Some(listener),
            ..About::default()
        }
    }

    fn worker(worker: WorkerId) -> About {
        About {
            worker: Some(worker),
            ..About::default()
        }
    }

    fn instance(instance: InstanceId, process: Option<ProcessId>) -> About {
        About {
            worker: Some(instance.worker),
            instance: Some(instance),
            process,
            listener: None,
        }
    }
}

/// The word, which never changes its meaning, and what it is about.
fn outline(event: &Event) -> (&'static str, About) {
    match *event {
        Event::InstanceStarting {
            instance, process, ..
        } => (
            "instance-starting",
            About::instance(instance, Some(process)),
        ),
        Event::InstanceStarted { instance, process } => {
            ("instance-started", About::instance(instance, Some(process)))
        }
        Event::LaunchFailed {
            instance, process, ..
        } => ("launch-failed", About::instance(instance, Some(process))),
        Event::InstanceExited {
            instance, process, ..
        } => ("instance-exited", About::instance(instance, Some(process))),
        Event::InstanceFailed { instance, .. } => {
            ("instance-failed", About::instance(instance, None))
        }
        Event::WorkerFailed { worker } => ("worker-failed", About::worker(worker)),
        Event::StopRequested { .. } => ("stop-requested", About::default()),
        Event::StopHurried { .. } => ("stop-hurried", About::default()),
        Event::Stopping {
            instance, process, ..
        } => (
            "instance-stopping",
            About::instance(instance, Some(process)),
        ),
        Event::StopTimedOut {
            instance, process, ..
        } => ("stop-timed-out", About::instance(instance, Some(process))),
        Event::ListenerAwaited { listener, .. } => ("listener-awaited", About::listener(listener)),
        Event::ListenerOverdue { listener, .. } => ("listener-overdue", About::listener(listener)),
        Event::ListenerMissing { listener, .. } => ("listener-missing", About::listener(listener)),
        Event::ListenerBound { listener, .. } => ("listener-bound", About::listener(listener)),
        Event::InstanceRefreshed { instance } => {
            ("instance-refreshed", About::instance(instance, None))
        }
        Event::ListenerDamaged { listener, .. } => ("listener-damaged", About::listener(listener)),
        Event::ListenerRepaired { listener, .. } => {
            ("listener-repaired", About::listener(listener))
        }
        Event::ListenerVacated { listener, .. } => ("listener-vacated", About::listener(listener)),
        Event::RepairFutile { listener, .. } => ("repair-futile", About::listener(listener)),
        Event::RepairFailed { listener, .. } => ("repair-failed", About::listener(listener)),
        Event::Activated {
            worker, listener, ..
        } => {
            let about = About {
                listener: Some(listener),
                ..About::worker(worker)
            };
            ("worker-activated", about)
        }
        Event::NobodyTaken { instance, .. } => ("nobody-taken", About::instance(instance, None)),
        Event::RateLimited { worker, .. } => ("rate-limited", About::worker(worker)),
        Event::ConnectionsFull { worker, .. } => ("connections-full", About::worker(worker)),
        Event::SourceFull { worker, .. } => ("source-full", About::worker(worker)),
        Event::ConnectionRefused { worker, .. } => ("connection-refused", About::worker(worker)),
        Event::AcceptPaused { worker, .. } => ("accept-paused", About::worker(worker)),
        Event::ConnectionTimedOut {
            instance, process, ..
        } => (
            "connection-timed-out",
            About::instance(instance, Some(process)),
        ),
        Event::ConnectionsFailing { instance, .. } => {
            ("connections-failing", About::instance(instance, None))
        }
        Event::AllStopped => ("all-stopped", About::default()),
        Event::InstanceReady {
            instance, process, ..
        } => ("instance-ready", About::instance(instance, Some(process))),
        Event::ReadinessHidden { instance, process } => {
            ("readiness-hidden", About::instance(instance, Some(process)))
        }
        Event::StartTimedOut {
            instance, process, ..
        } => ("start-timed-out", About::instance(instance, Some(process))),
        Event::WatchdogTimedOut {
            instance, process, ..
        } => (
            "watchdog-timed-out",
            About::instance(instance, Some(process)),
        ),
        Event::SaysStopping {
            instance, process, ..
        } => (
            "instance-says-stopping",
            About::instance(instance, Some(process)),
        ),
        Event::MainExited {
            instance, process, ..
        } => ("main-exited", About::instance(instance, Some(process))),
        Event::InstanceReloaded {
            instance, process, ..
        } => (
            "instance-reloaded",
            About::instance(instance, Some(process)),
        ),
        Event::HookFailed {
            instance, process, ..
        } => ("hook-failed", About::instance(instance, Some(process))),
        Event::Up { .. } => ("up", About::default()),
        Event::RolloutStarted { worker, .. } => ("rollout-started", About::worker(worker)),
        Event::RolloutDone { worker, .. } => ("rollout-done", About::worker(worker)),
        Event::RolledBack { instance, .. } => ("rolled-back", About::instance(instance, None)),
        Event::Replanned => ("reloaded", About::default()),
        Event::ReplanDone { .. } => ("reload-done", About::default()),
        Event::ListenerRefuses { listener } => ("listener-refuses", About::listener(listener)),
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
