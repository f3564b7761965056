//! What happens to an instance, behind its name.

use super::words::{Context, duration, next_words};
use crate::config::OnFailure;
use crate::core::{InstanceEvent, InstanceId};
use crate::plan::Activation;
use log::Level;

pub(super) fn text(
    instance: InstanceId,
    event: InstanceEvent,
    context: &Context<'_>,
) -> (Level, String) {
    match event {
        InstanceEvent::Failed { cool_down, .. } => {
            let lifecycle = &context.definitions.worker(instance.worker).lifecycle;
            let clients = match lifecycle.on_failure {
                // If it was the last, they are closed with listend.
                _ if context.exits && cool_down.is_none() => "",
                OnFailure::Hold => "; its listeners stay bound and clients wait in their queues",
                OnFailure::Refuse => "; its listeners are closed when all of the worker has failed",
            };
            let then = match (cool_down.map(duration), &lifecycle.activation) {
                (None, _) if context.exits => String::new(),
                (None, _) => "; it is not restarted".to_owned(),
                (Some(time), Activation::Eager) => format!("; it is restarted in {time}"),
                (Some(time), Activation::OnDemand { .. } | Activation::PerConnection(_)) => {
                    format!("; after {time} the next one starts it again")
                }
            };
            (Level::Error, format!("failed{clients}{then}"))
        }
        InstanceEvent::Draining { limit } => {
            let limit = limit.map(|limit| format!(", for at most {}", duration(limit)));
            let limit = limit.unwrap_or_default();
            let line = format!("serves the clients in its shard before it is stopped{limit}");
            (Level::Info, line)
        }
        InstanceEvent::Refreshed => {
            let line = "restarting it to pass a socket that it lacks";
            (Level::Info, line.to_owned())
        }
        InstanceEvent::KeepsFlows { timeout } => {
            let limit = timeout.map_or(String::new(), |time| {
                format!(", for {} at most", duration(time))
            });
            let line = format!("replaced; it goes on with the flows that it has{limit}");
            (Level::Info, line)
        }
        InstanceEvent::NobodyTaken { next } => {
            let next = next_words(next);
            let line = format!("exited without accepting any of the waiting clients; {next}");
            (Level::Warn, line)
        }
    }
}
