//! The core's events in words. Every line says what happens next.

use super::definitions::Definitions;
pub(super) use crate::config::signal_name;
use crate::config::{OnFailure, Overflow};
use crate::core::{
    ConnectionId, Event, ExitStatus, FailureReason, HookEnd, HookKind, InstanceId, Next, ProcessId,
    Refusal, Repaired,
};
use crate::listener::{Damage, Disturbed};
use crate::plan::{Activation, ListenerId, Plan, SocketKey, WorkerId};
use log::Level;
use std::collections::HashMap;
use std::time::Duration;

/// What the words need besides the event.
pub(super) struct Context<'a> {
    /// For the names.
    pub plan: &'a Plan,
    pub definitions: &'a Definitions,
    /// The pid of a process that has one.
    pub pid_of: &'a dyn Fn(ProcessId) -> Option<i32>,
    /// What happened to a socket, and who may have done it: `… was shut down by app.0`.
    pub damage: &'a dyn Fn(SocketKey) -> String,
    /// What a socket is really bound to.
    pub address: &'a dyn Fn(SocketKey) -> String,
    /// Who is at the other end of a connection.
    pub client: &'a dyn Fn(ConnectionId) -> String,
    /// Whom a process serves, if that is one connection.
    pub client_of: &'a dyn Fn(ProcessId) -> Option<String>,
    /// What a process wrote last, if listend has read it.
    pub last_words: &'a dyn Fn(ProcessId, InstanceId) -> Option<String>,
    /// Why launches failed.
    pub reasons: &'a HashMap<ProcessId, String>,
    /// The kernel has killed for want of memory.
    pub out_of_memory: bool,
}

/// The level and the line for an event.
pub(super) fn event_text(event: &Event, context: &Context<'_>) -> (Level, String) {
    let name = |instance| instance_name(context.definitions, instance);
    let listener_name = |listener| context.plan.listener(listener).name.as_str();
    let pid = |process| {
        let pid = (context.pid_of)(process);
        pid.map_or_else(String::new, |pid| format!(", pid {pid}"))
    };
    let last = |process, instance| {
        let said = (context.last_words)(process, instance);
        said.map_or_else(String::new, |said| format!("; its last output: {said}"))
    };
    match *event {
        Event::InstanceStarting { instance, process } => (
            Level::Debug,
            format!(
                "{}: starting{}, generation {}",
                name(instance),
                pid(process),
                instance.generation
            ),
        ),
        Event::InstanceStarted { instance, process } => match (context.client_of)(process) {
            None => (
                Level::Info,
                format!("{}: started{}", name(instance), pid(process)),
            ),
            Some(client) => (
                Level::Debug,
                format!("{}: serving {client}{}", name(instance), pid(process)),
            ),
        },
        Event::LaunchFailed {
            instance,
            process,
            failure,
            next,
        } => {
            let reason = context.reasons.get(&process).cloned();
            let then = match next {
                Next::RestartIn(delay)
                    if serves_connections(context.definitions, instance.worker) =>
                {
                    let delay = duration(delay);
                    format!("the connection is held, and the launch is retried in {delay}")
                }
                next => next_words(next),
            };
            let line = format!(
                "{}: failed while {}: {}; {then}",
                name(instance),
                failure.stage.phrase(),
                reason.unwrap_or_else(|| crate::report::describe(failure.errno)),
            );
            (Level::Error, line)
        }
        Event::InstanceExited {
            instance,
            process,
            status,
            uptime,
            cause,
            next,
        } => {
            let level = match (status, next) {
                // What it says to its client is none of our business.
                (ExitStatus::Code(_), Next::Done) => Level::Debug,
                (_, Next::RolledBack) => Level::Error,
                (
                    _,
                    Next::Stopping
                    | Next::RestartIn(Duration::ZERO)
                    | Next::AtNextClient {
                        not_before: Duration::ZERO,
                    },
                )
                | (ExitStatus::Code(0), _) => Level::Info,
                (_, Next::Failed(_)) => Level::Error,
                _ => Level::Warn,
            };
            let said = match level {
                Level::Error | Level::Warn => last(process, instance),
                Level::Info | Level::Debug | Level::Trace => String::new(),
            };
            let line = format!(
                "{}: {} after {}{}; {}{said}",
                name(instance),
                status_words(status),
                duration(uptime),
                match is_unexplained_kill(event) {
                    true => cause::killer(context.out_of_memory),
                    false => fault(cause),
                },
                next_words(next),
            );
            (level, line)
        }
        Event::InstanceFailed {
            instance,
            cool_down,
            ..
        } => {
            let lifecycle = &context.definitions.worker(instance.worker).lifecycle;
            let clients = match lifecycle.on_failure {
                OnFailure::Hold => "its listeners stay bound and clients wait in their queues",
                OnFailure::Refuse => "its listeners are closed when all of the worker has failed",
            };
            let then = match (cool_down, &lifecycle.activation) {
                (None, _) => String::new(),
                (Some(time), Activation::Eager) => {
                    format!("; it is restarted in {}", duration(time))
                }
                (Some(time), Activation::OnDemand { .. } | Activation::PerConnection(_)) => {
                    format!("; after {} the next one starts it again", duration(time))
                }
            };
            (
                Level::Error,
                format!("{}: failed; {clients}{then}", name(instance)),
            )
        }
        Event::WorkerFailed { worker } => (
            Level::Error,
            format!(
                "worker {0}: every instance has failed; `listend start {0}` starts it again",
                worker_name(context.definitions, worker)
            ),
        ),
        Event::StopRequested { live: 0 } => (Level::Info, "stopping".to_owned()),
        Event::StopRequested { live } => (
            Level::Info,
            format!(
                "stopping: waiting for {}; a second signal kills them",
                count(live)
            ),
        ),
        Event::StopHurried { live } => (
            Level::Warn,
            format!("stopping now: killing {} with SIGKILL", count(live)),
        ),
        Event::Stopping {
            instance,
            process,
            signal,
            timeout,
        } => {
            let line = format!(
                "{}: stopping with {}{}; {}",
                name(instance),
                signal_name(signal),
                pid(process),
                killed_after(timeout)
            );
            (Level::Info, line)
        }
        Event::StopTimedOut {
            instance, timeout, ..
        } => (
            Level::Warn,
            format!(
                "{}: still there after {}; killing its process group with SIGKILL",
                name(instance),
                duration(timeout)
            ),
        ),
        Event::ListenerAwaited { listener, limit } => (
            Level::Info,
            format!(
                "listener {}: waiting for {}; it is an error after {}, and still waited for",
                listener_name(listener),
                addresses(context.plan, listener),
                duration(limit)
            ),
        ),
        Event::ListenerOverdue { listener, after } => (
            Level::Error,
            format!(
                "listener {}: {} is still missing after {}; still waiting, as are the workers \
                 that use it",
                listener_name(listener),
                addresses(context.plan, listener),
                duration(after)
            ),
        ),
        Event::ListenerMissing { listener, again_in } => (
            Level::Warn,
            format!(
                "listener {}: cannot be bound to {}; retrying in {}",
                listener_name(listener),
                addresses(context.plan, listener),
                duration(again_in)
            ),
        ),
        Event::ListenerBound { listener, after } => (
            Level::Info,
            format!(
                "listener {}: bound after {}",
                listener_name(listener),
                duration(after)
            ),
        ),
        Event::InstanceRefreshed { instance } => (
            Level::Info,
            format!(
                "{}: restarting it to pass a socket that it lacks",
                name(instance)
            ),
        ),
        // Told with what came of it: repairs take no time, or fail.
        Event::ListenerDamaged { listener, socket } => (
            Level::Debug,
            format!(
                "listener {}: {}",
                listener_name(listener),
                (context.damage)(socket)
            ),
        ),
        Event::ListenerRepaired {
            listener,
            socket,
            by,
        } => {
            let outcome = match by {
                Repaired::SameSocket => "listening again",
                Repaired::PutBack => "restored (same socket)",
                Repaired::AnotherSocket => "bound again",
            };
            let name = listener_name(listener);
            let damage = (context.damage)(socket);
            (Level::Warn, format!("listener {name}: {damage}; {outcome}"))
        }
        Event::ListenerVacated { listener, socket } => (
            Level::Warn,
            format!(
                "listener {}: {}; stopping all instances that have it; it is bound again after \
                 they have exited",
                listener_name(listener),
                (context.damage)(socket)
            ),
        ),
        Event::RepairFutile {
            listener,
            socket,
            times,
            again_in,
        } => (
            Level::Error,
            format!(
                "listener {}: {}, and was bound again {times} times in a row: a process damages \
                 it whenever it exits (many servers have a setting for it); closed, retrying in {}",
                listener_name(listener),
                (context.damage)(socket),
                duration(again_in)
            ),
        ),
        Event::RepairFailed {
            listener,
            socket,
            again_in,
        } => (
            Level::Error,
            format!(
                "listener {}: {}, and cannot be repaired; retrying in {}",
                listener_name(listener),
                (context.damage)(socket),
                duration(again_in)
            ),
        ),
        Event::Activated {
            worker,
            listener,
            socket,
        } => (
            Level::Info,
            format!(
                "worker {}: a client at {} ({}): starting",
                worker_name(context.definitions, worker),
                listener_name(listener),
                (context.address)(socket)
            ),
        ),
        Event::NobodyTaken { instance, next } => (
            Level::Warn,
            format!(
                "{}: exited without accepting any of the waiting clients; {}",
                name(instance),
                next_words(next)
            ),
        ),
        Event::RateLimited { worker, limit } => (
            Level::Warn,
            format!(
                "worker {}: {} in {} reached; clients wait in the accept queues until the limit \
                 allows more",
                worker_name(context.definitions, worker),
                limit.count,
                duration(limit.interval)
            ),
        ),
        Event::ConnectionsFull {
            worker,
            max,
            overflow,
        } => {
            let then = match overflow {
                Overflow::Wait => "further clients wait in the accept queue",
                Overflow::Close => "further clients are closed at once",
            };
            let name = worker_name(context.definitions, worker);
            let line = format!("worker {name}: max_connections, {max}, reached; {then}");
            (Level::Warn, line)
        }
        Event::SourceFull {
            worker,
            source,
            max,
        } => {
            let line = format!(
                "worker {}: max_connections_per_source, {max}, reached by {}; its further \
                 connections are closed at once",
                worker_name(context.definitions, worker),
                origin::source(source)
            );
            (Level::Info, line)
        }
        Event::ConnectionRefused {
            worker,
            connection,
            why,
        } => {
            let limit = match why {
                Refusal::Connections { max } => format!("max_connections is {max}"),
                Refusal::OfSource { max, .. } => format!("max_connections_per_source is {max}"),
            };
            let line = format!(
                "worker {}: closed the connection from {}: {limit}",
                worker_name(context.definitions, worker),
                (context.client)(connection)
            );
            (Level::Debug, line)
        }
        Event::AcceptPaused {
            worker,
            errno,
            again_in,
        } => (
            Level::Warn,
            format!(
                "worker {}: cannot accept a connection: {}; it waits in the accept queue, \
                 retrying in {}",
                worker_name(context.definitions, worker),
                crate::report::describe(errno),
                duration(again_in)
            ),
        ),
        Event::ConnectionTimedOut {
            instance, timeout, ..
        } => (
            Level::Info,
            format!(
                "{}: longer than connection_timeout, {}; stopping it",
                name(instance),
                duration(timeout)
            ),
        ),
        Event::ConnectionsFailing {
            instance,
            failures,
            status,
        } => (
            Level::Warn,
            format!(
                "worker {}: the processes of the last {failures} connections have failed; that of \
                 {} {}",
                worker_name(context.definitions, instance.worker),
                name(instance),
                predicate(status)
            ),
        ),
        Event::AllStopped => (
            Level::Info,
            "all workers stopped; closing the listeners".to_owned(),
        ),
        Event::InstanceReady {
            instance, after, ..
        } => (
            Level::Info,
            format!("{}: ready after {}", name(instance), duration(after)),
        ),
        Event::ReadinessHidden { instance, process } => (
            Level::Info,
            format!(
                "{}: cannot detect whether it accepts clients{}; it counts as ready (`ready: \
                 accepting` in listend.yaml(5) has the reasons)",
                name(instance),
                pid(process)
            ),
        ),
        Event::StartTimedOut {
            instance,
            process,
            timeout,
        } => (
            Level::Error,
            format!(
                "{}: not ready within {}{}; stopping it{}",
                name(instance),
                duration(timeout),
                pid(process),
                last(process, instance)
            ),
        ),
        Event::WatchdogTimedOut {
            instance,
            process,
            timeout: Duration::ZERO,
        } => (
            Level::Error,
            format!(
                "{}: reports a failure{}; sending SIGABRT{}",
                name(instance),
                pid(process),
                last(process, instance)
            ),
        ),
        Event::WatchdogTimedOut {
            instance,
            process,
            timeout,
        } => (
            Level::Error,
            format!(
                "{}: no keep-alive for {}{}; sending SIGABRT{}",
                name(instance),
                duration(timeout),
                pid(process),
                last(process, instance)
            ),
        ),
        Event::SaysStopping {
            instance,
            process,
            timeout,
        } => (
            Level::Info,
            format!(
                "{}: reports that it is stopping{}; {}",
                name(instance),
                pid(process),
                killed_after(timeout)
            ),
        ),
        Event::MainExited {
            instance,
            process,
            status,
            left,
        } => (
            Level::Info,
            format!(
                "{}: main process {}{}; other processes of its group continue; {}",
                name(instance),
                predicate(status),
                pid(process),
                killed_after(left)
            ),
        ),
        Event::InstanceReloaded {
            instance,
            process,
            untold,
        } => (
            Level::Info,
            format!(
                "{}: has reloaded its configuration{}{}",
                name(instance),
                pid(process),
                match untold {
                    0 => String::new(),
                    times => format!("; and {times} times before, not logged each time"),
                }
            ),
        ),
        Event::HookFailed {
            instance,
            process,
            kind,
            end,
            next,
        } => {
            let end = match end {
                HookEnd::Exited { status } => predicate(status),
                HookEnd::NotLaunched { .. } => {
                    let reason = context.reasons.get(&process);
                    reason.map_or_else(|| "could not be started".to_owned(), Clone::clone)
                }
                HookEnd::TimedOut { timeout } => {
                    format!("took longer than {} and was killed", duration(timeout))
                }
            };
            let next = next.map_or_else(String::new, |next| format!("; {}", next_words(next)));
            (
                Level::Warn,
                format!(
                    "{}: {} {end}{next}{}",
                    name(instance),
                    hook_word(kind),
                    last(process, instance)
                ),
            )
        }
        Event::Up { failed: 0 } => (
            Level::Info,
            match context
                .plan
                .workers()
                .any(|(_, one)| cause::starts_blindly(one))
            {
                false => "every eager worker is ready".to_owned(),
                true => "every eager worker has started; with `ready: started`, readiness is not \
                         known"
                    .to_owned(),
            },
        ),
        Event::Up { failed } => (
            Level::Warn,
            format!(
                "startup complete, but {failed} instance{} failed to start",
                if failed == 1 { "" } else { "s" }
            ),
        ),
        Event::RolloutStarted {
            worker,
            generation,
            instances,
        } => (
            Level::Info,
            format!(
                "{}: rolling out generation {generation}, {} to replace",
                worker_name(context.definitions, worker),
                count(instances as usize)
            ),
        ),
        Event::RolloutDone {
            worker,
            generation,
            is_final,
        } => (
            Level::Info,
            format!(
                "{}: generation {generation} has taken over{}",
                worker_name(context.definitions, worker),
                match is_final {
                    false => "",
                    true =>
                        "; a crash from now on is not rolled back, because an address of the old \
                         generation is closed",
                }
            ),
        ),
        Event::RolledBack {
            worker,
            instance,
            again,
        } => {
            let again = match again {
                0 => String::new(),
                more => format!(
                    "; {} restarted with the old definition",
                    count(more as usize)
                ),
            };
            (
                Level::Error,
                format!(
                    "{}: rolled back, because {} of generation {} failed; the old generation \
                     keeps serving{again}",
                    worker_name(context.definitions, worker),
                    name(instance),
                    instance.generation
                ),
            )
        }
        Event::Replanned => (
            Level::Info,
            "reloaded: the new configuration is in effect".to_owned(),
        ),
        Event::ReplanDone { bad: None } => (Level::Info, "the reload is complete".to_owned()),
        Event::ReplanDone {
            bad: Some(instance),
        } => (
            Level::Error,
            format!(
                "the reload is complete, except for {} of generation {}",
                name(instance),
                instance.generation
            ),
        ),
        Event::ListenerRefuses { listener } => (
            Level::Error,
            format!(
                "listener {}: closed, so that clients are refused (`on_failure`); it is bound \
                 again when a worker that uses it is restarted",
                listener_name(listener)
            ),
        ),
    }
}

/// How long something is waited for that is to end.
fn killed_after(timeout: Option<Duration>) -> String {
    timeout.map_or_else(
        || "waiting as long as it takes".to_owned(),
        |timeout| format!("SIGKILL follows after {}", duration(timeout)),
    )
}

/// Whether the event is told at the level of debugging, and there may be very many of it.
pub(super) fn is_detail(event: &Event, definitions: &Definitions) -> bool {
    match event {
        Event::InstanceStarting { .. } | Event::ConnectionRefused { .. } => true,
        Event::InstanceStarted { instance, .. } => serves_connections(definitions, instance.worker),
        Event::InstanceExited { status, next, .. } => {
            matches!((status, next), (ExitStatus::Code(_), Next::Done))
        }
        _ => false,
    }
}

pub(super) fn serves_connections(definitions: &Definitions, worker: WorkerId) -> bool {
    let activation = &definitions.worker(worker).lifecycle.activation;
    matches!(activation, Activation::PerConnection(_))
}

/// The key of a command around an instance.
pub(super) fn hook_word(kind: HookKind) -> &'static str {
    match kind {
        HookKind::BeforeStart => "before_start",
        HookKind::AfterReady => "after_ready",
        HookKind::AfterStop => "after_stop",
        HookKind::Reload => "reload_command",
    }
}

/// `app.0`.
pub(super) fn instance_name(definitions: &Definitions, instance: InstanceId) -> String {
    format!(
        "{}.{}",
        worker_name(definitions, instance.worker),
        instance.index
    )
}

/// What was done to a socket or its path, behind `was`.
pub(super) fn damage(damage: Damage) -> &'static str {
    match damage {
        Damage::ShutDown => "shut down",
        Damage::PathGone => "removed",
        Damage::PathReplaced => "replaced",
        Damage::RightsChanged => "given other permissions",
        Damage::LinkGone => "stripped of a symbolic link",
    }
}

/// What an instance did to a socket that it shared, each as a verb that takes the address.
pub(super) fn disturbance(disturbed: Disturbed) -> Vec<&'static str> {
    let mut words = Vec::new();
    if disturbed.shut_down {
        words.push("shut down");
    }
    if disturbed.connected {
        words.push("connected");
    }
    words
}

/// The addresses of a listener, as they were written.
fn addresses(plan: &Plan, listener: ListenerId) -> String {
    let sockets = plan.listener(listener).sockets.iter();
    let addresses: Vec<String> = sockets.map(|socket| socket.endpoint.to_string()).collect();
    addresses.join(", ")
}

fn worker_name(definitions: &Definitions, worker: WorkerId) -> &str {
    &definitions.worker(worker).name
}

fn count(live: usize) -> String {
    match live {
        0 => "nothing".to_owned(),
        1 => "1 instance".to_owned(),
        more => format!("{more} instances"),
    }
}

fn next_words(next: Next) -> String {
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
        Next::Failed(FailureReason::CrashLoop { crashes, interval }) => format!(
            "not restarting: {crashes} crashes within {}",
            duration(interval)
        ),
        Next::Failed(FailureReason::NeverLaunched) => {
            "not restarting, as its restart policy says".to_owned()
        }
        Next::StaysStopped => "not restarting, as its restart policy says".to_owned(),
        Next::Stopping => "stopped as requested".to_owned(),
        Next::RolledBack => "rolling back".to_owned(),
    }
}

/// Two digits that matter: `85 ms`, `1.2 s`, `3 min`, `2.5 h`.
pub(super) fn duration(duration: Duration) -> String {
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

mod cause;
mod exit;
mod origin;
#[cfg(test)]
mod tests;

pub(super) use cause::{fault, is_unexplained_kill};
pub(super) use exit::{exit_code, exit_signal, predicate, status_words};
pub(super) use origin::{arrival, end};
