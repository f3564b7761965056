//! How far a rollout has come, behind the name of its worker.

use super::words::{Context, count, with_generation};
use crate::core::RolloutEvent;
use log::Level;

pub(super) fn text(event: RolloutEvent, context: &Context<'_>) -> (Level, String) {
    match event {
        RolloutEvent::Started {
            generation,
            only: Some(index),
            ..
        } => {
            let line = format!("restarting instance {index} alone, as generation {generation}");
            (Level::Info, line)
        }
        RolloutEvent::Started {
            generation,
            instances,
            only: None,
        } => {
            let instances = count(instances as usize);
            let line = format!("rolling out generation {generation}, {instances} to replace");
            (Level::Info, line)
        }
        RolloutEvent::Done {
            generation,
            is_final,
        } => {
            let and = match is_final {
                false => "",
                true => {
                    "; a crash from now on is not rolled back, because an address of the old \
                     generation is closed"
                }
            };
            (
                Level::Info,
                format!("generation {generation} has taken over{and}"),
            )
        }
        RolloutEvent::RolledBack { instance, again } => {
            let again = match again {
                0 => String::new(),
                more => {
                    let more = count(more as usize);
                    format!("; {more} restarted with the old definition")
                }
            };
            let name = with_generation(context.definitions, instance);
            let line = format!(
                "rolled back, because {name} failed; the old generation keeps serving{again}"
            );
            (Level::Error, line)
        }
    }
}
