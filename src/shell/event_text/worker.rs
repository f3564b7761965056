//! What happens to a worker and its clients, behind its name.

use super::exit::predicate;
use super::words::{Context, duration, serves_connections};
use crate::config::Overflow;
use crate::core::{Refusal, WorkerEvent};
use crate::plan::WorkerId;
use log::Level;
use std::fmt::Write;

pub(super) fn text(worker: WorkerId, event: WorkerEvent, context: &Context<'_>) -> (Level, String) {
    match event {
        WorkerEvent::Failed => {
            let mut line = "every instance has failed".to_owned();
            if context.has_control {
                let name = &context.definitions.worker(worker).name;
                let _ = write!(line, "; `listend start {name}` starts it again");
            }
            (Level::Error, line)
        }
        WorkerEvent::Activated { listener, socket } => {
            let listener = context.plan.listener_name(listener);
            let held = context.sockets.get(socket);
            let address = held.map_or_else(String::new, |held| held.address.to_string());
            let line = format!("a client at {listener} ({address}): starting");
            (Level::Info, line)
        }
        WorkerEvent::Scaled {
            before,
            instances,
            waiting,
            limit,
            lasting,
        } => {
            let clients = match waiting {
                1 => "1 client waits".to_owned(),
                more => format!("{more} clients wait"),
            };
            let bound = match instances > before {
                true => "more than",
                false => "at most",
            };
            let time = duration(lasting);
            let line =
                format!("{clients}, {bound} {limit} for {time}: {before} → {instances} instances");
            (Level::Info, line)
        }
        WorkerEvent::Unused { after, instances } => {
            let stopping = match instances {
                1 => "stopping it".to_owned(),
                more => format!("stopping {more} instances"),
            };
            let line = format!(
                "no client was connected or waited for {}: {stopping}; the next client starts it \
                 again",
                duration(after)
            );
            (Level::Info, line)
        }
        WorkerEvent::RateLimited { limit } => {
            let key = match serves_connections(context.definitions, worker) {
                true => "accept_rate",
                false => "trigger_limit",
            };
            let (count, interval) = (limit.count, duration(limit.interval));
            let line =
                format!("{key}, {count} in {interval}, reached; clients wait until it allows more");
            (Level::Warn, line)
        }
        WorkerEvent::ConnectionsFull { max, overflow } => {
            let then = match overflow {
                Overflow::Wait => "further clients wait in the accept queue",
                Overflow::Close => "further clients are closed at once",
            };
            (
                Level::Warn,
                format!("max_connections, {max}, reached; {then}"),
            )
        }
        WorkerEvent::SourceFull { source, max } => {
            let line = format!(
                "max_connections_per_source, {max}, reached by {source}; its further connections \
                 are closed at once"
            );
            (Level::Info, line)
        }
        WorkerEvent::ConnectionRefused { connection, why } => {
            let limit = match why {
                Refusal::Connections { max } => format!("max_connections is {max}"),
                Refusal::OfSource { max, .. } => format!("max_connections_per_source is {max}"),
            };
            let accepted = context.clients.get(connection);
            let client = accepted.map_or_else(String::new, |one| one.ends.remote.to_string());
            let line = format!("closed the connection from {client}: {limit}");
            (Level::Debug, line)
        }
        WorkerEvent::AcceptPaused { errno, again_in } => {
            let (error, again_in) = (crate::report::describe(errno), duration(again_in));
            let line = format!(
                "cannot accept a connection: {error}; it waits in the accept queue, retrying in \
                 {again_in}"
            );
            (Level::Warn, line)
        }
        WorkerEvent::ConnectionsFailing {
            instance,
            failures,
            status,
        } => {
            let (last, end) = (context.name(instance), predicate(status));
            let line = format!(
                "the processes of the last {failures} connections have failed; that of {last} {end}"
            );
            (Level::Warn, line)
        }
    }
}
