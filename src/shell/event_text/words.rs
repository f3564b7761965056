//! Words that several subjects share, and what they need besides the event.

use crate::core::{FailureReason, HookKind, InstanceId, Next, ProcessId};
use crate::listener::{Damage, Disturbed, SocketTable};
use crate::plan::{Activation, Plan, WorkerId};
use crate::shell::clients::Clients;
use crate::shell::definitions::Definitions;
use crate::shell::logs::Logs;
use crate::shell::process::Processes;
use std::time::Duration;

/// What the words need besides the event.
pub(in crate::shell) struct Context<'a> {
    pub plan: &'a Plan,
    pub definitions: &'a Definitions,
    pub processes: &'a Processes,
    pub sockets: &'a SocketTable,
    pub clients: &'a Clients,
    /// For what a process wrote last.
    pub logs: &'a Logs,
    /// Why a process was killed that nobody here has killed.
    pub out_of_memory: OutOfMemory,
    /// Whether the verbs of the command line reach this daemon.
    pub has_control: bool,
    /// Whether it exits, with its listeners, when no instance runs or will run again.
    pub exits: bool,
}

/// Whether the kernel has killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shell) enum OutOfMemory {
    /// Not that it is known.
    No,
    /// In the group of listend, somebody.
    Probably,
    /// In the group of the process, which has this `memory_max`, or none.
    OfItsOwn(String),
}

impl Context<'_> {
    pub(super) fn name(&self, instance: InstanceId) -> String {
        instance_name(self.definitions, instance)
    }

    /// Behind what a process has done.
    pub(super) fn pid(&self, process: ProcessId) -> String {
        let process = self.processes.get(process);
        process.map_or_else(String::new, |process| format!(", pid {}", process.pid))
    }

    /// What a process wrote last, if listend has read it; at the end of a line.
    pub(super) fn last_words(&self, instance: InstanceId, process: ProcessId) -> String {
        let said = self.logs.last_words(instance.worker, process);
        said.map_or_else(String::new, |said| format!("; its last output: {said}"))
    }
}

pub(in crate::shell) fn serves_connections(definitions: &Definitions, worker: WorkerId) -> bool {
    let activation = &definitions.worker(worker).lifecycle.activation;
    matches!(activation, Activation::PerConnection(_))
}

/// The key of a command around an instance.
pub(in crate::shell) fn hook_word(kind: HookKind) -> &'static str {
    match kind {
        HookKind::BeforeStart => "before_start",
        HookKind::AfterReady => "after_ready",
        HookKind::AfterStop => "after_stop",
        HookKind::Reload => "reload_command",
    }
}

/// `app.0`.
pub(in crate::shell) fn instance_name(definitions: &Definitions, instance: InstanceId) -> String {
    format!(
        "{}.{}",
        worker_name(definitions, instance.worker),
        instance.index
    )
}

/// `app.0 of generation 2`.
pub(in crate::shell) fn with_generation(definitions: &Definitions, instance: InstanceId) -> String {
    let name = instance_name(definitions, instance);
    format!("{name} of generation {}", instance.generation)
}

/// What was done to a socket or its path, behind `was`.
pub(in crate::shell) fn damage(damage: Damage) -> &'static str {
    match damage {
        Damage::ShutDown => "shut down",
        Damage::PathGone => "removed",
        Damage::PathReplaced => "replaced",
        Damage::RightsChanged => "given other permissions",
        Damage::LinkGone => "stripped of a symbolic link",
        Damage::NamespaceReplaced => "left in a former network namespace",
    }
}

/// What an instance did to a socket that it shared, each as a verb that takes the address.
pub(in crate::shell) fn disturbance(disturbed: Disturbed) -> Vec<&'static str> {
    let mut words = Vec::new();
    if disturbed.shut_down {
        words.push("shut down");
    }
    if disturbed.connected {
        words.push("connected");
    }
    words
}

pub(super) fn worker_name(definitions: &Definitions, worker: WorkerId) -> &str {
    &definitions.worker(worker).name
}

pub(super) fn count(live: usize) -> String {
    match live {
        0 => "nothing".to_owned(),
        1 => "1 instance".to_owned(),
        more => format!("{more} instances"),
    }
}

pub(super) fn next_words(next: Next) -> String {
    match next {
        Next::RestartIn(Duration::ZERO) => "restarting at once".to_owned(),
        Next::RestartIn(delay) => format!("restarting in {}", duration(delay)),
        Next::AtNextClient {
            not_before: Duration::ZERO,
        } => "the next client starts it again".to_owned(),
        Next::AtNextClient { not_before } => format!(
            "the next client starts it again, in {} at the earliest",
            duration(not_before)
        ),
        Next::Done => "done".to_owned(),
        Next::Failed(FailureReason::CrashLoop { crashes, interval }) => {
            format!("too many crashes: {crashes} within {}", duration(interval))
        }
        Next::Failed(FailureReason::NeverLaunched) => {
            "not restarting, as its restart policy says".to_owned()
        }
        Next::StaysStopped => "not restarting, as its restart policy says".to_owned(),
        Next::Stopping => "stopped as requested".to_owned(),
        Next::RolledBack => "rolling back".to_owned(),
    }
}

/// Two digits that matter: `85 ms`, `1.2 s`, `3 min`, `2.5 h`.
pub(in crate::shell) fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let seconds = duration.as_secs_f64();
    let one_digit = |value: f64| {
        let text = format!("{value:.1}");
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    };
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..120_000 => format!("{} s", one_digit(seconds)),
        120_000..7_200_000 => format!("{} min", one_digit(seconds / 60.0)),
        _ => format!("{} h", one_digit(seconds / 3600.0)),
    }
}
