//! What happens to a listener, behind its name.

use super::words::{Context, duration};
use crate::core::{ListenerEvent, Repaired, SocketEvent};
use crate::plan::{ListenerId, Plan};
use log::Level;

pub(super) fn text(
    listener: ListenerId,
    event: ListenerEvent,
    context: &Context<'_>,
) -> (Level, String) {
    let addresses = || addresses(context.plan, listener);
    match event {
        ListenerEvent::Awaited { limit } => {
            let (addresses, limit) = (addresses(), duration(limit));
            let line = format!(
                "waiting for {addresses}; it is an error after {limit}, and still waited for"
            );
            (Level::Info, line)
        }
        ListenerEvent::Overdue { after } => {
            let (addresses, after) = (addresses(), duration(after));
            let line = format!(
                "{addresses} is still missing after {after}; still waiting, as are the workers \
                 that use it"
            );
            (Level::Error, line)
        }
        ListenerEvent::Missing { again_in } => {
            let (addresses, again_in) = (addresses(), duration(again_in));
            let line = format!("cannot be bound to {addresses}; retrying in {again_in}");
            (Level::Warn, line)
        }
        ListenerEvent::Bound { after } => (Level::Info, format!("bound after {}", duration(after))),
        ListenerEvent::Refuses => {
            let line = "closed, so that clients are refused (`on_failure`); it is bound again when \
                        a worker that uses it is restarted";
            (Level::Error, line.to_owned())
        }
    }
}

/// What happened to a damaged socket, behind what was done to it.
pub(super) fn socket_text(damage: Option<&str>, event: SocketEvent) -> (Level, String) {
    let damage = damage.unwrap_or("it was damaged");
    match event {
        // Told with what came of it: repairs take no time, or fail.
        SocketEvent::Damaged => (Level::Debug, damage.to_owned()),
        SocketEvent::Repaired { by } => {
            let outcome = match by {
                Repaired::SameSocket => "listening again",
                Repaired::PutBack => "restored (same socket)",
                Repaired::AnotherSocket | Repaired::AnotherNamespace => "bound again",
            };
            (Level::Warn, format!("{damage}; {outcome}"))
        }
        SocketEvent::Vacated => {
            let line = format!(
                "{damage}; stopping all instances that have it; it is bound again after they have \
                 exited"
            );
            (Level::Warn, line)
        }
        SocketEvent::RepairFutile { times, again_in } => {
            let again_in = duration(again_in);
            let line = format!(
                "{damage}, and was bound again {times} times in a row: a process damages it \
                 whenever it exits (many servers have a setting for it); closed, retrying in \
                 {again_in}"
            );
            (Level::Error, line)
        }
        SocketEvent::RepairFailed { again_in } => {
            let again_in = duration(again_in);
            let line = format!("{damage}, and cannot be repaired; retrying in {again_in}");
            (Level::Error, line)
        }
    }
}

/// The addresses of a listener, as they were written.
fn addresses(plan: &Plan, listener: ListenerId) -> String {
    let sockets = plan.listeners.get(&listener).into_iter();
    let sockets = sockets.flat_map(|listener| &listener.sockets);
    let addresses: Vec<String> = sockets.map(|socket| socket.endpoint.to_string()).collect();
    addresses.join(", ")
}
