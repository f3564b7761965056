//! What the units of listeners and workers are called, and who takes what.

use crate::config::{Activation, Listener, Worker};

/// Whether systemd accepts for it.
pub(super) fn accepts(worker: &Worker) -> bool {
    worker.activation.value == Activation::PerConnection
}

/// Whether there are connections to accept.
pub(super) fn has_clients(listener: &Listener) -> bool {
    let mut addresses = listener.addresses.iter();
    addresses.any(|one| {
        one.value
            .endpoints
            .iter()
            .any(|endpoint| endpoint.accepts())
    })
}

/// The name of the socket unit of a listener, for a worker that takes it.
pub(super) fn socket_unit(worker: &Worker, listener: &str) -> String {
    match accepts(worker) {
        true => format!("{}.socket", template(worker, listener)),
        false => format!("{listener}.socket"),
    }
}

/// The name of the template for the connections of a listener, which is that of its socket unit.
pub(super) fn template(worker: &Worker, listener: &str) -> String {
    let name = &worker.name.value;
    match worker.listeners.as_slice() {
        [_] => name.clone(),
        _ => format!("{name}-{listener}"),
    }
}

/// The listeners that a worker takes, in its order.
pub(super) fn listeners_of<'a>(worker: &Worker, all: &'a [Listener]) -> Vec<&'a Listener> {
    let named = worker.listeners.iter();
    named
        .filter_map(|name| all.iter().find(|one| one.name.value == name.value))
        .collect()
}
