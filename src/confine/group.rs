//! The control group of the worker.

use super::order::Order;
use super::outcome::{Notes, Outcome};
use crate::cgroup::Entrance;
use crate::stage::Stage;

/// Enters a group with the limits of the sandbox, if it has some. Before all else: what follows counts there, and
/// the user of the worker may not do it.
pub(super) fn enter(order: &Order, notes: &mut Notes) -> Outcome {
    let limits = &order.sandbox.limits;
    if limits.is_empty() {
        return Ok(());
    }
    let entrance = Entrance {
        worker: &order.name,
        index: order.index,
        limits,
    };
    entrance.enter(|key, obstacle| {
        let why = format!("{obstacle}; {}", obstacle.remedy());
        notes.missing(Stage::ControlGroup, key, obstacle.errno(), &why)
    })
}
