//! The core's events in words. Every line says what happens next.

use super::definitions::Definitions;
use crate::core::{Event, ExitStatus, Next, ProcessEvent, WorkerEvent};
use log::Level;

/// The level and the line for an event.
pub(super) fn event_text(event: &Event, context: &Context<'_>) -> (Level, String) {
    let worker_name = |worker| words::worker_name(context.definitions, worker);
    let (subject, (level, words)) = match *event {
        Event::Daemon(ref event) => return daemon::text(event, context),
        Event::Listener(listener, event) => (
            format!("listener {}", context.plan.listener_name(listener)),
            listener::text(listener, event, context),
        ),
        Event::Socket {
            listener,
            ref damage,
            event,
            ..
        } => (
            format!("listener {}", context.plan.listener_name(listener)),
            listener::socket_text(damage.as_deref(), event),
        ),
        Event::Worker(worker, event) => (
            format!("worker {}", worker_name(worker)),
            worker::text(worker, event, context),
        ),
        Event::Rollout(worker, event) => {
            let subject = worker_name(worker).to_owned();
            (subject, rollout::text(event, context))
        }
        Event::Instance(instance, event) => (
            context.name(instance),
            instance::text(instance, event, context),
        ),
        Event::Process(instance, process, ref event) => (
            context.name(instance),
            process::text(instance, process, event, context),
        ),
    };
    (level, format!("{subject}: {words}"))
}

/// Whether the event is told at the level of debugging, and there may be very many of it.
pub(super) fn is_detail(event: &Event, definitions: &Definitions) -> bool {
    match *event {
        Event::Worker(_, WorkerEvent::ConnectionRefused { .. }) => true,
        Event::Process(instance, _, ref event) => match event {
            ProcessEvent::Starting => true,
            ProcessEvent::Started => serves_connections(definitions, instance.worker),
            ProcessEvent::Exited { status, next, .. } => {
                matches!((status, next), (ExitStatus::Code(_), Next::Done))
            }
            _ => false,
        },
        _ => false,
    }
}

mod cause;
mod daemon;
mod exit;
mod instance;
mod listener;
mod origin;
mod process;
mod rollout;
#[cfg(test)]
mod tests;
mod words;
mod worker;

pub(super) use cause::{fault, is_unexplained_kill};
pub(super) use exit::{exit_code, exit_signal, status_words};
pub(super) use origin::arrival;
pub(super) use words::{
    Context, OutOfMemory, damage, disturbance, duration, hook_word, instance_name,
    serves_connections, with_generation,
};
