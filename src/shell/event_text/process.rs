//! What happens to a process, behind the name of its instance.

use super::cause;
use super::exit::{predicate, status_words};
use super::words::{Context, duration, hook_word, next_words, serves_connections};
use crate::config::{Every, Ready, signal_name};
use crate::core::{ExitStatus, FailureReason, HookEnd, InstanceId, Next, ProcessEvent, ProcessId};
use crate::worker;
use log::Level;
use std::time::Duration;

pub(super) fn text(
    instance: InstanceId,
    process: ProcessId,
    event: &ProcessEvent,
    context: &Context<'_>,
) -> (Level, String) {
    let pid = || context.pid(process);
    let last = || context.last_words(instance, process);
    match *event {
        ProcessEvent::Starting => {
            let generation = instance.generation;
            let line = format!("starting{}, generation {generation}", pid());
            (Level::Debug, line)
        }
        ProcessEvent::Started => {
            let known = context.processes.get(process);
            match known.and_then(|known| known.client.as_ref()) {
                None => (Level::Info, format!("started{}", pid())),
                Some(client) => (Level::Debug, format!("serving {client}{}", pid())),
            }
        }
        ProcessEvent::Ready { after } => (Level::Info, format!("ready after {}", duration(after))),
        ProcessEvent::ReadinessHidden => {
            let line = format!(
                "cannot detect whether it accepts clients{}; it counts as ready (`ready: \
                 accepting` in listend.yaml(5) has the reasons)",
                pid()
            );
            (Level::Info, line)
        }
        ProcessEvent::Reloaded { untold } => {
            let before = match untold {
                0 => String::new(),
                times => format!("; and {times} times before, not logged each time"),
            };
            let line = format!("has reloaded its configuration{}{before}", pid());
            (Level::Info, line)
        }
        ProcessEvent::StartTimedOut { timeout, ready } => {
            let (timeout, why) = (duration(timeout), not_ready(ready));
            let line = format!(
                "not ready within {timeout}{}{why}; stopping it{}",
                pid(),
                last()
            );
            (Level::Error, line)
        }
        ProcessEvent::WatchdogTimedOut { timeout } => {
            let what = match timeout {
                None => "reports a failure".to_owned(),
                Some(timeout) => format!("no keep-alive for {}", duration(timeout)),
            };
            let line = format!("{what}{}; sending SIGABRT{}", pid(), last());
            (Level::Error, line)
        }
        ProcessEvent::ConnectionTimedOut { timeout } => {
            let timeout = duration(timeout);
            let line = format!("longer than connection_timeout, {timeout}; stopping it");
            (Level::Info, line)
        }
        ProcessEvent::SaysStopping { timeout } => {
            let then = killed_after(timeout);
            let line = format!("reports that it is stopping{}; {then}", pid());
            (Level::Info, line)
        }
        ProcessEvent::Stopping { signal, timeout } => {
            let (signal, then) = (signal_name(signal), killed_after(timeout));
            let line = format!("stopping with {signal}{}; {then}", pid());
            (Level::Info, line)
        }
        ProcessEvent::StopTimedOut { timeout } => {
            let timeout = duration(timeout);
            let line =
                format!("still there after {timeout}; killing its process group with SIGKILL");
            (Level::Warn, line)
        }
        ProcessEvent::MainExited { status, left } => {
            let (end, pid, then) = (predicate(status), pid(), killed_after(left));
            let line =
                format!("main process {end}{pid}; other processes of its group continue; {then}");
            (Level::Info, line)
        }
        ProcessEvent::LaunchFailed { ref failure, next } => {
            let (phrase, reason) = (failure.stage.phrase(), worker::reason(failure));
            let then = after_launch_failure(instance, next, context);
            (
                Level::Error,
                format!("failed while {phrase}: {reason}; {then}"),
            )
        }
        ProcessEvent::HookFailed {
            kind,
            ref end,
            next,
        } => {
            let end = match end {
                HookEnd::Exited { status } => predicate(*status),
                HookEnd::NotLaunched { failure } => worker::reason(failure),
                HookEnd::TimedOut { timeout } => {
                    format!("took longer than {} and was killed", duration(*timeout))
                }
            };
            let next = next.map_or_else(String::new, |next| format!("; {}", next_words(next)));
            let line = format!("{} {end}{next}{}", hook_word(kind), last());
            (Level::Warn, line)
        }
        ProcessEvent::Exited {
            status,
            uptime,
            cause,
            next,
        } => {
            let level = exit_level(status, next);
            let last = match level {
                Level::Error | Level::Warn => last(),
                Level::Info | Level::Debug | Level::Trace => String::new(),
            };
            let why = match cause::is_unexplained_kill(event) {
                true => cause::killer(&context.out_of_memory),
                false => cause::fault(cause).to_owned(),
            };
            let advice = match (status, next) {
                (
                    ExitStatus::Code(0),
                    Next::Failed(FailureReason::CrashLoop { .. }) | Next::RolledBack,
                ) => "; if it puts itself into the background, have it stay in the foreground",
                _ => "",
            };
            let (end, uptime, next) = (status_words(status), duration(uptime), next_words(next));
            (
                level,
                format!("{end} after {uptime}{why}; {next}{advice}{last}"),
            )
        }
    }
}

fn after_launch_failure(instance: InstanceId, next: Next, context: &Context<'_>) -> String {
    match next {
        Next::RestartIn(delay) if serves_connections(context.definitions, instance.worker) => {
            let delay = duration(delay);
            format!("the connection is held, and the launch is retried in {delay}")
        }
        next => next_words(next),
    }
}

/// What an instance that is not ready has not done.
fn not_ready(ready: Ready) -> String {
    let missing = match ready {
        // It is ready as soon as it is started.
        Ready::Started => return String::new(),
        Ready::Notify => "it has not sent READY=1".to_owned(),
        Ready::Accepting(Every::All) => "it does not accept clients at every listener".to_owned(),
        Ready::Accepting(Every::First) => {
            "it does not accept clients at its first listener".to_owned()
        }
        Ready::Fd(number) => format!("it has written no newline to descriptor {number}"),
        Ready::Einhorn => "it has not sent worker:ack".to_owned(),
    };
    format!(": {missing} (`ready: {ready}`)")
}

/// How much of an event an exit is.
fn exit_level(status: ExitStatus, next: Next) -> Level {
    match (status, next) {
        // What it says to its client is none of our business.
        (ExitStatus::Code(_), Next::Done) => Level::Debug,
        (_, Next::RolledBack | Next::Failed(_)) => Level::Error,
        (
            _,
            Next::Stopping
            | Next::RestartIn(Duration::ZERO)
            | Next::AtNextClient {
                not_before: Duration::ZERO,
            },
        )
        | (ExitStatus::Code(0), _) => Level::Info,
        _ => Level::Warn,
    }
}

/// How long something is waited for that is to end.
fn killed_after(timeout: Option<Duration>) -> String {
    timeout.map_or_else(
        || "waiting as long as it takes".to_owned(),
        |timeout| format!("SIGKILL follows after {}", duration(timeout)),
    )
}
