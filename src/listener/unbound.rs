//! Options of a socket whose address is held by who is to get them.

use super::bind_error::{BindError, BindStep, Failure};
use super::inet::{self, Wanted};
use super::namespace::in_namespace_of;
use super::option::{Act, Options};
use super::unix_path;
use crate::config::Endpoint;
use crate::config::options::Phase;
use crate::plan::{ListenerId, ListenerPlan, Plan};
use std::os::fd::AsFd;

/// The option that the kernel refuses to a socket like this one, which is not bound. `None` if it refuses none, and
/// where that cannot be tried.
pub fn refused_option(plan: &Plan, listener: ListenerId, socket: usize) -> Option<BindError> {
    let entry = plan.listener(listener);
    if entry.settings.options.is_empty() {
        return None;
    }
    let endpoint = &entry.sockets[socket].endpoint;
    let failure = in_namespace_of(entry, || set_all(endpoint, entry)).err()?;
    matches!(failure.step, BindStep::SetOption(_)).then(|| failure.of(listener, socket))
}

fn set_all(endpoint: &Endpoint, listener: &ListenerPlan) -> Result<(), Failure> {
    let socket = match endpoint {
        Endpoint::Inet {
            transport,
            address,
            v6_only,
            ..
        } => inet::new_socket(Wanted {
            transport: *transport,
            address: *address,
            v6_only: *v6_only,
        })?,
        Endpoint::Unix { kind, .. } => unix_path::new_socket(unix_path::socket_type(*kind))?,
        _ => return Ok(()),
    };
    let options = Options::new(&listener.settings.options, endpoint);
    let mut effective = Vec::new();
    for phase in [Phase::BeforeBind, Phase::BeforeListen] {
        options.apply(socket.as_fd(), phase, Act::Set, &mut effective)?;
    }
    Ok(())
}
