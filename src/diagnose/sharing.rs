//! Other processes that get clients of a listener, because they share its address by SO_REUSEPORT.

use super::find;
use super::machine::Machine;
use crate::listener::reuses_port;
use crate::plan::Plan;
use crate::report::{Kind, Problem};
use std::path::Path;

/// Advice about each address of a listener with `reuse_port` on which somebody else has a socket. The
/// kernel lets only processes of one user share, so nobody is told about what others may not know.
pub fn shared_addresses(plan: &Plan, machine: &Machine, config: &Path) -> Vec<Problem> {
    let own = std::process::id().cast_signed();
    let listeners = plan.listeners.values().filter(|one| reuses_port(one));
    let sockets = listeners.flat_map(|one| one.sockets.iter().map(move |socket| (one, socket)));
    let advice = sockets.filter_map(|(listener, socket)| {
        let endpoint = &socket.endpoint;
        let others = find::sharers(endpoint, machine.of(listener), own, config);
        if others.is_empty() {
            return None;
        }
        let message = format!(
            "listener `{}`: {endpoint} is shared with {}: the kernel gives it some of the clients",
            listener.name,
            others.join(", ")
        );
        let hint =
            "stop that process, or leave out `reuse_port` if no other is to have the address";
        let problem = Problem::new(Kind::SharedAddress, message).of_listener(&listener.name);
        let problem = problem.at(socket.place).with_address(endpoint.to_string());
        Some(problem.with_hint(hint))
    });
    advice.collect()
}
