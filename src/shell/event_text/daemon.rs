//! What happens to listend as a whole.

use super::cause;
use super::words::{Context, count, with_generation};
use crate::core::DaemonEvent;
use log::Level;

pub(super) fn text(event: &DaemonEvent, context: &Context<'_>) -> (Level, String) {
    match *event {
        DaemonEvent::Up { failed: 0 } => {
            let mut workers = context.plan.workers();
            let words = match workers.any(|(_, one)| cause::starts_blindly(one)) {
                false => "every eager worker is ready",
                true => {
                    "every eager worker has started; with `ready: started`, readiness is not known"
                }
            };
            (Level::Info, words.to_owned())
        }
        DaemonEvent::Up { failed } => {
            let plural = if failed == 1 { "" } else { "s" };
            let line = format!("startup complete, but {failed} instance{plural} failed to start");
            (Level::Warn, line)
        }
        DaemonEvent::Replanned => {
            let line = "reloaded: the new configuration is in effect";
            (Level::Info, line.to_owned())
        }
        DaemonEvent::ReplanDone { ref bad } if bad.is_empty() => {
            (Level::Info, "the reload is complete".to_owned())
        }
        DaemonEvent::ReplanDone { ref bad } => {
            let names = bad
                .iter()
                .map(|bad| with_generation(context.definitions, *bad));
            let names = names.collect::<Vec<_>>().join(", ");
            (
                Level::Error,
                format!("the reload is complete, except for {names}"),
            )
        }
        DaemonEvent::StopRequested { live: 0 } => (Level::Info, "stopping".to_owned()),
        DaemonEvent::StopRequested { live } => {
            let live = count(live);
            let line = format!("stopping: waiting for {live}; a second signal kills them");
            (Level::Info, line)
        }
        DaemonEvent::StopHurried { live } => {
            let line = format!("stopping now: killing {} with SIGKILL", count(live));
            (Level::Warn, line)
        }
        DaemonEvent::AllStopped => {
            let line = "all workers stopped; closing the listeners";
            (Level::Info, line.to_owned())
        }
    }
}
