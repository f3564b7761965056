//! The core's events for programs: a word for each, and what it is about.

use super::Control;
use super::client::WaitsFor;
use crate::control::{Event as Told, Reply, WatchReply, rfc3339};
use crate::core::{
    DaemonEvent, Event, InstanceEvent, ListenerEvent, ProcessEvent, ProcessId, RolloutEvent,
    SocketEvent, WorkerEvent,
};
use crate::shell::token::ClientId;
use crate::shell::turn::Shell;
use crate::shell::{clock, event_text};

/// So many events are kept for those who come later.
const KEPT: usize = 100;

/// A process has got a copy of a listener.
pub(super) const TAKEN: &str = "listener-taken";

/// A process has given a socket.
pub(super) const GIVEN: &str = "listener-given";

/// The word, which never changes its meaning.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Daemon(event) => match event {
            DaemonEvent::Up { .. } => "up",
            DaemonEvent::Replanned => "reloaded",
            DaemonEvent::ReplanDone { .. } => "reload-done",
            DaemonEvent::StopRequested { .. } => "stop-requested",
            DaemonEvent::StopHurried { .. } => "stop-hurried",
            DaemonEvent::AllStopped => "all-stopped",
        },
        Event::Listener(_, event) => match event {
            ListenerEvent::Refuses => "listener-refuses",
            ListenerEvent::Awaited { .. } => "listener-awaited",
            ListenerEvent::Overdue { .. } => "listener-overdue",
            ListenerEvent::Missing { .. } => "listener-missing",
            ListenerEvent::Bound { .. } => "listener-bound",
        },
        Event::Socket { event, .. } => match event {
            SocketEvent::Damaged => "listener-damaged",
            SocketEvent::Repaired { .. } => "listener-repaired",
            SocketEvent::Vacated => "listener-vacated",
            SocketEvent::RepairFutile { .. } => "repair-futile",
            SocketEvent::RepairFailed { .. } => "repair-failed",
        },
        Event::Worker(_, event) => match event {
            WorkerEvent::Failed => "worker-failed",
            WorkerEvent::Activated { .. } => "worker-activated",
            WorkerEvent::Scaled { .. } => "worker-scaled",
            WorkerEvent::Unused { .. } => "worker-unused",
            WorkerEvent::RateLimited { .. } => "rate-limited",
            WorkerEvent::ConnectionsFull { .. } => "connections-full",
            WorkerEvent::SourceFull { .. } => "source-full",
            WorkerEvent::ConnectionRefused { .. } => "connection-refused",
            WorkerEvent::AcceptPaused { .. } => "accept-paused",
            WorkerEvent::ConnectionsFailing { .. } => "connections-failing",
        },
        Event::Rollout(_, event) => match event {
            RolloutEvent::Started { .. } => "rollout-started",
            RolloutEvent::Done { .. } => "rollout-done",
            RolloutEvent::RolledBack { .. } => "rolled-back",
        },
        Event::Instance(_, event) => match event {
            InstanceEvent::Failed { .. } => "instance-failed",
            InstanceEvent::Draining { .. } => "instance-draining",
            InstanceEvent::Refreshed => "instance-refreshed",
            InstanceEvent::KeepsFlows { .. } => "instance-keeps-flows",
            InstanceEvent::NobodyTaken { .. } => "nobody-taken",
        },
        Event::Process(_, _, event) => match event {
            ProcessEvent::Starting => "instance-starting",
            ProcessEvent::Started => "instance-started",
            ProcessEvent::Ready { .. } => "instance-ready",
            ProcessEvent::ReadinessHidden => "readiness-hidden",
            ProcessEvent::StartTimedOut { .. } => "start-timed-out",
            ProcessEvent::WatchdogTimedOut { .. } => "watchdog-timed-out",
            ProcessEvent::SaysStopping { .. } => "instance-says-stopping",
            ProcessEvent::MainExited { .. } => "main-exited",
            ProcessEvent::Reloaded { .. } => "instance-reloaded",
            ProcessEvent::HookFailed { .. } => "hook-failed",
            ProcessEvent::LaunchFailed { .. } => "launch-failed",
            ProcessEvent::Exited { .. } => "instance-exited",
            ProcessEvent::Stopping { .. } => "instance-stopping",
            ProcessEvent::StopTimedOut { .. } => "stop-timed-out",
            ProcessEvent::ConnectionTimedOut { .. } => "connection-timed-out",
        },
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

impl Control {
    /// The last events, the oldest first.
    pub(in crate::shell) fn past_events(&self) -> impl Iterator<Item = &Told> {
        self.past.iter()
    }

    /// Keeps an event for those who come later.
    pub(in crate::shell) fn keep_event(&mut self, event: Told) {
        if self.past.len() >= KEPT {
            self.past.pop_front();
        }
        self.past.push_back(event);
    }
}

impl Shell {
    /// What an event is about.
    pub(in crate::shell) fn outline(&self, event: &Event) -> Outline<'_> {
        let listener = match *event {
            Event::Listener(listener, _)
            | Event::Socket { listener, .. }
            | Event::Worker(_, WorkerEvent::Activated { listener, .. }) => Some(listener),
            _ => None,
        };
        let instance = match *event {
            Event::Worker(_, WorkerEvent::ConnectionsFailing { instance, .. })
            | Event::Rollout(_, RolloutEvent::RolledBack { instance, .. })
            | Event::Instance(instance, _)
            | Event::Process(instance, ..) => Some(instance),
            _ => None,
        };
        let worker = match *event {
            Event::Worker(worker, _) | Event::Rollout(worker, _) => Some(worker),
            _ => instance.map(|instance| instance.worker),
        };
        let pid = match *event {
            Event::Process(_, process, _) => self.pid_of(process),
            _ => None,
        };
        Outline {
            kind: kind(event),
            listener: listener.map(|id| self.plan.listener_name(id)),
            worker: worker.map(|id| &*self.definitions.worker(id).name),
            instance: instance.map(|id| event_text::instance_name(&self.definitions, id)),
            generation: instance.map(|id| id.generation),
            pid,
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
            Event::Process(
                _,
                _,
                ProcessEvent::Exited { status, .. } | ProcessEvent::MainExited { status, .. },
            ) => Some(status),
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
        self.publish(told);
    }

    /// An event about a listener that the core has no part in, also for the log.
    pub(super) fn note_about(&mut self, kind: &str, listener: &str, pid: i32, message: String) {
        log::info!("listener {listener}: {message}");
        self.publish(Told {
            time: rfc3339(clock::wall().as_secs()),
            kind: kind.to_owned(),
            listener: Some(listener.to_owned()),
            pid: u32::try_from(pid).ok(),
            message: format!("listener {listener}: {message}"),
            ..Told::default()
        });
    }

    fn publish(&mut self, told: Told) {
        self.control.keep_event(told.clone());
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
