//! Sockets that were bound by the parent of listend, and are only put in order.

use super::backlog::as_backlog;
use super::bind_error::{BindStep, Failure};
use super::identity::PathIdentity;
use super::option::{Act, Options};
use super::read_back::Effective;
use super::ready::Ready;
use super::{inet, mqueue};
use crate::config::Endpoint;
use crate::config::options::Phase;
use crate::plan::ListenerPlan;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::fstat;
use socket2::SockRef;
use std::os::fd::{AsFd, OwnedFd};

/// Sets what can be set on a live socket, and looks at what cannot: what had to be set before its
/// bind(2) is in the outcome as changed where it is different. Where clients queue, listen(2) is
/// repeated with our backlog.
///
/// After a failure it is handed back, because it could not be had again.
pub(super) fn adopt(
    fd: OwnedFd,
    endpoint: &Endpoint,
    listener: &ListenerPlan,
) -> Result<Ready, (OwnedFd, Failure)> {
    match put_in_order(&fd, endpoint, listener) {
        Ok((address, identity, effective)) => Ok(Ready {
            identity,
            is_adopted: true,
            ..Ready::new(fd, &address, effective)
        }),
        Err(failure) => Err((fd, failure)),
    }
}

/// Answers with its address, its file, and what became of the options.
fn put_in_order(
    fd: &OwnedFd,
    endpoint: &Endpoint,
    listener: &ListenerPlan,
) -> Result<(Endpoint, Option<PathIdentity>, Vec<Effective>), Failure> {
    let read_back = |errno| Failure::new(BindStep::ReadBack, errno);
    // Who hands descriptors down cannot leave it set.
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(read_back)?;
    let options = Options::new(&listener.settings.options, endpoint);
    let mut effective = Vec::new();
    for (phase, act) in [
        (Phase::BeforeBind, Act::Look),
        (Phase::BeforeListen, Act::Set),
        (Phase::AtOpen, Act::Set),
    ] {
        options.apply(fd.as_fd(), phase, act, &mut effective)?;
    }
    if endpoint.accepts() {
        SockRef::from(fd)
            .listen(as_backlog(listener.settings.backlog))
            .map_err(|error| Failure::new(BindStep::Listen, error))?;
    }
    let address = bound_to(fd, endpoint)?;
    let mut identity = None;
    match &address {
        Endpoint::Inet {
            address, v6_only, ..
        } if !endpoint.accepts() => {
            inet::join(
                SockRef::from(fd),
                *address,
                *v6_only,
                &listener.settings.multicast,
            )?;
        }
        Endpoint::MessageQueue { .. } => {
            effective.extend(mqueue::limits(fd, &listener.settings.options)?);
            identity = Some(PathIdentity::of(&fstat(fd).map_err(read_back)?));
        }
        // A path belongs to the process that bound it: it is neither removed nor repaired here.
        _ => {}
    }
    Ok((address, identity, effective))
}

/// The address from getsockname(2), as an endpoint of the plan.
pub(super) fn bound_to(fd: &OwnedFd, endpoint: &Endpoint) -> Result<Endpoint, Failure> {
    let mut bound = endpoint.clone();
    match &mut bound {
        Endpoint::Inet { address, .. } => {
            let real = SockRef::from(fd).local_addr();
            let real = real.map_err(|error| Failure::new(BindStep::ReadBack, error))?;
            if let Some(real) = real.as_socket() {
                *address = real;
            }
        }
        Endpoint::Vsock { cid, port, .. } => {
            let real = SockRef::from(fd).local_addr();
            let real = real.map_err(|error| Failure::new(BindStep::ReadBack, error))?;
            if let Some(real) = real.as_vsock_address() {
                (*cid, *port) = real;
            }
        }
        _ => {}
    }
    Ok(bound)
}
